using Ledger.EventStore;

namespace Ledger.Usage;

/// <summary>The read side of usage: what is kept of calls, and what can be asked.</summary>
public static class UsageViewsFeature
{
    /// <summary>The events of calls, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(CallRecorded), "call_recorded"),
        (typeof(CallPriced), "call_priced"),
        (typeof(CallVoided), "call_voided"),
    ];

    /// <summary>Those that make a user known.</summary>
    public static IEnumerable<Type> EventsOfUsers => [typeof(CallRecorded)];

    /// <summary>The user that one of <see cref="EventsOfUsers"/> names.</summary>
    public static string UserOf(object recorded) => ((CallRecorded)recorded).UserId;

    /// <summary>Its services.</summary>
    public static IServiceCollection AddUsageViews(this IServiceCollection services) => services
        .AddSingleton<IProjection, CallsProjection>()
        .AddSingleton<IProjection, UsageTotalsProjection>()
        .AddSingleton<UsageCallsReader>()
        .AddSingleton<CallsOfUser>()
        .AddSingleton<UnpricedCallsReader>()
        .AddHostedService<UnpricedCallsGauge>()
        .AddSingleton<UsageTotalsReader>();

    /// <summary>Its routes.</summary>
    public static void MapUsageViews(this IEndpointRouteBuilder routes)
    {
        UsageCalls.Map(routes);
        UnpricedCalls.Map(routes);
        UsageTotals.Map(routes);
    }
}
