using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Segments;

/// <summary>Deletes a segment: one event, however many members; every membership ends at that instant.</summary>
public sealed record DeleteSegment
{
    /// <summary>Decides on the segment.</summary>
    public static Decision Decide(Segment segment)
    {
        if (!segment.IsLive)
        {
            return SegmentRejections.NotFound(segment.Slug);
        }

        return Decision.Of(new SegmentDeleted());
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapDelete("/v1/segments/{slug}", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(DeleteSegment)).WithTags("Segments").WithSummary("Delete a segment; every membership of it ends")
        .Produces(204).ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string slug, HttpContext http, CommandHandler handler, SegmentLoader segments, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(slug, "slug");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command<object?>(null);
        var ifMatch = http.IfMatch();
        var stream = Segment.StreamOf(slug);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var segment = await segments.Load(context.TenantId, slug, fresh: true, cancellation);
                var version = segment.IsLive ? segment.Version : 0;
                var decision = ifMatch.Allows(version) ? Decide(segment) : IfMatch.Failed(version);
                return new Decided(decision, stream, Segment.StreamType, [new StreamCondition(stream, segment.Version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.NoContent();
    }
}
