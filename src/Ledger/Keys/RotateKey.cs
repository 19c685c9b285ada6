using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Keys;

/// <summary>Gives a key another secret. The one it has now holds on for <c>overlap</c>, so that callers can change over.</summary>
public sealed record RotateKey(TimeSpan Overlap)
{
    /// <summary>The longest overlap.</summary>
    public static readonly TimeSpan MaxOverlap = TimeSpan.FromDays(30);

    /// <summary>Decides on the key.</summary>
    public Decision Decide(ApiKey key, string tenantId, string secret, DateTimeOffset now)
    {
        if (!key.IsVisibleTo(tenantId) || key.RevokedAt is not null)
        {
            return KeyCatalogue.NotFound(key.Id);
        }

        if (key.HasExpiredAt(now))
        {
            return new Rejection("key-expired", $"The key '{key.Id}' has expired, with every secret that it could have: make another key.");
        }

        return Decision.Of(new KeyRotated(KeySecret.Sha256(secret), now + Overlap));
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/keys/{keyId}/rotate", Handle)
        .Requires(Scopes.Admin).WithName(nameof(RotateKey)).WithTags("Keys").WithSummary("Give a key another secret, told this once; the old one holds for the overlap")
        .Produces<KeyAnswer>().ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string keyId, RotateKey body, HttpContext http, CommandHandler handler, EventReader log, LedgerClock clock, CancellationToken cancellation)
    {
        var (result, key) = await body.Run(keyId, http.Command(body), http.IfMatch(), handler, log, clock, cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        return Results.Ok(key);
    }

    /// <summary>Runs it, whichever way it came: what became of it, and the key unless it was refused.</summary>
    internal async Task<(CommandResult Result, KeyAnswer? Key)> Run(
        string keyId, CommandContext context, IfMatch ifMatch, CommandHandler handler, EventReader log, LedgerClock clock, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.Check(Overlap >= TimeSpan.Zero && Overlap <= MaxOverlap, "overlap", $"must be from PT0S to P{MaxOverlap.Days}D");
        if (errors.Rejection is { } invalid)
        {
            return (new CommandResult { Rejection = invalid }, null);
        }

        if (!KeySecret.IsId(keyId))
        {
            return (new CommandResult { Rejection = KeyCatalogue.NotFound(keyId) }, null);
        }

        var (secret, stream, now) = (KeySecret.New(keyId), ApiKey.StreamOf(keyId), clock.GetUtcNow());
        var result = await handler.Handle(
            context with { TenantId = stream.TenantId, CallerTenantId = context.TenantId },
            async _ =>
            {
                var (key, version) = await log.Fold(stream, new ApiKey(keyId), ApiKey.Evolve, cancellation);
                var current = key.IsVisibleTo(context.TenantId) ? version : 0;
                var decision = ifMatch.Allows(current) ? Decide(key, context.TenantId, secret, now) : IfMatch.Failed(current);
                return new Decided(decision, stream.StreamId, ApiKey.StreamType, [new StreamCondition(stream.StreamId, version)]);
            },
            cancellation);
        if (result.Rejection is not null)
        {
            return (result, null);
        }

        var rotated = new ApiKey(keyId);
        await foreach (var recorded in log.ReadStream(stream, toVersion: result.Version, cancellation: cancellation))
        {
            rotated = ApiKey.Evolve(rotated, recorded); // as it was right after the request
        }

        return (result, KeyAnswer.Of(rotated, result.Replayed ? null : secret));
    }
}
