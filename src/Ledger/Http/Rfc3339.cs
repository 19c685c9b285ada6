using System.Globalization;
using System.Text;

namespace Ledger.Http;

/// <summary>
/// Times as text, RFC 3339. Read with any offset, but never without one; finer digits than the microseconds
/// that PostgreSQL keeps are cut off. Written in UTC with <c>Z</c>, without trailing zeros.
/// </summary>
public static class Rfc3339
{
    /// <summary>The longest text that is read or written.</summary>
    public const int MaxChars = 64;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "is not an RFC 3339 time with an offset, such as 2026-11-20T12:00:00Z";

    /// <summary>Reads a time; the result is in UTC.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out DateTimeOffset value)
    {
        value = default;
        if (text.Length is < 20 or > MaxChars || text[4] != '-' || text[7] != '-' || text[10] is not ('T' or 't') || text[13] != ':' || text[16] != ':') return false;
        if (!Number(text[..4], out var year) || !Number(text[5..7], out var month) || !Number(text[8..10], out var day)) return false;
        if (!Number(text[11..13], out var hour) || !Number(text[14..16], out var minute) || !Number(text[17..19], out var second)) return false;
        if (year is 0 || month is 0 or > 12 || day is 0 || day > DateTime.DaysInMonth(year, month) || hour > 23 || minute > 59 || second > 59) return false;
        var ticks = new DateTime(year, month, day, hour, minute, second).Ticks;
        var rest = text[19..];
        if (rest[0] == '.')
        {
            var length = rest[1..].IndexOfAnyExceptInRange('0', '9');
            if (length <= 0) return false;
            var micros = 0;
            for (var i = 1; i <= 6; i++) micros = micros * 10 + (i <= length ? rest[i] - '0' : 0);
            ticks += micros * TimeSpan.TicksPerMicrosecond;
            rest = rest[(length + 1)..];
        }
        if (!TryOffset(rest, out var offsetMinutes)) return false;
        ticks -= offsetMinutes * TimeSpan.TicksPerMinute;
        if (ticks < DateTime.MinValue.Ticks || ticks > DateTime.MaxValue.Ticks) return false;
        value = new(ticks, TimeSpan.Zero);
        return true;
    }

    /// <summary>Writes the time into <paramref name="utf8"/>, of at least <see cref="MaxChars"/>, and returns how many bytes it took.</summary>
    public static int Format(DateTimeOffset value, Span<byte> utf8)
    {
        // "O" is the fast one: 2026-11-20T12:00:00.0000000Z, of which six digits stay.
        value.UtcDateTime.TryFormat(utf8, out _, "O", CultureInfo.InvariantCulture);
        var length = utf8[..26].TrimEnd((byte)'0').TrimEnd((byte)'.').Length;
        if (length < 19) length = 19;
        utf8[length] = (byte)'Z';
        return length + 1;
    }

    /// <summary>The time as text.</summary>
    public static string Format(DateTimeOffset value)
    {
        Span<byte> utf8 = stackalloc byte[MaxChars];
        return Encoding.ASCII.GetString(utf8[..Format(value, utf8)]);
    }

    /// <summary>The time cut to the microseconds that PostgreSQL keeps, in UTC.</summary>
    public static DateTimeOffset ToMicroseconds(this DateTimeOffset value) =>
        new(value.UtcTicks - value.UtcTicks % TimeSpan.TicksPerMicrosecond, TimeSpan.Zero);

    private static bool TryOffset(ReadOnlySpan<char> text, out int minutes)
    {
        minutes = 0;
        if (text is "Z" or "z") return true;
        if (text.Length != 6 || text[0] is not ('+' or '-') || text[3] != ':') return false;
        if (!Number(text[1..3], out var hour) || !Number(text[4..6], out var minute) || hour > 23 || minute > 59) return false;
        minutes = (hour * 60 + minute) * (text[0] == '-' ? -1 : 1);
        return true;
    }

    private static bool Number(ReadOnlySpan<char> digits, out int value)
    {
        value = 0;
        foreach (var c in digits)
        {
            if (!char.IsAsciiDigit(c)) return false;
            value = value * 10 + (c - '0');
        }
        return true;
    }
}

/// <summary>
/// A time in a query string, bound by minimal APIs by the rules of <see cref="Rfc3339"/>. The framework's own binding of
/// <see cref="DateTimeOffset"/> takes many forms and guesses an offset.
/// </summary>
public readonly record struct QueryTime(DateTimeOffset Value)
{
    /// <summary>Reads the time. A <c>+</c> that was not escaped arrives as a space and is understood.</summary>
    public static bool TryParse(string? text, IFormatProvider? provider, out QueryTime time)
    {
        var parsed = Rfc3339.TryParse(text is { Length: > 6 } && text[^6] == ' ' ? $"{text[..^6]}+{text[^5..]}" : text, out var value);
        time = new(value);
        return parsed;
    }

    /// <summary>The time as it is written.</summary>
    public override string ToString() => Rfc3339.Format(Value);
}
