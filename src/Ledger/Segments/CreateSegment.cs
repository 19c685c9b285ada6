using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Segments;

/// <summary>Creates a segment. A deleted segment's slug may be used again; the old memberships stay ended.</summary>
public sealed record CreateSegment(string Slug, string? Description = null, decimal? RolloutPercent = null, TimeSpan? DefaultTtl = null)
{
    /// <summary>Decides on what the slug has been so far.</summary>
    public Decision Decide(Segment segment)
    {
        if (segment.IsLive)
        {
            return SegmentRejections.Exists(Slug);
        }

        return Decision.Of(new SegmentCreated(Slug, Description, RolloutPercent ?? 0, Slug, DefaultTtl));
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/segments", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(CreateSegment)).WithTags("Segments").WithSummary("Create a segment")
        .Produces<SegmentAnswer>(201).ProducesCommandProblems(409);

    private static async Task<IResult> Handle(
        CreateSegment body, HttpContext http, CommandHandler handler, SegmentLoader segments, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(body.Slug, "slug");
        errors.Check(body.Slug != Segment.ReservedSlug, "slug", "is reserved: /v1/segments/counts lists the sizes of all segments");
        SegmentRules.Check(errors, body.Description, body.RolloutPercent, body.DefaultTtl);
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command(body);
        var stream = Segment.StreamOf(body.Slug);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var segment = await segments.Load(context.TenantId, body.Slug, fresh: true, cancellation);
                return new Decided(body.Decide(segment), stream, Segment.StreamType, [new StreamCondition(stream, segment.Version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        var created = await segments.LoadAt(context.TenantId, body.Slug, result.Version, cancellation);
        return Results.Created($"/v1/segments/{body.Slug}", SegmentAnswer.Of(created, members: 0));
    }
}

/// <summary>What holds for the fields of a segment, whether it is created or changed.</summary>
internal static class SegmentRules
{
    public static void Check(Validation errors, string? description, decimal? rolloutPercent, TimeSpan? defaultTtl)
    {
        errors.Check(
            description is null || description.Length <= Segment.MaxDescriptionLength, "description",
            $"must have at most {Segment.MaxDescriptionLength} characters");
        errors.Check(
            rolloutPercent is null || Rollout.IsPercent(rolloutPercent.Value), "rolloutPercent",
            "must be from 0 to 100 with at most two decimals");
        errors.Check(defaultTtl is null || defaultTtl > TimeSpan.Zero, "defaultTtl", "must be longer than zero");
        errors.Check(defaultTtl is null || defaultTtl <= Segment.MaxTtl, "defaultTtl", $"must be at most P{Segment.MaxTtl.Days}D");
    }
}
