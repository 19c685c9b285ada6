using System.Text;

namespace Ledger;

/// <summary>The rule for the ids that people choose as names: segments and services. Case-sensitive.</summary>
public static class Slug
{
    /// <summary>The longest slug, in characters.</summary>
    public const int MaxChars = 128;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule =
        "is not a slug: 1 to 128 of A-Z, a-z, 0-9, '_', '.' and '-', beginning with a letter or a digit";

    /// <summary>Whether <paramref name="value"/> is <c>[A-Za-z0-9][A-Za-z0-9_.-]{0,127}</c>.</summary>
    public static bool IsValid(ReadOnlySpan<char> value)
    {
        if (value.Length is 0 or > MaxChars || !char.IsAsciiLetterOrDigit(value[0])) return false;
        foreach (var c in value)
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('_' or '.' or '-')) return false;
        return true;
    }
}

/// <summary>
/// The rule for the ids of users, which other systems choose: any text that can be named in a URL.
/// Compared code point by code point: case-sensitive and not normalised.
/// </summary>
public static class UserId
{
    /// <summary>The longest user id, in Unicode characters (scalar values), as PostgreSQL counts them.</summary>
    public const int MaxCharacters = 128;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule =
        "is not a user id: 1 to 128 characters, none of them a control character, no space at either end, and not '.' or '..'";

    /// <summary>
    /// Whether <paramref name="value"/> is a user id. <c>.</c> and <c>..</c> are none because clients and servers
    /// resolve them away in a path, even when escaped, so nobody could ask for such a user.
    /// </summary>
    public static bool IsValid(ReadOnlySpan<char> value) => TextId.IsValid(value, MaxCharacters);
}

/// <summary>The rule for ids that other systems choose.</summary>
internal static class TextId
{
    /// <summary>Whether <paramref name="value"/> has 1 to so many characters, none of them a control character, no space at either end, and can be named in a URL.</summary>
    public static bool IsValid(ReadOnlySpan<char> value, int maxCharacters)
    {
        if (value.Length is 0 || value.Length > 2 * maxCharacters || value is "." or "..") return false;
        if (char.IsWhiteSpace(value[0]) || char.IsWhiteSpace(value[^1])) return false;
        if (value.Length <= maxCharacters && !value.ContainsAnyExceptInRange(' ', '~')) return true;
        var count = 0;
        while (!value.IsEmpty)
        {
            // A lone surrogate does not decode.
            if (Rune.DecodeFromUtf16(value, out var rune, out var consumed) != System.Buffers.OperationStatus.Done) return false;
            if (Rune.IsControl(rune) || ++count > maxCharacters) return false;
            value = value[consumed..];
        }
        return true;
    }
}
