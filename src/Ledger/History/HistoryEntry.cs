using System.Collections.Frozen;
using System.Text.Json;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Segments;
using Ledger.Services;
using Ledger.Usage;
using Ledger.Users;

namespace Ledger.History;

/// <summary>
/// Who did what when. <c>at</c> is when it took effect, <c>recordedAt</c> when it was recorded, at <c>position</c>; <c>detail</c>
/// is what else the event says.
/// </summary>
public sealed record HistoryEntry(
    long Position, DateTimeOffset At, DateTimeOffset RecordedAt, string Kind, string? User, string? Segment, string? Service, string? Actor,
    IReadOnlyDictionary<string, JsonElement> Detail)
{
    /// <summary>The entry of an event.</summary>
    public static HistoryEntry Of(RecordedEvent recorded)
    {
        var subject = HistorySubject.Of(recorded);
        return new HistoryEntry(
            recorded.Position, EffectiveAt(recorded), recorded.RecordedAt, HistoryKinds.Of(recorded.Type), subject.User, subject.Segment, subject.Service,
            recorded.Actor, DetailOf(recorded, subject));
    }

    private static DateTimeOffset EffectiveAt(RecordedEvent recorded) => recorded.Data switch
    {
        MembershipExpired e => e.ExpiresAt,
        CallRecorded e => e.OccurredAt,
        _ => recorded.RecordedAt,
    };

    /// <summary>The event's fields, but for those that name what the entry names already.</summary>
    private static Dictionary<string, JsonElement> DetailOf(RecordedEvent recorded, HistorySubject subject)
    {
        var detail = new Dictionary<string, JsonElement>();
        foreach (var field in JsonElement.Parse(recorded.Json.Span).EnumerateObject())
        {
            var named = field.Name switch
            {
                "userId" => subject.User,
                "segment" or "slug" => subject.Segment,
                "serviceId" => subject.Service,
                _ => null,
            };
            if (named is null)
            {
                detail.Add(field.Name, field.Value);
            }
        }

        return detail;
    }
}

/// <summary>What an event is about. Only its own stream and what it says itself count, so that it needs no view.</summary>
internal readonly record struct HistorySubject(string? User, string? Segment, string? Service)
{
    public static HistorySubject Of(RecordedEvent recorded) => recorded.Data switch
    {
        UserRegistered or UserAttributesSet => new(Ledger.Users.User.IdOf(recorded.StreamId), null, null),
        UserJoinedSegment e => new(Ledger.Users.User.IdOf(recorded.StreamId), e.Segment, null),
        MembershipRenewed e => new(Ledger.Users.User.IdOf(recorded.StreamId), e.Segment, null),
        UserLeftSegment e => new(Ledger.Users.User.IdOf(recorded.StreamId), e.Segment, null),
        MembershipExpired e => new(Ledger.Users.User.IdOf(recorded.StreamId), e.Segment, null),
        SegmentCreated or SegmentDescribed or DefaultTtlChanged or RolloutChanged or SegmentDeleted => new(null, Ledger.Segments.Segment.SlugOf(recorded.StreamId), null),
        ServiceRegistered or ServiceRenamed or ServiceDescribed or PriceSet or ServiceRetired => new(null, null, Ledger.Services.Service.IdOf(recorded.StreamId)),
        ServiceTitleClaimed e => new(null, null, e.ServiceId),
        ServiceTitleReleased e => new(null, null, e.ServiceId),
        CallRecorded e => new(e.UserId, null, e.ServiceId),
        CallPriced e => new(e.UserId, null, e.ServiceId),
        CallVoided e => new(e.UserId, null, e.ServiceId),
        MessageSent e => new(e.UserId, null, null),
        MessageDeferred e => new(e.UserId, null, null),
        MessageFailed e => new(e.UserId, null, null),
        MessageOutcomeUnknown e => new(e.UserId, null, null),
        MessageSuppressed e => new(e.UserId, null, null),
        _ => default,
    };
}

/// <summary>The kinds of entries: one a kind of event, and those that only a user's history has.</summary>
public sealed class HistoryKinds(EventTypes types)
{
    /// <summary>A roll-out took the user in: there is no event of the user.</summary>
    public const string RolledIn = "user-rolled-in";

    /// <summary>A roll-out let the user go.</summary>
    public const string RolledOut = "user-rolled-out";

    /// <summary>The segment that the user was in was deleted.</summary>
    public const string RemovedByDeletion = "user-removed-by-deletion";

    /// <summary>Entries that only a user's history has: made of events of segments.</summary>
    public static readonly IReadOnlyList<string> OfUsersOnly = [RolledIn, RolledOut, RemovedByDeletion];

    private readonly FrozenSet<string> _ofEvents = types.All.Select(t => Of(t.Name)).ToFrozenSet(StringComparer.Ordinal);

    /// <summary>All of them.</summary>
    public IEnumerable<string> All => [.. _ofEvents.Concat(OfUsersOnly).Order(StringComparer.Ordinal)];

    /// <summary>Whether an event has this kind.</summary>
    public bool IsOfEvent(string kind) => _ofEvents.Contains(kind);

    /// <summary>The kind of an event's entry, by the event's stored name.</summary>
    public static string Of(string eventType) => eventType.Replace('_', '-');
}
