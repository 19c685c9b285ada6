namespace Ledger.Http;

/// <summary>What endpoints have in common in the API description and in their checks.</summary>
public static class Endpoints
{
    /// <summary>Describes the refusals that any command may be answered with, and those of this one.</summary>
    public static RouteHandlerBuilder ProducesCommandProblems(this RouteHandlerBuilder route, params ReadOnlySpan<int> statuses) =>
        route.ProducesProblems([400, 409, 413, 415, 422, 503, .. statuses]);

    /// <summary>Describes the refusals that any query may be answered with, and those of this one.</summary>
    public static RouteHandlerBuilder ProducesQueryProblems(this RouteHandlerBuilder route, params ReadOnlySpan<int> statuses) =>
        route.ProducesProblems([400, 503, .. statuses]);

    /// <summary>Describes a list: a page as JSON, all of it as NDJSON or CSV.</summary>
    public static RouteHandlerBuilder ProducesList<TItem>(this RouteHandlerBuilder route) => route
        .Produces<Page<TItem>>()
        .Produces<string>(200, Formats.NdjsonType, Formats.CsvType);

    /// <summary>Checks a user id.</summary>
    public static bool CheckUserId(this Validation errors, string userId, string field) =>
        errors.Check(UserId.IsValid(userId), field, UserId.Rule);

    /// <summary>Checks a slug.</summary>
    public static bool CheckSlug(this Validation errors, string slug, string field) =>
        errors.Check(Slug.IsValid(slug), field, Slug.Rule);

    private static RouteHandlerBuilder ProducesProblems(this RouteHandlerBuilder route, int[] statuses)
    {
        foreach (var status in statuses.Distinct().Order())
        {
            route.Produces<Problem>(status, Problems.ContentType);
        }

        return route;
    }
}
