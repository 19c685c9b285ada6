namespace Ledger.Events;

/// <summary>The log itself: pages of it, single streams, and following it. It has no tables and no views of its own.</summary>
public static class EventsFeature
{
    /// <summary>Its services.</summary>
    public static IServiceCollection AddEvents(this IServiceCollection services) => services
        .AddSingleton(new FollowLimits())
        .AddSingleton<LogTail>()
        .AddSingleton<Followers>();

    /// <summary>Its routes.</summary>
    public static void MapEvents(this IEndpointRouteBuilder routes)
    {
        ListEvents.Map(routes);
        StreamEvents.Map(routes);
    }
}
