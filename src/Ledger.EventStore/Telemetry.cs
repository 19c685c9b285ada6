using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Ledger.EventStore;

/// <summary>Spans and metrics of the store; names are stable, durations in seconds.</summary>
public static class Telemetry
{
    /// <summary>The name of the ActivitySource and of the Meter.</summary>
    public const string Name = "Ledger.EventStore";

    internal static readonly ActivitySource Source = new(Name);
    internal static readonly Meter Meter = new(Name);

    private static readonly InstrumentAdvice<double> Seconds = new()
    {
        HistogramBucketBoundaries = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    };

    private static readonly InstrumentAdvice<int> Counts = new()
    {
        HistogramBucketBoundaries = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000],
    };

    internal static readonly Counter<long> AppendedEvents =
        Meter.CreateCounter<long>("ledger.append.events", "{event}", "Events stored");

    internal static readonly Counter<long> AppendRequests =
        Meter.CreateCounter<long>("ledger.append.requests", "{request}", "Requests answered, by outcome");

    internal static readonly Histogram<int> AppendBatchSize =
        Meter.CreateHistogram("ledger.append.batch.size", "{event}", "Events stored in one transaction", advice: Counts);

    internal static readonly Histogram<double> AppendQueueTime =
        Meter.CreateHistogram("ledger.append.queue.duration", "s", "From a request's arrival to the start of its transaction", advice: Seconds);

    internal static readonly Histogram<double> AppendLockWait =
        Meter.CreateHistogram("ledger.append.lock.duration", "s", "From the start of a transaction until it holds the append lock and knows the head", advice: Seconds);

    internal static readonly Histogram<double> AppendCommitTime =
        Meter.CreateHistogram("ledger.append.commit.duration", "s", "Writing and committing a batch under the append lock", advice: Seconds);

    internal static readonly Counter<long> ProjectedEvents =
        Meter.CreateCounter<long>("ledger.projection.events", "{event}", "Events folded, by view");

    internal static readonly Histogram<double> ProjectTime =
        Meter.CreateHistogram("ledger.projection.batch.duration", "s", "Reading, folding and writing one batch", advice: Seconds);

    internal static readonly Counter<long> ProjectionFailures =
        Meter.CreateCounter<long>("ledger.projection.failures", "{failure}", "Times a view stopped at an event it could not fold");

    internal static readonly Counter<long> SealedEvents =
        Meter.CreateCounter<long>("ledger.log.events", "{event}", "Events made leaves of the transparency log");

    internal static readonly Histogram<double> SealTime =
        Meter.CreateHistogram("ledger.log.page.duration", "s", "Reading, hashing and writing a page of events", advice: Seconds);
}
