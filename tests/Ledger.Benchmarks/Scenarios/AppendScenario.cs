using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Segments;
using Ledger.Users;
using Microsoft.Extensions.Logging.Abstractions;

namespace Ledger.Benchmarks;

/// <summary>The appender in this process, without HTTP and without views; its CPU is the client's.</summary>
internal static class AppendScenario
{
    private static readonly object[] Joined = [new UserJoinedSegment("BENCH", 1, null, null, Membership.Explicit)];

    /// <summary>Each request makes a stream of its own, on the condition that it is new.</summary>
    public static async Task RunManyStreams(Bench bench)
    {
        foreach (var callers in new[] { 16, 64 })
        {
            await Run(bench, $"append in process, {callers} callers", callers, () =>
            {
                var stream = User.StreamOf(UserIds.New());
                return Request(stream) with { Conditions = [new StreamCondition(stream, 0)] };
            });
        }
    }

    public static Task RunHotStream(Bench bench) => Run(bench, "one hot stream, 16 writers in process", 16, () => Request("user-hot"), newStreams: false);

    private static AppendRequest Request(string stream) => new()
    {
        TenantId = Requests.DefaultTenant, Appends = [new StreamAppend(stream, User.StreamType, Joined)], Actor = "bench", CorrelationId = "bench",
    };

    private static async Task Run(Bench bench, string figure, int callers, Func<AppendRequest> request, bool newStreams = true)
    {
        var pgbench = await PgBench.Prepare(bench);
        await using var database = bench.Connect(await bench.CreateDatabase("append"));
        await using var appender = new Appender(
            database, LedgerEvents.Types, new EventStoreOptions(), new LedgerClock(TimeProvider.System), NullLogger<Appender>.Instance);
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var head = await database.Scalar<long>("select coalesce(max(seq_id), 0) from mt_events");
            var measurement = await Measurement.Begin(bench, database);
            var load = await Load.Run(callers, bench.Options.Duration, _ => Task.FromResult(async () =>
            {
                if (await appender.Append(request()) is { Outcome: not AppendOutcome.Appended } other)
                {
                    throw new BenchFailedException($"{other}");
                }
            }));
            measurement.EndLoad();
            await database.Verify(head, load.Done, newStreams);
            var sample = await measurement.Finish(figure, run, load.Rate, load.Done);
            if (run > 0)
            {
                bench.Add(sample.WithTimes(load) with
                {
                    ViewBytes = 0,
                    Yardstick = PgBench.Name, YardstickRate = pgbench is null ? null : await pgbench.Run(callers),
                });
            }
        }
    }
}
