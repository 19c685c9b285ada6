using System.Globalization;
using System.Text.RegularExpressions;
using Ledger.Hosting;

namespace Ledger.Campaigns;

/// <summary>When the summary of a day is sent, and to whom.</summary>
/// <param name="At">LEDGER_SUMMARY_AT: the time of day from which on the summary of the day before is sent.</param>
/// <param name="Zone">LEDGER_SUMMARY_TIME_ZONE: whose days these are.</param>
public sealed partial record SummarySettings(TimeOnly At, TimeZoneInfo Zone)
{
    /// <summary>Recipients of a mail.</summary>
    public const int MaxRecipients = 20;

    /// <summary>Where mail is handed over; null: none is sent.</summary>
    public MailSettings? Mail { get; init; }

    /// <summary>Where it is posted to; null: nowhere.</summary>
    public WebhookSettings? Webhook { get; init; }

    /// <summary>Reads what is set; null: no summary is sent.</summary>
    /// <param name="text">The value of a variable; null when it is not set.</param>
    /// <exception cref="SettingsException">A value is none. The message shows no password and no token.</exception>
    internal static SummarySettings? Read(Func<string, string?> text)
    {
        var (at, zoneId) = (text("LEDGER_SUMMARY_AT") ?? "08:00", text("LEDGER_SUMMARY_TIME_ZONE") ?? "UTC");
        var (mail, webhook) = (ReadMail(text), ReadWebhook(text));
        if (!TimeOnly.TryParseExact(at, "HH:mm", CultureInfo.InvariantCulture, DateTimeStyles.None, out var time))
        {
            throw new SettingsException($"LEDGER_SUMMARY_AT must be a time such as 08:00; it is '{at}'.");
        }

        if (!TimeZones.TryFind(zoneId, out var zone))
        {
            throw new SettingsException($"LEDGER_SUMMARY_TIME_ZONE {TimeZones.Rule}; it is '{zoneId}'.");
        }

        return mail is null && webhook is null ? null : new SummarySettings(time, zone) { Mail = mail, Webhook = webhook };
    }

    private static MailSettings? ReadMail(Func<string, string?> text)
    {
        var (server, user, password) = (text("LEDGER_SUMMARY_SMTP"), text("LEDGER_SUMMARY_SMTP_USER"), text("LEDGER_SUMMARY_SMTP_PASSWORD"));
        var (from, to) = (text("LEDGER_SUMMARY_FROM"), text("LEDGER_SUMMARY_TO"));
        if ((server ?? from ?? to ?? user ?? password) is null)
        {
            return null;
        }

        if (server is null || from is null || to is null)
        {
            throw new SettingsException("LEDGER_SUMMARY_SMTP, LEDGER_SUMMARY_FROM and LEDGER_SUMMARY_TO go together.");
        }

        if ((user is null) != (password is null) || user?.Any(char.IsControl) == true || password?.Any(char.IsControl) == true)
        {
            throw new SettingsException("LEDGER_SUMMARY_SMTP_USER and LEDGER_SUMMARY_SMTP_PASSWORD go together, and have no control characters.");
        }

        if (!Uri.TryCreate(server, UriKind.Absolute, out var uri) || uri.Scheme is not ("smtp" or "smtps") || uri.Host.Length == 0
            || uri.UserInfo.Length > 0 || uri.PathAndQuery is not ("" or "/") || uri.Fragment.Length > 0)
        {
            throw new SettingsException("LEDGER_SUMMARY_SMTP must be an address such as smtp://mail.example.com:587 or smtps://mail.example.com, without a user.");
        }

        string[] recipients = [.. to.Split(',', StringSplitOptions.TrimEntries)];
        if (!Mailbox().IsMatch(from) || recipients.Length > MaxRecipients || !recipients.All(Mailbox().IsMatch))
        {
            throw new SettingsException($"LEDGER_SUMMARY_FROM must be an address such as ledger@example.com, and LEDGER_SUMMARY_TO 1 to {MaxRecipients} of them, separated by commas.");
        }

        return new MailSettings(uri, from, recipients) { User = user, Password = password };
    }

    private static WebhookSettings? ReadWebhook(Func<string, string?> text)
    {
        var (address, token) = (text("LEDGER_SUMMARY_WEBHOOK"), text("LEDGER_SUMMARY_WEBHOOK_TOKEN"));
        if (address is null)
        {
            return token is null ? null : throw new SettingsException("LEDGER_SUMMARY_WEBHOOK_TOKEN is for LEDGER_SUMMARY_WEBHOOK, which is not set.");
        }

        if (!Uri.TryCreate(address, UriKind.Absolute, out var uri) || !(uri.Scheme == "https" || (uri.Scheme == "http" && uri.IsLoopback)) || uri.UserInfo.Length > 0)
        {
            throw new SettingsException("LEDGER_SUMMARY_WEBHOOK must be an https address (http only on loopback), without a user.");
        }

        return token is null || (token.Length <= GatewaySettings.MaxTokenChars && !token.AsSpan().ContainsAnyExceptInRange('!', '~'))
            ? new WebhookSettings(uri) { Token = token }
            : throw new SettingsException($"LEDGER_SUMMARY_WEBHOOK_TOKEN must be at most {GatewaySettings.MaxTokenChars} visible ASCII characters.");
    }

    // What needs quoting is not taken: these stand in commands and headers.
    [GeneratedRegex(@"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\z")]
    private static partial Regex Mailbox();
}

/// <summary>A mail server.</summary>
/// <param name="Server">smtps: TLS from the start; smtp: STARTTLS, which only a server on loopback may lack.</param>
/// <param name="From">The sender.</param>
/// <param name="To">The recipients.</param>
public sealed record MailSettings(Uri Server, string From, IReadOnlyList<string> To)
{
    /// <summary>Who is asked for; null: nobody is.</summary>
    public string? User { get; init; }

    /// <summary>The password; it is shown nowhere.</summary>
    public string? Password { get; init; }

    /// <summary>The port, which has a default of its own for each scheme.</summary>
    public int Port => Server.Port > 0 ? Server.Port : Server.Scheme == "smtps" ? 465 : 587;

    /// <summary>All but the password.</summary>
    public override string ToString() => $"{nameof(MailSettings)} {{ {Server.Scheme}://{Server.Host}:{Port}, {From} to {string.Join(", ", To)} }}";
}

/// <summary>An address that the summary is posted to.</summary>
/// <param name="Address">The address. Whoever knows that of a chat may write there, so it is shown nowhere.</param>
public sealed record WebhookSettings(Uri Address)
{
    /// <summary>The bearer token; null: none.</summary>
    public string? Token { get; init; }

    /// <summary>The host alone.</summary>
    public override string ToString() => $"{nameof(WebhookSettings)} {{ {Address.Host} }}";
}
