using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Ledger.Campaigns;

/// <summary>Metrics and spans of campaigns.</summary>
internal static class CampaignMetrics
{
    public static readonly ActivitySource Source = new("Ledger");

    private static readonly Meter Meter = new("Ledger");

    private static readonly Counter<long> Outcomes = Meter.CreateCounter<long>(
        "ledger.campaigns.outcomes", "{message}", "Outcomes of messages recorded by this node");

    private static readonly Histogram<int> Attempts = Meter.CreateHistogram(
        "ledger.campaigns.attempts", "{attempt}", "Attempts that a message had taken when it was settled",
        advice: new InstrumentAdvice<int> { HistogramBucketBoundaries = [1, 2, 3, 4, 5, 6, 8, 10, 12] });

    public static readonly Counter<long> Lost = Meter.CreateCounter<long>(
        "ledger.campaigns.lost", "{message}", "Messages found taken by a node that did not say in time what became of them");

    public static void Count(object outcome)
    {
        var (name, attempt, isSettled) = outcome switch
        {
            MessageSent e => (Message.Sent, e.Attempt, true),
            MessageDeferred e => ("deferred", e.Attempt, false),
            MessageFailed e => (Message.Failed, e.Attempt, true),
            MessageOutcomeUnknown e => (Message.Unknown, e.Attempt, e.DueAt is null),
            MessageSuppressed e => (Message.Suppressed, e.Attempt, true),
            _ => throw new InvalidOperationException($"{outcome.GetType().Name} is no outcome."),
        };
        var tag = new KeyValuePair<string, object?>("outcome", name);
        Outcomes.Add(1, tag);
        if (isSettled)
        {
            Attempts.Record(attempt, tag);
        }
    }
}
