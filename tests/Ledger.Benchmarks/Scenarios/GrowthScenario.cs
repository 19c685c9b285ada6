using System.Globalization;

namespace Ledger.Benchmarks;

/// <summary>
/// What an append costs on a large log, beside a small one: two nodes on two databases of one PostgreSQL, which take turns, so
/// that what else the machine does weighs on both.
/// </summary>
internal static class GrowthScenario
{
    private const int Small = 100_000;
    private const int Filling = 1_000_000;
    private const int Lines = 100_000;
    private const int Connections = 64;

    public static async Task Run(Bench bench)
    {
        var size = bench.Options.Size(10_000_000, 100_000_000);
        await using var small = await Filled(bench, Small);
        await using var large = await Filled(bench, size);
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var (few, many) = (await Join(bench, small, run), await Join(bench, large, run));
            Add($"single joins, {Connections} connections", few, many);
            ((few, _), (many, _)) = (await ImportScenario.Measure(small, run, Lines), await ImportScenario.Measure(large, run, Lines));
            Add(few.Figure, few, many);

            void Add(string figure, Sample few, Sample many)
            {
                if (run > 0)
                {
                    bench.Add(many with { Figure = $"{figure}, at {Events(size)} events", Yardstick = $"at {Events(Small)}", YardstickRate = few.Rate });
                }
            }
        }
    }

    private static async Task<Node> Filled(Bench bench, int events)
    {
        var node = await bench.StartNode("growth");
        await node.CreateSegment("BENCH");
        for (var left = events; left > 0; left -= Filling)
        {
            await ImportScenario.Import(node.Process.Http, "BENCH", ImportScenario.Csv(NewUsers(Math.Min(Filling, left))));
        }

        await node.WaitForViews(await node.Head());
        await node.Database.Execute("vacuum analyze");
        await node.Database.Execute("checkpoint");
        return node;
    }

    private static async Task<Sample> Join(Bench bench, Node node, int run)
    {
        var head = await node.Head();
        var measurement = await Measurement.Begin(node);
        var load = await Load.Http(node.Process.Port, Connections, bench.Options.Duration, JoinsScenario.JoinOfNewUser);
        measurement.EndLoad();
        await node.WaitForViews(head + load.Done);
        await node.Verify(head, load.Done);
        return await measurement.Finish("", run, load.Rate, load.Done) with { P50Ms = load.P50Ms, P99Ms = load.P99Ms };
    }

    private static IEnumerable<string> NewUsers(int count) => Enumerable.Range(0, count).Select(_ => UserIds.New());

    private static string Events(int count) => count.ToString("#,0", CultureInfo.InvariantCulture).Replace(',', ' ');
}
