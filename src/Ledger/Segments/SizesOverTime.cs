using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;
using Npgsql;

namespace Ledger.Segments;

/// <summary>How many memberships of a segment held at an instant.</summary>
public sealed record SizeAt(DateTimeOffset At, long Members);

/// <summary>Which instants sizes are asked for: <c>from</c>, and every interval after it before <c>to</c>.</summary>
/// <param name="From">The first instant.</param>
/// <param name="To">The end, exclusive.</param>
/// <param name="Interval"><c>PT1H</c> or <c>P1D</c>, by UTC.</param>
public readonly record struct InstantsQuery(
    [FromQuery(Name = "from")] QueryTime? From, [FromQuery(Name = "to")] QueryTime? To, [FromQuery(Name = "interval")] string? Interval)
{
    /// <summary>Instants of one answer.</summary>
    public const int MaxInstants = 1_000;

    /// <summary>Whether a course of time is asked for, and not one instant.</summary>
    public bool IsAsked => From is not null || To is not null || Interval is not null;

    internal string?[] Filter => [From?.ToString(), To?.ToString(), Interval];

    /// <summary>The instants, ascending; none where something is wrong with them.</summary>
    internal IReadOnlyList<DateTimeOffset> Read(Validation errors)
    {
        var width = Interval switch { "PT1H" => TimeSpan.FromHours(1), "P1D" => TimeSpan.FromDays(1), _ => TimeSpan.Zero };
        errors.Check(From is not null, "from", "is missing");
        errors.Check(To is not null, "to", "is missing");
        errors.Check(width > TimeSpan.Zero, "interval", Interval is null ? "is missing: PT1H or P1D" : "must be PT1H or P1D");
        if (From is not { Value: var from } || To is not { Value: var to } || width == TimeSpan.Zero
            || !errors.Check(from <= to, "from", "must not be after to")
            || !errors.Check((to - from).Ticks <= width.Ticks * MaxInstants, "to", $"must be at most {MaxInstants} intervals after from"))
        {
            return [];
        }

        return [.. Enumerable.Range(0, (int)Math.Ceiling((decimal)(to - from).Ticks / width.Ticks)).Select(i => from + (i * width))];
    }
}

/// <summary>Answers how large segments were over a time, exactly: each number is the one that <c>?at=</c> gives.</summary>
public static class SizesOverTime
{
    private static readonly CsvTable<SizeAt> CsvOfOne = new(
        ["at", "members"],
        (csv, size) =>
        {
            csv.Time(size.At);
            csv.Number(size.Members);
        });

    private static readonly CsvTable<SegmentSize> CsvOfAll = new(
        ["segment", "at", "members"],
        (csv, size) =>
        {
            csv.Text(size.Segment);
            csv.Time(size.At);
            csv.Number(size.Members);
        });

    /// <summary>The route of one segment; that of all is the one of <see cref="SegmentSizes"/>.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/segments/{slug}/counts", OfOne)
        .Requires(Scopes.SegmentsRead).WithName("GetSegmentCountsOverTime").WithTags("Segments").WithSummary("Members of a segment over a time, by hour or by day")
        .ProducesList<SizeAt>().ProducesQueryProblems(404, 406);

    private static Task<IResult> OfOne(
        string slug, [AsParameters] InstantsQuery query, [AsParameters] PageQuery page, HttpContext http, Queries queries, SizesOverTimeReader sizes,
        CancellationToken cancellation) =>
        queries.Now(http, SegmentCatalogueReader.Views, async _ =>
        {
            var errors = new Validation();
            errors.CheckSlug(slug, "slug");
            var instants = query.Read(errors);
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var lives = await sizes.Lives(http.TenantId(), slug, cancellation);
            return lives.Count == 0 ? Problems.For(SegmentRejections.NotFound(slug)) : await ListAnswers.Answer<SizeAt, int>(
                http, page with { Limit = page.Limit ?? InstantsQuery.MaxInstants }, "counts-of-segment", [slug, .. query.Filter], CsvOfOne,
                async (seen, rows) =>
                {
                    // Where the slug did not live there are no members; a row for every instant makes a curve.
                    var asked = instants.Skip(seen).Take(rows).ToArray();
                    var (position, found) = await sizes.Of(http.TenantId(), [.. asked.Select(at => (lives.FirstOrDefault(l => l.IsLiveAt(at))?.Id ?? 0, at))], cancellation);
                    http.AnswerPosition(position);
                    return [.. asked.Zip(found, (at, members) => (new SizeAt(at, members), ++seen))];
                });
        });

    /// <summary>Where a page of the list of all ends.</summary>
    internal sealed record Key(string Segment, DateTimeOffset At);

