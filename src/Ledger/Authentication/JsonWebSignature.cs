using System.Diagnostics.CodeAnalysis;
using System.Text;
using System.Text.Json;

namespace Ledger.Authentication;

/// <summary>
/// A compact JSON Web Signature (RFC 7515), read and not yet verified. What a header says of keys (<c>jku</c>, <c>jwk</c>,
/// <c>x5u</c>, <c>x5c</c>) is not looked at: a key is never taken from what it is to verify.
/// </summary>
public sealed record JsonWebSignature(string Algorithm, string? KeyId, byte[] SigningInput, byte[] Payload, byte[] Signature)
{
    /// <summary>The deepest nesting of header and payload.</summary>
    public const int MaxDepth = 16;

    internal static readonly JsonDocumentOptions StrictJson = new() { AllowDuplicateProperties = false, MaxDepth = MaxDepth };

    /// <summary>Reads one; or says what is wrong with it.</summary>
    public static bool TryRead(ReadOnlySpan<char> token, [NotNullWhen(true)] out JsonWebSignature? jws, [NotNullWhen(false)] out string? wrong)
    {
        jws = null;
        wrong = "The token is no JSON Web Signature of three parts in base64url.";
        var first = token.IndexOf('.');
        var last = token.LastIndexOf('.');
        if (first < 0 || first == last || token[(first + 1)..last].Contains('.')
            || !StrictBase64Url.TryDecode(token[..first], out var header)
            || !StrictBase64Url.TryDecode(token[(first + 1)..last], out var payload)
            || !StrictBase64Url.TryDecode(token[(last + 1)..], out var signature))
        {
            return false;
        }

        wrong = "The token's header is no object of JSON whose members are told once.";
        try
        {
            using var document = JsonDocument.Parse(header, StrictJson);
            var root = document.RootElement;
            if (root.ValueKind != JsonValueKind.Object)
            {
                return false;
            }

            wrong = "The token's header has extensions that must be understood, and are not.";
            if (root.TryGetProperty("crit", out _))
            {
                return false;
            }

            wrong = "The token's header must have alg, and kid only as a text.";
            if (!root.TryGetProperty("alg", out var algorithm) || algorithm.ValueKind != JsonValueKind.String
                || (root.TryGetProperty("kid", out var kid) && kid.ValueKind != JsonValueKind.String))
            {
                return false;
            }

            wrong = "The token is of another type than JWT and at+jwt.";
            if (root.TryGetProperty("typ", out var type) && !IsTokenType(type))
            {
                return false;
            }

            jws = new JsonWebSignature(
                algorithm.GetString()!, kid.ValueKind == JsonValueKind.String ? kid.GetString() : null, Encoding.ASCII.GetBytes(token[..last].ToArray()), payload, signature);
            return true;
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            return false; // not JSON, or text that is not Unicode
        }
    }

    /// <summary>Whether one of the keys made it: the one that the token names, or, where it names none, the only one for its algorithm.</summary>
    public bool IsOf(IReadOnlyList<VerificationKey> keys)
    {
        VerificationKey? found = null;
        foreach (var key in keys)
        {
            if (key.Algorithm == Algorithm && (KeyId is null || key.KeyId == KeyId))
            {
                if (found is not null)
                {
                    return false; // nobody could say by which it was
                }

                found = key;
            }
        }

        return found?.Verify(SigningInput, Signature) ?? false;
    }

    private static bool IsTokenType(JsonElement type) =>
        type.ValueKind == JsonValueKind.String && type.GetString()!.ToUpperInvariant() is "JWT" or "AT+JWT" or "APPLICATION/JWT" or "APPLICATION/AT+JWT";
}
