using System.Text.Json.Serialization;
using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Segments;

/// <summary>How many memberships of a segment hold; <c>at</c> is there where several instants were asked for.</summary>
public sealed record SegmentSize(
    string Segment, long Members, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] DateTimeOffset? At = null);

/// <summary>Answers how large every segment is, was or is set to be.</summary>
public static class SegmentSizes
{
    private static readonly CsvTable<SegmentSize> Csv = new(
        ["segment", "members"],
        (csv, size) =>
        {
            csv.Text(size.Segment);
            csv.Number(size.Members);
        });

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/segments/counts", Handle)
        .Requires(Scopes.SegmentsRead).WithName("GetSegmentCounts").WithTags("Segments").WithSummary("Members of every live segment, now, at an instant, as known at a position, or over a time by hour or day")
        .ProducesList<SegmentSize>().ProducesQueryProblems(406);

    /// <summary>
    /// The size of segment s at the instant of <see cref="RangesUpTo"/>, whose parameters are $2 to $4: the sum of one range of
    /// the primary key a level, so its cost grows with neither the members nor the history.
    /// </summary>
    internal const string SizeColumn =
        """
        (select coalesce(sum(r.net), 0)::bigint
         from unnest($2, $3, $4) w (level, since, below)
         cross join lateral (
           select sum(c.net) as net from segment_size_changes c
           where c.tenant_id = s.tenant_id and c.segment_id = s.segment_id
             and c.level = w.level and c.bucket >= w.since and c.bucket < w.below) r)
        """;

    internal static NpgsqlParameter[] RangesUpTo(DateTimeOffset instant)
    {
        var ranges = SizeChanges.UpTo(instant);
        return
        [
            Sql.Value(ranges.Select(r => (short)r.Level).ToArray()), Sql.Longs(ranges.Select(r => r.From)), Sql.Longs(ranges.Select(r => r.Below)),
        ];
    }

    private static Task<IResult> Handle(
        [AsParameters] PageQuery page, [AsParameters] AsOfQuery query, [AsParameters] InstantsQuery instants, HttpContext http, Queries queries,
        SegmentSizesReader sizes, SizesOverTimeReader overTime, CancellationToken cancellation)
    {
        if (instants.IsAsked)
        {
            var errors = new Validation();
            errors.Check(query.At is null, "at", "can't be given together with from, to and interval");
            errors.Check(query.Position is null, "position", "can't be given together with from, to and interval");
            return errors.Rejection is { } invalid
                ? Task.FromResult(Problems.For(invalid))
                : queries.Now(http, SegmentCatalogueReader.Views, _ => SizesOverTime.OfAll(http, page, instants, overTime, cancellation));
        }

        return queries.AsOf(http, SegmentCatalogueReader.Views, query, asOf => ListAnswers.Answer<SegmentSize, string>(
            http, page with { Limit = page.Limit ?? Lists.MaxLimit }, "counts", query.Filter, Csv,
            async (after, rows) =>
            {
                var (position, found) = await sizes.List(http.TenantId(), asOf, after ?? "", rows, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(r => (r, r.Segment))];
            }));
    }
}

/// <summary>Reads sizes.</summary>
public sealed class SegmentSizesReader(ViewDatabase views)
{
    /// <summary>A page of the segments alive at an instant, by slug, with their sizes.</summary>
    public async Task<(long Position, IReadOnlyList<SegmentSize> Rows)> List(
        string tenantId, AsOf asOf, string after, int limit, CancellationToken cancellation)
    {
        var rows = new List<SegmentSize>();
        var position = await views.Read(
            tenantId, SegmentCatalogueReader.Views,
            [asOf.Position is null ? AtInstant(tenantId, asOf, after, limit) : AsKnown(tenantId, asOf, after, limit)],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(new SegmentSize(reader.GetString(0), reader.GetInt64(1)));
                }
            },
            cancellation);
        return (position, rows);
    }

    private static NpgsqlBatchCommand AtInstant(string tenantId, AsOf asOf, string after, int limit) => Sql.Command(
        $"""
         select s.slug, {SegmentSizes.SizeColumn} from segments s
         where s.tenant_id = $1 and s.slug > $6 and {(asOf.IsNow ? "s.deleted_at is null" : "s.created_at <= $5 and (s.deleted_at is null or s.deleted_at > $5)")}
           and $5::timestamptz is not null
         order by s.slug limit $7
         """,
        [Sql.Value(tenantId), .. SegmentSizes.RangesUpTo(asOf.At), Sql.Value(asOf.At), Sql.Value(after), Sql.Value(limit)]);

    /// <summary>Counts the stays known at a position one by one: an auditor's question, whose cost is that of the members, and of the stays that have ended since.</summary>
    private static NpgsqlBatchCommand AsKnown(string tenantId, AsOf asOf, string after, int limit) => Sql.Command(
        $"""
         with recursive {SegmentMembersReader.Since}
         select s.slug, (select count(*) from ({SegmentMembersReader.KnownStays()}) m) from segments s
         where s.tenant_id = $1 and s.slug > $4 and {SegmentMembersReader.KnownSegment}
         order by s.slug limit $5
         """,
        Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(after), Sql.Value(limit));
}
