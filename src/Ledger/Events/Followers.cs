using System.Text;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Events;

/// <summary>How many may follow the log, and how often they hear that nothing has happened.</summary>
public sealed record FollowLimits
{
    /// <summary>Requests that follow the log on one node, unless set; one more is answered 503.</summary>
    public const int DefaultMaxFollowers = 1_000;

    /// <summary>Seconds after which a follower that was sent nothing is sent its position.</summary>
    public const int DefaultHeartbeatSeconds = 15;

    /// <summary>Followers of one node that read old pages of the log at the same time; the others wait for their turn.</summary>
    public const int MaxReads = 4;

    /// <summary>What clients of server-sent events are told: how long to wait before they come back.</summary>
    public const int RetryMilliseconds = 2_000;

    /// <summary>See <see cref="DefaultMaxFollowers"/>.</summary>
    public int MaxFollowers { get; init; } = DefaultMaxFollowers;

    /// <summary>See <see cref="DefaultHeartbeatSeconds"/>.</summary>
    public TimeSpan Heartbeat { get; init; } = TimeSpan.FromSeconds(DefaultHeartbeatSeconds);
}

/// <summary>
/// Serves those who follow the log. A follower is a position and nothing else: it gets the next page when it has taken the one
/// before, from what is kept for all or from the log. So it sees every event once, in order, from whichever node, and however
/// slowly it reads, it costs the page it is being sent.
/// </summary>
public sealed class Followers(LogTail tail, LogPages pages, EventReader log, FollowLimits limits, LedgerClock clock, IHostApplicationLifetime lifetime)
    : IDisposable
{
    private readonly SemaphoreSlim _reads = new(FollowLimits.MaxReads);

    /// <summary>What is after a position, and then what comes, until the caller leaves, the limit is reached or the node stops.</summary>
    internal IResult Follow(LogFilter filter, long after, int? limit, ListFormat format) => new FollowResult(this, filter, after, limit ?? int.MaxValue, format);

    /// <inheritdoc/>
    public void Dispose() => _reads.Dispose();

    /// <summary>Waits until the log has reached a position.</summary>
    internal async ValueTask<bool> WaitForHead(long position, TimeSpan wait, CancellationToken cancellation)
    {
        var started = clock.GetTimestamp();
        if (await log.ReadHead(cancellation) >= position)
        {
            return true;
        }

        if (!tail.TryJoin())
        {
            return false;
        }

        try
        {
            while (true)
            {
                var changed = tail.Changed;
                if (await log.ReadHead(cancellation) >= position)
                {
                    return true;
                }

                await changed.WaitAsync(wait - clock.GetElapsedTime(started) is { Ticks: > 0 } left ? left : TimeSpan.Zero, cancellation);
            }
        }
        catch (TimeoutException)
        {
            return await log.ReadHead(cancellation) >= position;
        }
        finally
        {
            tail.Leave();
        }
    }

    private async Task<LogPage> ReadPage(LogFilter filter, long after, int limit, CancellationToken cancellation)
    {
        await _reads.WaitAsync(cancellation);
        try
        {
            return await pages.Read(filter, after, Math.Min(limit, LogTail.PageEvents), cancellation: cancellation);
        }
        finally
        {
            _reads.Release();
        }
    }

    private sealed class FollowResult(Followers followers, LogFilter filter, long after, int limit, ListFormat format) : IResult
    {
        public async Task ExecuteAsync(HttpContext httpContext)
        {
            if (!followers.TryJoin())
            {
                await Problems.Result("too-many-followers", "As many follow the log on this node as may. Try another node, or later.").ExecuteAsync(httpContext);
                return;
            }

            try
            {
                httpContext.LetStream();
                using var following = new Following(followers, filter, after, limit, format);
                await following.Run(httpContext);
            }
            finally
            {
                followers.Leave();
            }
        }
    }

    private sealed class Following(Followers followers, LogFilter filter, long after, int limit, ListFormat format) : IDisposable
    {
        private readonly bool _eventStream = format == ListFormat.EventStream;
        private readonly PooledBuffer _buffer = new(2 * Formats.FlushBytes);
        private long _position = after; // everything up to here was sent or is not asked for
        private long _told = after; // and the caller knows it
        private long _wrote;

        public void Dispose() => _buffer.Dispose();

        public async Task Run(HttpContext http)
        {
            using var stop = CancellationTokenSource.CreateLinkedTokenSource(http.RequestAborted, followers.Stopping);
            try
            {
                await Begin(http.Response, stop.Token);
                if (http.WantsBody())
                {
                    await GoOn(http.Response, stop.Token);
                }
            }
            catch (OperationCanceledException) when (stop.IsCancellationRequested)
            {
                if (_buffer.Written.Length > 0)
                {
                    http.Abort(); // cut off within what it was being sent, which must not look like an end
                }
            }
        }

        private async Task Begin(HttpResponse response, CancellationToken cancellation)
        {
            response.ContentType = format.MediaType();
            response.Headers.CacheControl = "no-store";
            response.Headers["X-Accel-Buffering"] = "no"; // asks proxies to pass on what comes when it comes
            if (_eventStream)
            {
                Write($"retry: {FollowLimits.RetryMilliseconds}\n\n");
            }

            await Flush(response, cancellation);
        }

        private async Task GoOn(HttpResponse response, CancellationToken cancellation)
        {
            while (limit > 0)
            {
                var changed = followers.Changed;
                var before = _position;
                if (followers.Kept(_position) is { } kept)
                {
                    foreach (var next in kept)
                    {
                        if (next.Recorded.Position > _position)
                        {
                            await Take(next, response, cancellation);
                        }
                    }
                }
                else
                {
                    var page = await followers.ReadPage(filter, _position, limit, cancellation);
                    foreach (var recorded in page.Events)
                    {
                        await Take(TailEvent.Of(recorded), response, cancellation);
                    }

                    _position = page.Position;
                }

                if (_buffer.Written.Length > 0)
                {
                    await Flush(response, cancellation);
                }
                else if (followers.IsSilent(_wrote))
                {
                    await Beat(response, cancellation);
                }

                if (_position == before && limit > 0)
                {
                    await changed.WaitAsync(cancellation);
                }
            }
        }

        private async Task Take(TailEvent next, HttpResponse response, CancellationToken cancellation)
        {
            if (limit == 0)
            {
                return;
            }

            _position = next.Recorded.Position;
            if (!filter.Matches(next.Recorded))
            {
                return;
            }

            if (_eventStream)
            {
                Write($"id: {_position}\ndata: ");
                _buffer.Write(next.Json);
                _buffer.Write("\n\n"u8);
            }
            else
            {
                _buffer.Write(next.Json);
                _buffer.Write("\n"u8);
            }

            _told = _position;
            limit--;
            EventMetrics.Sent.Add(1);
            if (_buffer.Written.Length >= Formats.FlushBytes)
            {
                await Flush(response, cancellation);
            }
        }

        /// <summary>
        /// Says that the connection lives and, to a client that can take it in, how far the log was looked through: an id without
        /// data is no event, but it is where such a client goes on after a break.
        /// </summary>
        private async Task Beat(HttpResponse response, CancellationToken cancellation)
        {
            Write(!_eventStream ? "\n" : _position > _told ? $": at {_position}\nid: {_position}\n\n" : $": at {_position}\n\n");
            _told = _position;
            await Flush(response, cancellation);
        }

        private void Write(string text) => _buffer.Advance(Encoding.UTF8.GetBytes(text, _buffer.GetSpan(Encoding.UTF8.GetMaxByteCount(text.Length))));

        private async Task Flush(HttpResponse response, CancellationToken cancellation)
        {
            await response.BodyWriter.WriteAsync(_buffer.Written, cancellation);
            cancellation.ThrowIfCancellationRequested();
            _buffer.Clear();
            _wrote = followers.Timestamp;
        }
    }

    private bool TryJoin()
    {
        var joined = tail.TryJoin();
        EventMetrics.Followers.Add(joined ? 1 : 0);
        return joined;
    }

    private void Leave()
    {
        tail.Leave();
        EventMetrics.Followers.Add(-1);
    }

    private CancellationToken Stopping => lifetime.ApplicationStopping;

    private Task Changed => tail.Changed;

    private long Timestamp => clock.GetTimestamp();

    private IReadOnlyList<TailEvent>? Kept(long position) => tail.After(position);

    private bool IsSilent(long since) => clock.GetElapsedTime(since) >= limits.Heartbeat;
}
