using System.Diagnostics;
using System.Diagnostics.Metrics;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Every node starts one; the one that holds the lease keeps all views. It reads each batch once for all views that stand at
/// the same position and commits their rows and their progress together, so each view is exactly-once and all agree.
/// </summary>
public sealed partial class Daemon : IAsyncDisposable
{
    private readonly NpgsqlDataSource _background;
    private readonly EventReader _reader;
    private readonly IReadOnlyList<IProjection> _projections;
    private readonly Views _views;
    private readonly LedgerClock _clock;
    private readonly EventStoreOptions _options;
    private readonly ILogger<Daemon> _logger;
    private readonly RebuildRunner _rebuild;
    private readonly Meter _meter = new(Telemetry.Name);
    private readonly CancellationTokenSource _stopping = new();
    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly SemaphoreSlim _beat = new(0, 1);
    private readonly string _holder = $"{Environment.MachineName}/{Environment.ProcessId}/{Guid.NewGuid():N}";
    private readonly HashSet<string> _strangers = [];
    private readonly int[] _migrations;
    private readonly PageLength _length;
    private readonly Pace _pace;
    private IReadOnlyList<ViewStatus> _statuses = [];
    private (IReadOnlyList<ViewStatus> As, IProjection[] Members, long Position, bool AreMany)? _together; // all that run, until something else is heard of them
    private bool _isOutdated;
    private volatile bool _isRebuildWaiting;
    private Task[] _loops = [];
    private long _epoch;

    /// <summary>A daemon that does nothing until <see cref="Start"/>.</summary>
    public Daemon(
        OwnerDatabase owner, AllTenantsDatabase rebuilding, BackgroundDatabase background, EventReader reader, IReadOnlyList<IProjection> projections, Migrations migrations,
        Views views, LedgerClock clock, EventStoreOptions options, ILogger<Daemon> logger)
    {
        _background = background.Source;
        _reader = reader;
        _projections = projections;
        _migrations = [.. migrations.All.Select(m => m.Number)];
        _views = views;
        _clock = clock;
        _options = options;
        _length = new PageLength(options.MaxProjectionBatch);
        _pace = new Pace(views, Pace.Interval);
        _logger = logger;
        _rebuild = new RebuildRunner(owner.Source, rebuilding.Source, reader, projections, migrations, options, logger, () => Epoch, WakeForRebuild);
        _meter.CreateObservableGauge(
            "ledger.projection.lag.events", () => Gauge(s => s.LagEvents), "{event}", "Events a view has yet to fold");
        _meter.CreateObservableGauge(
            "ledger.projection.lag", () => Gauge(s => s.LagSeconds), "s", "Age of the oldest event a view has yet to fold");
        _meter.CreateObservableGauge(
            "ledger.projection.position", () => Gauge(s => s.Position), "{event}", "The position of a view");
        _meter.CreateObservableGauge(
            "ledger.projection.rebuild.position", () => Gauge(s => s.RebuildPosition ?? 0), "{event}", "The position of a view's rebuild");
    }

    /// <summary>Whether this node keeps the views.</summary>
    public bool IsLeader => Epoch != 0;

    /// <summary>Raised after each commit of views, with the events folded; only on the node that keeps them.</summary>
    public event Action<long>? Projected;

    /// <summary>
    /// Raised when the log has grown, whichever node appended: after this node's commits, on the database's notifications and,
    /// for those that were lost, with the heartbeat. It is a hint to look and says nothing about how far. Handlers must not block.
    /// </summary>
    public event Action? Appended;

    /// <summary>
    /// Raised when the connection that listens is gone: others that wait in pools are likely gone as well, and would each fail
    /// whoever is given them next.
    /// </summary>
    public event Action? Disconnected;

    /// <summary>Raised by every heartbeat that reached the database.</summary>
    internal event Action<LogStatus>? LogSeen;

