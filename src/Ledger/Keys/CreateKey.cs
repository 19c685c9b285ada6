using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Keys;

/// <summary>A key that was made or rotated. <c>secret</c> is told this once; a repeat of the request with its idempotency key does not have it.</summary>
public sealed record KeyAnswer(
    string KeyId, string Name, string Tenant, IReadOnlyList<string> Scopes, string Prefix, DateTimeOffset CreatedAt, DateTimeOffset? ExpiresAt,
    DateTimeOffset? OldSecretUntil, string? Secret)
{
    internal static KeyAnswer Of(ApiKey key, string? secret) => new(
        key.Id, key.Name, key.Tenant, ScopeNames.Of(key.Scopes), key.Prefix, key.CreatedAt, key.ExpiresAt, key.OldUntil, secret);
}

/// <summary>Makes a key for a tenant: the caller's own, or, for an operator, any.</summary>
public sealed record CreateKey(string Name, IReadOnlyList<string> Scopes, string? Tenant = null, DateTimeOffset? ExpiresAt = null)
{
    /// <summary>Decides on what has become of the id so far.</summary>
    public Decision Decide(ApiKey key, string tenant, string secret)
    {
        if (key.Exists)
        {
            throw new InvalidOperationException($"The id {key.Id} was made up twice.");
        }

        return Decision.Of(new KeyCreated(Name, tenant, ScopeNames.Of(ScopeNames.Parse(Scopes)), KeySecret.PrefixOf(key.Id), KeySecret.Sha256(secret), ExpiresAt));
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/keys", Handle)
        .Requires(Ledger.Scopes.Admin).WithName(nameof(CreateKey)).WithTags("Keys").WithSummary("Make an API key; its secret is told this once")
        .Produces<KeyAnswer>(201).ProducesCommandProblems();

    private static async Task<IResult> Handle(
        CreateKey body, HttpContext http, CommandHandler handler, EventReader log, KeysReader keys, LedgerClock clock, CancellationToken cancellation)
    {
        var (result, key) = await body.Run(
            http.Command(body), handler, log, clock, cancellation, (asker, tenant) => keys.Refuse(asker, tenant, clock.GetUtcNow(), cancellation));
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        return Results.Created($"/v1/keys/{key!.KeyId}", key);
    }

    /// <summary>
    /// Runs it, whichever way it came: what became of it, and the key unless it was refused. <paramref name="refuse"/> says whether
    /// the tenant has as many as it may have; the command line makes keys all the same.
    /// </summary>
    internal async Task<(CommandResult Result, KeyAnswer? Key)> Run(
        CommandContext context, CommandHandler handler, EventReader log, LedgerClock clock, CancellationToken cancellation,
        Func<string, string, Task<Rejection?>>? refuse = null)
    {
        var tenant = Tenant ?? context.TenantId;
        if (KeyRules.Check(this, tenant, clock.GetUtcNow()) is { } invalid)
        {
            return (new CommandResult { Rejection = invalid }, null);
        }

        if (!ApiKey.AudienceOf(tenant).Contains(context.TenantId))
        {
            return (new CommandResult { Rejection = new Rejection("forbidden", $"A key for another tenant is made by the operator: by an admin of {Requests.DefaultTenant}.") }, null);
        }

        var keyId = KeySecret.NewId();
        var secret = KeySecret.New(keyId);
        var stream = ApiKey.StreamOf(keyId);
        var result = await handler.Handle(
            context with { TenantId = stream.TenantId, CallerTenantId = context.TenantId },
            async _ =>
            {
                var (key, version) = await log.Fold(stream, new ApiKey(keyId), ApiKey.Evolve, cancellation);
                var decision = refuse is not null && await refuse(context.TenantId, tenant) is { } full ? full : Decide(key, tenant, secret);
                return new Decided(decision, stream.StreamId, ApiKey.StreamType, [new StreamCondition(stream.StreamId, version)]);
            },
            cancellation);
        if (result.Rejection is not null)
        {
            return (result, null);
        }

        // The first request under this key may have made up another id, and nobody knows its secret any more.
        var stored = (await log.ReadAt(stream.TenantId, result.FirstPosition, cancellation))!;
        return (result, KeyAnswer.Of(ApiKey.Evolve(new ApiKey(ApiKey.IdOf(stored.StreamId)), stored), result.Replayed ? null : secret));
    }
}

/// <summary>What holds for what is said of a key.</summary>
public static class KeyRules
{
    /// <summary>The longest name, in Unicode characters.</summary>
    public const int MaxNameCharacters = 128;

    /// <summary>Keys of a tenant that are neither revoked nor expired.</summary>
    public const int MaxLiveKeys = 1_000;

    /// <summary>What is wrong with a request for a key; null when nothing is.</summary>
    internal static Rejection? Check(CreateKey command, string tenant, DateTimeOffset now)
    {
        var errors = new Validation();
        errors.Check(
            TextId.IsValid(command.Name, MaxNameCharacters), "name",
            $"must be 1 to {MaxNameCharacters} characters, none of them a control character, with no space at either end");
        errors.Check(tenant == Requests.DefaultTenant || Slug.IsValid(tenant), "tenant", TenantRule);
        errors.Check(command.Scopes.Count > 0, "scopes", $"must name at least one of {string.Join(", ", ScopeNames.All)}");
        for (var i = 0; i < command.Scopes.Count; i++)
        {
            var scope = command.Scopes[i];
            errors.Check(ScopeNames.Parse(scope) != Scopes.None, $"scopes[{i}]", $"must be one of {string.Join(", ", ScopeNames.All)}");
            errors.Check(!command.Scopes.Take(i).Contains(scope), $"scopes[{i}]", "is named twice");
        }

        errors.Check(command.ExpiresAt is null || command.ExpiresAt > now, "expiresAt", "must lie in the future");
        return errors.Rejection;
    }

    /// <summary>What to say of a text that names no tenant.</summary>
    public static string TenantRule { get; } =
        $"must be {Requests.DefaultTenant}, or 1 to 128 of A-Z, a-z, 0-9, '_', '.' and '-', beginning with a letter or a digit";
}
