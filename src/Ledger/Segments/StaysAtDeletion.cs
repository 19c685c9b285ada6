using System.Runtime.CompilerServices;
using Npgsql;

namespace Ledger.Segments;

/// <summary>A stay that no event had ended when its segment was deleted.</summary>
public sealed record StayAtDeletion(long SegmentId, string UserId, DateTimeOffset JoinedAt, DateTimeOffset? ExpiresAt, string Source);

/// <summary>
/// Who was in a segment when it was deleted, for other features. Nothing is recorded of a stay after the deletion of its
/// segment, so it is as it was then, for ever.
/// </summary>
public sealed class StaysAtDeletion(ViewDatabase views)
{
    /// <summary>The view it rests on.</summary>
    public const string View = MembershipsProjection.View;

    /// <summary>The stays of one user in deleted segments: a look into the primary key each.</summary>
    public async Task<IReadOnlyDictionary<long, StayAtDeletion>> Of(
        string tenantId, string userId, IReadOnlyCollection<long> segmentIds, CancellationToken cancellation)
    {
        if (segmentIds.Count == 0)
        {
            return new Dictionary<long, StayAtDeletion>();
        }

        var stays = await views.Rows(
            tenantId,
            Sql.Command(
                """
                select m.segment_id, m.user_id, m.joined_at, m.expires_at, m.source
                from unnest($3) k (segment_id)
                cross join lateral (
                  select * from memberships m where m.tenant_id = $1 and m.segment_id = k.segment_id and m.user_id = $2 limit 1) m
                """,
                Sql.Value(tenantId), Sql.Value(userId), Sql.Longs(segmentIds)),
            Read, cancellation);
        return stays.ToDictionary(s => s.SegmentId);
    }

    /// <summary>The users whose stays held when a segment was deleted, in pages.</summary>
    public async IAsyncEnumerable<IReadOnlyList<string>> Users(
        string tenantId, long segmentId, DateTimeOffset deletedAt, [EnumeratorCancellation] CancellationToken cancellation)
    {
        for (var (user, count) = ("", StaysOfMonth.MaxStaysAtOnce); count == StaysOfMonth.MaxStaysAtOnce;)
        {
            var found = await views.Rows(
                tenantId,
                Sql.Command(
                    """
                    select m.user_id from memberships m
                    where m.tenant_id = $1 and m.segment_id = $2 and m.user_id > $3 and (m.expires_at is null or m.expires_at > $4)
                    order by m.user_id limit $5
                    """,
                    Sql.Value(tenantId), Sql.Value(segmentId), Sql.Value(user), Sql.Value(deletedAt), Sql.Value(StaysOfMonth.MaxStaysAtOnce)),
                row => row.GetString(0), cancellation);
            (user, count) = (found.LastOrDefault(""), found.Count);
            yield return found;
        }
    }

    private static StayAtDeletion Read(NpgsqlDataReader reader) => new(
        reader.GetInt64(0), reader.GetString(1), reader.GetFieldValue<DateTimeOffset>(2), reader.Maybe<DateTimeOffset?>(3), reader.GetString(4));
}
