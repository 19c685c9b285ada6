using System.Globalization;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>
/// What an append costs on a large log, beside a small one: two nodes on two databases of one PostgreSQL, which take turns, so
/// that what else the machine does weighs on both. The small one takes the same load and would not stay small: each section begins
/// with a fresh one.
/// </summary>
internal static class GrowthScenario
{
    private const int Small = 100_000;
    private const int Filling = 500_000;
    private const int Lines = 20_000;
    private const int Connections = 64;

    /// <summary>How many of a hundred events of a log are calls: as many as in the scenario <c>mixed</c>.</summary>
    private const int Calls = 84;

    /// <summary>How long ago the first call of a log happened.</summary>
    private static readonly TimeSpan Duration = TimeSpan.FromDays(30);

    /// <summary>On logs of calls and of joins of new users.</summary>
    public static Task Run(Bench bench) => Run(bench, Calls, "events");

    /// <summary>On logs of joins of new users alone, the worst case: each has entries in more indexes that are in no order than a call has.</summary>
    public static Task RunUsers(Bench bench) => Run(bench, 0, "joins");

    private static async Task Run(Bench bench, int callsPercent, string what)
    {
        var size = bench.Options.Size(10_000_000, 100_000_000);
        var names = new List<string>();
        string imported;
        await using (var large = await Filled(size))
        {
            await using (var small = await Filled(Small))
            {
                await large.Database.Execute("checkpoint"); // each index page goes whole to the write-ahead log when it is first written
                await Singles(small, large, ", right after a checkpoint");
            }

            await using (var small = await Filled(Small))
            {
                imported = small.Name;
                for (var run = 0; run <= bench.Options.Runs; run++)
                {
                    var ((few, _), (many, _)) = (await ImportScenario.Measure(small, run, Lines), await ImportScenario.Measure(large, run, Lines));
                    Add(few.Figure, few, many, await small.Head());
                }
            }

            await using (var small = await Filled(Small))
            {
                await Singles(small, large, "");
            }
        }

        // What PostgreSQL alone takes for such rows at both sizes; the log with the imports is sure to hold as many joins.
        await using (var smallTables = bench.Connect(imported))
        await using (var largeTables = bench.Connect(names[0]))
        {
            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var (few, many) = (await Copy(smallTables, run), await Copy(largeTables, run));
                Add("bare COPY of such an import's rows, log and views", few, many, await smallTables.Scalar<long>("select count(*) from mt_events"));
            }
        }

        // Only now: to drop a database makes a checkpoint, after which each page would go whole to the write-ahead log again.
        await bench.Drop(names);

        async Task<Node> Filled(int events)
        {
            var node = await StartAndFill(bench, events, callsPercent);
            names.Add(node.Name);
            return node;
        }

        async Task Singles(Node small, Node large, string when)
        {
            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var (few, many) = (await Joins(small, run), await Joins(large, run));
                Add($"single joins, {Connections} connections{when}", few, many, await small.Head());
                (few, many) = (await NewCalls(small, run), await NewCalls(large, run));
                Add($"single calls, {Connections} connections{when}", few, many, await small.Head());
            }
        }

        Task<Sample> Joins(Node node, int run) => Single(bench, node, run, JoinsScenario.JoinOfNewUser, node.Verify);

        Task<Sample> NewCalls(Node node, int run) => Single(bench, node, run, CallsScenario.NewCall, node.VerifyCalls);

        void Add(string figure, Sample few, Sample many, long smallHead)
        {
            if (many.Run > 0)
            {
                bench.Add(many with { Figure = $"{figure}, at {Number(size)} {what}", Yardstick = $"at {Number(Small)} to {Number(smallHead)}", YardstickRate = few.Rate });
            }
        }

        async Task<Sample> Copy(NpgsqlDataSource database, int run) =>
            new() { Figure = "", Run = run, Rate = await BareCopy.RunOnTop(database, Lines, bench.Folder) };
    }

    /// <summary>A node on a log of calls and joins of new users in turn, as they come when both are sent all day.</summary>
    private static async Task<Node> StartAndFill(Bench bench, int events, int callsPercent)
    {
        var node = await bench.StartNode("growth");
        await node.CreateSegment("BENCH");
        await GatewayServices.Register(node);
        var now = DateTime.UtcNow;
        for (var done = 0; done < events;)
        {
            var portion = Math.Min(Filling, events - done);
            var calls = (int)((long)portion * callsPercent / 100);
            var joins = portion - calls;
            var head = await node.Head();
            done += portion;
            if (calls > 0)
            {
                var end = now - (Duration * ((double)(events - done) / events));
                await IngestScenario.Ingest(node.Process.Http, GatewayCall.Lines(IngestScenario.Until(end, calls, Duration * ((double)portion / events))), calls);
            }

            var receipt = await ImportScenario.Import(node.Process.Http, "BENCH", ImportScenario.Csv(NewUsers(joins)));
            if (receipt.Joined != joins)
            {
                throw new BenchFailedException($"Of {joins} new users {receipt.Joined} joined.");
            }

            await node.Database.Verify(head, portion, newStreams: false);
        }

        await node.Settle(await node.Head());
        await node.Database.Execute("vacuum analyze");
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

    private static string Number(long count) => count.ToString("#,0", CultureInfo.InvariantCulture).Replace(',', ' ');
}
