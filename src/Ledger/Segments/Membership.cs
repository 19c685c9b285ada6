using Ledger.EventStore;

namespace Ledger.Segments;

// These names and shapes are stored, in the stream user-{id}. A membership belongs to one life of a segment: SegmentId is the
// position of its SegmentCreated. It holds from the instant its event was recorded; a Ttl counts from there.

/// <summary>A user came into a segment, for good, for a time to live, or until an instant.</summary>
public sealed record UserJoinedSegment(string Segment, long SegmentId, TimeSpan? Ttl, DateTimeOffset? ExpiresAt, string Source);

/// <summary>A membership that still held got a new term: for good, for a time to live from now, or until an instant.</summary>
public sealed record MembershipRenewed(string Segment, long SegmentId, TimeSpan? Ttl, DateTimeOffset? ExpiresAt);

/// <summary>A user left a segment.</summary>
public sealed record UserLeftSegment(string Segment, long SegmentId);

/// <summary>A membership had run out at <paramref name="ExpiresAt"/>, which is when it ended, whenever this was recorded.</summary>
public sealed record MembershipExpired(string Segment, long SegmentId, DateTimeOffset ExpiresAt);

/// <summary>A stay of a user in a segment that has not ended by an event.</summary>
public sealed record Membership(
    string Segment, long SegmentId, long JoinedPosition, DateTimeOffset JoinedAt, DateTimeOffset? ExpiresAt, string Source)
{
    /// <summary>Where a membership came from.</summary>
    public const string Explicit = "explicit", Import = "import", ByRollout = "rollout";

    /// <summary>Whether it holds at an instant, as far as its own term goes.</summary>
    public bool HoldsAt(DateTimeOffset instant) => ExpiresAt is null || instant < ExpiresAt;

    /// <summary>
    /// When a term that begins at <paramref name="recordedAt"/> ends: never before it begins, though the instant asked for may
    /// have passed between the decision and its recording.
    /// </summary>
    public static DateTimeOffset? ExpiryOf(DateTimeOffset recordedAt, TimeSpan? ttl, DateTimeOffset? expiresAt) =>
        ttl is { } time ? recordedAt + time : expiresAt < recordedAt ? recordedAt : expiresAt;
}

/// <summary>A user's stays that have not ended by an event, by segment id.</summary>
public sealed record UserMemberships(IReadOnlyDictionary<long, Membership> Open)
{
    /// <summary>No stay at all.</summary>
    public static readonly UserMemberships None = new(new Dictionary<long, Membership>());

    /// <summary>The membership of a live segment that holds at an instant, or null.</summary>
    public Membership? In(Segment segment, DateTimeOffset now) =>
        segment.IsLive && Open.GetValueOrDefault(segment.Id) is { } membership && membership.HoldsAt(now) ? membership : null;

    /// <summary>Folds one event of a user's stream; those that say nothing of memberships change nothing.</summary>
    public static UserMemberships Evolve(UserMemberships user, RecordedEvent recorded) => recorded.Data switch
    {
        UserJoinedSegment e => user.With(new Membership(
            e.Segment, e.SegmentId, recorded.Position, recorded.RecordedAt,
            Membership.ExpiryOf(recorded.RecordedAt, e.Ttl, e.ExpiresAt), e.Source)),
        // The stay is not there when its segment was deleted before a view had folded the renewal: the loader leaves such stays out.
        MembershipRenewed e => user.Open.GetValueOrDefault(e.SegmentId) is { } stay
            ? user.With(stay with { ExpiresAt = Membership.ExpiryOf(recorded.RecordedAt, e.Ttl, e.ExpiresAt) })
            : user,
        UserLeftSegment e => user.Without(e.SegmentId),
        MembershipExpired e => user.Without(e.SegmentId),
        _ => user,
    };

    private UserMemberships With(Membership membership) =>
        new(new Dictionary<long, Membership>(Open) { [membership.SegmentId] = membership });

    private UserMemberships Without(long segmentId)
    {
        var open = new Dictionary<long, Membership>(Open);
        open.Remove(segmentId);
        return new(open);
    }
}
