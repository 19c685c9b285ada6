using Ledger.EventStore;
using Ledger.Hosting;

namespace Ledger.Campaigns;

/// <summary>The gateway through which campaigns send.</summary>
public static class GatewayFeature
{
    /// <summary>Reads its settings; null: there is none.</summary>
    /// <exception cref="SettingsException">A value is none.</exception>
    public static GatewaySettings? ReadSettings(Func<string, string?> text, Func<string, int, int, int, int> number) => GatewaySettings.Read(text, number);

    /// <summary>The gateway, be it set or not.</summary>
    public static IServiceCollection AddGateway(this IServiceCollection services, GatewaySettings? settings) =>
        services.AddSingleton(s => new Gateway(settings, s.GetRequiredService<LedgerClock>(), s.GetRequiredService<ILogger<Gateway>>()));
}
