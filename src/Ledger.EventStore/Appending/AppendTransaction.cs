using System.Diagnostics;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.EventStore;

/// <summary>
/// One batch in the database, in two round trips: (1) begin, take the append lock, read the head, the versions and the known
/// ids; (2) write, commit. Where there are many rows, each table's go in a COPY of its own. The lock comes first and each statement of READ COMMITTED sees what was committed before it, so
/// what is read under the lock is the truth; positions are handed out under the lock, so position order is commit order.
/// With <paramref name="trustBegun"/>, streams that requests believe to begin are not looked up where they are many; that one is
/// there shows as <see cref="DatabaseErrors.IsStreamTaken"/>.
/// </summary>
internal sealed class AppendTransaction(NpgsqlConnection connection, AppendBatch batch, long lockKey, DateTimeOffset now, bool trustBegun)
{
    private readonly Dictionary<StreamKey, long> _versions = [];
    private readonly Dictionary<Guid, StoredRequest> _known = [];
    private readonly List<(PendingAppend Request, AppendResult Result)> _answers = [];
    private readonly Dictionary<StreamKey, (string Type, long Version)> _written = [];
    private readonly HashSet<StreamKey> _begun = [];
    private readonly List<NewEvent> _events = new(batch.Events);
    private long _head;
    private DateTimeOffset _recordedAt;

    public int StoredEvents => _events.Count;

    public long Head => _head;

    public DateTimeOffset RecordedAt => _recordedAt;

    /// <summary>Stores what can be stored and returns every request's answer. Throws when nothing is known to be stored.</summary>
    public async Task<IReadOnlyList<(PendingAppend Request, AppendResult Result)>> Run(CancellationToken cancellation)
    {
        var started = Stopwatch.GetTimestamp();
        await LockAndRead(cancellation);
        Telemetry.AppendLockWait.Record(Stopwatch.GetElapsedTime(started).TotalSeconds);
        foreach (var request in batch.Requests)
        {
            _answers.Add((request, Decide(request)));
        }

        started = Stopwatch.GetTimestamp();
        await WriteAndCommit(cancellation);
        Telemetry.AppendCommitTime.Record(Stopwatch.GetElapsedTime(started).TotalSeconds);
        return _answers;
    }

