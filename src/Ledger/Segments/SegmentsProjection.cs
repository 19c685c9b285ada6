using Ledger.EventStore;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Segments;

/// <summary>Keeps the view "Segments": the lives of all segments, and the history of their roll-outs.</summary>
public sealed class SegmentsProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Segments";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>
    {
        typeof(SegmentCreated), typeof(SegmentDescribed), typeof(DefaultTtlChanged), typeof(RolloutChanged), typeof(SegmentDeleted),
    };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["segments", "rollouts"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var current = await LoadLatestLives(events, transaction, cancellation);
        var rows = new Dictionary<(string Tenant, long Id), (Segment Segment, long? DeletedPosition)>();
        var rollouts = new List<(string Tenant, long Id, RecordedEvent At, decimal Percent)>();
        foreach (var recorded in events)
        {
            var stream = new StreamKey(recorded.TenantId, recorded.StreamId);
            var segment = current[stream] = Segment.Evolve(current.GetValueOrDefault(stream) ?? Segment.Initial(""), recorded);
            rows[(recorded.TenantId, segment.Id)] = (segment, recorded.Data is SegmentDeleted ? recorded.Position : null);
            if (recorded.Data is SegmentCreated or RolloutChanged)
            {
                rollouts.Add((recorded.TenantId, segment.Id, recorded, segment.RolloutPercent));
            }
        }

        transaction.Add(Sql.Command(
            """
            insert into segments (
              tenant_id, segment_id, slug, description, rollout_percent, salt, default_ttl, created_at, deleted_at, version, deleted_position)
            select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
            on conflict (tenant_id, segment_id) do update set
              description = excluded.description, rollout_percent = excluded.rollout_percent, default_ttl = excluded.default_ttl,
              deleted_at = excluded.deleted_at, version = excluded.version, deleted_position = excluded.deleted_position
            """,
            Sql.Texts(rows.Keys.Select(k => k.Tenant)), Sql.Longs(rows.Keys.Select(k => k.Id)),
            Sql.Texts(rows.Values.Select(r => r.Segment.Slug)), Sql.Texts(rows.Values.Select(r => r.Segment.Description)),
            Sql.Value(rows.Values.Select(r => r.Segment.RolloutPercent).ToArray()), Sql.Texts(rows.Values.Select(r => r.Segment.Salt)),
            new NpgsqlParameter<TimeSpan?[]>
            {
                TypedValue = [.. rows.Values.Select(r => r.Segment.DefaultTtl)], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Interval,
            },
            Sql.Instants(rows.Values.Select(r => r.Segment.CreatedAt)), Sql.InstantsOrNull(rows.Values.Select(r => r.Segment.DeletedAt)),
            Sql.Longs(rows.Values.Select(r => r.Segment.Version)), Sql.Value(rows.Values.Select(r => r.DeletedPosition).ToArray())));
        if (rollouts.Count > 0)
        {
            transaction.Add(Sql.Command(
                "insert into rollouts (tenant_id, segment_id, position, since, percent) select * from unnest($1, $2, $3, $4, $5)",
                Sql.Texts(rollouts.Select(r => r.Tenant)), Sql.Longs(rollouts.Select(r => r.Id)), Sql.Longs(rollouts.Select(r => r.At.Position)),
                Sql.Instants(rollouts.Select(r => r.At.RecordedAt)), Sql.Value(rollouts.Select(r => r.Percent).ToArray())));
        }
    }

    private static async Task<Dictionary<StreamKey, Segment>> LoadLatestLives(
        IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var streams = events.Where(e => e.Data is not SegmentCreated).Select(e => new StreamKey(e.TenantId, e.StreamId)).Distinct().ToArray();
        var lives = new Dictionary<StreamKey, Segment>();
        await using var command = new NpgsqlCommand(
            $"""
             select s.tenant_id, {SegmentRow.Columns}
             from unnest($1, $2) k (tenant_id, stream_id)
             cross join lateral (
               select * from segments s where s.tenant_id = k.tenant_id and s.slug = substr(k.stream_id, length('segment-') + 1)
               order by s.segment_id desc limit 1) s
             """, await transaction.Connection(cancellation))
        {
            Parameters = { Sql.Texts(streams.Select(s => s.TenantId)), Sql.Texts(streams.Select(s => s.StreamId)) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            var segment = SegmentRow.Read(reader, 1);
            lives[new StreamKey(reader.GetString(0), Segment.StreamOf(segment.Slug))] = segment;
        }

        return lives;
    }
}

/// <summary>A row of <c>segments</c>, under the alias s.</summary>
internal static class SegmentRow
{
    public const string Columns =
        "s.slug, s.segment_id, s.description, s.rollout_percent, s.salt, s.default_ttl, s.created_at, s.deleted_at, s.version";

    public static Segment Read(NpgsqlDataReader reader, int first) => new(
        reader.GetString(first), reader.GetInt64(first + 1), reader.Maybe<string>(first + 2), reader.GetDecimal(first + 3),
        reader.GetString(first + 4), reader.Maybe<TimeSpan?>(first + 5), reader.GetFieldValue<DateTimeOffset>(first + 6),
        reader.Maybe<DateTimeOffset?>(first + 7), reader.GetInt64(first + 8));
}
