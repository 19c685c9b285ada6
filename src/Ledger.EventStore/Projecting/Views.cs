using System.Diagnostics;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// What any node knows and may ask of the views: how far they are, waiting for a position, pausing, resuming, rebuilding.
/// Requests are rows and notifications; the node that runs the daemon acts on them.
/// </summary>
public sealed class Views
{
    /// <summary>How often a node that does not keep the views looks how far they are while somebody waits: at first, and after a while.</summary>
    private static readonly TimeSpan s_minPause = TimeSpan.FromMilliseconds(5), s_maxPause = TimeSpan.FromMilliseconds(100);

    private readonly NpgsqlDataSource _database;
    private readonly NpgsqlDataSource _steering;
    private readonly LedgerClock _clock;
    private readonly Lock _lock = new();
    private readonly Dictionary<string, long> _positions;
    private readonly List<Waiter> _waiters = [];
    private TaskCompletionSource? _someoneWaits;
    private TimeSpan _pause;
    private bool _isLooking;
    private bool _areKeptHere;
    private volatile IReadOnlyList<ViewStatus> _latest = [];

    /// <summary>The views of the program's projections.</summary>
    public Views(NpgsqlDataSource database, AllTenantsDatabase steering, IReadOnlyList<IProjection> projections, LedgerClock clock)
    {
        _database = database;
        _steering = steering.Source;
        _clock = clock;
        Names = [.. projections.Select(p => p.Name)];
        _positions = Names.ToDictionary(n => n, _ => 0L);
    }

    /// <summary>All views.</summary>
    public IReadOnlyList<string> Names { get; }

    /// <summary>What this node heard last; at most a heartbeat old.</summary>
    public IReadOnlyList<ViewStatus> Latest => _latest;

    /// <summary>Whether this node keeps the views, and so hears of each of their commits at once; another one looks.</summary>
    internal void Kept(bool here)
    {
        lock (_lock)
        {
            _areKeptHere = here;
            LookWhileSomeoneWaits();
        }
    }

