using System.Diagnostics.CodeAnalysis;
using System.Net;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Ledger.Hosting;

/// <summary>Addresses to listen on.</summary>
internal static class Listening
{
    /// <summary>The addresses of a list that is separated by semicolons.</summary>
    public static string[] Split(string urls) => urls.Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    /// <summary>Reads an address, in which * and + stand for all interfaces.</summary>
    public static bool TryRead(string url, [NotNullWhen(true)] out Uri? uri) => Uri.TryCreate(
        url.Replace("://*", "://0.0.0.0", StringComparison.Ordinal).Replace("://+", "://0.0.0.0", StringComparison.Ordinal), UriKind.Absolute, out uri);

    /// <summary>Those of the addresses that can be reached from other machines.</summary>
    public static string[] Exposed(params IEnumerable<string> urls) => [.. urls.SelectMany(Split).Where(url => !TryRead(url, out var uri) || !uri.IsLoopback)];

    /// <summary>Listens on addresses as <c>UseUrls</c> does, which can't be told what a port is for: on a name that is not localhost, on all interfaces.</summary>
    public static void Listen(this KestrelServerOptions kestrel, string urls, Action<ListenOptions> configure)
    {
        foreach (var address in Split(urls).Select(BindingAddress.Parse))
        {
            if (address.IsUnixPipe)
            {
                kestrel.ListenUnixSocket(address.UnixPipePath, configure);
            }
            else if (IPAddress.TryParse(address.Host, out var ip))
            {
                kestrel.Listen(ip, address.Port, configure);
            }
            else if (address.Host.Equals("localhost", StringComparison.OrdinalIgnoreCase))
            {
                kestrel.ListenLocalhost(address.Port, configure);
            }
            else
            {
                kestrel.ListenAnyIP(address.Port, configure);
            }
        }
    }
}
