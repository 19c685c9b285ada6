using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Ledger.EventStore;

namespace Ledger.Authentication;

/// <summary>
/// JSON Web Tokens as credentials (RFC 7519, with the care of RFC 8725): one issuer, one audience, an end, and a signature by a
/// key that is bound to its algorithm. A token that was verified is known again by its hash while the same keys hold.
/// </summary>
public sealed class JsonWebTokens(TokenSettings settings, TokenKeys keys, LedgerClock clock) : ICredentials
{
    /// <summary>Verified tokens kept in memory; past that the memory starts anew.</summary>
    public const int MaxRemembered = 10_000;

    /// <summary>The longest tenant, and the longest name, in Unicode characters.</summary>
    public const int MaxNameCharacters = 128;

    /// <summary>How far the issuer's clock may be from this one.</summary>
    public static readonly TimeSpan MaxSkew = TimeSpan.FromSeconds(30);

    private static readonly Rejection s_away = new("issuer-unavailable", "The keys of the issuer of tokens can't be fetched.");
    private static readonly Rejection s_signature = Authenticator.Invalid("The token is not signed by a key of the issuer.");
    private static readonly Rejection s_expired = Authenticator.Invalid("The token has expired.") with { CountedAs = "expired" };
    private static readonly Rejection s_early = Authenticator.Invalid("The token does not hold yet.");

    private readonly ConcurrentDictionary<Digest, Verified> _verified = [];

    /// <inheritdoc/>
    public bool Recognises(ReadOnlySpan<char> token) => token.Contains('.');

    /// <inheritdoc/>
    public Task<bool> AreConfigured(CancellationToken cancellation) => Task.FromResult(true);

    /// <inheritdoc/>
    public async ValueTask<Authentication> Authenticate(ReadOnlyMemory<char> token, CancellationToken cancellation)
    {
        if (await keys.Get(cancellation) is not { } set)
        {
            return s_away;
        }

        var digest = Digest.Of(token.Span);
        if (_verified.TryGetValue(digest, out var verified) && ReferenceEquals(verified.By, set))
        {
            return Judge(verified);
        }

        if (!JsonWebSignature.TryRead(token.Span, out var jws, out var wrong))
        {
            return Authenticator.Invalid(wrong);
        }

        if (!jws.IsOf(set.Keys))
        {
            // Only a key that the issuer may have added since is worth asking for.
            if (jws.KeyId is null || set.Keys.Any(k => k.KeyId == jws.KeyId) || await keys.GetNewer(set, cancellation) is not { } newer || !jws.IsOf(newer.Keys))
            {
                return s_signature;
            }

            set = newer;
        }

        if (!TryReadClaims(jws.Payload, set, out verified, out wrong))
        {
            return Authenticator.Invalid(wrong);
        }

        if (_verified.Count >= MaxRemembered)
        {
            _verified.Clear();
        }

        _verified[digest] = verified!;
        return Judge(verified!);
    }

    private Authentication Judge(Verified verified)
    {
        var now = clock.GetUtcNow();
        return now - MaxSkew >= verified.ExpiresAt ? s_expired : now + MaxSkew < verified.NotBefore ? s_early : verified.Caller;
    }

    private bool TryReadClaims(byte[] payload, TokenKeySet by, out Verified? verified, out string wrong)
    {
        verified = null;
        wrong = "The token's claims are no object of JSON whose members are told once.";
        try
        {
            using var document = JsonDocument.Parse(payload, JsonWebSignature.StrictJson);
            var claims = document.RootElement;
            if (claims.ValueKind != JsonValueKind.Object)
            {
                return false;
            }

            wrong = "The token is of another issuer.";
            if (TextOf(claims, "iss") != settings.Issuer)
            {
                return false;
            }

            wrong = "The token is for another audience.";
            if (!Texts(claims, "aud").Contains(settings.Audience, StringComparer.Ordinal))
            {
                return false;
            }

            wrong = "The token must have exp, and exp and nbf must be seconds since 1970.";
            if (!TryReadTime(claims, "exp", out var expiresAt) || expiresAt is null || !TryReadTime(claims, "nbf", out var notBefore))
            {
                return false;
            }

            wrong = "The token names no tenant.";
            var tenant = settings.TenantClaim.Length == 0 ? Requests.DefaultTenant : TextOf(claims, settings.TenantClaim);
            if (tenant is null || (tenant != Requests.DefaultTenant && !Slug.IsValid(tenant)))
            {
                return false;
            }

            wrong = "The token names no caller.";
            if (TextOf(claims, settings.NameClaim) is not { } name || !TextId.IsValid(name, MaxNameCharacters))
            {
                return false;
            }

            var scopes = ScopeNames.Parse(Texts(claims, "scope").Concat(Texts(claims, "scp")).SelectMany(s => s.Split(' ')));
            verified = new Verified(new Caller(tenant, name, scopes), notBefore ?? DateTimeOffset.MinValue, expiresAt.Value, by);
            return true;
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            return false; // not JSON, or text that is not Unicode
        }
    }

    private static string? TextOf(JsonElement claims, string name) =>
        claims.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    /// <summary>A text, or those of an array that holds nothing else.</summary>
    private static IReadOnlyList<string> Texts(JsonElement claims, string name) =>
        !claims.TryGetProperty(name, out var value) ? []
        : value.ValueKind == JsonValueKind.String ? [value.GetString()!]
        : value.ValueKind == JsonValueKind.Array && value.EnumerateArray().All(v => v.ValueKind == JsonValueKind.String) ? [.. value.EnumerateArray().Select(v => v.GetString()!)]
        : [];

    private static bool TryReadTime(JsonElement claims, string name, out DateTimeOffset? time)
    {
        time = null;
        if (!claims.TryGetProperty(name, out var value))
        {
            return true;
        }

        if (value.ValueKind != JsonValueKind.Number || !value.TryGetDecimal(out var seconds) || seconds < 0 || seconds > DateTimeOffset.MaxValue.ToUnixTimeSeconds() - 3_600)
        {
            return false;
        }

        time = DateTimeOffset.FromUnixTimeSeconds((long)seconds);
        return true;
    }

    /// <summary>What a token said, and which keys it was verified by.</summary>
    private sealed record Verified(Caller Caller, DateTimeOffset NotBefore, DateTimeOffset ExpiresAt, TokenKeySet By);

    /// <summary>SHA-256 of a token.</summary>
    private readonly record struct Digest(long A, long B, long C, long D)
    {
        public static Digest Of(ReadOnlySpan<char> token)
        {
            Span<byte> ascii = stackalloc byte[token.Length];
            Encoding.ASCII.GetBytes(token, ascii);
            Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
            SHA256.HashData(ascii, hash);
            return new Digest(
                BinaryPrimitives.ReadInt64LittleEndian(hash), BinaryPrimitives.ReadInt64LittleEndian(hash[8..]),
                BinaryPrimitives.ReadInt64LittleEndian(hash[16..]), BinaryPrimitives.ReadInt64LittleEndian(hash[24..]));
        }
    }
}
