using System.Numerics;

namespace Ledger.Services;

/// <summary>
/// One price of a service, and what a call costs by it. <see cref="decimal"/> rounds without a word when a product needs more
/// than 28 digits, so amounts are made of whole numbers and a power of ten.
/// </summary>
public sealed class PriceVersion
{
    /// <summary>Components of a price.</summary>
    public const int MaxComponents = 32;

    /// <summary>Decimals of a component's price.</summary>
    public const int MaxPriceDecimals = 12;

    /// <summary>A component's price is less than this.</summary>
    public const decimal PriceLimit = 1_000_000_000;

    /// <summary>The largest <c>per</c>. It is a power of ten, and every <c>per</c> divides it: so every price / per is a finite decimal.</summary>
    public const long MaxPer = 1_000_000_000_000;

    private const int PerDecimals = 12;

    private const ulong AmountLimit = (ulong)PricedAmount.AmountLimit;

    private readonly Rate[] _rates;
    private readonly bool _hasCall;

    /// <summary>A price as it was set, when and at which position.</summary>
    public PriceVersion(PriceSet set, DateTimeOffset setAt, long position)
    {
        (Version, Currency, EffectiveFrom, Components, SetAt, Position) = (set.Version, set.Currency, set.EffectiveFrom, set.Components, setAt, position);
        _rates = [.. Components.Select(Rate.Of)];
        _hasCall = Components.Any(c => c.Unit == Unit.Call);
    }

    /// <summary>Its number in the price list, from 1.</summary>
    public int Version { get; }

    /// <summary>The currency of every amount made with it.</summary>
    public string Currency { get; }

    /// <summary>The first instant it is in force.</summary>
    public DateTimeOffset EffectiveFrom { get; }

    /// <summary>The price of each unit.</summary>
    public IReadOnlyList<PriceComponent> Components { get; }

    /// <summary>When it was set.</summary>
    public DateTimeOffset SetAt { get; }

    /// <summary>The position of the event that set it.</summary>
    public long Position { get; }

    /// <summary>
    /// What a call costs: the sum of quantity × price / per, exactly. A component without a quantity adds nothing. A quantity
    /// without a component leaves the call unpriced, but for the call itself, which adds nothing then.
    /// </summary>
    public PricedAmount Price(IReadOnlyDictionary<string, decimal> quantities)
    {
        if (Unknown(quantities) is { } unit)
        {
            return PricedAmount.Unpriced($"{PricedAmount.NoComponent}:{unit}");
        }

        return TrySum(quantities, out var sum, out var scale) || TrySumWide(quantities, out sum, out scale)
            ? Amount(sum, scale)
            : PricedAmount.Unpriced(PricedAmount.AmountOutOfRange);
    }

    /// <summary>The unit, the first by ordinal, that has a quantity but no component.</summary>
    private string? Unknown(IReadOnlyDictionary<string, decimal> quantities)
    {
        var known = !_hasCall && quantities.ContainsKey(Unit.Call) ? 1 : 0;
        foreach (var rate in _rates)
        {
            known += quantities.ContainsKey(rate.Unit) ? 1 : 0;
        }

        return known == quantities.Count
            ? null
            : quantities.Keys.Where(u => u != Unit.Call && !_rates.Any(r => r.Unit == u)).Min(StringComparer.Ordinal);
    }

    private static decimal QuantityOf(IReadOnlyDictionary<string, decimal> quantities, string unit)
    {
        if (!quantities.TryGetValue(unit, out var quantity))
        {
            return unit == Unit.Call ? 1 : 0;
        }

        return quantity >= 0 ? quantity : throw new ArgumentOutOfRangeException(nameof(quantities), $"The quantity of '{unit}' is negative.");
    }

    /// <summary>The sum as <paramref name="sum"/> × 10^-<paramref name="scale"/>; false when 128 bits are not enough on the way there.</summary>
    private bool TrySum(IReadOnlyDictionary<string, decimal> quantities, out UInt128 sum, out int scale)
    {
        (sum, scale) = (0, 0);
        foreach (var rate in _rates)
        {
            var (quantity, quantityScale) = Parts(QuantityOf(quantities, rate.Unit));
            if ((int)UInt128.LeadingZeroCount(quantity) + (int)UInt128.LeadingZeroCount(rate.Digits) < 128)
            {
                return false;
            }

            var (product, productScale) = (quantity * rate.Digits, quantityScale + rate.Scale);
            if (product == 0)
            {
                continue;
            }

            if (sum == 0)
            {
                scale = productScale;
            }

            if (!TryScale(ref sum, productScale - scale) || !TryScale(ref product, scale - productScale) || sum > UInt128.MaxValue - product)
            {
                return false;
            }

            (sum, scale) = (sum + product, Math.Max(scale, productScale));
        }

        return true;
    }

