using System.Data;
using System.Diagnostics;
using System.Text;
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Group commit: requests of all callers go through one bounded queue into shared transactions. While one batch is in the
/// database, the next is being gathered. Several appenders, in one process or many, work on one database: the append lock
/// puts their transactions in order.
/// </summary>
public sealed partial class Appender : IAsyncDisposable
{
    private readonly NpgsqlDataSource _database;
    private readonly EventTypes _types;
    private readonly EventStoreOptions _options;
    private readonly LedgerClock _clock;
    private readonly ILogger<Appender> _logger;
    private readonly long _lockKey;
    private readonly Channel<PendingAppend> _queue;
    private readonly Task _loop;
    private NpgsqlConnection? _connection;
    private long? _awaySince;
    private volatile bool _stopping;

    /// <summary>Starts taking requests.</summary>
    public Appender(NpgsqlDataSource database, EventTypes types, EventStoreOptions options, LedgerClock clock, ILogger<Appender> logger)
    {
        _database = database;
        _types = types;
        _options = options;
        _clock = clock;
        _logger = logger;
        _lockKey = AppendLockKey(options.Schema);
        _queue = Channel.CreateBounded<PendingAppend>(new BoundedChannelOptions(options.QueueCapacity) { SingleReader = true });
        _loop = Task.Run(GatherAndStore);
    }

    /// <summary>Raised after each commit that stored events, with the last position.</summary>
    public event Action<long>? Committed;

    /// <summary>Requests that wait for a transaction.</summary>
    public int QueueLength => _queue.Reader.Count;

    /// <summary>
    /// Stores the events of a request, or says why not. Cancelling before its transaction starts takes the request out; from
    /// then on the outcome is awaited, because it happens.
    /// </summary>
    /// <exception cref="AppendQueueFullException">The queue is full; nothing was stored.</exception>
    /// <exception cref="EventStoreUnavailableException">The database is away.</exception>
    public async Task<AppendResult> Append(AppendRequest request, CancellationToken cancellation = default)
    {
        using var activity = Telemetry.Source.StartActivity("append", ActivityKind.Producer);
        var completion = new AppendCompletion(1);
        using var pending = new PendingAppend(request, _types, completion);
        cancellation.ThrowIfCancellationRequested();
        if (!_queue.Writer.TryWrite(pending))
        {
            throw _queue.Reader.Completion.IsCompleted || _stopping ? Stopping() : new AppendQueueFullException(_options.QueueCapacity);
        }

        pending.WatchCancellation(cancellation);
        var result = (await completion.Results)[0];
        activity?.SetTag("ledger.position", result.LastPosition);
        activity?.SetTag("ledger.append.outcome", PendingAppend.OutcomeName(result.Outcome));
        return result;
    }

    /// <summary>
    /// Stores many requests, each on its own, in their order, and waits for room in the queue where there is none: for what is
    /// streamed. Returns what became of each.
    /// </summary>
    /// <exception cref="EventStoreUnavailableException">The database is away. Some of them may be stored.</exception>
    public async Task<AppendResult[]> AppendMany(IReadOnlyList<AppendRequest> requests)
    {
        if (requests.Count == 0)
        {
            return [];
        }

        using var activity = Telemetry.Source.StartActivity("append", ActivityKind.Producer);
        var completion = new AppendCompletion(requests.Count);
        var pending = new PendingAppend[requests.Count];
        for (var i = 0; i < pending.Length; i++)
        {
            pending[i] = new PendingAppend(requests[i], _types, completion, i, bulk: true);
        }

        try
        {
            foreach (var request in pending)
            {
                if (!_queue.Writer.TryWrite(request))
                {
                    await _queue.Writer.WriteAsync(request);
                }
            }
        }
        catch (ChannelClosedException)
        {
            throw Stopping();
        }

        return await completion.Results;
    }

    /// <summary>Takes no more requests and returns when all that wait are answered.</summary>
    public async ValueTask DisposeAsync()
    {
        _stopping = true;
        _queue.Writer.TryComplete();
        await _loop;
        await DropConnection();
    }

    /// <summary>The advisory lock that orders all appends to one schema; the same in every process.</summary>
    internal static long AppendLockKey(string schema)
    {
        var key = 0xcbf29ce484222325UL; // FNV-1a, 64 bit
        foreach (var value in Encoding.UTF8.GetBytes($"ledger.append:{schema}"))
        {
            key = (key ^ value) * 0x100000001b3UL;
        }

        return (long)key;
    }

    private static EventStoreUnavailableException Stopping() => new("The service is stopping.", outcomeUnknown: false);

    private async Task GatherAndStore()
    {
        var reader = _queue.Reader;
        PendingAppend? next = null;
        var storing = Task.CompletedTask;
        while (next is not null || await reader.WaitToReadAsync())
        {
            var batch = new AppendBatch();
            while (true)
            {
                while ((next is not null || reader.TryRead(out next)) && batch.HasRoomFor(next, _options))
                {
                    batch.Add(next);
                    next = null;
                }

                if (storing.IsCompleted)
                {
                    break;
                }

                // The database is busy: gather what comes meanwhile, as long as there is room.
                var more = next is null && !reader.Completion.IsCompleted;
                await (more ? Task.WhenAny(storing, reader.WaitToReadAsync().AsTask()) : storing);
            }

            storing = Store(batch);
        }

        await storing;
    }

