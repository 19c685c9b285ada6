using System.Numerics;
using Ledger.Services;

namespace Ledger.Tests.Services;

public sealed class A_price_list
{
    private static readonly PriceComponent[] PerCall = [new("call", 1)];

    private static DateTimeOffset Day(int day) => TestClock.Start.AddDays(day);

    private static PriceVersion Version(int version, DateTimeOffset from, params PriceComponent[] components) =>
        new(new PriceSet(version, "USD", from, components), TestClock.Start, version);

    private static PriceList Of(params IEnumerable<PriceVersion> versions) => versions.Aggregate(PriceList.Empty, (list, v) => list.With(v));

    private static PricedAmount Price(PriceComponent[] components, params (string Unit, decimal Quantity)[] quantities) =>
        Of(Version(7, Day(0), components)).Price(quantities.ToDictionary(q => q.Unit, q => q.Quantity), Day(0));

    [Fact]
    public void Has_in_force_the_price_that_began_last()
    {
        var list = Of(Version(1, Day(0)), Version(2, Day(10)), Version(3, Day(5)));

        Assert.Null(list.InForceAt(Day(0).AddTicks(-1)));
        Assert.Equal(1, list.InForceAt(Day(0))?.Version);
        Assert.Equal(1, list.InForceAt(Day(5).AddTicks(-1))?.Version);
        Assert.Equal(3, list.InForceAt(Day(5))?.Version);
        Assert.Equal(2, list.InForceAt(Day(10))?.Version);
        Assert.Equal(2, list.InForceAt(DateTimeOffset.MaxValue)?.Version);
        Assert.Null(PriceList.Empty.InForceAt(Day(0)));
    }

    [Fact]
    public void Has_in_force_the_later_set_of_two_that_began_at_the_same_instant() =>
        Assert.Equal(2, Of(Version(1, Day(0)), Version(2, Day(0).ToOffset(TimeSpan.FromHours(3)))).InForceAt(Day(0))?.Version);

    [Fact]
    public void Finds_what_looking_at_all_prices_finds()
    {
        var random = new Random(LongTests.Seed);
        for (var round = 0; round < 100; round++)
        {
            var spread = random.Next(1, 60);
            var versions = Enumerable.Range(1, random.Next(0, 60)).Select(v => Version(v, Day(random.Next(spread)))).ToArray();
            var list = Of(versions);
            Assert.Equal(versions.Length, list.Count);
            for (var day = -1; day <= spread; day++)
            {
                PriceVersion? expected = null;
                foreach (var version in versions.Where(v => v.EffectiveFrom <= Day(day)))
                {
                    expected = expected is null || version.EffectiveFrom >= expected.EffectiveFrom ? version : expected;
                }

                Assert.True(ReferenceEquals(expected, list.InForceAt(Day(day))), $"LEDGER_TEST_SEED={LongTests.Seed}, day {day}.");
            }
        }
    }

    [Fact]
    public void Leaves_the_list_it_was_made_from_as_it_was()
    {
        var one = Of(Version(1, Day(0)));
        var two = one.With(Version(2, Day(0)));

        Assert.Equal((1, 1, 2, 2), (one.Count, one.InForceAt(Day(0))!.Version, two.Count, two.InForceAt(Day(0))!.Version));
    }

    [Fact]
    public void Prices_a_call_by_the_price_when_it_happened()
    {
        var list = Of(Version(1, Day(0), new PriceComponent("call", 1)), Version(2, Day(1), new PriceComponent("call", 2)));
        var quantities = new Dictionary<string, decimal>();

        Assert.Equal(PricedAmount.Priced(1, "USD", 1), list.Price(quantities, Day(1).AddTicks(-1)));
        Assert.Equal(PricedAmount.Priced(2, "USD", 2), list.Price(quantities, Day(1)));
        Assert.Equal(PricedAmount.Unpriced("no-price"), list.Price(quantities, Day(0).AddTicks(-1)));
        Assert.Equal(PricedAmount.Unpriced("no-price"), PriceList.Empty.Price(quantities, Day(0)));
    }

