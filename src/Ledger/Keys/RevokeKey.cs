using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Keys;

/// <summary>Revokes a key, with every secret that it has. That it was there stays in the log.</summary>
public sealed record RevokeKey
{
    /// <summary>Decides on the key.</summary>
    public static Decision Decide(ApiKey key, string tenantId)
    {
        if (!key.IsVisibleTo(tenantId) || key.RevokedAt is not null)
        {
            return KeyCatalogue.NotFound(key.Id);
        }

        return Decision.Of(new KeyRevoked());
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapDelete("/v1/keys/{keyId}", Handle)
        .Requires(Scopes.Admin).WithName(nameof(RevokeKey)).WithTags("Keys").WithSummary("Revoke a key; within a second no node takes it any more")
        .Produces(204).ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string keyId, HttpContext http, CommandHandler handler, EventReader log, CancellationToken cancellation)
    {
        var result = await Run(keyId, http.Command<object?>(null), http.IfMatch(), handler, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.NoContent();
    }

    /// <summary>Runs it, whichever way it came.</summary>
    internal static async Task<CommandResult> Run(
        string keyId, CommandContext context, IfMatch ifMatch, CommandHandler handler, EventReader log, CancellationToken cancellation)
    {
        if (!KeySecret.IsId(keyId))
        {
            return new CommandResult { Rejection = KeyCatalogue.NotFound(keyId) };
        }

        var stream = ApiKey.StreamOf(keyId);
        return await handler.Handle(
            context with { TenantId = stream.TenantId, CallerTenantId = context.TenantId },
            async _ =>
            {
                var (key, version) = await log.Fold(stream, new ApiKey(keyId), ApiKey.Evolve, cancellation);
                var current = key.IsVisibleTo(context.TenantId) ? version : 0;
                var decision = ifMatch.Allows(current) ? Decide(key, context.TenantId) : IfMatch.Failed(current);
                return new Decided(decision, stream.StreamId, ApiKey.StreamType, [new StreamCondition(stream.StreamId, version)]);
            },
            cancellation);
    }
}
