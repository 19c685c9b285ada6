namespace Ledger.Segments;

/// <summary>
/// Sizes as sums of changes over intervals of time. Level 0 is a microsecond, level 1 is 2^20 microseconds (about a second),
/// and each level above 64 times as wide as the one below, up to level 5 (about 203 days). A change is written at every level;
/// the size at an instant is the sum of at most 63 intervals of each level plus the single microseconds of the last second.
/// </summary>
public static class SizeChanges
{
    /// <summary>The topmost level.</summary>
    public const int TopLevel = 5;

    /// <summary>The interval an instant falls into at a level.</summary>
    public static long BucketOf(DateTimeOffset instant, int level) => Microseconds(instant) >> Shift(level);

    /// <summary>The intervals (level, from, below) that together are everything up to and including an instant.</summary>
    public static (int Level, long From, long Below)[] UpTo(DateTimeOffset instant)
    {
        var time = Microseconds(instant) + 1; // everything below this microsecond
        var ranges = new (int, long, long)[TopLevel + 1];
        for (var level = 0; level <= TopLevel; level++)
        {
            var from = level == TopLevel ? long.MinValue : (time >> Shift(level + 1)) << (Shift(level + 1) - Shift(level));
            ranges[level] = (level, from, time >> Shift(level));
        }

        return ranges;
    }

    private static int Shift(int level) => level == 0 ? 0 : 14 + (6 * level);

    private static long Microseconds(DateTimeOffset instant) => (instant.UtcTicks - DateTimeOffset.UnixEpoch.Ticks) / TimeSpan.TicksPerMicrosecond;
}

/// <summary>The changes of a batch, added up by segment, level and interval.</summary>
internal sealed class SizeChangeTotals
{
    private readonly Dictionary<(string Tenant, long Segment, int Level, long Bucket), long> _net = [];

    public void Add(string tenant, long segmentId, DateTimeOffset? instant, int change)
    {
        if (instant is not { } at)
        {
            return; // for good: there is no end to count
        }

        for (var level = 0; level <= SizeChanges.TopLevel; level++)
        {
            var key = (tenant, segmentId, level, SizeChanges.BucketOf(at, level));
            _net[key] = _net.GetValueOrDefault(key) + change;
        }
    }

    /// <summary>
    /// In the order of the primary key. Zeros are kept: a row is there when anything changed in its interval, however the events
    /// were cut into batches.
    /// </summary>
    public IReadOnlyList<(string Tenant, long Segment, int Level, long Bucket, long Net)> Rows =>
        [.. _net.Select(n => (n.Key.Tenant, n.Key.Segment, n.Key.Level, n.Key.Bucket, n.Value)).Order()];
}
