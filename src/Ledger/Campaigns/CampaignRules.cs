using System.Globalization;
using System.Text.Json;
using Ledger.Http;
using Ledger.Users;

namespace Ledger.Campaigns;

/// <summary>Why commands on campaigns are refused.</summary>
public static class CampaignRejections
{
    /// <summary>The id is no campaign's.</summary>
    public static Rejection NotFound(string id) => new("campaign-not-found", $"There is no campaign '{id}'.");

    /// <summary>The campaign has come to its end.</summary>
    public static Rejection Over(Campaign campaign) => new("campaign-over", $"The campaign is {campaign.State}.");

    /// <summary>What was to be changed has been acted on.</summary>
    public static Rejection Started(string field) => new("campaign-started", $"The campaign has begun, so {field} can't be changed any more.");
}

/// <summary>What holds for the plan of a campaign, whether it is created or changed.</summary>
internal static class CampaignRules
{
    private const string TimeOfDay = "HH:mm";

    public static void Check(Validation errors, CampaignPlan plan, DateTimeOffset now)
    {
        errors.Check(plan.Name.Length is > 0 and <= Campaign.MaxNameLength, "name", $"must have 1 to {Campaign.MaxNameLength} characters");
        if (!MessageText.TryParse(plan.Text, out _, out var wrong))
        {
            errors.Add("text", wrong);
        }

        CheckAudience(errors, plan.Audience);
        errors.Check(plan.EndsAt > plan.StartsAt, "endsAt", "must be after startsAt");
        errors.Check(plan.EndsAt > now, "endsAt", "must not be past");
        errors.Check(plan.EndsAt - plan.StartsAt <= Campaign.MaxDuration, "endsAt", $"must be at most {Campaign.MaxDuration.TotalDays:0} days after startsAt");
        errors.Check(
            plan.RatePerSecond is null or (>= 1 and <= Campaign.MaxRatePerSecond), "ratePerSecond",
            $"must be from 1 to {Campaign.MaxRatePerSecond}");
        if (plan.Window is { } window)
        {
            var (from, to) = (CheckTime(errors, window.From, "window.from"), CheckTime(errors, window.To, "window.to"));
            errors.Check(from is null || from != to, "window.to", "must differ from window.from");
        }
    }

    /// <summary>The window of a plan that was checked.</summary>
    public static SendWindow? WindowOf(CampaignPlan plan) =>
        plan.Window is { } window ? new SendWindow(TryReadTime(window.From)!.Value, TryReadTime(window.To)!.Value) : null;

    private static void CheckAudience(Validation errors, Audience audience)
    {
        var slugs = new HashSet<string>(StringComparer.Ordinal);
        CheckSegments(audience.Segments?.Any, "any");
        CheckSegments(audience.Segments?.All, "all");
        CheckSegments(audience.Segments?.None, "none");
        errors.Check(slugs.Count <= Campaign.MaxSegments, "audience.segments", $"must name at most {Campaign.MaxSegments} segments");
        errors.Check(
            slugs.Count > 0 || audience.Attributes is { Count: > 0 }, "audience", "must name at least one segment or attribute");
        errors.Check(
            audience.Attributes is null || audience.Attributes.Count <= Campaign.MaxAttributes, "audience.attributes",
            $"must be at most {Campaign.MaxAttributes}");
        errors.Check(
            JsonSerializer.SerializeToUtf8Bytes(audience.Attributes, Json.Options).Length <= Campaign.MaxAttributesBytes, "audience.attributes",
            $"must have at most {Campaign.MaxAttributesBytes} bytes together");
        foreach (var (name, value) in audience.Attributes ?? new Dictionary<string, JsonElement>())
        {
            // No user has others.
            var field = $"audience.attributes.{name}";
            errors.Check(name.Length is > 0 and <= PutUser.MaxNameLength, field, $"must have a name of 1 to {PutUser.MaxNameLength} characters");
            errors.Check(
                value.ValueKind is JsonValueKind.String or JsonValueKind.Number or JsonValueKind.True or JsonValueKind.False,
                field, "must be a text, a number, true or false");
            errors.Check(value.GetRawText().Length <= PutUser.MaxValueLength, field, $"must have at most {PutUser.MaxValueLength} characters");
        }

        void CheckSegments(IReadOnlyList<string>? named, string list)
        {
            for (var i = 0; i < (named?.Count ?? 0); i++)
            {
                errors.CheckSlug(named![i], $"audience.segments.{list}[{i}]");
                errors.Check(slugs.Add(named[i]), $"audience.segments.{list}[{i}]", "is named twice");
            }
        }
    }

    private static TimeOnly? CheckTime(Validation errors, string text, string field)
    {
        var time = TryReadTime(text);
        errors.Check(time is not null, field, "is not a time of day such as 09:00");
        return time;
    }

    private static TimeOnly? TryReadTime(string text) =>
        TimeOnly.TryParseExact(text, TimeOfDay, CultureInfo.InvariantCulture, DateTimeStyles.None, out var time) && text.All(c => char.IsAsciiDigit(c) || c == ':') ? time : null;
}
