using System.Runtime.CompilerServices;
using Ledger.EventStore;
using Ledger.Segments;
using Npgsql;

namespace Ledger.History;

/// <summary>A segment's beginning, a change of its roll-out, or its end: what may move users without an event of theirs.</summary>
public sealed record RolloutTurn(
    long Position, DateTimeOffset At, string Segment, long SegmentId, string Salt, decimal PercentBefore, decimal Percent, bool Deleted)
{
    internal const string Columns = "r.position, r.at, r.slug, r.segment_id, r.salt, r.percent_before, r.percent, r.deleted";

    /// <summary>Whether it took a user in (true), let a user go (false), or did neither (null).</summary>
    public bool? Moves(string userId, out int bucket)
    {
        bucket = Rollout.BucketOf(Salt, userId);
        var (before, after) = (Rollout.Includes(PercentBefore, bucket), Rollout.Includes(Percent, bucket));
        return before == after ? null : after;
    }

    internal RolloutTurn Next(RecordedEvent recorded, decimal percent, bool deleted) => this with
    {
        Position = recorded.Position, At = recorded.RecordedAt, PercentBefore = Percent, Percent = percent, Deleted = deleted,
    };

    internal static RolloutTurn Read(NpgsqlDataReader reader, int first) => new(
        reader.GetInt64(first), reader.GetFieldValue<DateTimeOffset>(first + 1), reader.GetString(first + 2), reader.GetInt64(first + 3),
        reader.GetString(first + 4), reader.GetDecimal(first + 5), reader.GetDecimal(first + 6), reader.GetBoolean(first + 7));
}

/// <summary>The turns of all roll-outs of a tenant, for histories and reports of users. There are as many as people have made.</summary>
public sealed class RolloutTurns(ViewDatabase views)
{
    /// <summary>Turns read at once.</summary>
    public const int PageTurns = 1_000;

    /// <summary>Those after one position and up to another, the newest or the oldest first, streamed page by page.</summary>
    public async IAsyncEnumerable<IReadOnlyList<RolloutTurn>> Pages(
        string tenantId, long after, long upTo, bool newestFirst, [EnumeratorCancellation] CancellationToken cancellation)
    {
        while (true)
        {
            var page = await Page(tenantId, after, upTo, newestFirst, cancellation);
            yield return page;
            if (page.Count < PageTurns)
            {
                yield break;
            }

            (after, upTo) = newestFirst ? (after, page[^1].Position - 1) : (page[^1].Position, upTo);
        }
    }

    private Task<List<RolloutTurn>> Page(string tenantId, long after, long upTo, bool newestFirst, CancellationToken cancellation) => views.Rows(
        tenantId,
        Sql.Command(
            $"""
             select {RolloutTurn.Columns} from history_rollouts r
             where r.tenant_id = $1 and r.position > $2 and r.position <= $3 and (r.deleted or r.percent <> r.percent_before)
             order by r.position {(newestFirst ? "desc" : "")} limit $4
             """,
            Sql.Value(tenantId), Sql.Value(after), Sql.Value(upTo), Sql.Value(PageTurns)),
        row => RolloutTurn.Read(row, 0), cancellation);
}
