namespace Ledger.Campaigns;

/// <summary>
/// Spreads calls evenly over time. Who comes gets the next moment that is free, so the rate holds however late a wait ends;
/// what was not used is lost, but for <see cref="Burst"/>.
/// </summary>
public sealed class SendRate(int perSecond, TimeProvider clock)
{
    /// <summary>How far calls may run ahead of the rate: what waits and timers lose is made up for within it.</summary>
    public static readonly TimeSpan Burst = TimeSpan.FromMilliseconds(100);

    private readonly Lock _lock = new();
    private readonly long _origin = clock.GetTimestamp();
    private readonly long _interval = perSecond == 0 ? 0 : TimeSpan.TicksPerSecond / perSecond;
    private long _next;

    /// <summary>Waits for the caller's turn. A turn that is given up while it is waited for is not given to another.</summary>
    public Task Wait(CancellationToken cancellation)
    {
        if (_interval == 0)
        {
            return Task.CompletedTask;
        }

        TimeSpan wait;
        lock (_lock)
        {
            var now = clock.GetElapsedTime(_origin).Ticks;
            var turn = Math.Max(_next, now - Burst.Ticks);
            _next = turn + _interval;
            wait = TimeSpan.FromTicks(turn - now);
        }

        // Timers count whole milliseconds and cut off the rest.
        return wait <= TimeSpan.Zero ? Task.CompletedTask : Task.Delay(TimeSpan.FromMilliseconds(Math.Ceiling(wait.TotalMilliseconds)), clock, cancellation);
    }
}
