using Npgsql;

namespace Ledger.EventStore;

/// <summary>Finds positions by time. No event was recorded earlier than the one before it, so some thirty looks into the primary key do.</summary>
public sealed class LogTimes(NpgsqlDataSource database)
{
    /// <summary>The position of the last event recorded before an instant; 0 when there is none.</summary>
    public async Task<long> LastBefore(DateTimeOffset instant, CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand(
            $"with recursive {SearchBefore("$1")} select max(lo) from before");
        command.Parameters.Add(new NpgsqlParameter<DateTimeOffset> { TypedValue = instant });
        return (long)(await command.ExecuteScalarAsync(cancellation))!;
    }

    /// <summary>
    /// The search as a recursive expression "before", for a statement that goes on from there: its largest <c>lo</c> is the position of the
    /// last event recorded before an instant.
    /// </summary>
    public static string SearchBefore(string instant) =>
        $"""
         before (lo, hi) as (
           select 0::bigint, log_head() + 1
           union all
           select case when e.is_before then e.position else b.lo end, case when e.is_before then b.hi else e.position end
           from before b
           cross join lateral (select (b.lo + b.hi) / 2, log_recorded_at((b.lo + b.hi) / 2) < {instant} offset 0) e (position, is_before)
           where b.hi - b.lo > 1
         )
         """;

    /// <summary>The version a stream had reached at a position; 0 when it had not begun.</summary>
    public async Task<long> VersionAt(StreamKey stream, long position, CancellationToken cancellation = default)
    {
        await using var batch = TenantScope.Batch(database, stream.TenantId, new NpgsqlBatchCommand(
            """
            with recursive b (lo, hi) as (
              select 0::bigint, (select coalesce(max(e.version), 0) + 1 from mt_events e where e.tenant_id = $1 and e.stream_id = $2)
              union all
              select case when e.seq_id <= $3 then e.version else b.lo end, case when e.seq_id <= $3 then b.hi else e.version end
              from b
              cross join lateral (
                select n.seq_id, n.version from mt_events n
                where n.tenant_id = $1 and n.stream_id = $2 and n.version = (b.lo + b.hi) / 2 limit 1) e
              where b.hi - b.lo > 1
            )
            select max(lo) from b
            """)
        {
            Parameters =
            {
                new NpgsqlParameter<string> { TypedValue = stream.TenantId },
                new NpgsqlParameter<string> { TypedValue = stream.StreamId },
                new NpgsqlParameter<long> { TypedValue = position },
            },
        });
        await using var reader = await batch.Read(cancellation);
        await reader.ReadAsync(cancellation);
        return reader.GetInt64(0);
    }
}
