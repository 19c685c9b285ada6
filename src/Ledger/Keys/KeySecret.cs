using System.Buffers;
using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;

namespace Ledger.Keys;

/// <summary>
/// What a caller shows: <c>ldg_</c>, the key's id, <c>_</c> and 256 random bits in base64url. Known by its beginning to whoever
/// looks for secrets that have leaked, and to Ledger which key to look for.
/// </summary>
public static class KeySecret
{
    /// <summary>Random bytes of a secret.</summary>
    public const int RandomBytes = 32;

    /// <summary>Random bytes of a key's id, which is no secret.</summary>
    public const int IdBytes = 8;

    private static readonly SearchValues<char> s_hexadecimal = SearchValues.Create("0123456789abcdef");

    private const string Begin = "ldg_";
    private const int IdChars = 2 * IdBytes;
    private const int PrefixChars = 4 + IdChars;
    private const int SecretChars = PrefixChars + 1 + 43;

    /// <summary>A new key's id: 16 hexadecimal digits.</summary>
    public static string NewId() => Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(IdBytes));

    /// <summary>A new secret of a key.</summary>
    public static string New(string keyId) => $"{PrefixOf(keyId)}_{Base64Url.EncodeToString(RandomNumberGenerator.GetBytes(RandomBytes))}";

    /// <summary>What all secrets of a key begin with.</summary>
    public static string PrefixOf(string keyId) => $"{Begin}{keyId}";

    /// <summary>Whether a text is the id of a key, as far as one can see.</summary>
    public static bool IsId(ReadOnlySpan<char> text) => text.Length == IdChars && !text.ContainsAnyExcept(s_hexadecimal);

    /// <summary>Whether a token is a secret of some key, as far as one can see.</summary>
    public static bool Recognises(ReadOnlySpan<char> token) => token.StartsWith(Begin, StringComparison.Ordinal);

    /// <summary>The key that a token would be a secret of.</summary>
    public static bool TryReadId(ReadOnlySpan<char> token, out ReadOnlySpan<char> keyId)
    {
        keyId = token.Length == SecretChars && token[PrefixChars] == '_' ? token[Begin.Length..PrefixChars] : default;
        return IsId(keyId);
    }

    /// <summary>What is stored of a secret.</summary>
    public static string Sha256(string secret) => Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(secret)));

    /// <summary>The same of a token that looks like one.</summary>
    public static void Sha256(ReadOnlySpan<char> token, Span<byte> hash)
    {
        Span<byte> ascii = stackalloc byte[SecretChars];
        Encoding.ASCII.GetBytes(token, ascii);
        SHA256.HashData(ascii, hash);
    }
}
