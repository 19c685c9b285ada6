using Ledger.Hosting;

namespace Ledger.Campaigns;

/// <summary>Where messages are sent, and how much of the gateway may be used.</summary>
/// <param name="Url">What <c>/send/{id}</c> is put behind.</param>
/// <param name="Token">The bearer token; it is shown nowhere.</param>
public sealed record GatewaySettings(Uri Url, string Token)
{
    /// <summary>Calls that a node has under way at once, unless set.</summary>
    public const int DefaultConcurrency = 32;

    /// <summary>The most that can be set.</summary>
    public const int MaxConcurrency = 1_000;

    /// <summary>The highest rate that can be set.</summary>
    public const int MaxRatePerSecond = 100_000;

    /// <summary>Seconds a call may take unless set.</summary>
    public const int DefaultTimeoutSeconds = 10;

    /// <summary>The most that can be set.</summary>
    public const int MaxTimeoutSeconds = 300;

    /// <summary>Characters of a token.</summary>
    public const int MaxTokenChars = 8_192;

    /// <summary>The variable that lets the token go over the network unencrypted.</summary>
    public const string PlainVariable = "LEDGER_I_ACCEPT_SENDING_THE_GATEWAY_TOKEN_UNENCRYPTED";

    /// <summary>LEDGER_GATEWAY_CONCURRENCY: calls that this node has under way at once.</summary>
    public int Concurrency { get; init; } = DefaultConcurrency;

    /// <summary>LEDGER_GATEWAY_RATE_PER_SECOND: calls that this node begins in a second; 0: any number.</summary>
    public int RatePerSecond { get; init; }

    /// <summary>LEDGER_GATEWAY_TIMEOUT_SECONDS: how long a call may take, from looking for a connection to the end of the answer.</summary>
    public TimeSpan Timeout { get; init; } = TimeSpan.FromSeconds(DefaultTimeoutSeconds);

    /// <summary>Reads what is set; null: there is no gateway.</summary>
    /// <param name="text">The value of a variable; null when it is not set.</param>
    /// <param name="number">The number of a variable: its name, what it is unless set, the least and the most.</param>
    /// <exception cref="SettingsException">A value is none. The message shows neither the token nor the address, which may hold a password.</exception>
    internal static GatewaySettings? Read(Func<string, string?> text, Func<string, int, int, int, int> number)
    {
        var (url, token, plain) = (text("LEDGER_GATEWAY_URL"), text("LEDGER_GATEWAY_TOKEN"), text(PlainVariable));
        var concurrency = number("LEDGER_GATEWAY_CONCURRENCY", DefaultConcurrency, 1, MaxConcurrency);
        var rate = number("LEDGER_GATEWAY_RATE_PER_SECOND", 0, 0, MaxRatePerSecond);
        var timeout = number("LEDGER_GATEWAY_TIMEOUT_SECONDS", DefaultTimeoutSeconds, 1, MaxTimeoutSeconds);
        if (url is null && token is null)
        {
            return null;
        }

        if (url is null || token is null)
        {
            throw new SettingsException("LEDGER_GATEWAY_URL and LEDGER_GATEWAY_TOKEN go together.");
        }

        if (!Uri.TryCreate(url, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https")
            || uri.UserInfo.Length > 0 || uri.Query.Length > 0 || uri.Fragment.Length > 0)
        {
            throw new SettingsException("LEDGER_GATEWAY_URL must be an address such as https://gateway.example.com/v1, without a user, '?' or '#'.");
        }

        if (uri.Scheme == "http" && !uri.IsLoopback && plain != "yes")
        {
            throw new SettingsException(
                $"LEDGER_GATEWAY_URL is http, so everybody on the way could read the token and every message. Use https, or set {PlainVariable}=yes.");
        }

        if (token.Length > MaxTokenChars || token.AsSpan().ContainsAnyExceptInRange('!', '~'))
        {
            throw new SettingsException($"LEDGER_GATEWAY_TOKEN must be at most {MaxTokenChars} visible ASCII characters.");
        }

        return new GatewaySettings(uri, token) { Concurrency = concurrency, RatePerSecond = rate, Timeout = TimeSpan.FromSeconds(timeout) };
    }

    /// <summary>All but the token.</summary>
    public override string ToString() => $"{nameof(GatewaySettings)} {{ {Url}, {Concurrency} calls at once, {RatePerSecond}/s, {Timeout} }}";
}
