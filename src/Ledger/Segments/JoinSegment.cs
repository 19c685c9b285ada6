using Ledger.Http;

namespace Ledger.Segments;

/// <summary>Lets a user join one segment, or gives the membership that holds another term.</summary>
public static class JoinSegment
{
    /// <summary>The body of the request; it may be left out. A field that is null means: for good.</summary>
    public sealed record Body(Patch<TimeSpan?> Ttl, Patch<DateTimeOffset?> ExpiresAt);

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPut("/v1/users/{userId}/segments/{slug}", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(JoinSegment)).WithTags("Memberships").WithSummary("Join one segment or renew a membership")
        .Accepts<Body>(isOptional: true, "application/json").Produces<UserSegment>().ProducesCommandProblems(404);

    private static async Task<IResult> Handle(
        string userId, string slug, Body? body, HttpContext http, MembershipCommands commands, UserSegmentsReader reader, CancellationToken cancellation)
    {
        body ??= new Body(default, default);
        var errors = new Validation();
        errors.CheckUserId(userId, "userId");
        errors.CheckSlug(slug, "slug");
        var term = Term.From(body.Ttl, body.ExpiresAt, errors, "");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var (result, after) = await commands.Handle(new ChangeMemberships(userId, [new Join(slug, term)], []), http.Command(body), cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(ChangeMemberships.OfOnlyJoin(rejection));
        }

        http.Answer(result);
        var state = after?.State ?? await reader.Fold(http.TenantId(), userId, new AsOf(result.RecordedAt, result.Position), cancellation);
        // Of several lives of the slug the last one: the view of segments may not know yet that the others are over.
        var membership = state.Open.Values.Where(m => m.Segment == slug).MaxBy(m => m.SegmentId)!;
        return Results.Ok(new UserSegment(slug, membership.Source, membership.JoinedAt, membership.ExpiresAt));
    }
}
