using Ledger.EventStore;

namespace Ledger.Keys;

// These names and shapes are stored, in the stream key-{id} of the tenant *DEFAULT*, whichever tenant the key is for: a key is
// looked for before anybody knows whose it is. Secrets are not stored, only their SHA-256, in hexadecimal.

/// <summary>A key was made for a tenant.</summary>
public sealed record KeyCreated(string Name, string Tenant, IReadOnlyList<string> Scopes, string Prefix, string Sha256, DateTimeOffset? ExpiresAt);

/// <summary>A key got another secret. The one it had before holds until <paramref name="OldUntil"/>; one that was older holds no more.</summary>
public sealed record KeyRotated(string Sha256, DateTimeOffset OldUntil);

/// <summary>A key holds no more.</summary>
public sealed record KeyRevoked;

/// <summary>An API key as its stream tells it.</summary>
public sealed record ApiKey(string Id)
{
    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "key";

    /// <summary>Who made it knows it by this name; calls are reported and events recorded under it.</summary>
    public string Name { get; init; } = "";

    /// <summary>The tenant whose data it gives access to.</summary>
    public string Tenant { get; init; } = "";

    /// <summary>What it allows there.</summary>
    public Scopes Scopes { get; init; }

    /// <summary>What its secrets begin with.</summary>
    public string Prefix { get; init; } = "";

    /// <summary>SHA-256 of its secret.</summary>
    public byte[] Sha256 { get; init; } = [];

    /// <summary>SHA-256 of the secret before that, if there was one.</summary>
    public byte[] OldSha256 { get; init; } = [];

    /// <summary>Until when the secret before that one holds.</summary>
    public DateTimeOffset? OldUntil { get; init; }

    /// <summary>When it was made.</summary>
    public DateTimeOffset CreatedAt { get; init; }

    /// <summary>The event that made it.</summary>
    public long CreatedPosition { get; init; }

    /// <summary>Who made it.</summary>
    public string? CreatedBy { get; init; }

    /// <summary>From when on it holds no more.</summary>
    public DateTimeOffset? ExpiresAt { get; init; }

    /// <summary>When it got its secret, if that is not the first one.</summary>
    public DateTimeOffset? RotatedAt { get; init; }

    /// <summary>When it was revoked.</summary>
    public DateTimeOffset? RevokedAt { get; init; }

    /// <summary>The version of its stream.</summary>
    public long Version { get; init; }

    /// <summary>Whether it was ever made.</summary>
    public bool Exists => Version > 0;

    /// <summary>Whether it has run out at an instant.</summary>
    public bool HasExpiredAt(DateTimeOffset at) => ExpiresAt <= at;

    /// <summary>Whether a tenant may see and change it: its own, and the operator's.</summary>
    public bool IsVisibleTo(string tenantId) => Exists && AudienceOf(Tenant).Contains(tenantId);

    /// <summary>The tenants that see a key of a tenant.</summary>
    public static IReadOnlyList<string> AudienceOf(string tenant) => tenant == Requests.DefaultTenant ? [tenant] : [tenant, Requests.DefaultTenant];

    /// <summary>The stream of a key, among those of the tenant <c>*DEFAULT*</c>.</summary>
    public static StreamKey StreamOf(string id) => new(Requests.DefaultTenant, $"key-{id}");

    /// <summary>Whether there is a stream of any key. Ids are of lower-case hex digits, so streams lie between these in every collation.</summary>
    public static Task<bool> WereEverMade(EventReader log, CancellationToken cancellation) =>
        log.HasStreamBetween(Requests.DefaultTenant, StreamOf("0").StreamId, StreamOf("g").StreamId, cancellation);

    /// <summary>The key a stream belongs to.</summary>
    public static string IdOf(string streamId) => streamId["key-".Length..];

    /// <summary>Folds one event of the stream.</summary>
    public static ApiKey Evolve(ApiKey key, RecordedEvent recorded)
    {
        key = key with { Version = recorded.Version };
        return recorded.Data switch
        {
            KeyCreated e => key with
            {
                Name = e.Name, Tenant = e.Tenant, Scopes = ScopeNames.Parse(e.Scopes), Prefix = e.Prefix, Sha256 = Convert.FromHexString(e.Sha256),
                ExpiresAt = e.ExpiresAt, CreatedAt = recorded.RecordedAt, CreatedPosition = recorded.Position, CreatedBy = recorded.Actor,
            },
            KeyRotated e => key with
            {
                Sha256 = Convert.FromHexString(e.Sha256), OldSha256 = key.Sha256, OldUntil = e.OldUntil, RotatedAt = recorded.RecordedAt,
            },
            KeyRevoked => key with { RevokedAt = recorded.RecordedAt },
            _ => throw new InvalidOperationException($"{recorded.Type} does not belong into the stream of a key."),
        };
    }
}
