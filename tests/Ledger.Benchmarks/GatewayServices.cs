using System.Globalization;
using System.Numerics;

namespace Ledger.Benchmarks;

/// <summary>A part of a price: <paramref name="Digits"/> × 10^-<paramref name="Decimals"/> for <paramref name="Per"/> of a unit.</summary>
internal sealed record PricePart(string Unit, long Digits, int Decimals, long Per);

/// <summary>A price of a service, in force from an instant on.</summary>
internal sealed record ServicePrice(DateTime From, string Currency, params PricePart[] Parts);

/// <summary>The services that are called.</summary>
internal static class GatewayServices
{
    /// <summary>How many there are.</summary>
    public const int Count = 20;

    private static readonly DateTime LongAgo = new(2020, 1, 1, 0, 0, 0, DateTimeKind.Utc);

    public static string IdOf(int service) => string.Create(CultureInfo.InvariantCulture, $"service-{service:00}");

    /// <summary>Registers them, with one price each that has always been in force.</summary>
    public static Task Register(Node node) => Register(
        node.Post, service => [new ServicePrice(LongAgo, "USD", new PricePart("inputToken", 15 + service, 2, 1_000_000), new PricePart("outputToken", 60 + service, 2, 1_000_000))]);

    /// <summary>Registers them, and sets the prices of each.</summary>
    public static async Task Register(Func<string, object, Task> post, Func<int, IEnumerable<ServicePrice>> pricesOf)
    {
        for (var service = 0; service < Count; service++)
        {
            var serviceId = IdOf(service);
            await post("/v1/services", new { serviceId, title = $"Service {service}" });
            foreach (var price in pricesOf(service))
            {
                await post($"/v1/services/{serviceId}/prices", new
                {
                    effectiveFrom = price.From, currency = price.Currency,
                    components = price.Parts.Select(p => new { unit = p.Unit, price = Fixed.Text(p.Digits, p.Decimals), per = p.Per }),
                });
            }
        }
    }
}

/// <summary>Decimals as whole numbers and how many of their digits stand after the point: sums of any length are exact.</summary>
internal static class Fixed
{
    /// <summary>The shortest text: no zeros at the end.</summary>
    public static string Text(BigInteger value, int decimals)
    {
        var digits = value.ToString(CultureInfo.InvariantCulture).PadLeft(decimals + 1, '0');
        var (whole, rest) = (digits[..^decimals], digits[^decimals..].TrimEnd('0'));
        return rest.Length == 0 ? whole : $"{whole}.{rest}";
    }

    /// <summary>Reads a text of at most so many decimals.</summary>
    public static BigInteger Parse(string text, int decimals)
    {
        var (whole, rest) = text.Split('.') is [var w, var r] ? (w, r) : (text, "");
        return rest.Length <= decimals
            ? BigInteger.Parse(whole + rest.PadRight(decimals, '0'), NumberStyles.None, CultureInfo.InvariantCulture)
            : throw new BenchFailedException($"'{text}' has more than {decimals} decimals.");
    }
}
