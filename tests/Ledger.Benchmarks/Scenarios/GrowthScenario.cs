using System.Globalization;
using Npgsql;

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
        var names = new List<string>();
        await using (var small = await Filled(bench, Small))
        await using (var large = await Filled(bench, size))
        {
            names.AddRange([small.Name, large.Name]);
            await Singles(", right after a checkpoint"); // each index page goes whole to the write-ahead log when it is first written
            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var ((few, _), (many, _)) = (await ImportScenario.Measure(small, run, Lines), await ImportScenario.Measure(large, run, Lines));
                Add(few.Figure, few, many);
            }

            await Singles("");

            async Task Singles(string when)
            {
                for (var run = 0; run <= bench.Options.Runs; run++)
                {
                    Add($"single joins, {Connections} connections{when}", await Joins(small, run), await Joins(large, run));
                    Add($"single calls, {Connections} connections{when}", await Calls(small, run), await Calls(large, run));
                }
            }
        }

        // What PostgreSQL alone takes for such rows at both sizes.
        await using var smallTables = bench.Connect(names[0]);
        await using var largeTables = bench.Connect(names[1]);
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            Add("bare COPY of such an import's rows, log and views", await Copy(smallTables, run), await Copy(largeTables, run));
        }

        Task<Sample> Joins(Node node, int run) => Single(bench, node, run, JoinsScenario.JoinOfNewUser, node.Verify);

        Task<Sample> Calls(Node node, int run) => Single(bench, node, run, CallsScenario.NewCall, node.VerifyCalls);

        void Add(string figure, Sample few, Sample many)
        {
            if (many.Run > 0)
            {
                bench.Add(many with { Figure = $"{figure}, at {Events(size)} events", Yardstick = $"at {Events(Small)}", YardstickRate = few.Rate });
            }
        }

        async Task<Sample> Copy(NpgsqlDataSource database, int run) =>
            new() { Figure = "", Run = run, Rate = await BareCopy.RunOnTop(database, Lines, bench.Folder) };
    }

    private static async Task<Node> Filled(Bench bench, int events)
    {
        var node = await bench.StartNode("growth");
        await node.CreateSegment("BENCH");
        await GatewayServices.Register(node);
        for (var left = events; left > 0; left -= Filling)
        {
            await ImportScenario.Import(node.Process.Http, "BENCH", ImportScenario.Csv(NewUsers(Math.Min(Filling, left))));
        }

        await node.Settle(await node.Head());
        await node.Database.Execute("vacuum analyze");
        await node.Database.Execute("checkpoint");
        return node;
    }

    private static async Task<Sample> Single(Bench bench, Node node, int run, Func<ReadOnlyMemory<byte>> request, Func<long, long, Task> verify)
    {
        var head = await node.Head();
        var measurement = await Measurement.Begin(node);
        var load = await Load.Http(node.Process.Port, Connections, bench.Options.Duration, request);
        measurement.EndLoad();
        await node.Settle(head + load.Done);
        await verify(head, load.Done);
        return (await measurement.Finish("", run, load.Rate, load.Done)).WithTimes(load);
    }

    private static IEnumerable<string> NewUsers(int count) => Enumerable.Range(0, count).Select(_ => UserIds.New());

    private static string Events(int count) => count.ToString("#,0", CultureInfo.InvariantCulture).Replace(',', ' ');
}
