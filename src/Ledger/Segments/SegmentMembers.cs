using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Segments;

/// <summary>A member of a segment.</summary>
public sealed record SegmentMember(string UserId, DateTimeOffset JoinedAt, DateTimeOffset? ExpiresAt, string Source);

/// <summary>Answers who is, was or will be in a segment, by user id. Users taken in by a roll-out are a rule's, not a list's.</summary>
public static class SegmentMembers
{
    private static readonly CsvTable<SegmentMember> Csv = new(
        ["userId", "joinedAt", "expiresAt", "source"],
        (csv, member) =>
        {
            csv.Text(member.UserId);
            csv.Time(member.JoinedAt);
            csv.Time(member.ExpiresAt);
            csv.Text(member.Source);
        });

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/segments/{slug}/members", Handle)
        .Requires(Scopes.SegmentsRead).WithName("ListSegmentMembers").WithTags("Segments").WithSummary("Members of a segment, now, at an instant or as known at a position")
        .ProducesList<SegmentMember>().ProducesQueryProblems(404, 406);

    private static Task<IResult> Handle(
        string slug, [AsParameters] PageQuery page, [AsParameters] AsOfQuery query, HttpContext http, Queries queries, SegmentMembersReader members,
        CancellationToken cancellation) =>
        queries.AsOf(http, SegmentCatalogueReader.Views, query, async asOf =>
        {
            var errors = new Validation();
            errors.CheckSlug(slug, "slug");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            if (await members.FindSegment(http.TenantId(), slug, asOf, cancellation) is not { } segmentId)
            {
                return Problems.For(SegmentRejections.NotFound(slug));
            }

            return await ListAnswers.Answer<SegmentMember, string>(
                http, page, "members", [slug, .. query.Filter], Csv,
                async (after, rows) =>
                {
                    var (position, found) = await members.List(http.TenantId(), segmentId, asOf, after ?? "", rows, cancellation);
                    http.AnswerPosition(position);
                    return [.. found.Select(r => (r, r.UserId))];
                });
        });
}

/// <summary>Reads members.</summary>
public sealed class SegmentMembersReader(NpgsqlDataSource database, ViewDatabase views)
{
    /// <summary>Whether segment s was alive at $2, as far as was known at position $3.</summary>
    internal const string KnownSegment =
        "s.created_at <= $2 and s.segment_id <= $3 and (s.deleted_at is null or s.deleted_at > $2 or s.deleted_position > $3)";

    /// <summary>
    /// Past stays that have ended since an instant, up to which those of them that held at it are looked for by their end; where there
    /// are more, by user, as then a fair share of all past stays has.
    /// </summary>
    public const int MaxEndedSince = 20_000;

    private const string EndedSince =
        """
        (select * from past_memberships p
         where p.tenant_id = s.tenant_id and p.segment_id = s.segment_id and p.ended_position > 0 and p.ended_position > (select position from since)
         order by p.ended_position offset 0)
        """;

    /// <summary>
    /// The stays of segment s that held at $2, as far as was known at position $3, all of them; of the past ones those that have ended
    /// <see cref="Since"/> are read. A stay renewed since then had the term that the first later renewal replaced.
    /// </summary>
    internal static string KnownStays() =>
        $"""
         ({Known("memberships", hasEnded: false)})
         union all
         ({Known(EndedSince, hasEnded: true)})
         """;

    /// <summary>
    /// A page of them, in order of user id: <paramref name="page"/> ends the reading of the open and of the past ones each. Where
    /// members come and go nearly all past stays ended before the instant, and to pass over them would cost all there ever were:
    /// so it goes by <see cref="Ended"/>.
    /// </summary>
    internal static string KnownStays(string page) =>
        $"""
         ({Known("memberships", hasEnded: false)} {page})
         union all
         ({Known(EndedSince, hasEnded: true)} and (select are_few from ended) {page})
         union all
         ({Known("past_memberships", hasEnded: true)} and not (select are_few from ended) {page})
         """;

    /// <summary>Those of one user, m.user_id being the one that is said.</summary>
    internal static string KnownStaysOf(string user) =>
        $"""
         ({Known("memberships", hasEnded: false)} and m.user_id = {user} limit 1)
         union all
         ({Known("past_memberships", hasEnded: true)} and m.user_id = {user} limit 1)
         """;

