using System.Text.Json;
using Ledger.Users;

namespace Ledger.Campaigns;

/// <summary>What makes a user a recipient. Pure.</summary>
public static class AudienceRules
{
    /// <summary>The attributes that campaigns understand.</summary>
    public const string PhoneAttribute = "phone", TimeZoneAttribute = "timeZone", OperatorCodeAttribute = "operatorCode";

    /// <summary>Why somebody is sent nothing.</summary>
    public const string OptedOut = "The user has opted out.", DoNotContact = $"The user is in the segment {Campaign.SuppressionSegment}.";

    /// <summary>The value of a user's attribute as text; the operator's code follows from the phone unless it is set.</summary>
    public static string? ValueOf(IReadOnlyDictionary<string, JsonElement> attributes, string name) =>
        attributes.TryGetValue(name, out var value) ? TextOf(value)
        : name == OperatorCodeAttribute && attributes.TryGetValue(PhoneAttribute, out var phone) && PhoneNumber.TryParse(TextOf(phone), out var number) ? number.OperatorCode
        : null;

    /// <summary>Whether a user has the attributes that an audience asks for.</summary>
    public static bool Matches(KnownUser user, Audience audience) =>
        audience.Attributes is null || audience.Attributes.All(a => ValueOf(user.Attributes, a.Key) == TextOf(a.Value));

    /// <summary>Whether a user has opted out.</summary>
    public static bool HasOptedOut(IReadOnlyDictionary<string, JsonElement> attributes) => ValueOf(attributes, Campaign.OptOutAttribute) == "true";

    /// <summary>
    /// The recipient that a user is, with what its message is made of; <paramref name="missing"/> are the attributes that the text
    /// names and the user lacks, where a message was to be sent.
    /// </summary>
    public static Recipient RecipientOf(KnownUser user, CampaignPlan plan, MessageText text, bool isSuppressed, out IReadOnlyList<string> missing)
    {
        missing = [];
        if (HasOptedOut(user.Attributes) || isSuppressed)
        {
            return new Recipient(user.Id, null, null, null, Message.Suppressed, isSuppressed ? DoNotContact : OptedOut);
        }

        if (ValueOf(user.Attributes, PhoneAttribute) is not { } given)
        {
            return Failed($"The user has no attribute {PhoneAttribute}.");
        }

        if (!PhoneNumber.TryParse(given, out var phone))
        {
            return Failed($"The user's attribute {PhoneAttribute} {PhoneNumber.Rule}.");
        }

        var zone = ValueOf(user.Attributes, TimeZoneAttribute);
        var isZone = zone is not null && TimeZones.TryFind(zone, out _);
        if (plan.Window is not null && !isZone)
        {
            return Failed(zone is null ? $"The user has no attribute {TimeZoneAttribute}." : $"The user's attribute {TimeZoneAttribute} {TimeZones.Rule}.");
        }

        missing = text.MissingOf(name => ValueOf(user.Attributes, name));
        if (missing.Count > 0)
        {
            return new Recipient(user.Id, phone.E164, isZone ? zone : null);
        }

        var fillings = text.Placeholders.Count == 0 ? null : text.Placeholders.ToDictionary(p => p, p => ValueOf(user.Attributes, p)!);
        return text.TryRender(name => fillings!.GetValueOrDefault(name), out _, out var wrong)
            ? new Recipient(user.Id, phone.E164, isZone ? zone : null, fillings)
            : Failed($"The text {wrong}.");

        Recipient Failed(string reason) => new(user.Id, null, null, null, Message.Failed, reason);
    }

    private static string TextOf(JsonElement value) => value.ValueKind == JsonValueKind.String ? value.GetString()! : value.GetRawText();
}
