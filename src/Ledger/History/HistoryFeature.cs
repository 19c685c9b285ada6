using Ledger.EventStore;

namespace Ledger.History;

/// <summary>The history of everything: what is kept to find it, what can be asked. It stores nothing of its own.</summary>
public static class HistoryFeature
{
    /// <summary>Its services.</summary>
    public static IServiceCollection AddHistory(this IServiceCollection services) => services
        .AddSingleton<IProjection, HistoryProjection>()
        .AddSingleton<HistoryKinds>()
        .AddSingleton<HistoryMarks>()
        .AddSingleton<RolloutTurns>()
        .AddSingleton<UserHistory>()
        .AddSingleton<HistoryReader>();

    /// <summary>Its routes.</summary>
    public static void MapHistory(this IEndpointRouteBuilder routes) => GetHistory.Map(routes);
}
