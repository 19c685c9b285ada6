namespace Ledger;

/// <summary>Who makes a request, as the credential says.</summary>
/// <param name="TenantId">The tenant whose data the request is about.</param>
/// <param name="Name">The credential's name: the actor of what it does, and the source of calls that name none.</param>
/// <param name="Scopes">What it may do there.</param>
public sealed record Caller(string TenantId, string Name, Scopes Scopes)
{
    /// <summary>Who is taken to make a request where no credentials are asked for.</summary>
    public static readonly Caller Anonymous = new(Requests.DefaultTenant, Requests.Anonymous, Scopes.All);

    /// <summary>Whether the caller may look after what is of no tenant or of all of them.</summary>
    public bool IsOperator => TenantId == Requests.DefaultTenant && (Scopes & Scopes.Admin) != 0;

    /// <summary>
    /// Whether the caller may see whose events the whole log holds: entries of the transparency log name streams and actors of all
    /// tenants. Who reads the log in the operator's tenant may.
    /// </summary>
    public bool SeesEveryTenantsEntries => TenantId == Requests.DefaultTenant;

    /// <summary>Whether the caller has a scope.</summary>
    public bool May(Scopes scope) => (Scopes & Scopes.Admin) != 0 || (Scopes & scope) == scope;

    /// <summary>Whether the caller is all that is asked for.</summary>
    public bool May(Requirement requirement) => requirement.OfOperator ? IsOperator : May(requirement.Scopes);
}
