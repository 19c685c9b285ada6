using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Segments;

/// <summary>A segment. <c>members</c> counts the explicit and imported memberships that hold now; a roll-out is a rule, not a list.</summary>
public sealed record SegmentAnswer(
    string Slug, string? Description, decimal RolloutPercent, TimeSpan? DefaultTtl, long Members, DateTimeOffset CreatedAt, DateTimeOffset? DeletedAt)
{
    internal static SegmentAnswer Of(Segment segment, long members) => new(
        segment.Slug, segment.Description, segment.RolloutPercent, segment.DefaultTtl, segment.DeletedAt is null ? members : 0,
        segment.CreatedAt, segment.DeletedAt);
}

/// <summary>Answers which segments there are.</summary>
public static class SegmentCatalogue
{
    private static readonly CsvTable<SegmentAnswer> Csv = new(
        ["slug", "description", "rolloutPercent", "defaultTtl", "members", "createdAt", "deletedAt"],
        (csv, segment) =>
        {
            csv.Text(segment.Slug);
            csv.Text(segment.Description);
            csv.Number(segment.RolloutPercent);
            csv.Text(segment.DefaultTtl is { } ttl ? Iso8601Duration.Format(ttl) : null);
            csv.Number(segment.Members);
            csv.Time(segment.CreatedAt);
            csv.Time(segment.DeletedAt);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/segments/{slug}", GetOne)
            .Requires(Scopes.SegmentsRead).WithName("GetSegment").WithTags("Segments").WithSummary("A segment; of a deleted one, its last life")
            .Produces<SegmentAnswer>().ProducesQueryProblems(404);
        routes.MapGet("/v1/segments", List)
            .Requires(Scopes.SegmentsRead).WithName("ListSegments").WithTags("Segments").WithSummary("All segments by slug; deleted ones when asked for")
            .ProducesList<SegmentAnswer>().ProducesQueryProblems(406);
    }

    private static Task<IResult> GetOne(
        string slug, HttpContext http, Queries queries, SegmentCatalogueReader catalogue, CancellationToken cancellation) =>
        queries.Now(http, SegmentCatalogueReader.Views, async now =>
        {
            var errors = new Validation();
            errors.CheckSlug(slug, "slug");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var (position, found) = await catalogue.Find(http.TenantId(), slug, now, cancellation);
            http.AnswerPosition(position);
            if (found is not { } row)
            {
                return Problems.For(SegmentRejections.NotFound(slug));
            }

            ETags.Write(http.Response, row.Segment.Version);
            return Results.Ok(SegmentAnswer.Of(row.Segment, row.Members));
        });

    private static Task<IResult> List(
        [AsParameters] PageQuery page, bool? includeDeleted, HttpContext http, Queries queries, SegmentCatalogueReader catalogue,
        CancellationToken cancellation) =>
        queries.Now(http, SegmentCatalogueReader.Views, now => ListAnswers.Answer<SegmentAnswer, SegmentCatalogueReader.Key>(
            http, page, "segments", [$"{includeDeleted ?? false}"], Csv,
            async (after, rows) =>
            {
                var (position, found) = await catalogue.List(http.TenantId(), includeDeleted ?? false, after, rows, now, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(r => (SegmentAnswer.Of(r.Segment, r.Members), new SegmentCatalogueReader.Key(r.Segment.Slug, r.Segment.Id)))];
            }));
}

/// <summary>Reads the view "Segments", with sizes.</summary>
public sealed class SegmentCatalogueReader(ViewDatabase views)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [SegmentsProjection.View, MembershipsProjection.View];

    /// <summary>Where a page of the list ends.</summary>
    public sealed record Key(string Slug, long Id);

    /// <summary>The last life of a slug, with its size at an instant.</summary>
    public async Task<(long Position, (Segment Segment, long Members)? Found)> Find(
        string tenantId, string slug, DateTimeOffset now, CancellationToken cancellation)
    {
        var (position, rows) = await Query(
            "s.tenant_id = $1 and s.slug = $5 order by s.segment_id desc limit 1", tenantId, now, [Sql.Value(slug)], cancellation);
        return (position, rows.Count == 0 ? null : rows[0]);
    }

    /// <summary>A page of the list, by slug and life, with sizes.</summary>
    public Task<(long Position, IReadOnlyList<(Segment Segment, long Members)> Rows)> List(
        string tenantId, bool includeDeleted, Key? after, int limit, DateTimeOffset now, CancellationToken cancellation) =>
        Query(
            $"s.tenant_id = $1 {(includeDeleted ? "" : "and s.deleted_at is null")} and (s.slug, s.segment_id) > ($5, $6) order by s.slug, s.segment_id limit $7",
            tenantId, now, [Sql.Value(after?.Slug ?? ""), Sql.Value(after?.Id ?? 0), Sql.Value(limit)], cancellation);

    /// <summary>How many memberships of one life of a segment hold at an instant.</summary>
    public async Task<long> Size(string tenantId, long segmentId, DateTimeOffset at, CancellationToken cancellation)
    {
        var (_, rows) = await Query("s.tenant_id = $1 and s.segment_id = $5", tenantId, at, [Sql.Value(segmentId)], cancellation);
        return rows.Count == 0 ? 0 : rows[0].Members;
    }

    private async Task<(long Position, IReadOnlyList<(Segment Segment, long Members)> Rows)> Query(
        string where, string tenantId, DateTimeOffset at, NpgsqlParameter[] parameters, CancellationToken cancellation)
    {
        var rows = new List<(Segment, long)>();
        var position = await views.Read(
            tenantId, Views,
            [
                Sql.Command(
                    $"select {SegmentRow.Columns}, {SegmentSizes.SizeColumn} from segments s where {where}",
                    [Sql.Value(tenantId), .. SegmentSizes.RangesUpTo(at), .. parameters]),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add((SegmentRow.Read(reader, 0), reader.GetInt64(9)));
                }
            },
            cancellation);
        return (position, rows);
    }
}
