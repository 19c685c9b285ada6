namespace Ledger.Services;

/// <summary>Why commands on services are refused.</summary>
public static class ServiceRejections
{
    /// <summary>The id never was a service's.</summary>
    public static Rejection NotFound(string serviceId) => new("service-not-found", $"There is no service '{serviceId}'.");

    /// <summary>The id is a service's, be it a retired one's.</summary>
    public static Rejection Exists(string serviceId) => new("service-exists", $"There is a service '{serviceId}' already.");

    /// <summary>The title is another service's, be it a retired one's.</summary>
    public static Rejection TitleTaken(string title, string serviceId) => new("title-taken", $"The service '{serviceId}' has the title '{title}'.");

    /// <summary>The code of <see cref="Retired"/>.</summary>
    internal const string RetiredCode = "service-retired";

    /// <summary>The service was retired.</summary>
    public static Rejection Retired(string serviceId) => new(RetiredCode, $"The service '{serviceId}' is retired.");

    /// <summary>The price list is full.</summary>
    public static Rejection TooManyPrices(string serviceId) =>
        new("too-many-prices", $"The service '{serviceId}' has {PriceList.MaxVersions} prices: register another service.");

    /// <summary>The price list is shorter.</summary>
    public static Rejection PriceNotFound(string serviceId, int priceVersion) =>
        new("price-not-found", $"The service '{serviceId}' has no price {priceVersion}.");
}
