using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Events;

/// <summary>An event with the JSON that every follower is sent.</summary>
internal sealed record TailEvent(RecordedEvent Recorded, byte[] Json)
{
    public static TailEvent Of(RecordedEvent recorded) =>
        new(recorded, JsonSerializer.SerializeToUtf8Bytes(EventAnswer.Of(recorded), Ledger.Http.Json.Options));
}

/// <summary>
/// The newest events, read once for all followers of a node. It reads when the log has grown and somebody follows, and never
/// otherwise. Who has fallen behind what is kept here reads pages of the log for itself. Nothing is queued for anybody.
/// </summary>
public sealed partial class LogTail : IAsyncDisposable
{
    /// <summary>Bytes of events that are kept for followers; the oldest page goes first.</summary>
    public const int MaxBytes = 4 * 1024 * 1024;

    /// <summary>Events read at once.</summary>
    public const int PageEvents = 500;

    private readonly LogPages _pages;
    private readonly EventReader _log;
    private readonly Daemon _daemon;
    private readonly FollowLimits _limits;
    private readonly ILogger<LogTail> _logger;
    private readonly CancellationTokenSource _stopping = new();
    private readonly SemaphoreSlim _signal = new(0, 1);
    private readonly Lock _lock = new();
    private readonly List<KeptPage> _kept = []; // in order of position
    private readonly Task _loop;
    private TaskCompletionSource _changed = NewSource();
    private long _start; // everything after this and up to _end is kept
    private long _end = -1; // nothing is known
    private int _bytes;
    private int _followers;

    /// <summary>A tail that reads nothing until somebody follows.</summary>
    public LogTail(LogPages pages, EventReader log, Daemon daemon, FollowLimits limits, ILogger<LogTail> logger)
    {
        (_pages, _log, _daemon, _limits, _logger) = (pages, log, daemon, limits, logger);
        daemon.Appended += WhenAppended;
        _loop = Task.Run(ReadWhenAppended);
    }

    /// <summary>
    /// Completes when there may be more than there was when it was asked for, and at least once a heartbeat. To be taken before
    /// <see cref="After"/> is asked, so that nothing is missed in between.
    /// </summary>
    internal Task Changed
    {
        get
        {
            lock (_lock)
            {
                return _changed.Task;
            }
        }
    }

    /// <summary>Counts one more who waits; false when there are as many as may be.</summary>
    internal bool TryJoin()
    {
        var followers = Interlocked.Increment(ref _followers);
        if (followers > _limits.MaxFollowers)
        {
            Interlocked.Decrement(ref _followers);
            return false;
        }

        if (followers == 1)
        {
            Signal();
        }

        return true;
    }

    internal void Leave() => Interlocked.Decrement(ref _followers);

    /// <summary>A page with what comes after a position; empty at the end of the log; null when that is not kept here.</summary>
    internal IReadOnlyList<TailEvent>? After(long position)
    {
        lock (_lock)
        {
            if (_end < 0 || position < _start)
            {
                return null;
            }

            // Single events make small pages, and there may be thousands of them.
            var (from, to) = (0, _kept.Count);
            while (from < to)
            {
                var middle = (from + to) / 2;
                (from, to) = _kept[middle].Last > position ? (from, middle) : (middle + 1, to);
            }

            return from < _kept.Count ? _kept[from].Events : [];
        }
    }

    /// <inheritdoc/>
    public async ValueTask DisposeAsync()
    {
        _daemon.Appended -= WhenAppended;
        await _stopping.CancelAsync();
        await _loop;
    }

    private static TaskCompletionSource NewSource() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private void WhenAppended()
    {
        if (Volatile.Read(ref _followers) > 0)
        {
            Signal();
        }
    }

    private void Signal()
    {
        try
        {
            _signal.Release();
        }
        catch (SemaphoreFullException)
        {
            // It is about to look anyway.
        }
    }

    private async Task ReadWhenAppended()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                var signalled = await _signal.WaitAsync(_limits.Heartbeat, _stopping.Token);
                if (Volatile.Read(ref _followers) == 0)
                {
                    Forget();
                }
                else if (signalled)
                {
                    await ReadOn();
                }

                Announce();
            }
            catch (OperationCanceledException) when (_stopping.IsCancellationRequested)
            {
                return;
            }
            catch (Exception exception)
            {
                LogAway(exception);
                Signal();
                await Task.Delay(TimeSpan.FromSeconds(1), _stopping.Token).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    private async Task ReadOn()
    {
        if (_end < 0)
        {
            var head = await _log.ReadHead(_stopping.Token);
            lock (_lock)
            {
                _start = _end = head;
            }
        }

        LogPage page;
        do
        {
            page = await _pages.Read(new LogFilter(), _end, PageEvents, cancellation: _stopping.Token);
            if (page.Events.Count == 0)
            {
                return;
            }

            Keep([.. page.Events.Select(TailEvent.Of)]);
            Announce();
        }
        while (!page.IsLast);
    }

    private void Keep(IReadOnlyList<TailEvent> events)
    {
        var bytes = events.Sum(e => e.Json.Length);
        lock (_lock)
        {
            _end = events[^1].Recorded.Position;
            _kept.Add(new KeptPage(_end, bytes, events));
            _bytes += bytes;
            var gone = 0;
            while (_bytes > MaxBytes && gone < _kept.Count - 1)
            {
                _bytes -= _kept[gone].Bytes;
                _start = _kept[gone++].Last;
            }

            _kept.RemoveRange(0, gone);
        }
    }

    private void Forget()
    {
        lock (_lock)
        {
            _kept.Clear();
            _end = -1;
            _bytes = 0;
        }
    }

    private void Announce()
    {
        TaskCompletionSource changed;
        lock (_lock)
        {
            (changed, _changed) = (_changed, NewSource());
        }

        changed.SetResult();
    }

    private sealed record KeptPage(long Last, int Bytes, IReadOnlyList<TailEvent> Events);

    [LoggerMessage(LogLevel.Warning, "The end of the log can't be read; it is tried again")]
    private partial void LogAway(Exception exception);
}