    private async Task LockAndRead(CancellationToken cancellation)
    {
        StreamKey[] lookedUp = trustBegun && batch.Begun.Count >= CopyRows.MinRows ? [.. batch.Streams] : [.. batch.Streams, .. batch.Begun];

        // A fresh id can be in the log only if an earlier attempt at this batch got through.
        var (ids, eventIds) = (new List<Guid>(), new List<Guid>());
        foreach (var request in batch.Requests)
        {
            if (request.Request.Identities is { } identities)
            {
                eventIds.EnsureCapacity(eventIds.Count + identities.Count);
                foreach (var identity in identities)
                {
                    eventIds.Add(identity.Id);
                }
            }
            else if (request.Attempt is not null || request.Request.IdempotencyId is not null)
            {
                ids.Add(request.Id);
            }

            eventIds.AddRange(request.Request.Absent);
        }

        await using var commands = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new NpgsqlBatchCommand("begin isolation level read committed"),
                new NpgsqlBatchCommand("select pg_advisory_xact_lock($1)") { Parameters = { Value(lockKey) } },
                new NpgsqlBatchCommand("select seq_id, timestamp from mt_events order by seq_id desc limit 1"),
                new NpgsqlBatchCommand(
                    """
                    select s.tenant_id, s.id, coalesce(s.version, 0)
                    from unnest($1, $2) k (tenant_id, id)
                    cross join lateral (select * from mt_streams s where s.tenant_id = k.tenant_id and s.id = k.id limit 1) s
                    """)
                {
                    Parameters = { Value(Array.ConvertAll(lookedUp, s => s.TenantId)), Value(Array.ConvertAll(lookedUp, s => s.StreamId)) },
                },
            },
        };
        if (ids.Count > 0)
        {
            commands.BatchCommands.Add(new NpgsqlBatchCommand($"select {EventReader.RequestColumns} from mt_events e where e.id = any($1)")
            {
                Parameters = { Value(ids) },
            });
        }

        if (eventIds.Count > 0)
        {
            commands.BatchCommands.Add(new NpgsqlBatchCommand(
                "select e.id, e.seq_id, e.stream_id, e.version, e.timestamp, e.headers ->> 'fingerprint' from mt_events e where e.id = any($1)")
            {
                Parameters = { Value(eventIds) },
            });
        }

        await using var reader = await commands.ExecuteReaderAsync(cancellation);
        await reader.NextResultAsync(cancellation); // begin has no result set; the first is the lock's
        if (await reader.ReadAsync(cancellation))
        {
            _head = reader.GetInt64(0);
            _recordedAt = reader.GetFieldValue<DateTimeOffset>(1);
        }

        _recordedAt = now > _recordedAt ? now : _recordedAt;
        await reader.NextResultAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            _versions[new StreamKey(reader.GetString(0), reader.GetString(1))] = reader.GetInt64(2);
        }

        if (ids.Count > 0)
        {
            await reader.NextResultAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                _known[reader.GetGuid(0)] = EventReader.ReadRequest(reader);
            }
        }

        if (eventIds.Count > 0)
        {
            await reader.NextResultAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                var version = reader.GetInt64(3);
                _known[reader.GetGuid(0)] = new StoredRequest(
                    reader.GetInt64(1), 1, reader.GetString(2), version, reader.GetFieldValue<DateTimeOffset>(4), reader.IsDBNull(5) ? null : reader.GetString(5))
                {
                    LastVersion = version,
                };
            }
        }
    }

    private AppendResult Decide(PendingAppend pending) =>
        pending.Request.Identities is null ? DecideWhole(pending) : DecideEach(pending);

    private AppendResult DecideWhole(PendingAppend pending)
    {
        var request = pending.Request;
        if (_known.TryGetValue(pending.Id, out var stored))
        {
            var outcome = pending.Attempt is { } attempt && (attempt.FirstPosition, attempt.RecordedAt) == (stored.FirstPosition, stored.RecordedAt)
                ? AppendOutcome.Appended
                : SameOrReused(stored, request.Fingerprint);
            return new AppendResult(outcome)
            {
                FirstPosition = stored.FirstPosition,
                LastPosition = stored.LastPosition,
                RecordedAt = stored.RecordedAt,
                Version = stored.LastVersion,
            };
        }

        pending.Attempt = null; // what was tried before has left nothing
        if (FailedCondition(request) is { } failed)
        {
            return failed;
        }

        var first = _head + 1;
        var stream = new StreamKey(request.TenantId, pending.Events[0].StreamId);
        var firstVersion = _versions.GetValueOrDefault(stream) + 1;
        foreach (var pendingEvent in pending.Events)
        {
            Number(pending, pendingEvent);
        }

        var result = new AppendResult(AppendOutcome.Appended)
        {
            FirstPosition = first,
            LastPosition = _head,
            RecordedAt = _recordedAt,
            Version = _versions[stream],
        };
        if (request.IdempotencyId is not null)
        {
            _known[pending.Id] = new StoredRequest(first, pending.EventCount, stream.StreamId, firstVersion, _recordedAt, request.Fingerprint)
            {
                LastVersion = result.Version,
            };
        }

        return result;
    }

    /// <summary>Decides on a request whose events have an identity each: first what is known of them, then what that leaves to store.</summary>
    private AppendResult DecideEach(PendingAppend pending)
    {
        var identities = pending.Request.Identities!;
        var results = new EventResult[identities.Count];
        var places = new Dictionary<Guid, int>(); // of those to store
        var repeats = new List<(int Place, int Of)>();
        for (var i = 0; i < results.Length; i++)
        {
            var (id, fingerprint) = identities[i];
            if (_known.TryGetValue(id, out var stored))
            {
                var outcome = pending.Attempt?.Events[i] == new EventResult(AppendOutcome.Appended, stored.FirstPosition, stored.RecordedAt)
                    ? AppendOutcome.Appended
                    : SameOrReused(stored, fingerprint);
                results[i] = new EventResult(outcome, stored.FirstPosition, stored.RecordedAt);
            }
            else if (!places.TryAdd(id, i))
            {
                repeats.Add((i, places[id]));
                results[i] = new EventResult(fingerprint == identities[places[id]].Fingerprint ? AppendOutcome.Duplicate : AppendOutcome.KeyReused, 0, default);
            }
        }

        if (pending.Request.AllOrNothing && Array.Exists(results, r => r.Outcome == AppendOutcome.KeyReused))
        {
            return new AppendResult(AppendOutcome.KeyReused) { Events = results };
        }

        if (places.Count > 0)
        {
            pending.Attempt = null; // what was tried before has left nothing
            if (FailedCondition(pending.Request) is { } failed)
            {
                return failed with { Events = results };
            }
        }

        foreach (var (id, place) in places)
        {
            var (position, version) = Number(pending, pending.Events[place]);
            results[place] = new EventResult(AppendOutcome.Appended, position, _recordedAt);
            _known[id] = new StoredRequest(position, 1, pending.Events[place].StreamId, version, _recordedAt, identities[place].Fingerprint) { LastVersion = version };
        }

        foreach (var (place, of) in repeats)
        {
            results[place] = results[place] with { Position = results[of].Position, RecordedAt = results[of].RecordedAt };
        }

        var stream = new StreamKey(pending.Request.TenantId, pending.Events[0].StreamId);
        return new AppendResult(Array.Exists(results, r => r.Outcome == AppendOutcome.Appended) ? AppendOutcome.Appended : AppendOutcome.Duplicate)
        {
            FirstPosition = results.Min(r => r.Position),
            LastPosition = results.Max(r => r.Position),
            RecordedAt = results.Max(r => r.RecordedAt),
            Version = _versions.GetValueOrDefault(stream),
            Events = results,
        };
    }

    private static AppendOutcome SameOrReused(StoredRequest stored, string? fingerprint) =>
        stored.Fingerprint == fingerprint ? AppendOutcome.Duplicate : AppendOutcome.KeyReused;

    private AppendResult? FailedCondition(AppendRequest request)
    {
        foreach (var condition in request.Conditions)
        {
            var actual = _versions.GetValueOrDefault(new StreamKey(request.TenantId, condition.StreamId));
            if (actual != condition.ExpectedVersion)
            {
                return new AppendResult(AppendOutcome.ConditionFailed) { Failed = condition, ActualVersion = actual };
            }
        }

        foreach (var id in request.Absent)
        {
            if (_known.ContainsKey(id))
            {
                return new AppendResult(AppendOutcome.ConditionFailed) { Found = id };
            }
        }

        return null;
    }

    /// <summary>Gives an event its place in the log and in its stream.</summary>
    private (long Position, long Version) Number(PendingAppend pending, PendingEvent pendingEvent)
    {
        var stream = new StreamKey(pending.Request.TenantId, pendingEvent.StreamId);
        if (!_versions.TryGetValue(stream, out var version))
        {
            _begun.Add(stream);
        }

        _versions[stream] = ++version;
        _written[stream] = (pendingEvent.StreamType, version);
        _events.Add(new NewEvent(++_head, version, pending.Request, pendingEvent));
        return (_head, version);
    }

    private async Task WriteAndCommit(CancellationToken cancellation)
    {
        await using var commands = new NpgsqlBatch(connection);
        if (_events.Count > 0)
        {
            foreach (var (request, result) in _answers)
            {
                if (result.Outcome == AppendOutcome.Appended)
                {
                    request.Attempt = result;
                }
            }

            // Sorted, so that index pages are visited in order. It is known which rows are there, so no upsert has to find out.
            var streams = _written.OrderBy(s => s.Key.TenantId, StringComparer.Ordinal).ThenBy(s => s.Key.StreamId, StringComparer.Ordinal).ToLookup(s => _begun.Contains(s.Key));
            KeyValuePair<StreamKey, (string Type, long Version)>[] begun = [.. streams[true]], continued = [.. streams[false]];
            var copies = _events.Count >= CopyRows.MinRows;
            if (begun.Length > 0 && copies)
            {
                await CopyStreams(begun, cancellation); // before the events, in case somebody has put Marten's foreign key back
            }
            else if (begun.Length > 0)
            {
                commands.BatchCommands.Add(StreamCommand(
                    """
                    insert into mt_streams (tenant_id, id, type, version, timestamp, created, is_archived)
                    select k.tenant_id, k.id, k.type, k.version, $5, $5, false from unnest($1, $2, $3, $4) k (tenant_id, id, type, version)
                    """, begun));
            }

            if (continued.Length > 0)
            {
                commands.BatchCommands.Add(StreamCommand(
                    """
                    update mt_streams s set version = k.version, timestamp = $5
                    from unnest($1, $2, $3, $4) k (tenant_id, id, type, version)
                    cross join lateral (select ctid from mt_streams o where o.tenant_id = k.tenant_id and o.id = k.id limit 1) o
                    where s.ctid = o.ctid
                    """, continued));
            }

            if (copies)
            {
                await CopyEvents(cancellation);
            }
            else
            {
                commands.BatchCommands.Add(InsertEvents());
            }

            commands.BatchCommands.Add(new NpgsqlBatchCommand("select setval('mt_events_sequence', $1), pg_notify($2, '')")
            {
                Parameters = { Value(_head), Value(Channels.EventsAppended) },
            });
        }

        commands.BatchCommands.Add(new NpgsqlBatchCommand("commit"));
        await commands.ExecuteNonQueryAsync(cancellation);
    }

    private async Task CopyStreams(KeyValuePair<StreamKey, (string Type, long Version)>[] streams, CancellationToken cancellation)
    {
        using var rows = new CopyRows();
        foreach (var (key, (type, version)) in streams)
        {
            rows.BeginRow(columns: 6);
            rows.Text(key.TenantId);
            rows.Text(key.StreamId);
            rows.Text(type);
            rows.Bigint(version);
            rows.Instant(_recordedAt);
            rows.Instant(_recordedAt);
        }

        await rows.CopyTo(connection, "copy mt_streams (tenant_id, id, type, version, timestamp, created) from stdin (format binary)", cancellation);
    }

    private async Task CopyEvents(CancellationToken cancellation)
    {
        using var rows = new CopyRows();
        foreach (var (position, version, request, added) in _events)
        {
            rows.BeginRow(PendingEvent.CopyColumns + 3);
            rows.Bigint(position);
            rows.Bigint(version);
            rows.Instant(_recordedAt);
            rows.Encoded(added.CopyValues ?? added.EncodeCopyValues(request));
        }

        await rows.CopyTo(connection, $"copy mt_events (seq_id, version, timestamp, {PendingEvent.CopyColumnNames}) from stdin (format binary)", cancellation);
    }

    private NpgsqlBatchCommand InsertEvents() => new(
        """
        insert into mt_events (
          seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type,
          correlation_id, causation_id, headers, user_name)
        select
          e.seq_id, e.id, e.stream_id, e.version, e.data, e.type, $13, e.tenant_id, e.mt_dotnet_type,
          e.correlation_id, e.causation_id, e.headers, e.user_name
        from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
          e (seq_id, id, stream_id, version, data, type, tenant_id, mt_dotnet_type, correlation_id, causation_id, headers, user_name)
        """)
    {
        Parameters =
        {
            Value(Each(e => e.Position)), Value(Each(e => e.Event.Id)), Value(Each(e => e.Event.StreamId)), Value(Each(e => e.Version)),
            new NpgsqlParameter<byte[][]> { TypedValue = Each(e => e.Event.Json), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb },
            Value(Each(e => e.Event.Type.Name)), Value(Each(e => e.Request.TenantId)), Value(Each(e => e.Event.Type.DotnetName)),
            Value(Each(e => e.Request.CorrelationId)), Value(Each(e => e.Request.CausationId)),
            new NpgsqlParameter<string?[]> { TypedValue = Each(e => e.Event.Headers), NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb },
            Value(Each(e => e.Request.Actor)), Value(_recordedAt),
        },
    };

    private T[] Each<T>(Func<NewEvent, T> column)
    {
        var values = new T[_events.Count];
        for (var i = 0; i < values.Length; i++)
        {
            values[i] = column(_events[i]);
        }

        return values;
    }

    private NpgsqlBatchCommand StreamCommand(string sql, KeyValuePair<StreamKey, (string Type, long Version)>[] streams) => new(sql)
    {
        Parameters =
        {
            Value(Array.ConvertAll(streams, s => s.Key.TenantId)),
            Value(Array.ConvertAll(streams, s => s.Key.StreamId)),
            Value(Array.ConvertAll(streams, s => s.Value.Type)),
            Value(Array.ConvertAll(streams, s => s.Value.Version)),
            Value(_recordedAt),
        },
    };

    private static NpgsqlParameter<T> Value<T>(T value) => new() { TypedValue = value };

    private static NpgsqlParameter<string?[]> Value(string?[] values) =>
        new() { TypedValue = values, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };

    /// <summary>A row of mt_events.</summary>
    private readonly record struct NewEvent(long Position, long Version, AppendRequest Request, PendingEvent Event);
}
