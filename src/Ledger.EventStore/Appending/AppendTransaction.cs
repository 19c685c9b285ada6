using System.Diagnostics;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.EventStore;

/// <summary>
/// One batch in the database, in two round trips: (1) begin, take the append lock, read the head, the versions and the known
/// ids; (2) write, commit. The lock comes first and each statement of READ COMMITTED sees what was committed before it, so
/// what is read under the lock is the truth; positions are handed out under the lock, so position order is commit order.
/// </summary>
internal sealed class AppendTransaction(NpgsqlConnection connection, AppendBatch batch, long lockKey, DateTimeOffset now)
{
    private readonly Dictionary<StreamKey, long> _versions = [];
    private readonly Dictionary<Guid, StoredRequest> _known = [];
    private readonly List<(PendingAppend Request, AppendResult Result)> _answers = [];
    private readonly Dictionary<StreamKey, (string Type, long Version)> _written = [];
    private readonly HashSet<StreamKey> _begun = [];
    private readonly EventColumns _events = new(batch.Events);
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
        var tenants = new string[batch.Streams.Count];
        var streams = new string[batch.Streams.Count];
        var index = 0;
        foreach (var stream in batch.Streams)
        {
            tenants[index] = stream.TenantId;
            streams[index++] = stream.StreamId;
        }

