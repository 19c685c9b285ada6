using System.Runtime.CompilerServices;
using System.Text.Json;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.EventStore;

/// <summary>A stream of a tenant.</summary>
public readonly record struct StreamKey(string TenantId, string StreamId);

/// <summary>Reads streams and the log. Everything up to the highest position one sees is final: there are no gaps to wait for.</summary>
public sealed class EventReader(NpgsqlDataSource database, EventTypes types)
{
    /// <summary>Events fetched in one round trip when the log is read in pages.</summary>
    public const int PageSize = 1_000;

    /// <summary>
    /// Bytes of a page of the log, unless its first event alone has more. Some 5 000 events of calls or memberships have half of
    /// it; decoded and on their way into rows they take several times as much, and while one page is folded the next is read.
    /// </summary>
    public const int MaxPageBytes = 8 * 1024 * 1024;

    internal const string Columns =
        "e.seq_id, e.id, e.tenant_id, e.stream_id, e.version, e.type, e.timestamp, e.data, e.user_name, e.correlation_id, e.causation_id, e.headers ->> 'traceparent'";

    /// <summary>A request, by its first event e. What a Marten program appended has no such headers; each of its events is its own request.</summary>
    internal const string RequestColumns =
        """
        e.id, e.seq_id, coalesce((e.headers ->> 'events')::int, 1), e.stream_id, e.version, e.timestamp, e.headers ->> 'fingerprint',
        (select max(l.version) from mt_events l
         where l.seq_id between e.seq_id and e.seq_id + coalesce((e.headers ->> 'events')::int, 1) - 1
           and l.tenant_id = e.tenant_id and l.stream_id = e.stream_id)
        """;

    /// <summary>
    /// The events of a stream in order of version, from <paramref name="fromVersion"/> up to and including
    /// <paramref name="toVersion"/>, streamed. Costs what it returns: one range of the index on (tenant, stream, version).
    /// </summary>
    public async IAsyncEnumerable<RecordedEvent> ReadStream(
        StreamKey stream, long fromVersion = 1, long toVersion = long.MaxValue, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        await using var batch = TenantScope.Batch(database, stream.TenantId, new NpgsqlBatchCommand(
            $"select {Columns} from mt_events e where e.tenant_id = $1 and e.stream_id = $2 and e.version between $3 and $4 order by e.version")
        {
            Parameters =
            {
                new NpgsqlParameter<string> { TypedValue = stream.TenantId },
                new NpgsqlParameter<string> { TypedValue = stream.StreamId },
                new NpgsqlParameter<long> { TypedValue = fromVersion },
                new NpgsqlParameter<long> { TypedValue = toVersion },
            },
        });
        await using var reader = await batch.Read(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            yield return Read(reader, types);
        }
    }

    /// <summary>All events of several short streams of one tenant, stream by stream as they are named, each in order of version.</summary>
    public IAsyncEnumerable<RecordedEvent> ReadStreams(string tenantId, string[] streamIds, CancellationToken cancellation = default) =>
        ReadStreams(tenantId, streamIds, new long[streamIds.Length], cancellation);

