namespace Ledger.Benchmarks;

/// <summary>Single joins over HTTP, each of a new user: the way of one command through the whole service.</summary>
internal static class JoinsScenario
{
    private static readonly int[] Connections = [1, 16, 64];

    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("joins");
        var pgbench = await PgBench.Prepare(bench);
        await node.CreateSegment("BENCH");
        foreach (var connections in Connections)
        {
            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var head = await node.Head();
                var measurement = await Measurement.Begin(node);
                var load = await Load.Http(node.Process.Port, connections, bench.Options.Duration, JoinOfNewUser);
                measurement.EndLoad();
                await node.Verify(head, load.Done);
                await node.WaitForViews(head + load.Done);
                var sample = await measurement.Finish($"single joins, {connections} connections", run, load.Rate, load.Done);
                if (run > 0)
                {
                    bench.Add(sample with
                    {
                        P50Ms = load.P50Ms, P99Ms = load.P99Ms,
                        Yardstick = PgBench.Name, YardstickRate = pgbench is null ? null : await pgbench.Run(connections),
                    });
                }
            }

            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var measurement = await Measurement.Begin(node);
                var nothing = HttpConnection.Request("GET", "/health/live");
                var load = await Load.Http(node.Process.Port, connections, bench.Options.Duration, () => nothing);
                measurement.EndLoad();
                if (run > 0)
                {
                    bench.Add(await measurement.Finish($"requests: nothing (/health/live), {connections} connections", run, load.Rate, 0) with { P50Ms = load.P50Ms, P99Ms = load.P99Ms });
                }
            }
        }
    }

    /// <summary>A join of a user never seen before.</summary>
    public static ReadOnlyMemory<byte> JoinOfNewUser() => Join(UserIds.New());

    private static byte[] Join(string userId) =>
        HttpConnection.Request("POST", $"/v1/users/{userId}/segments", """{"join":[{"segment":"BENCH"}]}""");
}
