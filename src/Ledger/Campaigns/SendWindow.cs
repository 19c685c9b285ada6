using System.Diagnostics;

namespace Ledger.Campaigns;

/// <summary>
/// A time of day within which messages may leave, by the clock of the recipient: from <paramref name="From"/> on, until just
/// before <paramref name="To"/>. It may cross midnight. No plan has one in which both are the same; it would be open all day.
/// </summary>
/// <remarks>
/// The clock decides, also on the nights when it is set. An hour that is left out is in no window: a window that lies within it
/// does not open that day, and one that begins within it opens when the hour is over. An hour that comes twice is in the
/// window both times.
/// </remarks>
/// <param name="From">The first time of day that is in the window.</param>
/// <param name="To">The first one after it that is not.</param>
public sealed record SendWindow(TimeOnly From, TimeOnly To)
{
    /// <summary>Days in which a window opens for sure, however its zone sets its clock.</summary>
    private const int Horizon = 8;

    /// <summary>Whether the zone's clock shows a time within the window.</summary>
    public bool IsOpen(DateTimeOffset now, TimeZoneInfo zone) => Contains(LocalTicks(now.UtcTicks, zone.GetUtcOffset(now).Ticks));

    /// <summary>The first instant, from <paramref name="now"/> on, at which the window is open: <paramref name="now"/> itself if it is.</summary>
    public DateTimeOffset NextOpening(DateTimeOffset now, TimeZoneInfo zone)
    {
        var start = now.UtcTicks;
        for (var day = 0; day < Horizon; day++)
        {
            var end = Math.Min(start + TimeSpan.TicksPerDay, DateTimeOffset.MaxValue.UtcTicks);
            var (before, after) = (OffsetAt(start, zone), OffsetAt(end, zone));
            var change = before == after ? end : ChangeWithin(start, end, before, zone);
            if ((Opening(start, change, before) ?? Opening(change, end, after)) is { } opens)
            {
                return new DateTimeOffset(opens, TimeSpan.Zero);
            }

            if (end == DateTimeOffset.MaxValue.UtcTicks)
            {
                return DateTimeOffset.MaxValue;
            }

            start = end;
        }

        throw new UnreachableException($"The window {From:O}-{To:O} does not open in {zone.Id} within {Horizon} days of {now:O}.");
    }

    /// <summary>The first open instant of a span in which the clock is not set; null: there is none.</summary>
    private long? Opening(long start, long end, long offset)
    {
        var local = LocalTicks(start, offset);
        if (start >= end || Contains(local))
        {
            return start < end ? start : null;
        }

        var opens = start + Modulo(From.Ticks - local);
        return opens < end ? opens : null;
    }

    private bool Contains(long local) => From < To ? local >= From.Ticks && local < To.Ticks : local >= From.Ticks || local < To.Ticks;

    /// <summary>The first instant at which the clock is set to another offset; there is one.</summary>
    private static long ChangeWithin(long start, long end, long offset, TimeZoneInfo zone)
    {
        while (end - start > 1)
        {
            var middle = start + ((end - start) / 2);
            (start, end) = OffsetAt(middle, zone) == offset ? (middle, end) : (start, middle);
        }

        return end;
    }

    private static long OffsetAt(long ticks, TimeZoneInfo zone) => zone.GetUtcOffset(new DateTimeOffset(ticks, TimeSpan.Zero)).Ticks;

    private static long LocalTicks(long ticks, long offset) => Modulo(ticks + offset);

    private static long Modulo(long ticks) => ((ticks % TimeSpan.TicksPerDay) + TimeSpan.TicksPerDay) % TimeSpan.TicksPerDay;
}
