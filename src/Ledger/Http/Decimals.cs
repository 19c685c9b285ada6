using System.Buffers.Text;
using System.Globalization;
using System.Text;

namespace Ledger.Http;

/// <summary>
/// Decimals as text: written plain and trimmed (<c>12.5</c>, <c>0.000001</c>), read plain or with an exponent, as JavaScript
/// writes <c>1e-7</c>. What a <see cref="decimal"/> cannot hold exactly is refused, never rounded.
/// </summary>
public static class Decimals
{
    /// <summary>The longest text that is read or written.</summary>
    public const int MaxChars = 64;

    /// <summary>The most digits that carry meaning, and the most after the point.</summary>
    public const int MaxDigits = 28;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "is not a decimal of at most 28 digits, such as \"12.5\"";

    /// <summary>Reads <c>-?digits[.digits][e[+-]digits]</c>; false when it is something else or cannot be held exactly.</summary>
    public static bool TryParse(ReadOnlySpan<byte> text, out decimal value)
    {
        value = 0;
        if (text.Length is 0 or > MaxChars) return false;
        var at = text[0] == '-' ? 1 : 0;
        int digits = 0, meaningful = 0, zeros = 0, scale = 0;
        var point = false;
        for (; at < text.Length; at++)
        {
            var c = text[at];
            if (c == '.' && !point && digits > 0)
            {
                point = true;
                continue;
            }
            if (!char.IsAsciiDigit((char)c)) break;
            digits++;
            if (point) scale++;
            // Zeros count once another digit follows them.
            if (c == '0') zeros = meaningful == 0 ? 0 : zeros + 1;
            else (meaningful, zeros) = (meaningful + zeros + 1, 0);
        }
        if (digits == 0 || !char.IsAsciiDigit((char)text[at - 1])) return false;
        var exponent = 0;
        if (at < text.Length)
        {
            if ((text[at] | 0x20) != 'e') return false;
            var exponentText = text[(at + 1)..];
            if (!exponentText.IsEmpty && exponentText[0] == '+') exponentText = exponentText[1..];
            if (exponentText.IsEmpty || !char.IsAsciiDigit((char)exponentText[^1])) return false;
            if (!Utf8Parser.TryParse(exponentText, out exponent, out var consumed) || consumed != exponentText.Length) return false;
            if (Math.Abs((long)exponent) > MaxChars + MaxDigits) return meaningful == 0;
        }
        if (meaningful == 0) return true;
        // The value is meaningful digits times ten to the power of this.
        var power = exponent - scale + zeros;
        if (meaningful > MaxDigits || power < -MaxDigits || meaningful + power > MaxDigits) return false;
        return decimal.TryParse(text, NumberStyles.AllowLeadingSign | NumberStyles.AllowDecimalPoint | NumberStyles.AllowExponent, CultureInfo.InvariantCulture, out value);
    }

    /// <summary>Reads text, by the same rules.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out decimal value)
    {
        value = 0;
        Span<byte> utf8 = stackalloc byte[MaxChars];
        return Encoding.UTF8.TryGetBytes(text, utf8, out var written) && TryParse(utf8[..written], out value);
    }

    /// <summary>Writes the value into <paramref name="utf8"/>, of at least <see cref="MaxChars"/>, and returns how many bytes it took.</summary>
    public static int Format(decimal value, Span<byte> utf8)
    {
        if (value == 0) value = 0;
        value.TryFormat(utf8, out var written, default, CultureInfo.InvariantCulture);
        var text = utf8[..written];
        return text.Contains((byte)'.') ? text.TrimEnd((byte)'0').TrimEnd((byte)'.').Length : written;
    }

    /// <summary>The value as text.</summary>
    public static string Format(decimal value)
    {
        Span<byte> utf8 = stackalloc byte[MaxChars];
        return Encoding.ASCII.GetString(utf8[..Format(value, utf8)]);
    }
}
