namespace Ledger.EventStore;

/// <summary>
/// The clock that decisions and "now" queries use. It never shows a time before the newest event this node has seen, so a
/// wall clock that steps back cannot make something un-happen. Resolution is PostgreSQL's: one microsecond.
/// </summary>
public sealed class LedgerClock(TimeProvider wall) : TimeProvider
{
    private long _latestTicks;

    /// <inheritdoc/>
    public override DateTimeOffset GetUtcNow()
    {
        var now = wall.GetUtcNow().UtcTicks;
        return new DateTimeOffset(Math.Max(now - (now % TimeSpan.TicksPerMicrosecond), Volatile.Read(ref _latestTicks)), TimeSpan.Zero);
    }

    /// <inheritdoc/>
    public override long GetTimestamp() => wall.GetTimestamp();

    /// <inheritdoc/>
    public override long TimestampFrequency => wall.TimestampFrequency;

    /// <inheritdoc/>
    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
        wall.CreateTimer(callback, state, dueTime, period);

    /// <summary>Takes note of when an event was recorded.</summary>
    public void Observe(DateTimeOffset recordedAt)
    {
        var ticks = recordedAt.UtcTicks;
        long seen;
        while (ticks > (seen = Volatile.Read(ref _latestTicks)) && Interlocked.CompareExchange(ref _latestTicks, ticks, seen) != seen)
        {
        }
    }
}
