using Ledger.EventStore;

namespace Ledger.Services;

/// <summary>AI services and their prices: what is stored, what is kept, what can be called.</summary>
public static class ServicesFeature
{
    /// <summary>Its events, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(ServiceRegistered), "service_registered"),
        (typeof(ServiceRenamed), "service_renamed"),
        (typeof(ServiceDescribed), "service_described"),
        (typeof(PriceSet), "price_set"),
        (typeof(ServiceRetired), "service_retired"),
        (typeof(ServiceTitleClaimed), "service_title_claimed"),
        (typeof(ServiceTitleReleased), "service_title_released"),
    ];

    /// <summary>Its services.</summary>
    public static IServiceCollection AddAiServices(this IServiceCollection services) => services
        .AddSingleton<IProjection, ServicesProjection>()
        .AddSingleton<ServiceLoader>()
        .AddSingleton<ServiceCatalogueReader>()
        .AddSingleton<ServicePricesReader>();

    /// <summary>Its routes.</summary>
    public static void MapAiServices(this IEndpointRouteBuilder routes)
    {
        RegisterService.Map(routes);
        ChangeService.Map(routes);
        RetireService.Map(routes);
        SetPrice.Map(routes);
        ServiceCatalogue.Map(routes);
        ServicePrices.Map(routes);
    }
}
