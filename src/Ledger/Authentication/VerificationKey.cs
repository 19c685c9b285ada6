using System.Buffers;
using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text.Json;

namespace Ledger.Authentication;

/// <summary>
/// A key that verifies signatures by one algorithm, which is the key's and never the token's to choose (RFC 8725, 3.1): RS256,
/// ES256 or HS256.
/// </summary>
public sealed class VerificationKey
{
    /// <summary>The shortest RSA modulus.</summary>
    public const int MinRsaBits = 2_048;

    /// <summary>The shortest secret of HS256.</summary>
    public const int MinSecretBytes = 32;

    private readonly Func<ReadOnlySpan<byte>, ReadOnlySpan<byte>, bool> _verify;

    private VerificationKey(string algorithm, string? keyId, Func<ReadOnlySpan<byte>, ReadOnlySpan<byte>, bool> verify) =>
        (Algorithm, KeyId, _verify) = (algorithm, keyId, verify);

    /// <summary>The algorithm, as <c>alg</c> names it.</summary>
    public string Algorithm { get; }

    /// <summary>The key's <c>kid</c>, if it has one.</summary>
    public string? KeyId { get; }

    /// <summary>Whether a signature is one of the data.</summary>
    public bool Verify(ReadOnlySpan<byte> data, ReadOnlySpan<byte> signature) => _verify(data, signature);

    /// <summary>Reads a JSON Web Key (RFC 7517); or says why it is of no use here.</summary>
    public static bool TryRead(JsonElement jwk, bool takeSecrets, [NotNullWhen(true)] out VerificationKey? key, [NotNullWhen(false)] out string? wrong)
    {
        key = null;
        wrong = jwk.ValueKind != JsonValueKind.Object ? "is no object"
            : Text(jwk, "use") is { } use && use != "sig" ? "is not for signatures"
            : jwk.TryGetProperty("key_ops", out var ops) && !(ops.ValueKind == JsonValueKind.Array && ops.EnumerateArray().Any(o => o.ValueKind == JsonValueKind.String && o.ValueEquals("verify"))) ? "is not for verifying"
            : null;
        if (wrong is not null)
        {
            return false;
        }

        (key, wrong) = Text(jwk, "kty") switch
        {
            "RSA" => Rsa(jwk),
            "EC" => Ec(jwk),
            "oct" when takeSecrets => Secret(jwk),
            "oct" => (null, "is a secret, which does not come from a URL"),
            _ => ((VerificationKey?)null, "has another kty than RSA, EC and oct"),
        };
        if (key is not null && Text(jwk, "alg") is { } algorithm && algorithm != key.Algorithm)
        {
            wrong = $"is for another algorithm than {key.Algorithm}";
            key = null;
        }

        return key is not null;
    }

    private static (VerificationKey? Key, string? Wrong) Rsa(JsonElement jwk)
    {
        if (jwk.TryGetProperty("d", out _))
        {
            return (null, "is a private key");
        }

        if (!TryDecode(Text(jwk, "n"), out var modulus) || !TryDecode(Text(jwk, "e"), out var exponent))
        {
            return (null, "must have n and e in base64url");
        }

        var parameters = new RSAParameters { Modulus = modulus, Exponent = exponent };
        try
        {
            using var rsa = RSA.Create(parameters);
            if (rsa.KeySize < MinRsaBits)
            {
                return (null, $"has fewer than {MinRsaBits} bits");
            }
        }
        catch (CryptographicException)
        {
            return (null, "is no RSA key");
        }

        // One an operation: the framework does not promise that a key may be used by several at once.
        return (new VerificationKey("RS256", Text(jwk, "kid"), (data, signature) =>
        {
            using var rsa = RSA.Create(parameters);
            return rsa.VerifyData(data, signature, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1);
        }), null);
    }

    private static (VerificationKey? Key, string? Wrong) Ec(JsonElement jwk)
    {
        if (jwk.TryGetProperty("d", out _))
        {
            return (null, "is a private key");
        }

        if (Text(jwk, "crv") != "P-256" || !TryDecode(Text(jwk, "x"), out var x) || !TryDecode(Text(jwk, "y"), out var y) || x.Length != 32 || y.Length != 32)
        {
            return (null, "must be on P-256, with x and y of 32 bytes in base64url");
        }

        var parameters = new ECParameters { Curve = ECCurve.NamedCurves.nistP256, Q = new ECPoint { X = x, Y = y } };
        try
        {
            using var ecdsa = ECDsa.Create(parameters);
        }
        catch (CryptographicException)
        {
            return (null, "is no point on P-256");
        }

        return (new VerificationKey("ES256", Text(jwk, "kid"), (data, signature) =>
        {
            using var ecdsa = ECDsa.Create(parameters);
            return signature.Length == 64 && ecdsa.VerifyData(data, signature, HashAlgorithmName.SHA256, DSASignatureFormat.IeeeP1363FixedFieldConcatenation);
        }), null);
    }

    private static (VerificationKey? Key, string? Wrong) Secret(JsonElement jwk)
    {
        if (!TryDecode(Text(jwk, "k"), out var secret) || secret.Length < MinSecretBytes)
        {
            return (null, $"must have k, at least {MinSecretBytes} bytes in base64url");
        }

        return (new VerificationKey("HS256", Text(jwk, "kid"), (data, signature) =>
        {
            Span<byte> mac = stackalloc byte[HMACSHA256.HashSizeInBytes];
            HMACSHA256.HashData(secret, data, mac);
            return CryptographicOperations.FixedTimeEquals(mac, signature);
        }), null);
    }

    private static string? Text(JsonElement jwk, string name) =>
        jwk.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static bool TryDecode(string? text, [NotNullWhen(true)] out byte[]? bytes)
    {
        bytes = null;
        return text is not null && StrictBase64Url.TryDecode(text, out bytes);
    }
}

/// <summary>Base64url as RFC 7515 has it: the alphabet and nothing else, no padding, no bits left over. So every text has one spelling.</summary>
internal static class StrictBase64Url
{
    private static readonly SearchValues<char> s_alphabet = SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_");

    public static bool TryDecode(ReadOnlySpan<char> text, [NotNullWhen(true)] out byte[]? bytes)
    {
        bytes = null;
        if (text.ContainsAnyExcept(s_alphabet) || text.Length % 4 == 1)
        {
            return false;
        }

        var decoded = new byte[text.Length * 3 / 4];
        if (Base64Url.DecodeFromChars(text, decoded, out _, out var written) != OperationStatus.Done || written != decoded.Length || !text.SequenceEqual(Base64Url.EncodeToString(decoded)))
        {
            return false;
        }

        bytes = decoded;
        return true;
    }
}
