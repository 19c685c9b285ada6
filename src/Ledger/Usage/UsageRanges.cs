namespace Ledger.Usage;

/// <summary>
/// Which rows answer a question: ranges of whole buckets, whose sums are kept, by the buckets' width; and ranges of time whose
/// calls are added up one by one: the parts of quarters of an hour at bounds that lie within one, or everything when it is asked
/// what was known at a position.
/// </summary>
internal sealed record UsageRanges(
    IReadOnlyDictionary<TimeSpan, List<(DateTimeOffset Since, DateTimeOffset Below)>> Whole, IReadOnlyList<(DateTimeOffset Since, DateTimeOffset Below)> Single)
{
    /// <summary>No call happens later.</summary>
    public static readonly DateTimeOffset End = UsageBuckets.Of(DateTimeOffset.MaxValue);

    /// <summary>
    /// The ranges that are [<paramref name="from"/>, <paramref name="to"/>), so that no bucket lies in two of the intervals, in
    /// as wide buckets as can be with <paramref name="wide"/>, in quarters of an hour without.
    /// </summary>
    public static UsageRanges Of(DateTimeOffset from, DateTimeOffset to, ZonedIntervals? intervals, bool wide, bool single)
    {
        var (whole, rest) = (new Dictionary<TimeSpan, List<(DateTimeOffset, DateTimeOffset)>>(), new List<(DateTimeOffset, DateTimeOffset)>());
        DateTimeOffset[] bounds = [.. (intervals is null ? [] : intervals.Starts.ToArray()).Where(start => start > from && start < to)];
        TimeSpan[] widths = single ? []
            : [.. wide ? UsageBuckets.Wider.Where(width => Array.TrueForAll(bounds, b => UsageBuckets.IsStart(b, width))) : [], UsageBuckets.Width];
        var since = from;
        foreach (var bound in bounds)
        {
            if (!single && !UsageBuckets.IsStart(bound, UsageBuckets.Width))
            {
                Cut(since, bound, widths);
                since = bound;
            }
        }

        Cut(since, to, widths);
        return new UsageRanges(whole, rest);

        void Cut(DateTimeOffset since, DateTimeOffset below, ReadOnlySpan<TimeSpan> widths)
        {
            if (since >= below)
            {
                return;
            }

            if (widths.IsEmpty)
            {
                rest.Add((since, below));
                return;
            }

            var width = widths[0].Ticks;
            var (first, last) = ((since.UtcTicks + width - 1) / width * width, below.UtcTicks / width * width);
            if (first >= last)
            {
                Cut(since, below, widths[1..]); // no whole one of this width
                return;
            }

            var middle = (Since: new DateTimeOffset(first, TimeSpan.Zero), Below: new DateTimeOffset(last, TimeSpan.Zero));
            Cut(since, middle.Since, widths[1..]);
            if (!whole.TryGetValue(widths[0], out var ranges))
            {
                whole.Add(widths[0], ranges = []);
            }

            ranges.Add(middle);
            Cut(middle.Below, below, widths[1..]);
        }
    }
}
