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
    /// The stays of segment s that held at $2, as far as was known at position $3. A stay renewed since then had the term that
    /// the first later renewal replaced. <paramref name="page"/> ends the reading of the open and of the past stays each, so
    /// that a page costs a page.
    /// </summary>
    internal static string KnownStays(string page = "") =>
        $"""
         ({KnownOf("memberships", endedAt: "null::timestamptz")} {page})
         union all
         ({KnownOf("past_memberships", endedAt: "case when m.ended_position <= $3 then m.ended_at end")} {page})
         """;

    private static string KnownOf(string table, string endedAt) =>
        $"""
         select m.user_id, m.joined_at, case when t.renewed then t.expires_at else m.expires_at end as expires_at, m.source
         from {table} m
         left join lateral (
           select true as renewed, t.expires_at from membership_terms t
           where t.tenant_id = m.tenant_id and t.segment_id = m.segment_id and t.user_id = m.user_id and t.joined_position = m.joined_position
             and (t.until_position > $3 or t.until_at > $2)
           order by t.until_position limit 1) t on true
         where m.tenant_id = s.tenant_id and m.segment_id = s.segment_id and m.joined_position <= $3 and m.joined_at <= $2
           and coalesce({endedAt} > $2, true)
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

    private static NpgsqlBatchCommand Past(string tenantId, long segmentId, AsOf asOf, string after, int limit) => Sql.Command(
        $"""
         select m.user_id, m.joined_at, m.expires_at, m.source
         from (select $1::varchar as tenant_id, $4::bigint as segment_id) s
         cross join lateral ({KnownStays("and m.user_id > $5 order by m.user_id limit $6")}) m
         order by m.user_id limit $6
         """,
        Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(segmentId), Sql.Value(after), Sql.Value(limit));
}