    [Fact]
    public void Prices_the_example_of_the_contract() =>
        Assert.Equal(
            PricedAmount.Priced(0.000384m, "USD", 7),
            Price([new("inputToken", 0.15m, 1_000_000), new("outputToken", 0.6m, 1_000_000)], ("inputToken", 1200), ("outputToken", 340)));

    [Fact]
    public void Counts_a_call_once_unless_it_says_otherwise()
    {
        Assert.Equal(1, Price(PerCall).Amount);
        Assert.Equal(3, Price(PerCall, ("call", 3)).Amount);
        Assert.Equal(0, Price(PerCall, ("call", 0)).Amount);
    }

    [Fact]
    public void Lets_the_call_itself_be_free_of_charge()
    {
        PriceComponent[] perToken = [new("token", 2)];

        Assert.Equal(10, Price(perToken, ("token", 5)).Amount);
        Assert.Equal(10, Price(perToken, ("token", 5), ("call", 9)).Amount);
        Assert.Equal(PricedAmount.Priced(0, "USD", 7), Price(perToken));
    }

    [Fact]
    public void Takes_free_for_a_price() => Assert.Equal(PricedAmount.Priced(0, "USD", 7), Price([new("call", 0), new("token", 0)], ("token", 5)));

    [Fact]
    public void Adds_nothing_for_a_component_without_a_quantity() => Assert.Equal(1, Price([.. PerCall, new("token", 5)]).Amount);

    [Theory]
    [InlineData("no-component:token", "token")]
    [InlineData("no-component:Token", "token", "Token")]
    [InlineData("no-component:image", "token", "image", "call")]
    public void Names_the_first_unit_without_a_component(string reason, params string[] units)
    {
        var priced = Price(PerCall, [.. units.Select(u => (u, 1m))]);

        Assert.Equal(PricedAmount.Unpriced(reason), priced);
        Assert.False(priced.IsPriced);
        Assert.Equal("no-component", PricedAmount.KindOf(priced.UnpricedReason!));
    }

    [Fact]
    public void Tells_units_apart_by_case() => Assert.Equal("no-component:TOKEN", Price([new("token", 1)], ("TOKEN", 1)).UnpricedReason);

    [Fact]
    public void Never_rounds()
    {
        // 2^69 times 5^30 is more than 128 bits hold, and nearly all of its digits are zeros.
        Assert.Equal(549_755_813.888m, Price([new("u", 931_322_574.615_478_515_625m, 1_000_000_000_000)], ("u", 590_295_810_358.705_651_712m)).Amount);

        // A decimal would need 29 digits for the product, and rounds it.
        Assert.Equal(999_999_999.999_999_999_999m, Price([new("u", 999_999_999.999_999_999_999m)], ("u", 1)).Amount);
        Assert.Equal(0.123_456_789_012_345m, Price([new("u", 0.123_456_789_012m), new("v", 345, 1_000_000_000)], ("u", 1), ("v", 0.000_001m)).Amount);
        Assert.Equal(0.000_000_000_000_001m, Price([new("u", 0.000_001m)], ("u", 0.000_000_001m)).Amount);
        Assert.Equal("amount-out-of-range", Price([new("u", 0.000_001m, 10)], ("u", 0.000_000_001m)).UnpricedReason);
        Assert.Equal(0.000_000_000_000_001m, Price([new("u", 0.000_001m, 2), new("v", 0.000_001m, 2)], ("u", 0.000_000_001m), ("v", 0.000_000_001m)).Amount);
    }

    [Fact]
    public void Has_no_amount_of_a_thousand_million()
    {
        Assert.Equal(999_999_999.999_999_999m, Price([new("u", 1)], ("u", 999_999_999.999_999_999m)).Amount);
        Assert.Equal("amount-out-of-range", Price([new("u", 1)], ("u", 1_000_000_000)).UnpricedReason);
        Assert.Equal("amount-out-of-range", Price([new("u", 1), new("v", 1)], ("u", 999_999_999.999_999_999m), ("v", 0.000_000_001m)).UnpricedReason);
        Assert.Equal("amount-out-of-range", Price([new("u", 999_999_999.999_999_999_999m)], ("u", 999_999_999_999.999_999_999m)).UnpricedReason);
    }

