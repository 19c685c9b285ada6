namespace Ledger.Usage;

/// <summary>A width of time by which totals are grouped.</summary>
public enum IntervalUnit
{
    /// <summary>An hour of the zone's clock; cut where the clock is set to another offset, so never longer than an hour.</summary>
    Hour,

    /// <summary>A day of the zone's calendar: 23, 24 or 25 hours, as a rule.</summary>
    Day,

    /// <summary>A month of the zone's calendar.</summary>
    Month,
}

/// <summary>
/// The hours, days or months of a zone that cover a span of time, without gap or overlap. A day begins at the first instant
/// at which the zone's calendar shows it or a later one; a day that a zone leaves out is not there.
/// </summary>
public sealed class ZonedIntervals
{
    /// <summary>Intervals of one answer.</summary>
    public const int MaxIntervals = 10_000;

    private readonly DateTimeOffset[] _bounds;

    private ZonedIntervals(DateTimeOffset[] bounds) => _bounds = bounds;

    /// <summary>How many there are.</summary>
    public int Count => _bounds.Length - 1;

    /// <summary>The first instant of each, in order.</summary>
    public ReadOnlySpan<DateTimeOffset> Starts => _bounds.AsSpan(0, Count);

    /// <summary>The first instant of one and the first after it; they are numbered from 1.</summary>
    public (DateTimeOffset Start, DateTimeOffset End) this[int number] => (_bounds[number - 1], _bounds[number]);

    /// <summary>Those that have an instant in common with [<paramref name="from"/>, <paramref name="to"/>); null when there are more than <see cref="MaxIntervals"/>.</summary>
    public static ZonedIntervals? Covering(DateTimeOffset from, DateTimeOffset to, IntervalUnit unit, TimeZoneInfo zone)
    {
        if (from >= to)
        {
            return new ZonedIntervals([from]);
        }

        var length = unit switch { IntervalUnit.Hour => TimeSpan.FromHours(1), IntervalUnit.Day => TimeSpan.FromDays(1), _ => TimeSpan.FromDays(28) };
        if ((to - from) / length > MaxIntervals * 1.2)
        {
            return null; // too many by far: not worth counting
        }

        var offsets = Offsets(from, to, zone);
        var all = unit == IntervalUnit.Hour ? Hours(offsets, from) : Dates(offsets, from, unit);
        var bounds = new List<DateTimeOffset>();
        foreach (var bound in all)
        {
            if (bound <= from)
            {
                bounds.Clear();
            }

            bounds.Add(bound);
            if (bound >= to)
            {
                break;
            }
        }

        if (bounds[0] > from)
        {
            bounds.Insert(0, from); // what is older than the zone's first date
        }

        return bounds.Count - 1 <= MaxIntervals ? new ZonedIntervals([.. bounds]) : null;
    }

    private readonly record struct Period(long Start, long End, long Offset);

    /// <summary>The periods in which the zone's clock has one offset, in UTC ticks, from well before the span to well after it.</summary>
    private static List<Period> Offsets(DateTimeOffset from, DateTimeOffset to, TimeZoneInfo zone)
    {
        var margin = 40 * TimeSpan.TicksPerDay;
        var start = Math.Max(from.UtcTicks - margin, DateTimeOffset.MinValue.UtcTicks);
        var end = Math.Min(to.UtcTicks + margin, DateTimeOffset.MaxValue.UtcTicks);
        var periods = new List<Period>();
        var (since, offset) = (start, OffsetAt(start));
        for (var probe = start; probe < end;)
        {
            var next = Math.Min(probe + TimeSpan.TicksPerDay, end);
            if (OffsetAt(next) != offset)
            {
                var (before, after) = (probe, next);
                while (after - before > 1)
                {
                    var middle = before + ((after - before) / 2);
                    (before, after) = OffsetAt(middle) == offset ? (middle, after) : (before, middle);
                }

                periods.Add(new Period(since, after, offset));
                (since, offset, next) = (after, OffsetAt(after), after);
            }

            probe = next;
        }

        periods.Add(new Period(since, long.MaxValue, offset));
        return periods;

        long OffsetAt(long ticks) => zone.GetUtcOffset(new DateTimeOffset(ticks, TimeSpan.Zero)).Ticks;
    }

    private static IEnumerable<DateTimeOffset> Hours(List<Period> periods, DateTimeOffset from)
    {
        foreach (var (start, end, offset) in periods)
        {
            var since = Math.Max(start, from.UtcTicks - (2 * TimeSpan.TicksPerHour));
            if (since == start)
            {
                yield return Instant(start);
            }

            var local = since + offset;
            for (var hour = local + TimeSpan.TicksPerHour - Modulo(local, TimeSpan.TicksPerHour); hour - offset < end; hour += TimeSpan.TicksPerHour)
            {
                yield return Instant(hour - offset);
            }
        }
    }

    private static IEnumerable<DateTimeOffset> Dates(List<Period> periods, DateTimeOffset from, IntervalUnit unit)
    {
        var index = 0;
        var local = from.UtcTicks + periods.First(p => from.UtcTicks < p.End).Offset;
        var first = new DateTime(Math.Max(local - (2 * TimeSpan.TicksPerDay), 0)).Date;
        DateTimeOffset? last = null;
        var date = unit == IntervalUnit.Day ? first : new DateTime(first.Year, first.Month, 1);
        while (true)
        {
            while (Math.Max(periods[index].Start, date.Ticks - periods[index].Offset) >= periods[index].End)
            {
                index++;
            }

            var begins = Instant(Math.Max(periods[index].Start, date.Ticks - periods[index].Offset));
            if (last is null || begins > last)
            {
                last = begins;
                yield return begins;
            }

            if (date >= DateTime.MaxValue.Date.AddDays(-31))
            {
                yield return DateTimeOffset.MaxValue;
                yield break;
            }

            date = unit == IntervalUnit.Day ? date.AddDays(1) : date.AddMonths(1);
        }
    }

    private static long Modulo(long value, long by) => ((value % by) + by) % by;

    private static DateTimeOffset Instant(long ticks) => new(Math.Clamp(ticks, 0, DateTimeOffset.MaxValue.UtcTicks), TimeSpan.Zero);
}
