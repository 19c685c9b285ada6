using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Segments;

/// <summary>Changes a live segment's description, roll-out or default time to live. A field left out stays; null takes it away.</summary>
public sealed record ChangeSegment(Patch<string?> Description, Patch<decimal?> RolloutPercent, Patch<TimeSpan?> DefaultTtl)
{
    /// <summary>Decides on the segment; what is so already makes no event.</summary>
    public Decision Decide(Segment segment)
    {
        if (!segment.IsLive)
        {
            return SegmentRejections.NotFound(segment.Slug);
        }

        var events = new List<object>();
        if (Description.IsSet && Description.Value != segment.Description)
        {
            events.Add(new SegmentDescribed(Description.Value));
        }

        if (RolloutPercent.IsSet && (RolloutPercent.Value ?? 0) != segment.RolloutPercent)
        {
            events.Add(new RolloutChanged(RolloutPercent.Value ?? 0));
        }

        if (DefaultTtl.IsSet && DefaultTtl.Value != segment.DefaultTtl)
        {
            events.Add(new DefaultTtlChanged(DefaultTtl.Value));
        }

        return Decision.Of(events);
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPatch("/v1/segments/{slug}", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(ChangeSegment)).WithTags("Segments").WithSummary("Change a segment")
        .Accepts<ChangeSegment>("application/json", "application/merge-patch+json")
        .Produces<SegmentAnswer>().ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string slug, ChangeSegment body, HttpContext http, CommandHandler handler, SegmentLoader segments, SegmentCatalogueReader catalogue,
        LedgerClock clock, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(slug, "slug");
        SegmentRules.Check(errors, body.Description.Value, body.RolloutPercent.Value, body.DefaultTtl.Value);
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command(body);
        var ifMatch = http.IfMatch();
        var stream = Segment.StreamOf(slug);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var segment = await segments.Load(context.TenantId, slug, fresh: true, cancellation);
                var version = segment.IsLive ? segment.Version : 0;
                var decision = ifMatch.Allows(version) ? body.Decide(segment) : IfMatch.Failed(version);
                return new Decided(decision, stream, Segment.StreamType, [new StreamCondition(stream, segment.Version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        var changed = await segments.LoadAt(context.TenantId, slug, result.Version, cancellation);
        var members = await catalogue.Size(context.TenantId, changed.Id, clock.GetUtcNow(), cancellation);
        return Results.Ok(SegmentAnswer.Of(changed, members));
    }
}
