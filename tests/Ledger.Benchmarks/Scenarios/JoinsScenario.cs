namespace Ledger.Benchmarks;

/// <summary>Single joins over HTTP, each of a new user: the way of one command through the whole service.</summary>
internal static class JoinsScenario
{
    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("joins");
        var pgbench = await PgBench.Prepare(bench);
        await node.CreateSegment("BENCH");
        foreach (var connections in SingleCommands.Connections)
        {
            await SingleCommands.Run(bench, node, pgbench, "joins", connections, JoinOfNewUser, node.Verify);
            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var measurement = await Measurement.Begin(node);
                var nothing = HttpConnection.Request("GET", "/health/live");
                var load = await Load.Http(node.Process.Port, connections, bench.Options.Duration, () => nothing);
                measurement.EndLoad();
                if (run > 0)
                {
                    bench.Add((await measurement.Finish($"requests: nothing (/health/live), {connections} connections", run, load.Rate, 0)).WithTimes(load));
                }
            }
        }
    }

    /// <summary>A join of a user never seen before.</summary>
    public static ReadOnlyMemory<byte> JoinOfNewUser() => Join(UserIds.New());

    private static byte[] Join(string userId) =>
        HttpConnection.Request("POST", $"/v1/users/{userId}/segments", """{"join":[{"segment":"BENCH"}]}""");
}