    /// <summary>Answers for all segments; those that did not live at an instant have no row for it.</summary>
    internal static async Task<IResult> OfAll(
        HttpContext http, PageQuery page, InstantsQuery query, SizesOverTimeReader sizes, CancellationToken cancellation)
    {
        var errors = new Validation();
        var instants = query.Read(errors);
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        return await ListAnswers.Answer<SegmentSize, Key>(
            http, page with { Limit = page.Limit ?? Lists.MaxLimit }, "counts-over-time", query.Filter, CsvOfAll,
            async (after, rows) =>
            {
                var asked = new List<(SegmentLife Life, DateTimeOffset At)>();
                await foreach (var life in sizes.LivesFrom(http.TenantId(), after?.Segment ?? "", instants, cancellation))
                {
                    asked.AddRange(instants.Where(at => life.IsLiveAt(at) && (life.Slug != after?.Segment || at > after.At)).Select(at => (life, at)));
                    if (asked.Count >= rows)
                    {
                        break;
                    }
                }

                asked = [.. asked.Take(rows)];
                var (position, found) = await sizes.Of(http.TenantId(), [.. asked.Select(a => (a.Life.Id, a.At))], cancellation);
                http.AnswerPosition(position);
                return [.. asked.Zip(found, (a, members) => (new SegmentSize(a.Life.Slug, members, a.At), new Key(a.Life.Slug, a.At)))];
            });
    }
}

/// <summary>One life of a segment: its id, and from when to when it lasted.</summary>
public sealed record SegmentLife(string Slug, long Id, DateTimeOffset CreatedAt, DateTimeOffset? DeletedAt)
{
    /// <summary>Whether the segment was there at an instant.</summary>
    public bool IsLiveAt(DateTimeOffset at) => CreatedAt <= at && (DeletedAt is null || at < DeletedAt);
}

/// <summary>Reads sizes at many instants.</summary>
public sealed class SizesOverTimeReader(ViewDatabase views)
{
    private const int LivesAtOnce = 100;

    /// <summary>All lives of a slug.</summary>
    public Task<List<SegmentLife>> Lives(string tenantId, string slug, CancellationToken cancellation) => ReadLives(
        tenantId, "select s.slug, s.segment_id, s.created_at, s.deleted_at from segments s where s.tenant_id = $1 and s.slug = $2 order by s.segment_id",
        [Sql.Value(tenantId), Sql.Value(slug)], cancellation);

    /// <summary>The lives that one of the instants may have seen, from a slug on, by slug and life, streamed in pages.</summary>
    public async IAsyncEnumerable<SegmentLife> LivesFrom(
        string tenantId, string slug, IReadOnlyList<DateTimeOffset> instants, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        if (instants.Count == 0)
        {
            yield break;
        }

        for (var (from, life) = (slug, 0L); ;)
        {
            var page = await ReadLives(
                tenantId,
                """
                select s.slug, s.segment_id, s.created_at, s.deleted_at from segments s
                where s.tenant_id = $1 and s.slug >= $2 and (s.slug > $2 or s.segment_id > $3) and s.created_at <= $5 and (s.deleted_at is null or s.deleted_at > $4)
                order by s.slug, s.segment_id limit $6
                """,
                [Sql.Value(tenantId), Sql.Value(from), Sql.Value(life), Sql.Value(instants[0]), Sql.Value(instants[^1]), Sql.Value(LivesAtOnce)], cancellation);
            foreach (var found in page)
            {
                yield return found;
            }

            if (page.Count < LivesAtOnce)
            {
                yield break;
            }

            (from, life) = (page[^1].Slug, page[^1].Id);
        }
    }

    /// <summary>
    /// The sizes of lives at instants, as they are asked for: for each a few ranges of the primary key, however many members
    /// there are. A life of id 0 has none.
    /// </summary>
    public async Task<(long Position, IReadOnlyList<long> Members)> Of(
        string tenantId, IReadOnlyList<(long SegmentId, DateTimeOffset At)> asked, CancellationToken cancellation)
    {
        var members = new long[asked.Count];
        var ranges = asked.SelectMany((a, i) => SizeChanges.UpTo(a.At).Select(r => (Index: i, a.SegmentId, r.Level, r.From, r.Below))).ToArray();
        var position = await views.Read(
            tenantId, SegmentCatalogueReader.Views,
            [
                Sql.Command(
                    Statement, Sql.Value(tenantId), Sql.Value(ranges.Select(r => r.Index).ToArray()), Sql.Longs(ranges.Select(r => r.SegmentId)),
                    Sql.Value(ranges.Select(r => (short)r.Level).ToArray()), Sql.Longs(ranges.Select(r => r.From)), Sql.Longs(ranges.Select(r => r.Below))),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    members[reader.GetInt32(0)] = reader.GetInt64(1);
                }
            },
            cancellation);
        return (position, members);
    }

    internal const string Statement =
        """
        select w.index, sum(r.net)::bigint
        from unnest($2, $3, $4, $5, $6) w (index, segment_id, level, since, below)
        cross join lateral (
          select coalesce(sum(c.net), 0) as net from segment_size_changes c
          where c.tenant_id = $1 and c.segment_id = w.segment_id and c.level = w.level and c.bucket >= w.since and c.bucket < w.below) r
        group by w.index
        """;

    private Task<List<SegmentLife>> ReadLives(
        string tenantId, string statement, NpgsqlParameter[] parameters, CancellationToken cancellation) => views.Rows(
        tenantId, Sql.Command(statement, parameters),
        row => new SegmentLife(row.GetString(0), row.GetInt64(1), row.GetFieldValue<DateTimeOffset>(2), row.Maybe<DateTimeOffset?>(3)), cancellation);
}
