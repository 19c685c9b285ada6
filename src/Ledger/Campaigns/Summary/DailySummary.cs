using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Ledger.Http;
using Ledger.Usage;

namespace Ledger.Campaigns;

/// <summary>The summary of one day.</summary>
/// <param name="Day">The day, by the calendar of <paramref name="Zone"/>.</param>
/// <param name="From">Its first instant.</param>
/// <param name="To">The first instant of the next day.</param>
/// <param name="Zone">Whose day it is.</param>
/// <param name="Campaigns">What went on in it.</param>
public sealed record DailySummary(DateOnly Day, DateTimeOffset From, DateTimeOffset To, TimeZoneInfo Zone, IReadOnlyList<CampaignNumbers> Campaigns)
{
    /// <summary>Campaigns that are listed; the totals are of all.</summary>
    public const int MaxListed = 1_000;

    /// <summary>The messages of all campaigns by state.</summary>
    public IReadOnlyDictionary<string, long> Total => Campaigns.SelectMany(c => c.Messages).GroupBy(m => m.Key, StringComparer.Ordinal)
        .OrderBy(g => g.Key, StringComparer.Ordinal).ToDictionary(g => g.Key, g => g.Sum(m => m.Value));

    /// <summary>What it is about, in one line of ASCII.</summary>
    public string Subject => string.Create(CultureInfo.InvariantCulture, $"Campaigns on {Day:yyyy-MM-dd}");

    /// <summary>The day whose summary is due at an instant, that before the instant's own, and its bounds; null before the time of day at which it is sent.</summary>
    public static (DateOnly Day, DateTimeOffset From, DateTimeOffset To)? DueAt(DateTimeOffset now, TimeOnly at, TimeZoneInfo zone)
    {
        if (TimeOnly.FromTimeSpan(TimeZoneInfo.ConvertTime(now, zone).TimeOfDay) < at)
        {
            return null;
        }

        var days = ZonedIntervals.Covering(now.AddDays(-3), now.AddTicks(1), IntervalUnit.Day, zone)!;
        var (from, to) = days[days.Count - 1];
        return (DateOnly.FromDateTime(TimeZoneInfo.ConvertTime(from, zone).DateTime), from, to);
    }

    /// <summary>The same at each attempt, and another one for each day and receiver.</summary>
    public string IdFor(string receiver) => string.Create(
        CultureInfo.InvariantCulture, $"ledger-summary-{Day:yyyy-MM-dd}-{Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(receiver)).AsSpan(0, 8))}");

    /// <summary>For people.</summary>
    public string ToText()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"Campaigns on {Day:yyyy-MM-dd} ({Zone.Id}), {Rfc3339.Format(From)} to {Rfc3339.Format(To)}\n\n");
        text.Append(Campaigns.Count == 0 ? "Nothing was sent.\n" : $"All campaigns: {Shown(Total)}\n\n");
        foreach (var campaign in Campaigns.Take(MaxListed))
        {
            text.Append(CultureInfo.InvariantCulture, $"{OneLine(campaign.Name)} ({OneLine(campaign.CampaignId)}, {OneLine(campaign.TenantId)}): {Shown(campaign.Messages)}\n");
        }

        return (Campaigns.Count > MaxListed ? text.Append(CultureInfo.InvariantCulture, $"… and {Campaigns.Count - MaxListed} more\n") : text).ToString();
    }

    /// <summary>For programs; <c>text</c> is for chats that show that field.</summary>
    public byte[] ToJson(string id) => JsonSerializer.SerializeToUtf8Bytes(
        new SummaryBody(id, Day, From, To, Zone.Id, Total, [.. Campaigns.Take(MaxListed)], ToText()), Json.Options);

    /// <summary>What is posted.</summary>
    private sealed record SummaryBody(
        string Id, DateOnly Day, DateTimeOffset From, DateTimeOffset To, string TimeZone, IReadOnlyDictionary<string, long> Total,
        IReadOnlyList<CampaignNumbers> Campaigns, string Text);

    private static string Shown(IReadOnlyDictionary<string, long> messages) =>
        string.Join(", ", messages.OrderBy(m => m.Key, StringComparer.Ordinal).Select(m => string.Create(CultureInfo.InvariantCulture, $"{m.Value} {m.Key}")));

    private static string OneLine(string text) => string.Concat(text.EnumerateRunes().Select(r => Rune.IsControl(r) ? " " : r.ToString()));
}
