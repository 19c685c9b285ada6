using System.Collections.Frozen;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Segments;
using Ledger.Usage;
using Npgsql;

namespace Ledger.History;

/// <summary>
/// Keeps the view "History": an index to the log, not a copy of it. Most events change a few bits of rows that they share with
/// their neighbours; only corrections of calls, what became of messages, and changes of roll-outs have rows of their own.
/// </summary>
public sealed class HistoryProjection(EventTypes types) : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "History";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = types.All.Select(t => t.ClrType).ToFrozenSet();

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["history_marks", "history_corrections", "history_rollouts"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var marks = new Dictionary<(string Tenant, string Dimension, string Value, long Block), MarkedBlock>();
        var corrections = new List<(string Tenant, string User, long Position)>();
        foreach (var recorded in events)
        {
            var subject = HistorySubject.Of(recorded);
            Mark(HistoryMarks.All, "");
            Mark(HistoryMarks.Kind, HistoryKinds.Of(recorded.Type));
            Mark(HistoryMarks.Segment, subject.Segment);
            Mark(HistoryMarks.Service, subject.Service);
            Mark(HistoryMarks.Actor, recorded.Actor);
            if (recorded.Data is CallPriced or CallVoided or MessageSent or MessageDeferred or MessageFailed or MessageOutcomeUnknown or MessageSuppressed)
            {
                corrections.Add((recorded.TenantId, subject.User!, recorded.Position));
            }

            void Mark(string dimension, string? value)
            {
                if (value is not null)
                {
                    var key = (recorded.TenantId, dimension, value, MarkedBlock.Of(recorded.Position));
                    marks[key] = marks.GetValueOrDefault(key).With(recorded.Position);
                }
            }
        }

        var rollouts = await FoldRollouts(events, transaction, cancellation);
        var rows = marks.OrderBy(m => m.Key.Tenant, StringComparer.Ordinal).ThenBy(m => m.Key.Dimension, StringComparer.Ordinal)
            .ThenBy(m => m.Key.Value, StringComparer.Ordinal).ThenBy(m => m.Key.Block).ToArray();
        transaction.Add(Sql.Command(
            """
            insert into history_marks (tenant_id, dimension, value, block, b0, b1, b2, b3) select * from unnest($1, $2, $3, $4, $5, $6, $7, $8)
            on conflict (tenant_id, dimension, value, block) do update set
              b0 = history_marks.b0 | excluded.b0, b1 = history_marks.b1 | excluded.b1,
              b2 = history_marks.b2 | excluded.b2, b3 = history_marks.b3 | excluded.b3
            """,
            Sql.Texts(rows.Select(r => r.Key.Tenant)), Sql.Texts(rows.Select(r => r.Key.Dimension)), Sql.Texts(rows.Select(r => r.Key.Value)),
            Sql.Longs(rows.Select(r => r.Key.Block)), Sql.Longs(rows.Select(r => r.Value.B0)), Sql.Longs(rows.Select(r => r.Value.B1)),
            Sql.Longs(rows.Select(r => r.Value.B2)), Sql.Longs(rows.Select(r => r.Value.B3))));
        if (corrections.Count > 0)
        {
            transaction.Add(Sql.Command(
                "insert into history_corrections (tenant_id, user_id, position) select * from unnest($1, $2, $3)",
                Sql.Texts(corrections.Select(c => c.Tenant)), Sql.Texts(corrections.Select(c => c.User)), Sql.Longs(corrections.Select(c => c.Position))));
        }

        if (rollouts.Count > 0)
        {
            transaction.Add(Sql.Command(
                """
                insert into history_rollouts (tenant_id, position, slug, segment_id, salt, percent_before, percent, deleted, at)
                select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
                """,
                Sql.Texts(rollouts.Select(r => r.Tenant)), Sql.Longs(rollouts.Select(r => r.Turn.Position)), Sql.Texts(rollouts.Select(r => r.Turn.Segment)),
                Sql.Longs(rollouts.Select(r => r.Turn.SegmentId)), Sql.Texts(rollouts.Select(r => r.Turn.Salt)),
                Sql.Value(rollouts.Select(r => r.Turn.PercentBefore).ToArray()), Sql.Value(rollouts.Select(r => r.Turn.Percent).ToArray()),
                Sql.Value(rollouts.Select(r => r.Turn.Deleted).ToArray()), Sql.Instants(rollouts.Select(r => r.Turn.At))));
        }
    }

    private static async Task<List<(string Tenant, RolloutTurn Turn)>> FoldRollouts(
        IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var turning = events.Where(e => e.Data is SegmentCreated or RolloutChanged or SegmentDeleted).ToArray();
        var turns = new List<(string, RolloutTurn)>();
        if (turning.Length == 0)
        {
            return turns;
        }

        var latest = await LoadLatest(turning, transaction, cancellation);
        foreach (var recorded in turning)
        {
            var key = (recorded.TenantId, Segment.SlugOf(recorded.StreamId));
            var turn = recorded.Data switch
            {
                SegmentCreated e => new RolloutTurn(recorded.Position, recorded.RecordedAt, e.Slug, recorded.Position, e.Salt, 0, e.RolloutPercent, false),
                RolloutChanged e => latest[key].Next(recorded, e.RolloutPercent, deleted: false),
                _ => latest[key].Next(recorded, 0, deleted: true),
            };
            latest[key] = turn;
            turns.Add((recorded.TenantId, turn));
        }

        return turns;
    }

    private static async Task<Dictionary<(string Tenant, string Slug), RolloutTurn>> LoadLatest(
        RecordedEvent[] turning, ViewTransaction transaction, CancellationToken cancellation)
    {
        var latest = new Dictionary<(string, string), RolloutTurn>();
        var keys = turning.Where(e => e.Data is not SegmentCreated).Select(e => (e.TenantId, Slug: Segment.SlugOf(e.StreamId))).Distinct().ToArray();
        if (keys.Length == 0)
        {
            return latest;
        }

        await using var command = new NpgsqlCommand(
            $"""
             select r.tenant_id, {RolloutTurn.Columns}
             from unnest($1, $2) k (tenant_id, slug)
             cross join lateral (
               select * from history_rollouts o where o.tenant_id = k.tenant_id and o.slug = k.slug order by o.position desc limit 1) r
             """, await transaction.Connection(cancellation))
        {
            Parameters = { Sql.Texts(keys.Select(k => k.TenantId)), Sql.Texts(keys.Select(k => k.Slug)) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            var turn = RolloutTurn.Read(reader, 1);
            latest[(reader.GetString(0), turn.Segment)] = turn;
        }

        return latest;
    }
}
