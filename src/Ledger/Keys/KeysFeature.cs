using Ledger.Authentication;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Keys;

/// <summary>API keys: what is stored, what is kept, what can be called, and what they let callers do.</summary>
public static class KeysFeature
{
    /// <summary>Its events, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(KeyCreated), "key_created"),
        (typeof(KeyRotated), "key_rotated"),
        (typeof(KeyRevoked), "key_revoked"),
    ];

    /// <summary>Its services.</summary>
    public static IServiceCollection AddKeys(this IServiceCollection services) => services
        .AddSingleton<IProjection, KeysProjection>()
        .AddSingleton<KeysReader>()
        .AddSingleton<KeyUses>()
        .AddHostedService(s => s.GetRequiredService<KeyUses>())
        .AddSingleton<ICredentials, KnownKeys>();

    /// <summary>Its routes.</summary>
    public static void MapKeys(this IEndpointRouteBuilder routes)
    {
        CreateKey.Map(routes);
        RotateKey.Map(routes);
        RevokeKey.Map(routes);
        KeyCatalogue.Map(routes);
    }

    /// <summary>The verb <c>keys create</c>.</summary>
    public static Task<int> Create(
        IServiceProvider services, string name, string? tenant, string[] scopes, string? expires, TextWriter output, TextWriter errors, CancellationToken cancellation) =>
        KeysVerb.Create(services, name, tenant, scopes, expires, output, errors, cancellation);

    /// <summary>The verb <c>keys list</c>.</summary>
    public static Task<int> List(IServiceProvider services, TextWriter output, CancellationToken cancellation) => KeysVerb.List(services, output, cancellation);

    /// <summary>The verb <c>keys rotate</c>.</summary>
    public static Task<int> Rotate(
        IServiceProvider services, string keyId, string overlap, TextWriter output, TextWriter errors, CancellationToken cancellation) =>
        KeysVerb.Rotate(services, keyId, overlap, output, errors, cancellation);

    /// <summary>The verb <c>keys revoke</c>.</summary>
    public static Task<int> Revoke(IServiceProvider services, string keyId, TextWriter output, TextWriter errors, CancellationToken cancellation) =>
        KeysVerb.Revoke(services, keyId, output, errors, cancellation);
}
