using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Text;

namespace Ledger;

/// <summary>
/// ISO 8601 durations of a fixed length: weeks, days, hours, minutes and seconds (<c>P14D</c>, <c>P2W</c>, <c>P1DT12H</c>,
/// <c>PT0.5S</c>). Years and months are refused, for their length depends on the calendar; so are signs.
/// </summary>
public static class Iso8601Duration
{
    /// <summary>The longest text that is read.</summary>
    public const int MaxChars = 64;

    private static readonly SearchValues<char> NumberChars = SearchValues.Create("0123456789.");

    private const string Rule = "is not an ISO 8601 duration such as P14D, PT1H or P1DT12H";
    private const string TooLong = "is too long a duration";

    /// <summary>Reads a duration; <paramref name="error"/> says what is wrong, as the end of a sentence about the field.</summary>
    public static bool TryParse(ReadOnlySpan<char> text, out TimeSpan value, [NotNullWhen(false)] out string? error)
    {
        value = default;
        error = Rule;
        if (text.Length is < 3 or > MaxChars || text[0] != 'P') return false;
        long ticks = 0;
        var inTime = false;
        var lastUnit = -1;
        for (var rest = text[1..]; !rest.IsEmpty;)
        {
            if (rest[0] == 'T')
            {
                if (inTime || rest.Length == 1) return false;
                inTime = true;
                rest = rest[1..];
                continue;
            }
            var unitAt = rest.IndexOfAnyExcept(NumberChars);
            if (unitAt <= 0) return false;
            var number = rest[..unitAt];
            var unit = rest[unitAt];
            if (!inTime && unit is ('Y' or 'M'))
            {
                error = "has years or months, which have no fixed length: use weeks, days, hours, minutes or seconds";
                return false;
            }
            var (order, unitTicks) = (inTime, unit) switch
            {
                (false, 'W') => (0, 7 * TimeSpan.TicksPerDay),
                (false, 'D') => (1, TimeSpan.TicksPerDay),
                (true, 'H') => (2, TimeSpan.TicksPerHour),
                (true, 'M') => (3, TimeSpan.TicksPerMinute),
                (true, 'S') => (4, TimeSpan.TicksPerSecond),
                _ => (-1, 0L),
            };
            if (order <= lastUnit) return false;
            lastUnit = order;
            if (!TryScale(number, unit, unitTicks, ref ticks, ref error)) return false;
            rest = rest[(unitAt + 1)..];
        }
        if (lastUnit < 0) return false;
        value = new TimeSpan(ticks);
        error = null;
        return true;
    }

    /// <summary>Writes a duration in its one canonical form, without weeks: <c>P14D</c>, <c>PT36H</c> as <c>P1DT12H</c>, zero as <c>PT0S</c>.</summary>
    public static string Format(TimeSpan value)
    {
        if (value == TimeSpan.Zero) return "PT0S";
        var text = new StringBuilder(value < TimeSpan.Zero ? "-P" : "P");
        var ticks = value.Ticks < 0 ? 0UL - (ulong)value.Ticks : (ulong)value.Ticks;
        var (days, inDay) = Math.DivRem(ticks, (ulong)TimeSpan.TicksPerDay);
        if (days > 0) text.Append(CultureInfo.InvariantCulture, $"{days}D");
        if (inDay == 0) return text.ToString();
        text.Append('T');
        var (hours, inHour) = Math.DivRem(inDay, (ulong)TimeSpan.TicksPerHour);
        var (minutes, inMinute) = Math.DivRem(inHour, (ulong)TimeSpan.TicksPerMinute);
        if (hours > 0) text.Append(CultureInfo.InvariantCulture, $"{hours}H");
        if (minutes > 0) text.Append(CultureInfo.InvariantCulture, $"{minutes}M");
        if (inMinute > 0)
            text.Append(((decimal)inMinute / TimeSpan.TicksPerSecond).ToString("0.#######", CultureInfo.InvariantCulture)).Append('S');
        return text.ToString();
    }

    private static bool TryScale(ReadOnlySpan<char> number, char unit, long unitTicks, ref long ticks, ref string error)
    {
        var dot = number.IndexOf('.');
        var whole = dot < 0 ? number : number[..dot];
        var fraction = dot < 0 ? default : number[(dot + 1)..];
        if (whole.IsEmpty || fraction.Contains('.') || (dot >= 0 && fraction.IsEmpty)) return false;
        if (!fraction.IsEmpty && unit != 'S')
        {
            error = "may have a fraction of seconds only";
            return false;
        }
        if (fraction.Length > 6)
        {
            error = "is finer than a microsecond";
            return false;
        }
        var fractionTicks = 0L;
        for (var i = 0; i < 7 && !fraction.IsEmpty; i++)
            fractionTicks = fractionTicks * 10 + (i < fraction.Length ? fraction[i] - '0' : 0);
        try
        {
            checked
            {
                ticks += long.Parse(whole, NumberStyles.None, CultureInfo.InvariantCulture) * unitTicks + fractionTicks;
            }
            return true;
        }
        catch (OverflowException)
        {
            error = TooLong;
            return false;
        }
    }
}
