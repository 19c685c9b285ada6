namespace Ledger.Usage;

/// <summary>Calls of services: what is stored, what is kept, what can be called.</summary>
public static class UsageFeature
{
    /// <summary>Its services.</summary>
    public static IServiceCollection AddUsage(this IServiceCollection services) => services
        .AddUsageViews()
        .AddSingleton<CallRecorder>()
        .AddSingleton<StreamedCalls>()
        .AddSingleton<LatePricer>();

    /// <summary>Its routes.</summary>
    public static void MapUsage(this IEndpointRouteBuilder routes)
    {
        routes.MapUsageViews();
        RecordCalls.Map(routes);
        VoidCall.Map(routes);
        PriceUnpriced.Map(routes);
    }
}