    /// <summary>The expression "since", for "with recursive": the position after which whatever held at $2, as known at $3, ended if it has ended.</summary>
    internal static string Since => $"{LogTimes.SearchBefore("$2")}, since as materialized (select least($3, max(lo)) as position from before)";

    /// <summary>The expressions "since" and "ended", for "with recursive": whether few stays have ended since then, in the segments of tenant $1.</summary>
    internal static string Ended(string segmentIds) =>
        $"""
         {Since},
         ended as materialized (
           select count(*) <= {MaxEndedSince} as are_few
           from (
             select from unnest({segmentIds}) k (segment_id)
             cross join lateral (
               select from past_memberships p
               where p.tenant_id = $1 and p.segment_id = k.segment_id and p.ended_position > 0 and p.ended_position > (select position from since)
               order by p.ended_position limit {MaxEndedSince + 1}) p
             limit {MaxEndedSince + 1}) p
         )
         """;

    private static string Known(string table, bool hasEnded) =>
        $"""
         select m.user_id, m.joined_at, case when t.renewed then t.expires_at else m.expires_at end as expires_at, m.source
         from {table} m
         left join lateral (
           select true as renewed, t.expires_at from membership_terms t
           where t.tenant_id = m.tenant_id and t.segment_id = m.segment_id and t.user_id = m.user_id and t.joined_position = m.joined_position
             and (t.until_position > $3 or t.until_at > $2)
           order by t.until_position limit 1) t on true
         where m.tenant_id = s.tenant_id and m.segment_id = s.segment_id and m.joined_position <= $3 and m.joined_at <= $2
           {(hasEnded ? "and (m.ended_position > $3 or m.ended_at > $2)" : "")}
           and coalesce(case when t.renewed then t.expires_at else m.expires_at end > $2, true)
         """;

    /// <summary>The life of a slug that is or was alive.</summary>
    public async Task<long?> FindSegment(string tenantId, string slug, AsOf asOf, CancellationToken cancellation)
    {
        await using var batch = database.For(
            tenantId,
            asOf.IsNow
                ? "select s.segment_id from segments s where s.tenant_id = $1 and s.slug = $4 and s.deleted_at is null and $2::timestamptz is not null and $3::bigint > 0"
                : $"select s.segment_id from segments s where s.tenant_id = $1 and s.slug = $4 and {KnownSegment}",
            Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(slug));
        await using var reader = await batch.Read(cancellation);
        return await reader.ReadAsync(cancellation) ? reader.GetInt64(0) : null;
    }

    /// <summary>A page of members, by user id.</summary>
    public async Task<(long Position, IReadOnlyList<SegmentMember> Rows)> List(
        string tenantId, long segmentId, AsOf asOf, string after, int limit, CancellationToken cancellation)
    {
        var rows = new List<SegmentMember>();
        var position = await views.Read(
            tenantId, SegmentCatalogueReader.Views,
            [asOf.IsNow ? Now(tenantId, segmentId, asOf, after, limit) : Past(tenantId, segmentId, asOf, after, limit)],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(new SegmentMember(
                        reader.GetString(0), reader.GetFieldValue<DateTimeOffset>(1), reader.Maybe<DateTimeOffset?>(2), reader.GetString(3)));
                }
            },
            cancellation);
        return (position, rows);
    }

    private static NpgsqlBatchCommand Now(string tenantId, long segmentId, AsOf asOf, string after, int limit) => Sql.Command(
        """
        select m.user_id, m.joined_at, m.expires_at, m.source from memberships m
        where m.tenant_id = $1 and m.segment_id = $2 and m.user_id > $3 and (m.expires_at is null or m.expires_at > $4)
        order by m.user_id limit $5
        """,
        Sql.Value(tenantId), Sql.Value(segmentId), Sql.Value(after), Sql.Value(asOf.At), Sql.Value(limit));

    internal static NpgsqlBatchCommand Past(string tenantId, long segmentId, AsOf asOf, string after, int limit) => Sql.Command(
        $"""
         with recursive {Ended("array[$4]")}
         select m.user_id, m.joined_at, m.expires_at, m.source
         from (select $1::varchar as tenant_id, $4::bigint as segment_id) s
         cross join lateral ({KnownStays("and m.user_id > $5 order by m.user_id limit $6")}) m
         order by m.user_id limit $6
         """,
        Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(segmentId), Sql.Value(after), Sql.Value(limit));
}
