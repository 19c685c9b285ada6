using System.Diagnostics.Metrics;
using Ledger.EventStore;

namespace Ledger.Usage;

/// <summary>Metrics of the feature.</summary>
internal static class UsageMetrics
{
    private static readonly Meter Meter = new("Ledger");

    private static readonly Counter<long> Calls = Meter.CreateCounter<long>("ledger.calls", "{call}", "Calls reported, by what became of them");

    private static readonly Counter<long> Unpriced = Meter.CreateCounter<long>("ledger.calls.recorded_unpriced", "{call}", "Calls recorded without a price");

    public static void Count(CallOutcome[] outcomes, bool allOrNothing)
    {
        if (allOrNothing && Array.Exists(outcomes, o => o.Rejection is not null))
        {
            Add(Calls, outcomes.Length, "rejected");
            return;
        }

        int recorded = 0, duplicates = 0, rejected = 0, unpriced = 0;
        foreach (var outcome in outcomes)
        {
            _ = outcome.Rejection is not null ? rejected++ : outcome.Outcome == AppendOutcome.Duplicate ? duplicates++ : recorded++;
            unpriced += outcome.Recorded is { Amount: null } ? 1 : 0;
        }

        Add(Calls, recorded, "recorded");
        Add(Calls, duplicates, "duplicate");
        Add(Calls, rejected, "rejected");
        if (unpriced > 0)
        {
            Unpriced.Add(unpriced);
        }
    }

    private static void Add(Counter<long> counter, int count, string outcome)
    {
        if (count > 0)
        {
            counter.Add(count, new KeyValuePair<string, object?>("outcome", outcome));
        }
    }
}