    /// <summary>The sum where 128 bits are not enough to make it; false when it is no amount.</summary>
    private bool TrySumWide(IReadOnlyDictionary<string, decimal> quantities, out UInt128 sum, out int scale)
    {
        const int WideScale = 28 + MaxPriceDecimals + PerDecimals;
        var wide = BigInteger.Zero;
        foreach (var rate in _rates)
        {
            var (quantity, quantityScale) = Parts(QuantityOf(quantities, rate.Unit));
            wide += (BigInteger)quantity * rate.Digits * BigInteger.Pow(10, WideScale - quantityScale - rate.Scale);
        }

        var amount = BigInteger.DivRem(wide, BigInteger.Pow(10, WideScale - PricedAmount.MaxAmountDecimals), out var rest);
        (sum, scale) = (0, PricedAmount.MaxAmountDecimals);
        if (!rest.IsZero || amount > UInt128.MaxValue)
        {
            return false;
        }

        sum = (UInt128)amount;
        return true;
    }

    private PricedAmount Amount(UInt128 sum, int scale)
    {
        for (; scale > 0 && IsTenfold(sum); scale--)
        {
            sum = sum <= ulong.MaxValue ? (ulong)sum / 10 : sum / 10;
        }

        if (scale > PricedAmount.MaxAmountDecimals || sum >= PowersOfTen[scale] * AmountLimit)
        {
            return PricedAmount.Unpriced(PricedAmount.AmountOutOfRange);
        }

        var bits = (ulong)sum;
        return PricedAmount.Priced(new decimal((int)bits, (int)(bits >> 32), (int)(uint)(sum >> 64), false, (byte)scale), Currency, Version);
    }

    private static readonly UInt128[] PowersOfTen = Powers();

    private static UInt128[] Powers()
    {
        var powers = new UInt128[39]; // the last that 128 bits hold is 10^38
        powers[0] = 1;
        for (var i = 1; i < powers.Length; i++)
        {
            powers[i] = powers[i - 1] * 10;
        }

        return powers;
    }

    /// <summary>Multiplies by a power of ten, if it is one of 1 or more and there is room.</summary>
    private static bool TryScale(ref UInt128 value, int power)
    {
        if (power <= 0 || value == 0)
        {
            return true;
        }

        if (power >= PowersOfTen.Length || value > UInt128.MaxValue / PowersOfTen[power])
        {
            return false;
        }

        value *= PowersOfTen[power];
        return true;
    }

    /// <summary>A decimal's digits and how many of them stand after the point.</summary>
    private static (UInt128 Digits, int Scale) Parts(decimal value)
    {
        Span<int> bits = stackalloc int[4];
        decimal.GetBits(value, bits);
        return (new UInt128((uint)bits[2], ((ulong)(uint)bits[1] << 32) | (uint)bits[0]), value.Scale);
    }

    private static bool IsTenfold(UInt128 value) => value <= ulong.MaxValue ? (ulong)value % 10 == 0 : value % 10 == 0;

    /// <summary>What one of a unit costs: <paramref name="Digits"/> × 10^-<paramref name="Scale"/>.</summary>
    private readonly record struct Rate(string Unit, UInt128 Digits, int Scale)
    {
        public static Rate Of(PriceComponent component)
        {
            // Without zeros at the end there are at most 21 digits, and 33 after the multiplication: they fit.
            var (digits, scale) = Trim(Parts(component.Price));
            (digits, scale) = Trim((checked(digits * (UInt128)(MaxPer / component.Per)), scale + PerDecimals));
            return new Rate(component.Unit, digits, scale);
        }

        private static (UInt128 Digits, int Scale) Trim((UInt128 Digits, int Scale) number)
        {
            var (digits, scale) = number;
            for (; scale > 0 && IsTenfold(digits); scale--)
            {
                digits /= 10;
            }

            return (digits, scale);
        }
    }
}

/// <summary>What amounts are in: a currency, or credits of the caller's own.</summary>
public static class Currency
{
    /// <summary>The shortest, in characters, as in ISO 4217.</summary>
    public const int MinChars = 3;

    /// <summary>The longest, in characters.</summary>
    public const int MaxChars = 12;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "is not a currency: 3 to 12 of A-Z and 0-9, beginning with a letter, such as USD";

    /// <summary>Whether <paramref name="value"/> is <c>[A-Z][A-Z0-9]{2,11}</c>.</summary>
    public static bool IsValid(string value) =>
        value.Length is >= MinChars and <= MaxChars && char.IsAsciiLetterUpper(value[0]) && value.All(c => char.IsAsciiLetterUpper(c) || char.IsAsciiDigit(c));
}