    /// <summary>The pages it has copied, for the sealer.</summary>
    internal PagesToSeal ToSeal { get; } = new();

    /// <summary>The epoch this node leads with; 0 when it does not.</summary>
    internal long Epoch => Volatile.Read(ref _epoch);

    /// <summary>Starts listening, asking for the lease, and, with it, projecting.</summary>
    public void Start()
    {
        foreach (var view in _views.Names)
        {
            Telemetry.ProjectionFailures.Add(0, new KeyValuePair<string, object?>("view", view)); // an alert sees the first failure as an increase
        }

        _loops = [Task.Run(Listen), Task.Run(Heartbeat), Task.Run(ProjectWhileLeading)];
    }

    /// <summary>Says that there are new events, without waiting for the notification to come back from the database.</summary>
    public void Wake()
    {
        Signal(_wake);
        Appended?.Invoke();
    }

    /// <summary>However fast the log grows, what has caught up is swapped in after the batch under way.</summary>
    private void WakeForRebuild()
    {
        _isRebuildWaiting = true;
        Wake();
    }

    /// <summary>Stops at the end of the batch under way and gives the lease back, so that another node takes over at once.</summary>
    public async ValueTask DisposeAsync()
    {
        _meter.Dispose();
        if (_loops.Length == 0)
        {
            return;
        }

        await _stopping.CancelAsync();
        await Task.WhenAll(_loops);
        await _rebuild.DisposeAsync();
        if (Epoch != 0)
        {
            try
            {
                await using var command = _background.CreateCommand(
                    "update daemon_lease set expires_at = '-infinity' where name = 'daemon' and epoch = $1");
                command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = Epoch });
                await command.ExecuteNonQueryAsync();
            }
            catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
            {
                LogAway(exception); // the lease runs out by itself
            }
        }

        _loops = [];
    }

    /// <summary>Hears of new events and of requests. What it misses the heartbeat finds.</summary>
    private async Task Listen()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                await using var connection = await _background.OpenConnectionAsync(_stopping.Token);
                connection.Notification += (_, notification) =>
                {
                    if (notification.Channel == Channels.EventsAppended)
                    {
                        Wake();
                    }
                    else
                    {
                        Signal(_beat);
                    }
                };
                await using (var command = new NpgsqlCommand(
                    $"listen {Channels.EventsAppended}; listen {Channels.ViewsAsked}", connection))
                {
                    await command.ExecuteNonQueryAsync(_stopping.Token);
                }

                while (true)
                {
                    await connection.WaitAsync(_stopping.Token);
                }
            }
            catch (Exception exception)
            {
                LogUnlessExpected(exception);
                _views.Forget();
                ToSeal.Clear();
                Disconnected?.Invoke();
                await Pause(_options.HeartbeatInterval);
            }
        }
    }

    /// <summary>
    /// One statement a beat, and no more when there is nothing to do: takes or renews the lease, on the database's clock, and
    /// reads every view's status. A program that does not know the schema, since a newer one has migrated it, does not get the lease,
    /// and none does while migrations run.
    /// </summary>
    private async Task Heartbeat()
    {
        var confirmed = Stopwatch.GetTimestamp();
        var head = 0L;
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                var asked = Stopwatch.GetTimestamp();
                var (epoch, statuses, log) = await Beat(_stopping.Token);
                confirmed = asked;
                Lead(epoch);
                _statuses = statuses;
                _views.Learn(statuses);
                if (statuses.Count > 0 && statuses.Max(s => s.Position + s.LagEvents) is var seen && seen > head)
                {
                    head = seen;
                    Appended?.Invoke();
                }

                if (statuses.Any(s => s.Rebuild is "requested" or "running" || (s.State == "running" && s.LagEvents > 0)))
                {
                    Signal(_wake);
                }

                LogSeen?.Invoke(log);
            }
            catch (Exception exception)
            {
                LogUnlessExpected(exception);
                if (Stopwatch.GetElapsedTime(confirmed) > _options.LeaseDuration)
                {
                    Lead(0);
                }
            }

            try
            {
                await _beat.WaitAsync(_options.HeartbeatInterval, _stopping.Token);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }

    private async Task<(long Epoch, IReadOnlyList<ViewStatus> Statuses, LogStatus Log)> Beat(CancellationToken cancellation)
    {
        await using var command = _background.CreateCommand(
            $"""
             with schema as materialized (select exists (select from schema_migrations where number <> all($3)) as is_newer),
             lease as (
               insert into daemon_lease (name, holder, epoch, expires_at)
               select 'daemon', $1, 1, clock_timestamp() + $2 where not (select is_newer from schema) and pg_try_advisory_xact_lock_shared($4)
               on conflict (name) do update set
                 holder = excluded.holder, expires_at = excluded.expires_at,
                 epoch = daemon_lease.epoch + case when daemon_lease.holder = excluded.holder then 0 else 1 end
               where daemon_lease.holder = excluded.holder or daemon_lease.expires_at < clock_timestamp()
               returning epoch
             )
             select coalesce((select epoch from lease), 0), h.head, coalesce(l.size, 0), coalesce(c.size, -1), l.refusal,
                    extract(epoch from clock_timestamp() - (select e.timestamp from mt_events e where e.seq_id = coalesce(c.size, 0) + 1))::float8,
                    (select is_newer from schema),
                    {Views.StatusColumns}
             from {Views.StatusFrom}
             left join log_state l on l.name = 'log' left join log_checkpoint c on c.name = 'log'
             order by p.name
             """);
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = _holder });
        command.Parameters.Add(new NpgsqlParameter<TimeSpan> { TypedValue = _options.LeaseDuration });
        command.Parameters.Add(new NpgsqlParameter<int[]> { TypedValue = _migrations });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = SchemaMigrator.ViewsLockKey(_options) });
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var epoch = 0L;
        var log = LogStatus.None;
        var statuses = new List<ViewStatus>();
        while (await reader.ReadAsync(cancellation))
        {
            epoch = reader.GetInt64(0);
            log = new LogStatus(
                reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3), reader.IsDBNull(5) ? 0 : Math.Max(0, reader.GetDouble(5)),
                reader.IsDBNull(4) ? null : reader.GetString(4));
            if (reader.GetBoolean(6) && !_isOutdated)
            {
                _isOutdated = true; // for good: no migration goes back
                LogOutdated(_options.Schema);
            }

            statuses.Add(Views.ReadStatus(reader, 7));
        }

        return (epoch, statuses, log);
    }

    /// <summary>Leads with an epoch, or no longer when it is 0; says so once, whoever sees it first.</summary>
    private void Lead(long epoch)
    {
        if (Interlocked.Exchange(ref _epoch, epoch) != epoch)
        {
            _views.Kept(IsLeader); // of two who change it at once, whoever comes last says what holds
            LogLeading(epoch != 0, epoch);
        }
    }

    private async Task ProjectWhileLeading()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                await _wake.WaitAsync(_stopping.Token);
                if (Epoch is not 0 and var epoch)
                {
                    await CatchUp(epoch);
                }
            }
            catch (OperationCanceledException) when (_stopping.IsCancellationRequested)
            {
                return;
            }
            catch (ProjectionFencedException)
            {
                Lead(0); // another node has taken over
            }
            catch (Exception exception) when (Expected(exception))
            {
                LogAway(exception);
                await Pause(TimeSpan.FromMilliseconds(200));
                Signal(_wake);
            }
            catch (Exception exception)
            {
                LogBug(exception);
                await Pause(_options.HeartbeatInterval);
                Signal(_wake);
            }
        }
    }

    /// <summary>Brings every running view to the head: those at one position together, the ones behind up to the next ones.</summary>
    private async Task CatchUp(long epoch)
    {
        try
        {
            do
            {
                await _pace.Wait(_stopping.Token);
            }
            while (!_stopping.IsCancellationRequested && Epoch == epoch && await ProjectGroups(epoch));
        }
        finally
        {
            ToSeal.Flow(false);
        }
    }

    /// <summary>
    /// Projects each group of views once; returns whether there may be more. While all stand together it is enough to look at their
    /// statuses with each heartbeat, which whoever asks for something brings about: no progress is made with a view that was stopped.
    /// How far they lag is then not known, but that many events came at a time is taken for a sign that many will.
    /// </summary>
    private async Task<bool> ProjectGroups(long epoch)
    {
        if (_together is { } known && ReferenceEquals(known.As, _statuses) && !_isRebuildWaiting)
        {
            _together = null;
            return await ProjectGroup(known.Members, known.Position, long.MaxValue, epoch, known.As, alone: true, lag: known.AreMany ? long.MaxValue : 0);
        }

        (_together, _isRebuildWaiting) = (null, false);
        var asked = _statuses;
        var statuses = await _views.Refresh(_background, _stopping.Token);
        if (await _rebuild.Attend(statuses, epoch, _stopping.Token))
        {
            statuses = await _views.Refresh(_background, _stopping.Token); // a view that was swapped in may stand elsewhere now
        }

        var groups = statuses
            .Where(s => s.State == "running").GroupBy(s => s.Position).OrderBy(g => g.Key)
            .Select(g => (Position: g.Key, g.First().LagEvents, Members: _projections.Where(p => g.Any(s => s.Name == p.Name)).ToArray()))
            .Where(g => g.Members.Length > 0).ToArray();
        var isMore = false;
        for (var i = 0; i < groups.Length; i++)
        {
            var upTo = i + 1 < groups.Length ? groups[i + 1].Position : long.MaxValue;
            isMore |= await ProjectGroup(groups[i].Members, groups[i].Position, upTo, epoch, asked, groups.Length == 1, groups[i].LagEvents);
        }

        return isMore;
    }

    /// <summary>
    /// Folds what lies after <paramref name="position"/> for one group of views; alone, it goes on until the head or until
    /// something was asked for. Returns whether there may be more: of what is appended after it has read, it is woken.
    /// </summary>
    private async Task<bool> ProjectGroup(IProjection[] members, long position, long upTo, long epoch, IReadOnlyList<ViewStatus> asked, bool alone, long lag)
    {
        var (mayBeMore, count) = (false, 0);
        await using var reading = await _background.OpenConnectionAsync(_stopping.Token);
        var page = alone && lag >= EventReader.MinCopiedEvents ? await CopyPage(position, lag)
            : await _reader.ReadPage(reading, position, upTo, _length.Positions, _stopping.Token);
        while (page.Events is { Count: > 0 } events)
        {
            count = events.Count;
            _pace.Begin(count);
            foreach (var stranger in events.Where(e => e.DataType is null && _strangers.Add(e.Type)))
            {
                LogUnknown(stranger.Type, stranger.Position);
            }

            // Where there is more, reading the next page and writing this one overlap.
            var isMore = alone && _length.IsMore(page);
            _length.Learn(page, position);
            var next = isMore ? CopyPage(events[^1].Position, long.MaxValue) : null;
            var whole = false;
            try
            {
                whole = await ProjectOrIsolate(members, events, position, epoch);
            }
            finally
            {
                await ((Task?)next ?? Task.CompletedTask).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }

            position = events[^1].Position;
            mayBeMore = !alone || next is not null || !whole;
            if (next is null || !whole || _stopping.IsCancellationRequested || Epoch != epoch || _isRebuildWaiting || !ReferenceEquals(asked, _statuses))
            {
                break;
            }

            page = await next;
        }

        if (alone && !mayBeMore)
        {
            _together = (asked, members, position, count >= EventReader.MinCopiedEvents);
        }

        return mayBeMore;

        async Task<EventPage> CopyPage(long after, long atLeast)
        {
            ToSeal.Flow(true);
            var copied = await _reader.CopyPage(reading, after, upTo, (int)Math.Min(atLeast, _length.Positions), _stopping.Token);
            if (copied.Rows is { } rows)
            {
                ToSeal.Offer(rows);
            }

            return copied;
        }
    }

    /// <summary>Projects a batch; when a view fails, the others go on and that one is brought to just before the event it can't fold.</summary>
    private async Task<bool> ProjectOrIsolate(IProjection[] members, IReadOnlyList<RecordedEvent> events, long from, long epoch)
    {
        try
        {
            if (!await ProjectionBatch.Run(_background, members, events, from, epoch, _options))
            {
                return false;
            }

            _clock.Observe(events[^1].RecordedAt);
            _views.Moved(members.Select(m => (m.Name, events[^1].Position)));
            Projected?.Invoke(events.Count);
            return true;
        }
        catch (ProjectionFailedException failure)
        {
            _background.Clear(); // after an error in a batch, Npgsql may not know what it has prepared on the connection
            if (events.Count == 1)
            {
                await ProjectionBatch.MarkFailed(_background, failure, events[0].Position, from, epoch);
                Telemetry.ProjectionFailures.Add(1, new KeyValuePair<string, object?>("view", failure.Projection.Name));
                LogFailed(failure.InnerException!, failure.Projection.Name, events[0].Position);
            }
            else
            {
                var half = events.Count / 2;
                var first = events.Take(half).ToArray();
                if (await ProjectOrIsolate([failure.Projection], first, from, epoch))
                {
                    await ProjectOrIsolate([failure.Projection], [.. events.Skip(half)], first[^1].Position, epoch);
                }
            }

            var others = members.Where(m => m != failure.Projection).ToArray();
            if (others.Length > 0)
            {
                await ProjectOrIsolate(others, events, from, epoch);
            }

            return false;
        }
    }

    private IEnumerable<Measurement<double>> Gauge(Func<ViewStatus, double> value) =>
        _views.Latest.Select(s => new Measurement<double>(value(s), new KeyValuePair<string, object?>("view", s.Name)));

    private void LogUnlessExpected(Exception exception)
    {
        if (!Expected(exception))
        {
            LogBug(exception);
        }
    }

    private bool Expected(Exception exception) =>
        (exception is OperationCanceledException && _stopping.IsCancellationRequested) || DatabaseErrors.IsUnavailable(exception);

    private Task Pause(TimeSpan time) =>
        Task.Delay(time, _stopping.Token).ContinueWith(_ => { }, CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);

    private static void Signal(SemaphoreSlim signal)
    {
        try
        {
            if (signal.CurrentCount == 0)
            {
                signal.Release();
            }
        }
        catch (SemaphoreFullException)
        {
            // Someone else has signalled just now.
        }
    }

    [LoggerMessage(LogLevel.Information, "This node keeps the views: {Leading} (epoch {Epoch})")]
    private partial void LogLeading(bool leading, long epoch);

    [LoggerMessage(LogLevel.Warning, "No view of this program folds events of the kind {Type}, first seen at position {Position}: if a newer one does, rebuild that view")]
    private partial void LogUnknown(string type, long position);

    [LoggerMessage(LogLevel.Warning, "The daemon waits for the database")]
    private partial void LogAway(Exception exception);

    [LoggerMessage(LogLevel.Warning, "A newer program has migrated the schema {Schema}: this node goes on serving, and the views are kept by nodes of that one")]
    private partial void LogOutdated(string schema);

    [LoggerMessage(LogLevel.Error, "The view {View} has stopped at position {Position}")]
    private partial void LogFailed(Exception exception, string view, long position);

    [LoggerMessage(LogLevel.Error, "The daemon failed and tries again")]
    private partial void LogBug(Exception exception);
}
