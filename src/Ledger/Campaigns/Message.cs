using System.Globalization;
using Ledger.EventStore;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Campaigns;

// These names and shapes are stored, in the streams messages-{campaignId}-{yyyy-MM-dd}, by the day they were decided on.

/// <summary>Somebody in an audience, with what the message is made of. One without a message has the reason, and the status it has for good.</summary>
public sealed record Recipient(
    string UserId, string? Phone, string? TimeZone, IReadOnlyDictionary<string, string>? Fillings = null, string? Status = null, string? Reason = null);

/// <summary>A part of a campaign's audience, by user id; the parts are numbered from 0.</summary>
public sealed record RecipientsPinned(string CampaignId, int Part, IReadOnlyList<Recipient> Recipients);

/// <summary>The gateway accepted a message.</summary>
public sealed record MessageSent(string CampaignId, string UserId, string MessageId, int Attempt);

/// <summary>The gateway did not accept a message, and it will be tried again.</summary>
public sealed record MessageDeferred(string CampaignId, string UserId, string MessageId, int Attempt, string Error, int? StatusCode, DateTimeOffset DueAt);

/// <summary>The gateway refused a message for good, or it was tried often enough.</summary>
public sealed record MessageFailed(string CampaignId, string UserId, string MessageId, int Attempt, string Error, int? StatusCode);

/// <summary>A message left, or may have left, and nothing usable came back; with <paramref name="DueAt"/>, it is sent again then, under the same id.</summary>
public sealed record MessageOutcomeUnknown(
    string CampaignId, string UserId, string MessageId, int Attempt, string Error, int? StatusCode, DateTimeOffset? DueAt);

/// <summary>A message was not sent, because its recipient had opted out by then.</summary>
public sealed record MessageSuppressed(string CampaignId, string UserId, string MessageId, int Attempt, string Reason);

/// <summary>Failed messages are to be tried again, by the request recorded at <paramref name="Retry"/>; the last part says so.</summary>
public sealed record MessagesRequeued(string CampaignId, long Retry, int Part, IReadOnlyList<string> Users, bool IsLast);

/// <summary>What is known of messages beside their events.</summary>
public static class Message
{
    /// <summary>What became of a message, as it is stored.</summary>
    public const string Pending = "pending", Sent = "sent", Failed = "failed", Unknown = "unknown", Suppressed = "suppressed";

    /// <summary>What follows from its campaign, or from its being under way.</summary>
    public const string Sending = "sending", Expired = "expired", Cancelled = "cancelled";

    /// <summary>All of them, in the order in which totals show them.</summary>
    public static readonly IReadOnlyList<string> Statuses = [Pending, Sending, Sent, Failed, Unknown, Expired, Suppressed, Cancelled];

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "messages";

    /// <summary>The stream of a campaign's messages on a day of UTC.</summary>
    public static string StreamOf(Guid campaignId, DateTimeOffset at) =>
        string.Create(CultureInfo.InvariantCulture, $"messages-{campaignId:N}-{at.UtcDateTime:yyyy-MM-dd}");

    /// <summary>The id of a recipient's message: the same on every attempt.</summary>
    public static string IdOf(string tenantId, Guid campaignId, string userId) => $"{EventId.From(tenantId, "message", $"{campaignId:N}", userId):N}";

    /// <summary>
    /// The id of the event that tells what became of an attempt. There is one of an attempt, whoever records it first: the worker
    /// that made it, or whoever found the worker gone.
    /// </summary>
    public static Guid OutcomeId(string tenantId, string messageId, int attempt) =>
        EventId.From(tenantId, "attempt", messageId, attempt.ToString(CultureInfo.InvariantCulture));

    /// <summary>The id of the event of a part of an audience, so that a part is recorded once, whoever does it.</summary>
    public static Guid PartId(string tenantId, Guid campaignId, int part) =>
        EventId.From(tenantId, "recipients", $"{campaignId:N}", part.ToString(CultureInfo.InvariantCulture));

    /// <summary>The id of the event of a part of a retry.</summary>
    public static Guid RequeueId(string tenantId, Guid campaignId, long retry, int part) =>
        EventId.From(tenantId, "requeue", $"{campaignId:N}", retry.ToString(CultureInfo.InvariantCulture), part.ToString(CultureInfo.InvariantCulture));

    /// <summary>The campaign, user and attempt that the outcome of an attempt is of; null for other events.</summary>
    internal static (string CampaignId, string UserId, int Attempt)? OutcomeOf(object? data) => data switch
    {
        MessageSent e => (e.CampaignId, e.UserId, e.Attempt),
        MessageDeferred e => (e.CampaignId, e.UserId, e.Attempt),
        MessageFailed e => (e.CampaignId, e.UserId, e.Attempt),
        MessageOutcomeUnknown e => (e.CampaignId, e.UserId, e.Attempt),
        MessageSuppressed e => (e.CampaignId, e.UserId, e.Attempt),
        _ => null,
    };
}
