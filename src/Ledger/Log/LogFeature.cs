using Ledger.EventStore;
using Ledger.Hosting;
using Npgsql;

namespace Ledger.Log;

/// <summary>The transparency log over HTTP: checkpoint, tiles, proofs, keys. The store keeps it.</summary>
public static class LogFeature
{
    /// <summary>Its services.</summary>
    public static IServiceCollection AddTransparencyLog(this IServiceCollection services) => services
        .AddSingleton(s => new TransparencyLog(s.GetRequiredService<NpgsqlDataSource>(), s.GetRequiredService<AllTenantsDatabase>()))
        .AddForAllTenants<DatabaseLog>()
        .AddForAllTenants<LogKeyring>()
        .AddSingleton(s => Sealing(s, s.GetRequiredService<BackgroundDatabase>().Source))
        .AddSingleton<LogQueries>();

    private static Sealer Sealing(IServiceProvider services, NpgsqlDataSource background) =>
        ActivatorUtilities.CreateInstance<Sealer>(services, background, new TransparencyLog(background));

    /// <summary>Its routes.</summary>
    public static void MapTransparencyLog(this IEndpointRouteBuilder routes)
    {
        LogCheckpoint.Map(routes);
        LogTiles.Map(routes);
        LogProofs.Map(routes);
    }
}
