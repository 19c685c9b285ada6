using System.Globalization;

namespace Ledger.EventStore;

/// <summary>
/// The path of a tile, as C2SP's tlog-tiles has it: <c>tile/&lt;L&gt;/&lt;N&gt;[.p/&lt;W&gt;]</c>, and
/// <c>tile/entries/&lt;N&gt;[.p/&lt;W&gt;]</c>. N comes in groups of three digits, all but the last after an <c>x</c>.
/// </summary>
public readonly record struct TilePath
{
    /// <summary>Hashes, or entries, of a full tile.</summary>
    public const int Width = 256;

    /// <summary>The highest level that a path can name.</summary>
    public const int MaxLevel = 63;

    /// <summary>Levels of the tree between two levels of tiles.</summary>
    internal const int Height = 8;

    private const int MaxGroups = 6;
    private const string Partial = ".p/";

    private TilePath(int? level, long index, int count) => (Level, Index, Count) = (level, index, count);

    /// <summary>The level of hashes; null: the entries themselves.</summary>
    public int? Level { get; }

    /// <summary>Which tile of its level.</summary>
    public long Index { get; }

    /// <summary>How many hashes or entries; <see cref="Width"/> in a full tile, whose path does not say so.</summary>
    public int Count { get; }

    /// <summary>A tile of hashes.</summary>
    public static TilePath OfHashes(int level, long index, int count) => new(level, index, count);

    /// <summary>A tile of entries.</summary>
    public static TilePath OfEntries(long index, int count) => new(null, index, count);

    /// <summary>Reads a path that is spelt as it must be; there is one spelling.</summary>
    public static bool TryParse(string text, out TilePath path)
    {
        path = default;
        return text.Split('/', 3) is ["tile", var level, var rest] && TryParse(level, rest, out path);
    }

    /// <summary>Reads what follows <c>tile/</c>: the level, or <c>entries</c>, and the rest.</summary>
    public static bool TryParse(string level, string rest, out TilePath path)
    {
        path = default;
        int? number = null;
        if (level != "entries")
        {
            if (!TryNumber(level, MaxLevel, out var parsed))
            {
                return false;
            }

            number = parsed;
        }

        var count = Width;
        if (rest.IndexOf(Partial, StringComparison.Ordinal) is >= 0 and var dot)
        {
            if (!TryNumber(rest[(dot + Partial.Length)..], Width - 1, out count) || count == 0)
            {
                return false;
            }

            rest = rest[..dot];
        }

        if (!TryIndex(rest, out var index))
        {
            return false;
        }

        path = new TilePath(number, index, count);
        return true;
    }

    /// <summary>The path.</summary>
    public override string ToString()
    {
        var groups = (Index % 1000).ToString("000", CultureInfo.InvariantCulture);
        for (var rest = Index / 1000; rest > 0; rest /= 1000)
        {
            groups = string.Create(CultureInfo.InvariantCulture, $"x{rest % 1000:000}/{groups}");
        }

        var level = Level is { } number ? number.ToString(CultureInfo.InvariantCulture) : "entries";
        return string.Create(CultureInfo.InvariantCulture, $"tile/{level}/{groups}{(Count == Width ? "" : $"{Partial}{Count}")}");
    }

    private static bool TryIndex(string text, out long index)
    {
        index = 0;
        var groups = text.Split('/');
        if (groups.Length > MaxGroups)
        {
            return false;
        }

        for (var i = 0; i < groups.Length; i++)
        {
            var digits = groups[i];
            if (i < groups.Length - 1)
            {
                if (digits is not ['x', ..])
                {
                    return false;
                }

                digits = digits[1..];
            }

            if (digits.Length != 3 || !digits.All(char.IsAsciiDigit))
            {
                return false;
            }

            index = (index * 1000) + int.Parse(digits, CultureInfo.InvariantCulture);
            if (i == 0 && groups.Length > 1 && index == 0)
            {
                return false; // a group of zeros before the others would be a second spelling
            }
        }

        return true;
    }

    private static bool TryNumber(string text, int max, out int number) =>
        int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number) && number <= max && (text.Length == 1 || text[0] != '0');
}
