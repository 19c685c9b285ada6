using Ledger.Http;

namespace Ledger.Segments;

/// <summary>Lets a user leave one segment.</summary>
public static class LeaveSegment
{
    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapDelete("/v1/users/{userId}/segments/{slug}", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(LeaveSegment)).WithTags("Memberships").WithSummary("Leave one segment")
        .Produces(204).ProducesCommandProblems(404);

    private static async Task<IResult> Handle(
        string userId, string slug, HttpContext http, MembershipCommands commands, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckUserId(userId, "userId");
        errors.CheckSlug(slug, "slug");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var (result, _) = await commands.Handle(new ChangeMemberships(userId, [], [slug]), http.Command<object?>(null), cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.NoContent();
    }
}
