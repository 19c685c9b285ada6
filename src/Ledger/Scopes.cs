using Ledger.Http;

namespace Ledger;

/// <summary>What a credential allows. One does not imply another, except that <see cref="Admin"/> implies them all.</summary>
[Flags]
public enum Scopes
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>Read users, segments, memberships and sizes.</summary>
    SegmentsRead = 1,

    /// <summary>Change users, segments and memberships.</summary>
    SegmentsWrite = 2,

    /// <summary>Read services, prices, calls and totals.</summary>
    UsageRead = 4,

    /// <summary>Report, void and price calls; change services and their prices.</summary>
    UsageWrite = 8,

    /// <summary>Read who did what when, and have reports made of it.</summary>
    HistoryRead = 16,

    /// <summary>Read the events themselves, and the proofs of the transparency log.</summary>
    LogRead = 32,

    /// <summary>Everything in the tenant, its keys among it; in the tenant <c>*DEFAULT*</c> also what is of the node and of all tenants.</summary>
    Admin = 64,

    /// <summary>Read campaigns and what became of their messages.</summary>
    CampaignsRead = 128,

    /// <summary>Plan, change and steer campaigns.</summary>
    CampaignsWrite = 256,

    /// <summary>All of them.</summary>
    All = SegmentsRead | SegmentsWrite | UsageRead | UsageWrite | HistoryRead | LogRead | Admin | CampaignsRead | CampaignsWrite,
}

/// <summary>Scopes by the names that keys, tokens and answers have for them.</summary>
public static class ScopeNames
{
    private static readonly (Scopes Scope, string Name)[] Names =
    [
        (Scopes.SegmentsRead, "segments:read"), (Scopes.SegmentsWrite, "segments:write"), (Scopes.UsageRead, "usage:read"),
        (Scopes.UsageWrite, "usage:write"), (Scopes.HistoryRead, "history:read"), (Scopes.LogRead, "log:read"),
        (Scopes.CampaignsRead, "campaigns:read"), (Scopes.CampaignsWrite, "campaigns:write"), (Scopes.Admin, "admin"),
    ];

    /// <summary>Every name.</summary>
    public static IReadOnlyList<string> All { get; } = [.. Names.Select(n => n.Name)];

    /// <summary>The names of scopes, in the order of <see cref="All"/>.</summary>
    public static string[] Of(Scopes scopes) => [.. Names.Where(n => (scopes & n.Scope) != 0).Select(n => n.Name)];

    /// <summary>The scope of a name; none of one that is not known.</summary>
    public static Scopes Parse(ReadOnlySpan<char> name)
    {
        foreach (var (scope, known) in Names)
        {
            if (name.SequenceEqual(known))
            {
                return scope;
            }
        }

        return Scopes.None;
    }

    /// <summary>The scopes of names; those not known count for nothing.</summary>
    public static Scopes Parse(IEnumerable<string> names) => names.Aggregate(Scopes.None, (all, name) => all | Parse(name));
}

/// <summary>What an endpoint asks of its caller. Every endpoint has one.</summary>
/// <param name="Scopes">What the credential must allow; none: no credential is asked for.</param>
/// <param name="OfOperator">Whether the credential must be one of the tenant <c>*DEFAULT*</c>, because what is shown or done is of no tenant.</param>
public sealed record Requirement(Scopes Scopes, bool OfOperator = false)
{
    /// <summary>No credential.</summary>
    public static readonly Requirement Nothing = new(Scopes.None);
}

/// <summary>How endpoints declare what they ask of their callers.</summary>
public static class Requirements
{
    /// <summary>Asks for a credential with a scope.</summary>
    public static RouteHandlerBuilder Requires(this RouteHandlerBuilder route, Scopes scope) => route.Requires(new Requirement(scope));

    /// <summary>Asks for an operator's credential: <see cref="Scopes.Admin"/> in the tenant <c>*DEFAULT*</c>.</summary>
    public static RouteHandlerBuilder RequiresOperator(this RouteHandlerBuilder route) => route.Requires(new Requirement(Scopes.Admin, OfOperator: true));

    /// <summary>Asks for no credential.</summary>
    public static TBuilder RequiresNothing<TBuilder>(this TBuilder route) where TBuilder : IEndpointConventionBuilder => route.WithMetadata(Requirement.Nothing);

    private static RouteHandlerBuilder Requires(this RouteHandlerBuilder route, Requirement requirement) => route
        .WithMetadata(requirement)
        .Produces<Problem>(401, Problems.ContentType)
        .Produces<Problem>(403, Problems.ContentType);
}
