namespace Ledger.Benchmarks;

/// <summary>
/// What a day is like: of a hundred requests 80 are calls, 15 joins of new users, 5 queries of a user's segments. A figure of its own
/// counts those that commit, as all of the yardstick's do.
/// </summary>
internal static class MixedScenario
{
    private const int Connections = 64;
    private const int Calls = 80;
    private const int Joins = 15;
    private const int Users = 10_000;

    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("mixed");
        var pgbench = await PgBench.Prepare(bench);
        await GatewayServices.Register(node);
        await node.CreateSegment("BENCH");
        await ImportScenario.Import(node.Process.Http, "BENCH", ImportScenario.Csv(Enumerable.Range(0, Users).Select(n => UserIds.Of(n))));
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            await node.Settle(await node.Head());
            var head = await node.Head();
            var commands = 0L;
            var measurement = await Measurement.Begin(node);
            var load = await Load.Http(node.Process.Port, Connections, bench.Options.Duration, () =>
            {
                var kind = Random.Shared.Next(100);
                if (kind >= Calls + Joins)
                {
                    return HttpConnection.Request("GET", $"/v1/users/{UserIds.Of(Random.Shared.Next(Users))}/segments");
                }

                Interlocked.Increment(ref commands);
                return kind < Calls ? CallsScenario.NewCall() : JoinsScenario.JoinOfNewUser();
            });
            measurement.EndLoad();
            await node.Database.Verify(head, commands, newStreams: false);
            await node.Settle(head + commands);
            var requests = await measurement.Finish($"requests: mixed, {Connections} connections", run, load.Rate, 0);
            var stored = await measurement.Finish($"commands: mixed, {Connections} connections", run, commands / load.Elapsed.TotalSeconds, commands);
            if (run > 0)
            {
                bench.Add(requests.WithTimes(load));
                bench.Add(stored with
                {
                    Yardstick = PgBench.Name, YardstickRate = pgbench is null ? null : await pgbench.Run(Connections),
                });
            }
        }

        await UsageSums.ExpectSame(node.Database);
    }
}
