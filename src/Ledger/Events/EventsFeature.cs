using Ledger.EventStore;

namespace Ledger.Events;

/// <summary>The log itself: pages of it, single streams, and following it. It has no tables and no views of its own.</summary>
public static class EventsFeature
{
    /// <summary>Its services.</summary>
    public static IServiceCollection AddEvents(this IServiceCollection services) => services
        .AddSingleton(new FollowLimits())
        .AddSingleton(s => ActivatorUtilities.CreateInstance<LogTail>(s, new LogPages(s.GetRequiredService<AllTenantsDatabase>().Source)))
        .AddSingleton<Followers>();

    /// <summary>Its routes.</summary>
    public static void MapEvents(this IEndpointRouteBuilder routes)
    {
        ListEvents.Map(routes);
        StreamEvents.Map(routes);
    }
}