    private async Task Store(AppendBatch batch)
    {
        var requests = batch.Requests;
        requests.RemoveAll(request => !request.TryStart());
        if (requests.Count == 0)
        {
            return;
        }

        foreach (var request in requests)
        {
            Telemetry.AppendQueueTime.Record(Stopwatch.GetElapsedTime(request.Enqueued).TotalSeconds);
        }

        using var activity = StartStoring(requests);
        try
        {
            await StoreUntilKnown(batch);
        }
        catch (Exception exception)
        {
            LogBug(exception);
            requests.ForEach(request => request.Fail(exception));
        }
    }

    /// <summary>The span of a transaction: part of the one trace it works for, or, working for several, linked to them.</summary>
    private static Activity? StartStoring(List<PendingAppend> requests)
    {
        if (!Telemetry.Source.HasListeners())
        {
            return null;
        }

        const int MaxLinks = 128;
        var traces = requests.Select(r => r.Trace).Where(t => t != default).Distinct().Take(MaxLinks).ToArray();
        return traces.Length == 1
            ? Telemetry.Source.StartActivity("store", ActivityKind.Internal, traces[0])
            : Telemetry.Source.StartActivity("store", ActivityKind.Internal, default(ActivityContext), links: traces.Select(t => new ActivityLink(t)));
    }

    /// <summary>
    /// Stores a batch. When the connection is lost, even in mid-commit, the batch is run again: it waits for the append lock,
    /// and so for the end of the lost transaction, and finds by the event ids whether that had been committed. A batch that is
    /// refused is halved until the request is found that it is refused for; the others are stored.
    /// </summary>
    private async Task StoreUntilKnown(AppendBatch batch)
    {
        var pause = TimeSpan.FromMilliseconds(20);
        var trustBegun = true;
        while (true)
        {
            try
            {
                var transaction = new AppendTransaction(await Connect(), batch, _lockKey, _clock.GetUtcNow(), trustBegun);
                var answers = await transaction.Run(CancellationToken.None);
                _awaySince = null;
                Answer(transaction, answers);
                return;
            }
            catch (Exception exception) when (trustBegun && DatabaseErrors.IsStreamTaken(exception))
            {
                await DropConnection();
                trustBegun = false;
            }
            catch (Exception exception) when (IsUnavailable(exception) || DatabaseErrors.IsNumberTaken(exception))
            {
                await DropConnection();
                // Counted from the first failure: the batches that queued up meanwhile don't each wait as long again.
                _awaySince ??= Stopwatch.GetTimestamp();
                if (Stopwatch.GetElapsedTime(_awaySince.Value) > _options.AppendRetryWindow)
                {
                    LogUnavailable(exception, batch.Requests.Count);
                    batch.Requests.ForEach(request => request.Fail(new EventStoreUnavailableException(
                        "The event store can't be reached.", outcomeUnknown: request.Attempt is not null, exception)));
                    return;
                }

                await Task.Delay(pause);
                pause = TimeSpan.FromMilliseconds(Math.Min(500, pause.TotalMilliseconds * 2));
            }
            catch (Exception exception)
            {
                await DropConnection();
                if (batch.Requests.Count == 1)
                {
                    if (!DatabaseErrors.IsRefusedData(exception))
                    {
                        LogBug(exception);
                    }

                    batch.Requests[0].Fail(exception);
                    return;
                }

                var half = batch.Requests.Count / 2;
                await StoreUntilKnown(AppendBatch.Of(batch.Requests.Take(half)));
                await StoreUntilKnown(AppendBatch.Of(batch.Requests.Skip(half)));
                return;
            }
        }
    }

    private void Answer(AppendTransaction transaction, IReadOnlyList<(PendingAppend Request, AppendResult Result)> answers)
    {
        _clock.Observe(transaction.RecordedAt);
        foreach (var (request, result) in answers)
        {
            request.Complete(result);
        }

        if (transaction.StoredEvents == 0)
        {
            return;
        }

        Telemetry.AppendedEvents.Add(transaction.StoredEvents);
        Telemetry.AppendBatchSize.Record(transaction.StoredEvents);
        try
        {
            Committed?.Invoke(transaction.Head);
        }
        catch (Exception exception)
        {
            LogListener(exception); // what is stored is stored
        }
    }

    private async Task<NpgsqlConnection> Connect() => _connection ??= await _database.OpenConnectionAsync();

    /// <summary>Of a connection that Npgsql found to be lost between two batches it only says that it isn't open; nothing was sent on it.</summary>
    private bool IsUnavailable(Exception exception) =>
        DatabaseErrors.IsUnavailable(exception) || (exception is InvalidOperationException && _connection is { State: not ConnectionState.Open });

    /// <summary>
    /// Gives the connection up for good, and the pool's idle ones, which a restart of the server would have broken too. An open
    /// one is not used again either: after an error in a batch, Npgsql may not know what it has prepared on it.
    /// </summary>
    private async Task DropConnection()
    {
        if (_connection is { } connection)
        {
            _connection = null;
            try
            {
                _database.Clear();
                await connection.DisposeAsync();
            }
            catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
            {
                // It was broken already.
            }
        }
    }

    [LoggerMessage(LogLevel.Error, "A request could not be stored")]
    private partial void LogBug(Exception exception);

    [LoggerMessage(LogLevel.Error, "A listener to commits failed")]
    private partial void LogListener(Exception exception);

    [LoggerMessage(LogLevel.Warning, "The database is away: {Requests} requests are refused")]
    private partial void LogUnavailable(Exception exception, int requests);
}
