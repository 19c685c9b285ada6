using System.Text.Json;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.EventStore;

/// <summary>Which events of the log are asked for; null stands for all.</summary>
/// <param name="TenantId">Of this tenant.</param>
/// <param name="StreamPrefix">Of streams whose id begins so.</param>
/// <param name="Type">Of the kind stored under this name.</param>
public sealed record LogFilter(string? TenantId = null, string? StreamPrefix = null, string? Type = null)
{
    /// <summary>Whether an event is asked for.</summary>
    public bool Matches(RecordedEvent recorded) =>
        (TenantId is null || recorded.TenantId == TenantId)
        && (StreamPrefix is null || recorded.StreamId.StartsWith(StreamPrefix, StringComparison.Ordinal))
        && (Type is null || recorded.Type == Type);
}

/// <summary>A page of the log.</summary>
/// <param name="Events">The events found, in order of position.</param>
/// <param name="Position">Up to here the log was looked through: the next page begins after it.</param>
/// <param name="Head">The end of the log just before the page was read.</param>
public sealed record LogPage(IReadOnlyList<RecordedEvent> Events, long Position, long Head)
{
    /// <summary>Whether the end of the log was reached.</summary>
    public bool IsLast => Position >= Head;
}

/// <summary>
/// Reads the log as it is stored: <see cref="RecordedEvent.Json"/> is not read, so <see cref="RecordedEvent.Data"/> is null. A page
/// is bounded thrice, in events, in bytes and in positions looked through, so that neither large events nor a filter that
/// hardly anything matches make it cost more.
/// </summary>
public sealed class LogPages(NpgsqlDataSource database)
{
    /// <summary>Positions that one page looks through. With a filter that nothing matches, a page is empty and this much further.</summary>
    public const int MaxPositions = 10_000;

    /// <summary>Bytes of event data after which a page ends.</summary>
    public const int MaxPageBytes = 256 * 1024;

    private static readonly EventTypes s_unread = new(JsonSerializerOptions.Default);

    /// <summary>
    /// The events after a position, at most <paramref name="limit"/>, up to and including <paramref name="to"/>. One range of the
    /// primary key.
    /// </summary>
    public async Task<LogPage> Read(LogFilter filter, long after, int limit, long to = long.MaxValue, CancellationToken cancellation = default)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                TenantScope.Of(filter.TenantId ?? TenantScope.Every),
                new NpgsqlBatchCommand("select log_head()"), // first: what it finds, the page sees
                new NpgsqlBatchCommand(
                    $"""
                     select {EventReader.Columns} from mt_events e
                     where e.seq_id > $1 and e.seq_id <= $2
                       and ($3::text is null or e.tenant_id = $3) and ($4::text is null or starts_with(e.stream_id, $4)) and ($5::text is null or e.type = $5)
                     order by e.seq_id limit $6
                     """)
                {
                    Parameters =
                    {
                        new NpgsqlParameter<long> { TypedValue = after },
                        new NpgsqlParameter<long> { TypedValue = Math.Min(to, after + MaxPositions) },
                        Text(filter.TenantId), Text(filter.StreamPrefix), Text(filter.Type),
                        new NpgsqlParameter<int> { TypedValue = limit },
                    },
                },
            },
        };
        await using var reader = await batch.Read(cancellation);
        await reader.ReadAsync(cancellation);
        var head = Math.Min(reader.GetInt64(0), to);
        await reader.NextResultAsync(cancellation);
        var events = new List<RecordedEvent>();
        var whole = await ReadInto(events, reader, limit, cancellation);
        var last = events.Count > 0 ? events[^1].Position : after;
        return new LogPage(events, whole ? Math.Max(last, Math.Min(head, after + MaxPositions)) : last, Math.Max(head, last));
    }

    /// <summary>A page of a stream's events after a version, in order, and the stream's version, 0 when there is no such stream.</summary>
    public async Task<(long Version, IReadOnlyList<RecordedEvent> Events)> ReadStream(
        StreamKey stream, long afterVersion, int limit, CancellationToken cancellation = default)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                TenantScope.Of(stream.TenantId),
                // Not the row of mt_streams: the newest event is what there is, also where a Marten program has archived the stream.
                new NpgsqlBatchCommand(
                    "select n.version from mt_events n where n.tenant_id = $1 and n.stream_id = $2 order by n.version desc limit 1")
                {
                    Parameters = { Text(stream.TenantId), Text(stream.StreamId) },
                },
                new NpgsqlBatchCommand(
                    $"""
                     select {EventReader.Columns} from mt_events e
                     where e.tenant_id = $1 and e.stream_id = $2 and e.version > $3 order by e.version limit $4
                     """)
                {
                    Parameters =
                    {
                        Text(stream.TenantId), Text(stream.StreamId), new NpgsqlParameter<long> { TypedValue = afterVersion },
                        new NpgsqlParameter<int> { TypedValue = limit },
                    },
                },
            },
        };
        await using var reader = await batch.Read(cancellation);
        var version = await reader.ReadAsync(cancellation) ? reader.GetInt64(0) : 0;
        await reader.NextResultAsync(cancellation);
        var events = new List<RecordedEvent>();
        await ReadInto(events, reader, limit, cancellation);
        return (events.Count > 0 ? Math.Max(version, events[^1].Version) : version, events);
    }

    /// <summary>Whether all rows were taken; the first that is too much for the page, and what follows, is read past.</summary>
    private static async Task<bool> ReadInto(List<RecordedEvent> events, NpgsqlDataReader reader, int limit, CancellationToken cancellation)
    {
        var bytes = 0;
        while (await reader.ReadAsync(cancellation))
        {
            if (bytes >= MaxPageBytes)
            {
                return false;
            }

            var recorded = EventReader.Read(reader, s_unread);
            bytes += recorded.Json.Length;
            events.Add(recorded);
        }

        return events.Count < limit;
    }

    private static NpgsqlParameter Text(string? value) => new() { Value = (object?)value ?? DBNull.Value, NpgsqlDbType = NpgsqlDbType.Text };
}
