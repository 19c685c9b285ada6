namespace Ledger.Authentication;

/// <summary>
/// The requests that credentials are being answered for. Whichever request lasts, its caller is looked at again every
/// <see cref="Authenticating.RecheckInterval"/>, and one who may no longer is cut off. A request that does not last costs a place
/// in a list, for one timer serves all, and it stands still while nothing is under way.
/// </summary>
internal sealed class RequestsUnderWay : IDisposable
{
    private readonly Authenticator _authenticator;
    private readonly Lock _lock = new();
    private readonly LinkedList<UnderWay> _requests = new();
    private readonly Timer _timer;
    private bool _isTicking;

    public RequestsUnderWay(Authenticator authenticator)
    {
        _authenticator = authenticator;
        _timer = new Timer(_ => LookAtAll());
    }

    /// <inheritdoc/>
    public void Dispose() => _timer.Dispose();

    /// <summary>Ends as the answering does. A request that needs no credential, or shows none, is none to look at.</summary>
    public Task Watch(HttpContext http, Requirement needed, Task answering) =>
        answering.IsCompleted || needed == Requirement.Nothing || http.Request.Headers.Authorization.Count == 0
            ? answering
            : WatchUntilAnswered(http, needed, answering);

    private async Task WatchUntilAnswered(HttpContext http, Requirement needed, Task answering)
    {
        var place = new LinkedListNode<UnderWay>(new UnderWay(http, needed));
        lock (_lock)
        {
            _requests.AddLast(place);
            if (!_isTicking)
            {
                _isTicking = true;
                TickLater();
            }
        }

        try
        {
            await answering;
        }
        finally
        {
            lock (_lock)
            {
                _requests.Remove(place);
            }

            await place.Value.Looking; // which may still read the request
        }
    }

    private void LookAtAll()
    {
        lock (_lock)
        {
            foreach (var request in _requests)
            {
                if (request.Lasts && request.Looking.IsCompleted)
                {
                    request.Looking = Task.Run(() => LookAt(request.Http, request.Needed));
                }

                request.Lasts = true;
            }

            _isTicking = _requests.Count > 0;
            if (_isTicking)
            {
                TickLater();
            }
        }
    }

    private void TickLater() => _timer.Change(Authenticating.RecheckInterval, Timeout.InfiniteTimeSpan);

    private async Task LookAt(HttpContext http, Requirement needed)
    {
        var may = false; // nor does it go on when looking fails
        try
        {
            var (caller, refusal) = await _authenticator.Identify(http.Request, CancellationToken.None);
            may = caller is null ? refusal!.Code != "unauthorized" : Authenticator.Refuse(caller, needed) is null;
        }
        finally
        {
            if (!may)
            {
                http.Abort();
            }
        }
    }

    /// <summary>A request, and whether it has been under way at a tick before.</summary>
    private sealed class UnderWay(HttpContext http, Requirement needed)
    {
        public HttpContext Http => http;

        public Requirement Needed => needed;

        public bool Lasts { get; set; }

        public Task Looking { get; set; } = Task.CompletedTask;
    }
}