    /// <summary>The events of several streams of one tenant after a version of each, stream by stream as they are named, each in order of version.</summary>
    public async IAsyncEnumerable<RecordedEvent> ReadStreams(
        string tenantId, string[] streamIds, long[] afterVersions, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        await using var batch = TenantScope.Batch(database, tenantId, new NpgsqlBatchCommand(
            $"""
             select {Columns}
             from unnest($2, $3) with ordinality k (stream_id, after_version, ordinal)
             cross join lateral (
               select * from mt_events n where n.tenant_id = $1 and n.stream_id = k.stream_id and n.version > k.after_version offset 0) e
             order by k.ordinal, e.version
             """)
        {
            Parameters =
            {
                new NpgsqlParameter<string> { TypedValue = tenantId },
                new NpgsqlParameter<string[]> { TypedValue = streamIds, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
                new NpgsqlParameter<long[]> { TypedValue = afterVersions },
            },
        });
        await using var reader = await batch.Read(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            yield return Read(reader, types);
        }
    }

    /// <summary>
    /// The log after a position, up to and including <paramref name="toPosition"/> or what is the end when it gets there, in
    /// pages of <see cref="PageSize"/> and <see cref="MaxPageBytes"/>, so that no connection or snapshot is held while the caller
    /// works on a page.
    /// </summary>
    public async IAsyncEnumerable<RecordedEvent> ReadLog(
        long afterPosition = 0, long toPosition = long.MaxValue, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var length = new PageLength(PageSize);
        while (true)
        {
            EventPage page;
            await using (var connection = await database.OpenConnectionAsync(cancellation))
            {
                page = await ReadPage(connection, afterPosition, toPosition, length.Positions, cancellation);
            }

            foreach (var recorded in page.Events)
            {
                yield return recorded;
            }

            if (!length.IsMore(page))
            {
                yield break;
            }

            length.Learn(page, afterPosition);
            afterPosition = page.Events[^1].Position;
        }
    }

    /// <summary>The event at a position, or null when that is none of the tenant's.</summary>
    public async Task<RecordedEvent?> ReadAt(string tenantId, long position, CancellationToken cancellation = default) =>
        (await ReadAt(tenantId, [position], cancellation)).SingleOrDefault();

    /// <summary>The position of the newest event of whatever tenant; 0 when there is none. One look at the right edge of the primary key.</summary>
    public async Task<long> ReadHead(CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand("select log_head()");
        return (long)(await command.ExecuteScalarAsync(cancellation))!;
    }

    /// <summary>Whether a tenant has a stream whose id lies between two, the first of them included. One look at the primary key.</summary>
    public async Task<bool> HasStreamBetween(string tenantId, string fromId, string belowId, CancellationToken cancellation = default)
    {
        await using var batch = TenantScope.Batch(
            database, tenantId, new NpgsqlBatchCommand("select exists (select from mt_streams s where s.tenant_id = $1 and s.id >= $2 and s.id < $3)")
            {
                Parameters =
                {
                    new NpgsqlParameter<string> { TypedValue = tenantId }, new NpgsqlParameter<string> { TypedValue = fromId },
                    new NpgsqlParameter<string> { TypedValue = belowId },
                },
            });
        await using var reader = await batch.Read(cancellation);
        return await reader.ReadAsync(cancellation) && reader.GetBoolean(0);
    }

    /// <summary>When the event at a position was recorded, or null when the log does not reach that far.</summary>
    public async Task<DateTimeOffset?> RecordedAt(long position, CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand("select log_recorded_at($1)");
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = position });
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation) && !reader.IsDBNull(0) ? reader.GetFieldValue<DateTimeOffset>(0) : null;
    }

    /// <summary>
    /// The position of the last event recorded at an instant or before, 0 when there is none. Times never go back from one event to
    /// the next, so it is found by halving: a look into the primary key for each bit of the position.
    /// </summary>
    public async Task<long> PositionAt(DateTimeOffset instant, CancellationToken cancellation = default)
    {
        var (before, after) = (0L, await ReadHead(cancellation) + 1);
        while (after - before > 1)
        {
            var middle = before + ((after - before) / 2);
            if (await RecordedAt(middle, cancellation) <= instant)
            {
                before = middle;
            }
            else
            {
                after = middle;
            }
        }

        return before;
    }

    /// <summary>Folds a stream from its start. For streams that stay short; a long one is better loaded from its view and its tail.</summary>
    public async Task<(TState State, long Version)> Fold<TState>(
        StreamKey stream, TState initial, Func<TState, RecordedEvent, TState> evolve, CancellationToken cancellation = default)
    {
        var version = 0L;
        await foreach (var recorded in ReadStream(stream, cancellation: cancellation))
        {
            initial = evolve(initial, recorded);
            version = recorded.Version;
        }

        return (initial, version);
    }

    /// <summary>The events at positions; those that are none of the tenant's are left out.</summary>
    public Task<IReadOnlyList<RecordedEvent>> ReadAt(string tenantId, long[] positions, CancellationToken cancellation = default) =>
        ReadKeys(tenantId, "seq_id", new NpgsqlParameter<long[]> { TypedValue = positions }, cancellation);

    /// <summary>The events with ids; those that are none of the tenant's are left out.</summary>
    public Task<IReadOnlyList<RecordedEvent>> ReadIds(string tenantId, Guid[] ids, CancellationToken cancellation = default) =>
        ReadKeys(tenantId, "id", new NpgsqlParameter<Guid[]> { TypedValue = ids }, cancellation);

    /// <summary>What was stored for a tenant under an id derived from an idempotency key: the first event of that request, or null.</summary>
    public async Task<StoredRequest?> FindRequest(string tenantId, Guid id, CancellationToken cancellation = default)
    {
        await using var batch = TenantScope.Batch(database, tenantId, new NpgsqlBatchCommand($"select {RequestColumns} from mt_events e where e.id = $1")
        {
            Parameters = { new NpgsqlParameter<Guid> { TypedValue = id } },
        });
        await using var reader = await batch.Read(cancellation);
        return await reader.ReadAsync(cancellation) ? ReadRequest(reader) : null;
    }

    /// <summary>
    /// For each stream (repeats are not allowed) the events after <paramref name="view"/>'s position, oldest first, and the
    /// stream's version. Walks each stream from its newest event backwards, so it costs what it returns plus one event a
    /// stream, however long the streams are. Adds one command to <paramref name="batch"/>, which reads the view too, between
    /// <see cref="BeginSnapshot"/> and <see cref="EndSnapshot"/>: view and tail then fit together without gap or overlap.
    /// </summary>
    public static void AddTails(NpgsqlBatch batch, string view, string[] tenantIds, string[] streamIds)
    {
        batch.BatchCommands.Add(new NpgsqlBatchCommand(
            $"""
             with recursive reached as materialized (
               select coalesce((select last_seq_id from mt_event_progression where name = $1), 0) as position
             )
             select k.ordinal, (select position from reached), {Columns}
             from unnest($2, $3) with ordinality k (tenant_id, stream_id, ordinal)
             cross join lateral (
               select * from mt_events n
               where n.tenant_id = k.tenant_id and n.stream_id = k.stream_id order by n.version desc limit 1) newest
             cross join lateral (
               with recursive tail as (
                 select newest.* -- of a stream that does not exist there is nothing to begin with
                 union all
                 select p.* from tail t cross join lateral (
                   -- the limit makes it one look into the index a step, where a join might read the whole stream
                   select * from mt_events p
                   where p.tenant_id = k.tenant_id and p.stream_id = k.stream_id and p.version = t.version - 1 limit 1) p
                 where t.seq_id > (select position from reached)
               )
               select * from tail
             ) e
             order by k.ordinal, e.version
             """)
        {
            Parameters =
            {
                new NpgsqlParameter<string> { TypedValue = ProgressionName(view) },
                new NpgsqlParameter<string[]> { TypedValue = tenantIds, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
                new NpgsqlParameter<string[]> { TypedValue = streamIds, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text },
            },
        });
    }

    /// <summary>
    /// Lets everything up to <see cref="EndSnapshot"/> see one state of the database and the rows of one tenant, without a round trip
    /// of its own. The lock comes before the snapshot (a lock statement takes none): a rebuilt view's tables are swapped in either
    /// before the snapshot or after its end. It keeps nobody else from reading or writing. The batch's first result is that of
    /// <see cref="TenantScope.Of"/>; <see cref="TenantScope.Read"/> reads past it.
    /// </summary>
    public static void BeginSnapshot(NpgsqlBatch batch, string tenantId)
    {
        BeginSnapshotOfAny(batch);
        batch.BatchCommands.Add(TenantScope.Of(tenantId));
    }

    /// <summary>The same with no tenant named yet.</summary>
    public static void BeginSnapshotOfAny(NpgsqlBatch batch)
    {
        batch.BatchCommands.Add(new NpgsqlBatchCommand("begin isolation level repeatable read, read only"));
        batch.BatchCommands.Add(new NpgsqlBatchCommand("lock table mt_event_progression in access share mode"));
    }

    /// <summary>Ends what <see cref="BeginSnapshot"/> began.</summary>
    public static void EndSnapshot(NpgsqlBatch batch) => batch.BatchCommands.Add(new NpgsqlBatchCommand("commit"));

    /// <summary>Reads the result of <see cref="AddTails"/>: for each stream its version and the events the view does not know yet.</summary>
    public async Task<StreamTail[]> ReadTails(NpgsqlDataReader reader, int streams, CancellationToken cancellation)
    {
        var versions = new long[streams];
        var events = new List<RecordedEvent>?[streams];
        while (await reader.ReadAsync(cancellation))
        {
            var index = (int)reader.GetInt64(0) - 1;
            var recorded = Read(reader, types, firstColumn: 2);
            versions[index] = recorded.Version;
            if (recorded.Position > reader.GetInt64(1))
            {
                (events[index] ??= []).Add(recorded);
            }
        }

        return [.. versions.Zip(events, (version, tail) => version == 0 ? StreamTail.Empty : new StreamTail(version, tail ?? []))];
    }

    private async Task<IReadOnlyList<RecordedEvent>> ReadKeys(string tenantId, string column, NpgsqlParameter keys, CancellationToken cancellation)
    {
        if (((Array)keys.Value!).Length == 0)
        {
            return [];
        }

        await using var batch = TenantScope.Batch(database, tenantId, new NpgsqlBatchCommand($"select {Columns} from mt_events e where e.{column} = any($1)")
        {
            Parameters = { keys },
        });
        await using var reader = await batch.Read(cancellation);
        // Asked for here and not in the statement, where the tenant would lead to another index.
        return [.. (await ReadAll(reader, cancellation)).Where(e => e.TenantId == tenantId)];
    }

    /// <summary>The events after a position, up to another, at most so many and <see cref="MaxPageBytes"/> of data.</summary>
    internal async Task<EventPage> ReadPage(
        NpgsqlConnection connection, long after, long to, int limit, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            $"select {Columns} from mt_events e where e.seq_id > $1 and e.seq_id <= $2 order by e.seq_id limit $3", connection);
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = after });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = to });
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = limit });
        await using var reader = await command.ExecuteReaderAsync(cancellation); // it reads past what is too much
        var (events, bytes) = (new List<RecordedEvent>(), 0L);
        while (await reader.ReadAsync(cancellation))
        {
            var recorded = Read(reader, types);
            bytes += recorded.Json.Length;
            if (bytes > MaxPageBytes && events.Count > 0)
            {
                return new EventPage(events, isCut: true);
            }

            events.Add(recorded);
        }

        return new EventPage(events, isCut: false);
    }

    /// <summary>Events from which on <see cref="CopyPage"/> takes less than <see cref="ReadPage"/>.</summary>
    internal const int MinCopiedEvents = 500;

    /// <summary>
    /// A page as <see cref="ReadPage"/> reads it, by a COPY whose rows stay in memory: where many events lie ahead it takes less of
    /// both sides. For a few, planning it takes longer than running it.
    /// </summary>
    internal async Task<EventPage> CopyPage(NpgsqlConnection connection, long after, long to, int limit, CancellationToken cancellation)
    {
        limit = (int)Math.Clamp(to - after, 0, limit);
        await using var copy = await StoredRow.Open(connection, after, limit, cancellation);
        return await EventPage.Read(copy, limit, MaxPageBytes, types, cancellation);
    }

    /// <summary>
    /// Those events after a position, up to another, that are of some kinds, in pages of at most so many positions and
    /// <see cref="MaxPageBytes"/>, each with the position up to which it holds them all, by COPYs whose rows stay in memory. What a
    /// view does not fold is neither sent nor decoded: a view of memberships goes through a log of calls as fast as PostgreSQL
    /// reads it. The next page is read while the caller works on one.
    /// </summary>
    internal async IAsyncEnumerable<(long To, IReadOnlyList<RecordedEvent> Events)> ReadKinds(
        NpgsqlConnection connection, long after, long to, int positions, IEnumerable<Type> kinds, [EnumeratorCancellation] CancellationToken cancellation)
    {
        string[] names = [.. kinds.Select(k => types.Of(k).Name)];
        var length = new PageLength(positions);
        var next = Read(after);
        while (after < to)
        {
            var page = await next;
            after = page.To;
            next = Read(after);
            try
            {
                yield return page;
            }
            finally
            {
                await ((Task)next).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing); // the connection is the caller's again
            }
        }

        async Task<(long To, IReadOnlyList<RecordedEvent> Events)> Read(long from)
        {
            var end = Math.Min(from + length.Positions, to);
            if (end <= from)
            {
                return (end, []);
            }

            await using var copy = await StoredRow.Open(connection, from, end, names, cancellation);
            var page = await EventPage.Read(copy, (int)(end - from), MaxPageBytes, types, cancellation);
            length.Learn(page, from);
            return (page.IsCut ? page.Events[^1].Position : end, page.Events);
        }
    }

    private async Task<IReadOnlyList<RecordedEvent>> ReadAll(NpgsqlDataReader reader, CancellationToken cancellation)
    {
        var events = new List<RecordedEvent>();
        while (await reader.ReadAsync(cancellation))
        {
            events.Add(Read(reader, types));
        }

        return events;
    }

    internal static StoredRequest ReadRequest(NpgsqlDataReader reader) => new(
        reader.GetInt64(1), reader.GetInt32(2), reader.GetString(3), reader.GetInt64(4),
        reader.GetFieldValue<DateTimeOffset>(5), reader.IsDBNull(6) ? null : reader.GetString(6))
    {
        LastVersion = reader.GetInt64(7),
    };

    internal static string ProgressionName(string view) => $"{view}:All";

    internal static RecordedEvent Read(NpgsqlDataReader reader, EventTypes types, int firstColumn = 0)
    {
        var name = reader.GetString(firstColumn + 5);
        var json = reader.GetFieldValue<byte[]>(firstColumn + 7);
        var (data, unreadable) = types.Read(name, json, reader.GetInt64(firstColumn));
        return new RecordedEvent
        {
            Position = reader.GetInt64(firstColumn),
            Id = reader.GetGuid(firstColumn + 1),
            TenantId = reader.GetString(firstColumn + 2),
            StreamId = reader.GetString(firstColumn + 3),
            Version = reader.GetInt64(firstColumn + 4),
            Type = name,
            RecordedAt = reader.GetFieldValue<DateTimeOffset>(firstColumn + 6),
            Json = json,
            Actor = Text(firstColumn + 8),
            CorrelationId = Text(firstColumn + 9),
            CausationId = Text(firstColumn + 10),
            TraceParent = Text(firstColumn + 11),
            Data = data,
            Unreadable = unreadable,
        };

        string? Text(int column) => reader.IsDBNull(column) ? null : reader.GetString(column);
    }
}

/// <summary>What a stream holds beyond a view, oldest first, and the stream's version (0: there is no such stream).</summary>
public sealed record StreamTail(long Version, IReadOnlyList<RecordedEvent> Events)
{
    /// <summary>A stream that does not exist.</summary>
    public static readonly StreamTail Empty = new(0, []);
}

/// <summary>A request found under its idempotency key: where its events lie and what it asked for.</summary>
public sealed record StoredRequest(
    long FirstPosition, int Events, string StreamId, long Version, DateTimeOffset RecordedAt, string? Fingerprint)
{
    /// <summary>The version of its first event's stream after it.</summary>
    public required long LastVersion { get; init; }

    /// <summary>The position of its last event; a request's events lie side by side.</summary>
    public long LastPosition => FirstPosition + Events - 1;
}
