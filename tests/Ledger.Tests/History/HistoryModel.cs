using System.Text.Json;
using Ledger.EventStore;
using Ledger.Segments;

namespace Ledger.Tests.History;

/// <summary>The history told once more in the simplest way: by looking at every event of the log, in memory.</summary>
internal static class HistoryModel
{
    public sealed record Entry(long Position, DateTimeOffset At, DateTimeOffset RecordedAt, string Kind, string? User, string? Segment, string? Service, string? Actor);

    public static Entry Of(RecordedEvent e)
    {
        var data = JsonElement.Parse(e.Json.Span);
        var kind = e.StreamId.Split('-', 2);
        var user = kind[0] == "user" ? kind[1] : Text("userId");
        var segment = kind[0] == "segment" ? kind[1] : Text("segment");
        var service = kind[0] == "service" ? kind[1] : Text("serviceId");
        var at = e.Type == "membership_expired" ? Text("expiresAt") : e.Type == "call_recorded" ? Text("occurredAt") : null;
        return new Entry(
            e.Position, at is null ? e.RecordedAt : DateTimeOffset.Parse(at, System.Globalization.CultureInfo.InvariantCulture), e.RecordedAt,
            e.Type.Replace('_', '-'), user, segment, service, e.Actor);

        string? Text(string field) => data.TryGetProperty(field, out var value) ? value.GetString() : null;
    }

    /// <summary>What happened to a user: the user's own events, and what segments did to the user.</summary>
    public static IEnumerable<Entry> OfUser(IEnumerable<RecordedEvent> log, string user)
    {
        var segments = new Dictionary<string, (long Id, string Salt, decimal Percent)>();
        var open = new Dictionary<long, DateTimeOffset?>();
        foreach (var recorded in log)
        {
            var entry = Of(recorded);
            switch (recorded.Data)
            {
                case SegmentCreated e:
                    segments[e.Slug] = (recorded.Position, e.Salt, e.RolloutPercent);
                    if (IsIn(segments[e.Slug], user))
                    {
                        yield return entry with { User = user, Kind = "user-rolled-in" };
                    }

                    break;

                case RolloutChanged e:
                    var before = segments[entry.Segment!];
                    var after = segments[entry.Segment!] = before with { Percent = e.RolloutPercent };
                    if (IsIn(before, user) != IsIn(after, user))
                    {
                        yield return entry with { User = user, Kind = IsIn(after, user) ? "user-rolled-in" : "user-rolled-out" };
                    }

                    break;

                case SegmentDeleted:
                    var segment = segments[entry.Segment!];
                    var stayed = open.Remove(segment.Id, out var expiresAt);
                    if (IsIn(segment, user) || (stayed && !(expiresAt <= recorded.RecordedAt)))
                    {
                        yield return entry with { User = user, Kind = "user-removed-by-deletion" };
                    }
                    else if (stayed)
                    {
                        yield return entry with { User = user, Kind = "membership-expired", At = expiresAt!.Value };
                    }

                    break;

                default:
                    if (entry.User == user)
                    {
                        _ = recorded.Data switch
                        {
                            UserJoinedSegment e => open[e.SegmentId] = Membership.ExpiryOf(recorded.RecordedAt, e.Ttl, e.ExpiresAt),
                            MembershipRenewed e => open[e.SegmentId] = Membership.ExpiryOf(recorded.RecordedAt, e.Ttl, e.ExpiresAt),
                            UserLeftSegment e => open.Remove(e.SegmentId) ? null : null,
                            MembershipExpired e => open.Remove(e.SegmentId) ? null : null,
                            _ => null,
                        };
                        yield return entry;
                    }

                    break;
            }
        }
    }

    private static bool IsIn((long Id, string Salt, decimal Percent) segment, string user) =>
        Rollout.BucketOf(segment.Salt, user) < segment.Percent * 100;
}
