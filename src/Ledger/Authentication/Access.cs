using Ledger.Hosting;

namespace Ledger.Authentication;

/// <summary>When credentials are asked for.</summary>
public enum AccessMode
{
    /// <summary>Always, but for a node that listens on loopback only and finds no credential that it could ask for when it starts.</summary>
    Auto,

    /// <summary>Always.</summary>
    Required,

    /// <summary>Never: whoever reaches the node may do everything. What is presented is checked nevertheless.</summary>
    Off,
}

/// <summary>
/// Whether this node answers without credentials. That is settled once, before the first request is taken, and stays so until
/// the node stops: nobody is let in by what is stored later, and nobody is locked out by it.
/// </summary>
public sealed partial class Access(LedgerSettings settings, IEnumerable<ICredentials> kinds, ILogger<Access> logger) : IHostedService
{
    /// <summary>Whether a request without a credential is taken for the operator's.</summary>
    public bool IsOpen { get; private set; }

    /// <summary>Whether that goes for requests, too, that a page of another site may have made a browser send.</summary>
    public bool IsOpenToBrowsers => settings.Auth == AccessMode.Off;

    /// <inheritdoc/>
    /// <exception cref="SettingsException">The node could be reached by others, and nobody could show it a credential.</exception>
    public async Task StartAsync(CancellationToken cancellationToken)
    {
        var exposed = Listening.Exposed(settings.Urls, settings.GrpcUrls);
        if (settings.Auth == AccessMode.Off)
        {
            IsOpen = true;
            if (exposed.Length > 0)
            {
                LogOpen(string.Join(", ", exposed));
            }

            return;
        }

        var configured = false;
        foreach (var kind in kinds)
        {
            configured |= await kind.AreConfigured(cancellationToken);
        }

        if (!configured && exposed.Length > 0)
        {
            throw new SettingsException(
                $"{exposed[0]} is open to the network, and there is no credential that a caller could show: make a key with "
                + "'./ledger keys create --name <name> --scope admin', or name the issuer of tokens in LEDGER_JWT_ISSUER, or set LEDGER_AUTH=off "
                + "if whoever reaches the address may read and write everything.");
        }

        IsOpen = settings.Auth == AccessMode.Auto && !configured;
    }

    /// <inheritdoc/>
    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    [LoggerMessage(LogLevel.Warning, "No credentials are asked for: whoever reaches {Addresses} may read and write everything")]
    private partial void LogOpen(string addresses);
}
