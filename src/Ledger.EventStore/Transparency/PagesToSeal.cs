namespace Ledger.EventStore;

/// <summary>
/// Full pages of the log on their way from the daemon, which has folded them, to the sealer, which so need not read the same rows
/// again. Nobody depends on it: what is not here is in the database.
/// </summary>
internal sealed class PagesToSeal
{
    /// <summary>What it keeps at most; the sealer reads itself what came while it was full.</summary>
    public const int MaxBytes = 32 * 1024 * 1024;

    private readonly Lock _lock = new();
    private readonly Queue<EventPage> _pages = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _flowing;
    private int _bytes;

    /// <summary>The daemon reads full pages one after the other, and the next will come.</summary>
    public bool Flowing
    {
        get => Volatile.Read(ref _flowing);
        set
        {
            lock (_lock)
            {
                _flowing = value;
                Change();
            }
        }
    }

    /// <summary>Completes when a page comes, or when it is known that none will.</summary>
    public Task Changed
    {
        get
        {
            lock (_lock)
            {
                return _changed.Task;
            }
        }
    }

    /// <summary>Leaves a page to the sealer, if there is room.</summary>
    public void Offer(EventPage page)
    {
        lock (_lock)
        {
            if (page.Events.Count > 0 && _bytes + page.Bytes <= MaxBytes)
            {
                _pages.Enqueue(page);
                _bytes += page.Bytes;
                Change();
            }
        }
    }

    /// <summary>A page that holds the event after a position. Those that end before it are given up.</summary>
    public EventPage? Find(long after)
    {
        lock (_lock)
        {
            while (_pages.TryPeek(out var page))
            {
                if (page.Events[^1].Position > after)
                {
                    return page.Events[0].Position <= after + 1 ? page : null;
                }

                _bytes -= _pages.Dequeue().Bytes;
            }

            return null;
        }
    }

    /// <summary>Gives all up, as what the database holds may have become another.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _pages.Clear();
            _bytes = 0;
        }
    }

    private void Change()
    {
        var changed = _changed;
        _changed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        changed.TrySetResult();
    }
}