        // A fresh id can be in the log only if an earlier attempt at this batch got through.
        var ids = batch.Requests.Where(r => r.Attempt is not null || r.Request.IdempotencyId is not null).Select(r => r.Id).ToArray();

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
                    Parameters = { Value(tenants), Value(streams) },
                },
            },
        };
        if (ids.Length > 0)
        {
            commands.BatchCommands.Add(new NpgsqlBatchCommand($"select {EventReader.RequestColumns} from mt_events e where e.id = any($1)")
            {
                Parameters = { Value(ids) },
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

        if (ids.Length > 0)
        {
            await reader.NextResultAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                _known[reader.GetGuid(0)] = EventReader.ReadRequest(reader);
            }
        }
    }

    private AppendResult Decide(PendingAppend pending)
    {
        var request = pending.Request;
        if (_known.TryGetValue(pending.Id, out var stored))
        {
            var outcome = pending.Attempt == (stored.FirstPosition, stored.RecordedAt) ? AppendOutcome.Appended
                : stored.Fingerprint == request.Fingerprint ? AppendOutcome.Duplicate
                : AppendOutcome.KeyReused;
            return new AppendResult(outcome)
            {
                FirstPosition = stored.FirstPosition,
                LastPosition = stored.LastPosition,
                RecordedAt = stored.RecordedAt,
                Version = stored.LastVersion,
            };
        }

        pending.Attempt = null; // what was tried before has left nothing

        foreach (var condition in request.Conditions)
        {
            var actual = _versions.GetValueOrDefault(new StreamKey(request.TenantId, condition.StreamId));
            if (actual != condition.ExpectedVersion)
            {
                return new AppendResult(AppendOutcome.ConditionFailed) { Failed = condition, ActualVersion = actual };
            }
        }

        var first = _head + 1;
        var firstStream = new StreamKey(request.TenantId, pending.Events[0].StreamId);
        var firstVersion = _versions.GetValueOrDefault(firstStream) + 1;
        foreach (var pendingEvent in pending.Events)
        {
            var stream = new StreamKey(request.TenantId, pendingEvent.StreamId);
            if (!_versions.TryGetValue(stream, out var version))
            {
                _begun.Add(stream);
            }

            _versions[stream] = ++version;
            _written[stream] = (pendingEvent.StreamType, version);
            _events.Add(++_head, version, pending, pendingEvent);
        }

        var result = new AppendResult(AppendOutcome.Appended)
        {
            FirstPosition = first,
            LastPosition = _head,
            RecordedAt = _recordedAt,
            Version = _versions[firstStream],
        };
        if (request.IdempotencyId is not null)
        {
            _known[pending.Id] = new StoredRequest(
                first, pending.EventCount, firstStream.StreamId, firstVersion, _recordedAt, request.Fingerprint) { LastVersion = result.Version };
        }

        return result;
    }

    private async Task WriteAndCommit(CancellationToken cancellation)
    {
        await using var commands = new NpgsqlBatch(connection);
        if (_events.Count > 0)
        {
            // Sorted, so that index pages are visited in order. It is known which rows are there, so no upsert has to find out.
            var streams = _written.OrderBy(s => s.Key.TenantId, StringComparer.Ordinal).ThenBy(s => s.Key.StreamId, StringComparer.Ordinal).ToLookup(s => _begun.Contains(s.Key));
            if (streams[true].Any())
            {
                commands.BatchCommands.Add(StreamCommand(
                    """
                    insert into mt_streams (tenant_id, id, type, version, timestamp, created, is_archived)
                    select k.tenant_id, k.id, k.type, k.version, $5, $5, false from unnest($1, $2, $3, $4) k (tenant_id, id, type, version)
                    """, [.. streams[true]]));
            }

            if (streams[false].Any())
            {
                commands.BatchCommands.Add(StreamCommand(
                    """
                    update mt_streams s set version = k.version, timestamp = $5
                    from unnest($1, $2, $3, $4) k (tenant_id, id, type, version)
                    cross join lateral (select ctid from mt_streams o where o.tenant_id = k.tenant_id and o.id = k.id limit 1) o
                    where s.ctid = o.ctid
                    """, [.. streams[false]]));
            }

            commands.BatchCommands.Add(_events.InsertCommand(_recordedAt));
            commands.BatchCommands.Add(new NpgsqlBatchCommand("select setval('mt_events_sequence', $1), pg_notify($2, '')")
            {
                Parameters = { Value(_head), Value(Channels.EventsAppended) },
            });
            foreach (var (request, result) in _answers)
            {
                if (result.Outcome == AppendOutcome.Appended)
                {
                    request.Attempt = (result.FirstPosition, result.RecordedAt);
                }
            }
        }

        commands.BatchCommands.Add(new NpgsqlBatchCommand("commit"));
        await commands.ExecuteNonQueryAsync(cancellation);
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

    private static NpgsqlParameter<string[]> Value(string[] values) =>
        new() { TypedValue = values, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };

    /// <summary>The columns of the new rows of mt_events, for one unnest.</summary>
    private sealed class EventColumns(int capacity)
    {
        private readonly List<long> _positions = new(capacity);
        private readonly List<Guid> _ids = new(capacity);
        private readonly List<string> _streams = new(capacity);
        private readonly List<long> _versions = new(capacity);
        private readonly List<byte[]> _data = new(capacity);
        private readonly List<string> _types = new(capacity);
        private readonly List<string> _tenants = new(capacity);
        private readonly List<string> _dotnetTypes = new(capacity);
        private readonly List<string?> _correlations = new(capacity);
        private readonly List<string?> _causations = new(capacity);
        private readonly List<string?> _headers = new(capacity);
        private readonly List<string?> _actors = new(capacity);

        public int Count => _positions.Count;

        public void Add(long position, long version, PendingAppend request, PendingEvent pending)
        {
            _positions.Add(position);
            _ids.Add(pending.Id);
            _streams.Add(pending.StreamId);
            _versions.Add(version);
            _data.Add(pending.Json);
            _types.Add(pending.Type.Name);
            _tenants.Add(request.Request.TenantId);
            _dotnetTypes.Add(pending.Type.DotnetName);
            _correlations.Add(request.Request.CorrelationId);
            _causations.Add(request.Request.CausationId);
            _headers.Add(request.Headers);
            _actors.Add(request.Request.Actor);
        }

        public NpgsqlBatchCommand InsertCommand(DateTimeOffset recordedAt) => new(
            """
            insert into mt_events (
              seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type,
              correlation_id, causation_id, headers, user_name, is_archived)
            select
              e.seq_id, e.id, e.stream_id, e.version, e.data, e.type, $13, e.tenant_id, e.mt_dotnet_type,
              e.correlation_id, e.causation_id, e.headers, e.user_name, false
            from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
              e (seq_id, id, stream_id, version, data, type, tenant_id, mt_dotnet_type, correlation_id, causation_id, headers, user_name)
            """)
        {
            Parameters =
            {
                Value(_positions), Value(_ids), Text(_streams!), Value(_versions),
                new NpgsqlParameter<List<byte[]>> { TypedValue = _data, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb },
                Text(_types!), Text(_tenants!), Text(_dotnetTypes!), Text(_correlations), Text(_causations),
                new NpgsqlParameter<List<string?>> { TypedValue = _headers, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb },
                Text(_actors), Value(recordedAt),
            },
        };

        private static NpgsqlParameter<List<string?>> Text(List<string?> values) =>
            new() { TypedValue = values, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };
    }
}
