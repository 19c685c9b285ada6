namespace Ledger.Usage;

/// <summary>Calls of services: what is stored, what is kept, what can be called.</summary>
public static class UsageFeature
{
    /// <summary>Its events, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(CallRecorded), "call_recorded"),
        (typeof(CallPriced), "call_priced"),
        (typeof(CallVoided), "call_voided"),
    ];

    /// <summary>Its services.</summary>
    public static IServiceCollection AddUsage(this IServiceCollection services) => services
        .AddSingleton<CallRecorder>()
        .AddSingleton<StreamedCalls>()
        .AddSingleton<LatePricer>();

    /// <summary>Its routes.</summary>
    public static void MapUsage(this IEndpointRouteBuilder routes)
    {
        RecordCalls.Map(routes);
        VoidCall.Map(routes);
        PriceUnpriced.Map(routes);
    }
}
