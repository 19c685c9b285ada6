namespace Ledger.EventStore;

/// <summary>
/// Pages of the log on their way from the daemon, which has folded them, to the sealer, which so need not read the same rows
/// again. Nobody depends on it: what is not here is in the database.
/// </summary>
internal sealed class PagesToSeal
{
    /// <summary>What it keeps at most; the sealer reads itself what came while it was full.</summary>
    public const int MaxBytes = 8 * 1024 * 1024;

    private readonly Lock _lock = new();
    private readonly Queue<PageRows> _pages = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _isFlowing;
    private int _bytes;

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

    /// <summary>Says whether the daemon reads one page after the other, so that the next will come.</summary>
    public void Flow(bool isFlowing)
    {
        lock (_lock)
        {
            _isFlowing = isFlowing;
            Change();
        }
    }

    /// <summary>The page with the event after a position is on its way; false when a later one is here already, as there was no room for it.</summary>
    public bool MayCome(long after)
    {
        lock (_lock)
        {
            return _isFlowing && !_pages.Any(p => p.Last > after);
        }
    }

    /// <summary>Completes when so many events after a position are here that it is time to seal them.</summary>
    public async Task Hold(long after, int events, CancellationToken cancellation)
    {
        while (true)
        {
            Task changed;
            lock (_lock)
            {
                if (_pages.Count > 0 && _pages.Max(p => p.Last) - after >= events)
                {
                    return;
                }

                changed = _changed.Task;
            }

            await changed.WaitAsync(cancellation);
        }
    }

    /// <summary>Leaves a page to the sealer, if there is room.</summary>
    public void Offer(PageRows page)
    {
        lock (_lock)
        {
            if (_bytes + page.Bytes.Length <= MaxBytes)
            {
                _pages.Enqueue(page);
                _bytes += page.Bytes.Length;
                Change();
            }
        }
    }

    /// <summary>A page that holds the event after a position. Those that end before it are given up.</summary>
    public PageRows? Find(long after)
    {
        lock (_lock)
        {
            while (_pages.TryPeek(out var page))
            {
                if (page.Last > after)
                {
                    return page.First <= after + 1 ? page : null;
                }

                _bytes -= _pages.Dequeue().Bytes.Length;
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
