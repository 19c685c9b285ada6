using System.Diagnostics;

namespace Ledger.EventStore;

/// <summary>
/// How soon a batch of views follows the one before. It has the same round trips for one event as for a hundred, and with
/// each commit of the appender one could begin. So while events come several at a time and nobody waits for a view, they are gathered
/// for a moment, and the cores are left to those who append. Whoever waits for a position is not kept waiting.
/// </summary>
internal sealed class Pace(Views views, TimeSpan interval)
{
    /// <summary>From the beginning of a batch to that of the next.</summary>
    public static readonly TimeSpan Interval = TimeSpan.FromMilliseconds(10);

    /// <summary>Events of a batch from which on the next one is paced: what comes one by one is seen at once.</summary>
    public const int MinEvents = 4;

    private long _began;
    private bool _isPaced;

    /// <summary>Notes that a batch of so many events begins.</summary>
    public void Begin(int events) => (_began, _isPaced) = (Stopwatch.GetTimestamp(), events >= MinEvents);

    /// <summary>Returns when the next batch may begin.</summary>
    public async Task Wait(CancellationToken cancellation)
    {
        var left = interval - Stopwatch.GetElapsedTime(_began);
        if (_isPaced && left > TimeSpan.Zero)
        {
            await views.AnyWaiter(left, cancellation);
        }
    }
}