    [Fact]
    public void Refuses_a_negative_quantity() => Assert.Throws<ArgumentOutOfRangeException>(() => Price(PerCall, ("call", -1)));

    [Fact]
    public void Has_amounts_of_which_ten_thousand_add_up_exactly()
    {
        var largest = Price([new("u", 999_999_999.999_999_999m), new("v", 999, 1_000_000_000_000)], ("u", 1), ("v", 0.001m)).Amount!.Value;
        var sum = Enumerable.Repeat(largest, 10_000).Sum();

        Assert.Equal(999_999_999.999_999_999_000_000m + 0.000_000_000_000_999m, largest);
        Assert.Equal(Exact.Of(largest).Numerator * 10_000, Exact.Of(sum).Numerator * BigInteger.Pow(10, 15) / Exact.Of(sum).Denominator);
    }

    [Fact]
    public void Prices_as_fractions_of_whole_numbers_do()
    {
        var random = new Random(LongTests.Seed);
        var (priced, outOfRange) = (0, 0);
        for (var round = 0; round < (LongTests.Wanted ? 1_000_000 : 30_000); round++)
        {
            var size = random.Next(1, 22);
            var components = Enumerable.Range(0, random.Next(1, 6))
                .Select(i => new PriceComponent(i == 0 && random.Next(2) == 0 ? "call" : $"u{i}", Number(21, 12), Divisor())).ToArray();
            var quantities = components.Where(_ => random.Next(5) > 0).ToDictionary(c => c.Unit, _ => Number(21, 9));
            var expected = new Exact(0, 1);
            foreach (var component in components)
            {
                var quantity = quantities.TryGetValue(component.Unit, out var given) ? given : component.Unit == "call" ? 1 : 0;
                expected += Exact.Of(quantity) * Exact.Of(component.Price) * new Exact(1, component.Per);
            }

            var actual = Price(components, [.. quantities.Select(q => (q.Key, q.Value))]);

            var told = $"LEDGER_TEST_SEED={LongTests.Seed}, round {round}: {string.Join(" + ", components.Select(c => $"{c.Price}/{c.Per} × {quantities.GetValueOrDefault(c.Unit, -1)} {c.Unit}"))} is {actual}.";
            if ((expected * new Exact(BigInteger.Pow(10, 15), 1)).IsWhole && expected.IsLessThan(1_000_000_000))
            {
                priced++;
                Assert.True(actual.IsPriced && expected.Equals(Exact.Of(actual.Amount!.Value)), told);
                Assert.True(actual.Amount.Value.Scale == 0 || !$"{actual.Amount.Value}".EndsWith('0'), told);
            }
            else
            {
                outOfRange++;
                Assert.True(actual.UnpricedReason == "amount-out-of-range", told);
            }

            decimal Number(int maxDigits, int maxScale)
            {
                var digits = BigInteger.Zero;
                for (var i = random.Next(0, Math.Min(size, maxDigits) + 1); i > 0; i--)
                {
                    digits = digits * 10 + random.Next(10);
                }

                // Some with zeros at the end, as a caller may write them.
                var value = (decimal)digits / (decimal)BigInteger.Pow(10, random.Next(maxScale + 1));
                return random.Next(4) == 0 ? value * 1.000m : value;
            }

            long Divisor()
            {
                var per = 1L;
                for (var (twos, fives) = (random.Next(13), random.Next(13)); twos + fives > 0 && random.Next(8) > 0;)
                {
                    (per, twos, fives) = twos > 0 ? (per * 2, twos - 1, fives) : (per * 5, twos, fives - 1);
                }

                return per;
            }
        }

        Assert.True(priced > 1_000 && outOfRange > 1_000, $"LEDGER_TEST_SEED={LongTests.Seed}: {priced} priced, {outOfRange} out of range.");
    }

