using System.Runtime.CompilerServices;
using Ledger.EventStore;
using Ledger.Users;

namespace Ledger.Segments;

/// <summary>What the events of a month do not tell by themselves of stays, for other features.</summary>
public sealed class StaysOfMonth(ViewDatabase snapshots)
{
    /// <summary>The views it rests on.</summary>
    public static readonly IReadOnlyList<string> Views = [SegmentsProjection.View, MembershipsProjection.View];

    /// <summary>Stays read at once.</summary>
    public const int MaxStaysAtOnce = 5_000;

    /// <summary>
    /// When the stays that leaves and renewals end or change were set to run out until then, by position of the event. One that
    /// lies before the event's own time had run out while the command was on its way.
    /// </summary>
    public async Task<IReadOnlyDictionary<long, DateTimeOffset>> ExpiriesBefore(
        string tenantId, IReadOnlyList<RecordedEvent> events, CancellationToken cancellation)
    {
        var keys = events.Select(e => (User: User.IdOf(e.StreamId), e.Position, SegmentId: e.Data switch
        {
            UserLeftSegment left => left.SegmentId,
            MembershipRenewed renewed => renewed.SegmentId,
            _ => throw new InvalidOperationException($"{e.Type} does not end or change a stay."),
        })).ToArray();
        var expiries = await snapshots.Rows(
            tenantId,
            Sql.Command(
                """
                select k.position, p.expires_at
                from unnest($2, $3, $4) k (user_id, segment_id, position)
                cross join lateral (
                  (select m.expires_at from past_memberships m
                   where m.tenant_id = $1 and m.segment_id = k.segment_id and m.user_id = k.user_id and m.ended_position = k.position limit 1)
                  union all
                  (select t.expires_at from membership_terms t
                   where t.tenant_id = $1 and t.segment_id = k.segment_id and t.user_id = k.user_id and t.until_position = k.position limit 1)) p
                where p.expires_at is not null
                """,
                Sql.Value(tenantId), Sql.Texts(keys.Select(k => k.User)), Sql.Longs(keys.Select(k => k.SegmentId)),
                Sql.Longs(keys.Select(k => k.Position))),
            row => (Position: row.GetInt64(0), ExpiresAt: row.GetFieldValue<DateTimeOffset>(1)), cancellation);
        return expiries.ToDictionary(e => e.Position, e => e.ExpiresAt);
    }

    /// <summary>
    /// Hands over the stays that began by <paramref name="position"/>, ran out at an instant from <paramref name="from"/> on and before
    /// <paramref name="to"/>, while their segment was there, and that no event has ended up to now, in pages.
    /// </summary>
    public async Task RunOut(
        string tenantId, DateTimeOffset from, DateTimeOffset to, long position,
        Func<IReadOnlyList<(string UserId, string Segment, DateTimeOffset ExpiresAt)>, Task> write, CancellationToken cancellation)
    {
        await foreach (var life in Lives(tenantId, from, cancellation))
        {
            var before = life.DeletedAt < to ? life.DeletedAt.Value.AddMicroseconds(1) : to;
            for (var (after, count) = (from.AddMicroseconds(-1), MaxStaysAtOnce); count >= MaxStaysAtOnce;)
            {
                (after, count) = await RunOut(tenantId, life, after, before, position, write, cancellation);
            }
        }
    }

    /// <summary>
    /// So many stays of one life of a segment, and all others that ran out at the instant of the last: so the next ones begin with
    /// another instant, which is where the index begins. Returns that instant, and how many were read.
    /// </summary>
    private async Task<(DateTimeOffset Last, int Count)> RunOut(
        string tenantId, (long Id, string Slug, DateTimeOffset? DeletedAt) life, DateTimeOffset after, DateTimeOffset before, long position,
        Func<IReadOnlyList<(string UserId, string Segment, DateTimeOffset ExpiresAt)>, Task> write, CancellationToken cancellation)
    {
        var (last, count) = (after, 0);
        var page = new List<(string UserId, string Segment, DateTimeOffset ExpiresAt)>();
        await snapshots.Read(
            tenantId, [],
            [
                Sql.Command(
                    """
                    select m.user_id, m.expires_at, m.joined_position from memberships m
                    where m.tenant_id = $1 and m.segment_id = $2 and m.expires_at > $3 and m.expires_at < $4
                    order by m.expires_at fetch first $5 rows with ties
                    """,
                    Sql.Value(tenantId), Sql.Value(life.Id), Sql.Value(after), Sql.Value(before), Sql.Value((long)MaxStaysAtOnce)),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    (last, count) = (reader.GetFieldValue<DateTimeOffset>(1), count + 1);
                    if (reader.GetInt64(2) <= position)
                    {
                        page.Add((reader.GetString(0), life.Slug, last));
                    }

                    if (page.Count == MaxStaysAtOnce)
                    {
                        await write(page);
                        page = [];
                    }
                }
            },
            cancellation);
        if (page.Count > 0)
        {
            await write(page);
        }

        return (last, count);
    }

    /// <summary>The lives of segments that were there at an instant or later.</summary>
    private async IAsyncEnumerable<(long Id, string Slug, DateTimeOffset? DeletedAt)> Lives(
        string tenantId, DateTimeOffset from, [EnumeratorCancellation] CancellationToken cancellation)
    {
        for (var (after, count) = (0L, MaxStaysAtOnce); count == MaxStaysAtOnce;)
        {
            var lives = await snapshots.Rows(
                tenantId,
                Sql.Command(
                    """
                    select s.segment_id, s.slug, s.deleted_at from segments s
                    where s.tenant_id = $1 and s.segment_id > $2 and (s.deleted_at is null or s.deleted_at >= $3)
                    order by s.segment_id limit $4
                    """,
                    Sql.Value(tenantId), Sql.Value(after), Sql.Value(from), Sql.Value(MaxStaysAtOnce)),
                row => (Id: row.GetInt64(0), Slug: row.GetString(1), DeletedAt: row.Maybe<DateTimeOffset?>(2)), cancellation);
            count = lives.Count;
            foreach (var life in lives)
            {
                yield return life;
                after = life.Id;
            }
        }
    }
}
