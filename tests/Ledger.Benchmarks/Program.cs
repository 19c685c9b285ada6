using System.CommandLine;
using Ledger.Benchmarks;

var scenarios = new Dictionary<string, (string Summary, Func<Bench, Task> Run)>
{
    ["idle"] = ("a node at rest: its transactions and its CPU", IdleScenario.Run),
    ["joins"] = ("single joins over HTTP at 1, 16, 64 and 256 connections, each of a new user", JoinsScenario.Run),
    ["import"] = ("one CSV stream of user ids into a segment", ImportScenario.Run),
    ["append"] = ("single-event requests to the appender in process, 16 and 64 callers", AppendScenario.RunManyStreams),
    ["hot"] = ("16 writers of one stream in process, no conditions", AppendScenario.RunHotStream),
    ["projecting"] = ("all views catch up with a log that was filled while they were off", ProjectingScenario.Run),
    ["rebuild"] = ("each view folded anew from the first event", RebuildScenario.Run),
    ["freshness"] = ("from the answer of a join, and of a call, to its effect in a query, under half load", FreshnessScenario.Run),
    ["calls"] = ("single calls of AI services over HTTP at 1, 16, 64 and 256 connections", CallsScenario.Run),
    ["mixed"] = ("four calls in five requests, joins, and reads, over 64 connections", MixedScenario.Run),
    ["ingest"] = ("one stream of calls as lines of JSON, plain and gzip", IngestScenario.Run),
    ["growth"] = ("joins, calls and imports on a large log of calls and joins, in turn with a small one", GrowthScenario.Run),
    ["growth-users"] = ("the same on logs of joins of new users only", GrowthScenario.RunUsers),
    ["campaigns"] = ("recording an audience; messages through a gateway that answers at once, and with 100 ms", CampaignsScenario.Run),
    ["queries"] = ("one user's segments, counts, members page, over HTTP and in the database", QueriesScenario.Run),
    ["usage-queries"] = ("lists of calls, one call, totals, over HTTP and in the database", UsageQueriesScenario.Run),
};

var sessions = new Dictionary<string, (string Summary, Func<BenchOptions, Task<bool>> Run)>
{
    ["session"] = ("a day in the life, with a kill -9 in the middle", Session.Run),
    ["usage-session"] = ("calls sent in lists, with a kill -9 in the middle, and then all of them again", UsageSession.Run),
};

var scenario = new Option<string[]>("--scenario")
{
    Description = "What to run; may be given several times. All but the sessions unless given.",
    AllowMultipleArgumentsPerToken = true,
};
scenario.AcceptOnlyFromAmong([.. scenarios.Keys, .. sessions.Keys]);
var runs = new Option<int>("--runs") { Description = "Measured runs of each figure, after one that warms up.", DefaultValueFactory = _ => 5 };
var seconds = new Option<int>("--seconds") { Description = "How long a run of a figure lasts that has no end of its own.", DefaultValueFactory = _ => 5 };
var events = new Option<int?>("--events")
{
    Description = "Size of what has a size: lines of an import and events to project (200 000), events of a large log (10 000 000; large 100 000 000), memberships to query (10 000 000; large 50 000 000), imported ids of the session (1 000 000), lines of an ingest (500 000), recipients of a campaign (100 000), calls to query (10 000 000; large 100 000 000), calls of the usage session (2 000 000).",
};
var large = new Option<bool>("--large") { Description = "The large sizes, which take hours and some 200 GB of disk." };
var folder = new Option<string?>("--out") { Description = "Where table and samples are written; .ledger/bench/<time> unless given." };

var root = new RootCommand(
    $"""
     Measures Ledger against what the same machine, disk and PostgreSQL can do at most.

     Each scenario runs a node as a process of its own on a private PostgreSQL with durable settings, puts load on it over
     sockets, and beside each run takes a yardstick with as many clients: bare COPY of the same rows into the same tables, or
     pgbench committing single rows. Every event that was acknowledged is counted in the database afterwards; one too few or too
     many fails the run. Ratios to the yardstick are what counts, each the median of the runs' own: rates depend on the machine.

     {string.Join('\n', scenarios.Select(s => $"  {s.Key,-13} {s.Value.Summary}"))}

     Sessions have no figures; every step of theirs is PASS or FAIL:

     {string.Join('\n', sessions.Select(s => $"  {s.Key,-13} {s.Value.Summary}"))}
     """)
{
    scenario, runs, seconds, events, large, folder,
};
root.SetAction(async (parsed, cancellation) =>
{
    var named = parsed.GetValue(scenario) is { Length: > 0 } some ? some : [.. scenarios.Keys];
    var options = new BenchOptions(
        Math.Max(1, parsed.GetValue(runs)), Math.Max(1, parsed.GetValue(seconds)), parsed.GetValue(events), parsed.GetValue(large),
        parsed.GetValue(folder) ?? Path.Combine(Environment.GetEnvironmentVariable("LEDGER_HOME") ?? ".ledger", "bench", $"{DateTime.UtcNow:yyyyMMdd-HHmmss}"))
    {
        Stopping = cancellation,
    };
    try
    {
        foreach (var name in named.Where(sessions.ContainsKey))
        {
            if (!await sessions[name].Run(options))
            {
                return 1;
            }
        }

        if (named.Any(scenarios.ContainsKey))
        {
            await using var bench = await Bench.Start(options);
            try
            {
                foreach (var name in named.Where(scenarios.ContainsKey))
                {
                    Console.Error.WriteLine($"— {name}: {scenarios[name].Summary}");
                    // When it is interrupted, the scenario is left where it is: the end of all that it uses ends it, too.
                    await scenarios[name].Run(bench).WaitAsync(cancellation);
                    bench.Report(final: false);
                }
            }
            finally
            {
                bench.Report(final: true);
            }
        }

        return 0;
    }
    catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
    {
        Console.Error.WriteLine("INTERRUPTED");
        return 1;
    }
    catch (BenchFailedException failure)
    {
        Console.Error.WriteLine($"FAILED: {failure.Message}");
        return 1;
    }
});
// Longer than the processes that were started may take to stop, so that they are never left behind.
return await root.Parse(args).InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromMinutes(2) });