    [Fact]
    public void Allocates_nothing_to_find_a_price_and_to_price_an_ordinary_call()
    {
        var list = Of(Enumerable.Range(1, 1_000).Select(v => Version(v, Day(v), new("call", 0.01m), new("inputToken", 0.15m, 1_000_000), new("outputToken", 0.6m, 1_000_000))));
        var quantities = new Dictionary<string, decimal> { ["inputToken"] = 1200, ["outputToken"] = 340 };
        var total = list.Price(quantities, Day(500)).Amount;

        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 1_000; i++)
        {
            total += list.Price(quantities, Day(i + 1)).Amount;
        }

        Assert.Equal(0, GC.GetAllocatedBytesForCurrentThread() - before);
        Assert.Equal(0.010384m * 1_001, total);
    }

    /// <summary>A fraction of whole numbers: slow, and without any limit to get wrong.</summary>
    private readonly record struct Exact(BigInteger Numerator, BigInteger Denominator) : IEquatable<Exact>
    {
        public bool IsWhole => (Numerator % Denominator).IsZero;

        public static Exact Of(decimal value)
        {
            var bits = decimal.GetBits(value);
            return new((((BigInteger)(uint)bits[2] << 64) | ((BigInteger)(uint)bits[1] << 32) | (uint)bits[0]), BigInteger.Pow(10, value.Scale));
        }

        public static Exact operator +(Exact a, Exact b) => new((a.Numerator * b.Denominator) + (b.Numerator * a.Denominator), a.Denominator * b.Denominator);

        public static Exact operator *(Exact a, Exact b) => new(a.Numerator * b.Numerator, a.Denominator * b.Denominator);

        public bool IsLessThan(BigInteger limit) => Numerator < limit * Denominator;

        public bool Equals(Exact other) => Numerator * other.Denominator == other.Numerator * Denominator;

        public override int GetHashCode() => 0;
    }
}

public sealed class A_value_of_a_price
{
    [Theory]
    [InlineData("call", true)]
    [InlineData("a", true)]
    [InlineData("Input_token.v-2", true)]
    [InlineData("", false)]
    [InlineData("1a", false)]
    [InlineData("_a", false)]
    [InlineData("a b", false)]
    [InlineData("ä", false)]
    [InlineData("aä", false)]
    public void Has_a_unit(string unit, bool valid) => Assert.Equal(valid, Unit.IsValid(unit));

    [Fact]
    public void Has_a_unit_of_at_most_64_characters() =>
        Assert.Equal((true, false), (Unit.IsValid(new string('a', 64)), Unit.IsValid(new string('a', 65))));

    [Theory]
    [InlineData("USD", true)]
    [InlineData("A12", true)]
    [InlineData("CREDITS_2", false)]
    [InlineData("ABCDEFGHIJKL", true)]
    [InlineData("ABCDEFGHIJKLM", false)]
    [InlineData("US", false)]
    [InlineData("usd", false)]
    [InlineData("1US", false)]
    [InlineData("ÜSD", false)]
    public void Has_a_currency(string currency, bool valid) => Assert.Equal(valid, Currency.IsValid(currency));

    [Fact]
    public void Has_a_quantity_with_limits() => Assert.Equal(
        [true, true, true, false, false, false],
        new[] { 0, 0.000_000_001m, 999_999_999_999.999_999_999m, -0.000_000_001m, 0.000_000_000_1m, 1_000_000_000_000 }.Select(Quantity.IsValid));

    [Theory]
    [InlineData("GPT-4o mini", true)]
    [InlineData("日本語", true)]
    [InlineData("a/b?c#d", true)]
    [InlineData("", false)]
    [InlineData(" a", false)]
    [InlineData("a ", false)]
    [InlineData("a\nb", false)]
    public void Has_a_service_with_a_title(string title, bool valid) => Assert.Equal(valid, ServiceTitle.IsValid(title));

    [Fact]
    public void Has_a_service_with_a_title_of_at_most_200_characters() => Assert.Equal(
        (true, false), (ServiceTitle.IsValid(string.Concat(Enumerable.Repeat("😀", 200))), ServiceTitle.IsValid(new string('a', 201))));
}
