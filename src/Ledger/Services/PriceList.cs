namespace Ledger.Services;

/// <summary>
/// The prices of a service, past, present and to come; immutable. In force at an instant is the one that began last, and of
/// several that began at the same instant the one that was set last.
/// </summary>
public sealed class PriceList
{
    /// <summary>Prices of one service.</summary>
    public const int MaxVersions = 10_000;

    /// <summary>No price yet.</summary>
    public static readonly PriceList Empty = new([]);

    // In the order in which they come into force, those of one instant in the order in which they were set.
    private readonly PriceVersion[] _versions;

    private PriceList(PriceVersion[] versions) => _versions = versions;

    /// <summary>How many prices were set; they are numbered from 1 in the order in which they were.</summary>
    public int Count => _versions.Length;

    /// <summary>Components of all its prices together.</summary>
    public int ComponentCount { get; private init; }

    /// <summary>The list with one more price.</summary>
    public PriceList With(PriceVersion added)
    {
        var index = CountUpTo(added.EffectiveFrom);
        var versions = new PriceVersion[_versions.Length + 1];
        _versions.AsSpan(0, index).CopyTo(versions);
        versions[index] = added;
        _versions.AsSpan(index).CopyTo(versions.AsSpan(index + 1));
        return new PriceList(versions) { ComponentCount = ComponentCount + added.Components.Count };
    }

    /// <summary>The price in force at an instant; null before the first.</summary>
    public PriceVersion? InForceAt(DateTimeOffset instant) => CountUpTo(instant) is > 0 and var count ? _versions[count - 1] : null;

    /// <summary>
    /// What a call costs by the price in force when it happened. <paramref name="quantities"/> (units compared ordinally) are
    /// such as <see cref="Quantity.IsValid"/> lets pass; the unit <see cref="Unit.Call"/> is 1 unless it is among them.
    /// </summary>
    public PricedAmount Price(IReadOnlyDictionary<string, decimal> quantities, DateTimeOffset occurredAt) =>
        InForceAt(occurredAt)?.Price(quantities) ?? PricedAmount.Unpriced(PricedAmount.NoPrice);

    /// <summary>How many come into force up to an instant.</summary>
    private int CountUpTo(DateTimeOffset instant)
    {
        var (low, high) = (0, _versions.Length);
        while (low < high)
        {
            var middle = (low + high) / 2;
            (low, high) = _versions[middle].EffectiveFrom <= instant ? (middle + 1, high) : (low, middle);
        }

        return low;
    }
}

/// <summary>
/// What a call costs: an amount by a version of the price list, or the reason why there is none. An amount is exact, never
/// rounded, without zeros at its end.
/// </summary>
public readonly record struct PricedAmount
{
    /// <summary>Decimals of an amount. With <see cref="AmountLimit"/> this makes sums of 10 000 amounts exact in a decimal of 28 digits.</summary>
    public const int MaxAmountDecimals = 15;

    /// <summary>An amount is less than this.</summary>
    public const decimal AmountLimit = 1_000_000_000;

    /// <summary>The reason: the service had no price in force when the call happened.</summary>
    public const string NoPrice = "no-price";

    /// <summary>The reason, with a colon and the unit after it: the price in force says nothing about a unit of the call.</summary>
    public const string NoComponent = "no-component";

    /// <summary>The reason: the exact amount has more than <see cref="MaxAmountDecimals"/> or reaches <see cref="AmountLimit"/>.</summary>
    public const string AmountOutOfRange = "amount-out-of-range";

    private PricedAmount(decimal? amount, string? currency, int? priceVersion, string? unpricedReason) =>
        (Amount, Currency, PriceVersion, UnpricedReason) = (amount, currency, priceVersion, unpricedReason);

    /// <summary>The amount; null when there is none, which is not the same as 0.</summary>
    public decimal? Amount { get; }

    /// <summary>The currency of the amount.</summary>
    public string? Currency { get; }

    /// <summary>The version of the price list it was made with.</summary>
    public int? PriceVersion { get; }

    /// <summary>Why there is no amount: <c>no-price</c>, <c>no-component:{unit}</c> or <c>amount-out-of-range</c>.</summary>
    public string? UnpricedReason { get; }

    /// <summary>Whether there is an amount.</summary>
    public bool IsPriced => Amount is not null;

    /// <summary>An amount.</summary>
    public static PricedAmount Priced(decimal amount, string currency, int priceVersion) => new(amount, currency, priceVersion, null);

    /// <summary>No amount.</summary>
    public static PricedAmount Unpriced(string reason) => new(null, null, null, reason);

    /// <summary>A reason without the unit: one of three, by which unpriced calls can be counted.</summary>
    public static string KindOf(string unpricedReason) =>
        unpricedReason.StartsWith(NoComponent, StringComparison.Ordinal) ? NoComponent : unpricedReason;
}

/// <summary>What is counted of a call, such as tokens.</summary>
public static class Unit
{
    /// <summary>The call itself. Every call has it, once unless it says otherwise.</summary>
    public const string Call = "call";

    /// <summary>Characters of a unit.</summary>
    public const int MaxChars = 64;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "is not a unit: 1 to 64 of A-Z, a-z, 0-9, '_', '.' and '-', beginning with a letter";

    /// <summary>Whether <paramref name="value"/> is <c>[A-Za-z][A-Za-z0-9_.-]{0,63}</c>.</summary>
    public static bool IsValid(string value) => value.Length <= MaxChars && Slug.IsValid(value) && char.IsAsciiLetter(value[0]);
}

/// <summary>How much of a unit a call used.</summary>
public static class Quantity
{
    /// <summary>Decimals of a quantity.</summary>
    public const int MaxDecimals = 9;

    /// <summary>A quantity is less than this.</summary>
    public const decimal Limit = 1_000_000_000_000;

    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "must be 0 or more and less than 1 000 000 000 000, with at most 9 decimals";

    /// <summary>Whether <paramref name="value"/> is a quantity.</summary>
    public static bool IsValid(decimal value) => value is >= 0 and < Limit && decimal.Round(value, MaxDecimals) == value;
}
