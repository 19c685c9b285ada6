using System.Diagnostics.Metrics;

namespace Ledger.Segments;

/// <summary>Metrics of the feature.</summary>
internal static class SegmentMetrics
{
    private static readonly Meter Meter = new("Ledger");

    public static readonly Counter<long> Expired =
        Meter.CreateCounter<long>("ledger.memberships.expired", "{membership}", "Memberships recorded as run out");
}