    /// <summary>Returns when somebody waits for a view, or after <paramref name="atMost"/>.</summary>
    internal async Task AnyWaiter(TimeSpan atMost, CancellationToken cancellation)
    {
        TaskCompletionSource someone;
        lock (_lock)
        {
            if (_waiters.Count > 0)
            {
                return;
            }

            _someoneWaits = someone = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        await someone.Task.WaitAsync(atMost, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <summary>True once every view named has folded the event at <paramref name="position"/>; false when <paramref name="wait"/> is over.</summary>
    public async ValueTask<bool> WaitFor(IReadOnlyCollection<string> views, long position, TimeSpan wait, CancellationToken cancellation = default)
    {
        Waiter waiter;
        bool here;
        lock (_lock)
        {
            if (Reached(views, position))
            {
                return true;
            }

            here = _areKeptHere;
            waiter = new Waiter(views, position, new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously));
            _waiters.Add(waiter);
            _someoneWaits?.TrySetResult();
            LookWhileSomeoneWaits();
        }

        var began = Stopwatch.GetTimestamp();
        try
        {
            if (!here)
            {
                await Refresh(cancellation); // what another node projected meanwhile
            }

            if (await waiter.Done.Task.WaitAsync(wait, cancellation))
            {
                return true;
            }
        }
        catch (TimeoutException)
        {
            return false;
        }
        finally
        {
            lock (_lock)
            {
                _waiters.Remove(waiter);
            }
        }

        await Refresh(cancellation); // says so when the database is away
        var left = wait - Stopwatch.GetElapsedTime(began);
        return await WaitFor(views, position, left > TimeSpan.Zero ? left : TimeSpan.Zero, cancellation);
    }

    /// <summary>How far every view is, and what is wrong with it; one primary-key look-up a view.</summary>
    public Task<IReadOnlyList<ViewStatus>> Refresh(CancellationToken cancellation = default) => Refresh(_database, cancellation);

    /// <summary>The same over other connections.</summary>
    internal async Task<IReadOnlyList<ViewStatus>> Refresh(NpgsqlDataSource database, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(StatusSql);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var statuses = new List<ViewStatus>();
        while (await reader.ReadAsync(cancellation))
        {
            statuses.Add(ReadStatus(reader, 0));
        }

        Learn(statuses);
        return statuses;
    }

    /// <summary>Whether some node holds the daemon's lease.</summary>
    public async Task<bool> IsKept(CancellationToken cancellation = default)
    {
        await using var command = _database.CreateCommand("select exists (select from daemon_lease where name = 'daemon' and expires_at > clock_timestamp())");
        return (bool)(await command.ExecuteScalarAsync(cancellation))!;
    }

    /// <summary>Stops a view at its position until <see cref="Resume"/>. False: there is no such view.</summary>
    public Task<bool> Pause(string view, CancellationToken cancellation = default) =>
        Ask(view, "state = 'paused'", cancellation);

    /// <summary>Lets a paused or failed view go on; a failed one tries the event it stopped at again.</summary>
    public Task<bool> Resume(string view, CancellationToken cancellation = default) =>
        Ask(view, "state = 'running', failed_position = null, error = null", cancellation);

    /// <summary>
    /// Asks for a rebuild: the view is folded anew from the first event into tables beside the live ones, which serve on, and
    /// takes their place when it has caught up.
    /// </summary>
    public Task<bool> Rebuild(string view, CancellationToken cancellation = default) =>
        Ask(view, "rebuild = 'requested', rebuild_position = 0, rebuild_error = null", cancellation);

    /// <summary>Makes sure that every view has its rows; a new view starts at 0 and catches up on its own.</summary>
    public async Task Register(CancellationToken cancellation = default)
    {
        await using var command = _steering.CreateCommand(
            """
            with names as (
                   select name from unnest($1::varchar[]) n (name)
                   where not exists (select from projections p join mt_event_progression g on g.name = p.name || ':All' where p.name = n.name)
                 ),
                 progress as (insert into mt_event_progression (name, last_seq_id) select name || ':All', 0 from names on conflict do nothing)
            insert into projections (name) select name from names on conflict do nothing
            """); // rows that are there are not touched: even "do nothing" would wait for the batch that moves them
        command.Parameters.Add(new NpgsqlParameter<string[]> { TypedValue = [.. Names] });
        await command.ExecuteNonQueryAsync(cancellation);
    }

    internal const string StatusColumns =
        """
        p.name, g.last_seq_id, greatest(h.head - g.last_seq_id, 0), p.state,
        case when h.head > g.last_seq_id then extract(epoch from clock_timestamp() - log_recorded_at(g.last_seq_id + 1))::float8 end,
        p.recorded_at, p.failed_position, p.error, p.rebuild, p.rebuild_position, p.rebuild_error, p.rebuilt_at
        """;

    internal const string StatusFrom =
        """
        projections p join mt_event_progression g on g.name = p.name || ':All'
        cross join (select log_head() as head offset 0) h
        """;

    private const string StatusSql = $"select {StatusColumns} from {StatusFrom} order by p.name";

    internal static ViewStatus ReadStatus(NpgsqlDataReader reader, int first) => new()
    {
        Name = reader.GetString(first),
        Position = reader.GetInt64(first + 1),
        LagEvents = reader.GetInt64(first + 2),
        State = reader.GetString(first + 3),
        LagSeconds = reader.IsDBNull(first + 4) ? 0 : Math.Max(0, reader.GetDouble(first + 4)),
        RecordedAt = reader.IsDBNull(first + 5) ? null : reader.GetFieldValue<DateTimeOffset>(first + 5),
        FailedPosition = reader.IsDBNull(first + 6) ? null : reader.GetInt64(first + 6),
        Error = reader.IsDBNull(first + 7) ? null : reader.GetString(first + 7),
        Rebuild = reader.IsDBNull(first + 8) ? null : reader.GetString(first + 8),
        RebuildPosition = reader.IsDBNull(first + 9) ? null : reader.GetInt64(first + 9),
        RebuildError = reader.IsDBNull(first + 10) ? null : reader.GetString(first + 10),
        RebuiltAt = reader.IsDBNull(first + 11) ? null : reader.GetFieldValue<DateTimeOffset>(first + 11),
    };

    internal void Learn(IReadOnlyList<ViewStatus> statuses)
    {
        _latest = statuses;
        foreach (var status in statuses)
        {
            if (status.RecordedAt is { } recordedAt)
            {
                _clock.Observe(recordedAt);
            }
        }

        Moved(statuses.Select(s => (s.Name, s.Position)));
    }

    /// <summary>
    /// Takes nothing for granted any more. The views' commits do not wait for the disk, so after a crash of PostgreSQL they may
    /// stand before where they were seen, until they have caught up again. Whoever waits looks for itself.
    /// </summary>
    internal void Forget()
    {
        Waiter[] waiters;
        lock (_lock)
        {
            foreach (var name in Names)
            {
                _positions[name] = 0;
            }

            waiters = [.. _waiters];
        }

        foreach (var waiter in waiters)
        {
            waiter.Done.TrySetResult(false);
        }
    }

    internal void Moved(IEnumerable<(string Name, long Position)> views)
    {
        List<Waiter>? done = null;
        lock (_lock)
        {
            foreach (var (name, position) in views)
            {
                if (_positions.TryGetValue(name, out var known) && position > known)
                {
                    _positions[name] = position;
                }
            }

            for (var i = _waiters.Count - 1; i >= 0; i--)
            {
                if (Reached(_waiters[i].Views, _waiters[i].Position))
                {
                    (done ??= []).Add(_waiters[i]);
                    _waiters.RemoveAt(i);
                }
            }
        }

        done?.ForEach(w => w.Done.TrySetResult(true));
    }

    /// <summary>Under the lock. A look serves all who wait, and the longer nobody new has come the later the next one follows.</summary>
    private void LookWhileSomeoneWaits()
    {
        _pause = s_minPause;
        if (!_areKeptHere && !_isLooking && _waiters.Count > 0)
        {
            _isLooking = true;
            _ = Task.Run(Look);
        }
    }

    private async Task Look()
    {
        while (true)
        {
            TimeSpan pause;
            lock (_lock)
            {
                if (_areKeptHere || _waiters.Count == 0)
                {
                    _isLooking = false;
                    return;
                }

                pause = _pause;
                _pause = pause * 2 < s_maxPause ? pause * 2 : s_maxPause;
            }

            await Task.Delay(pause);
            try
            {
                await Refresh();
            }
            catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
            {
                Forget(); // who waits finds out for itself
            }
        }
    }

    private bool Reached(IReadOnlyCollection<string> views, long position)
    {
        foreach (var view in views)
        {
            if (_positions[view] < position)
            {
                return false;
            }
        }

        return true;
    }

    private async Task<bool> Ask(string view, string change, CancellationToken cancellation)
    {
        await using var command = _steering.CreateCommand(
            $"with changed as (update projections set {change} where name = $1 returning 1) select count(*), pg_notify('{Channels.ViewsAsked}', '') from changed");
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = view });
        return (long)(await command.ExecuteScalarAsync(cancellation))! > 0;
    }

    private sealed record Waiter(IReadOnlyCollection<string> Views, long Position, TaskCompletionSource<bool> Done);
}
