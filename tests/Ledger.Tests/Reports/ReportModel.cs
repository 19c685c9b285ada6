using Ledger.EventStore;
using Ledger.Segments;
using Ledger.Tests.History;

namespace Ledger.Tests.Reports;

/// <summary>A report's lines told once more in the simplest way: by folding the log in memory.</summary>
internal static class ReportModel
{
    public sealed record Line(string User, string Segment, string Operation, DateTimeOffset Time, long Position = 0);

    /// <summary>What was known at a position of the time from one instant to another; with the roll-outs, when it is about one user.</summary>
    public static IEnumerable<Line> Lines(IReadOnlyList<RecordedEvent> log, string? only, long cut, DateTimeOffset from, DateTimeOffset to)
    {
        var known = log.Where(e => e.Position <= cut).ToArray();
        var lines = Explicit(known).Where(l => only is null || l.User == only);
        if (only is not null)
        {
            lines = lines.Concat(Rolled(known, only, [.. lines]));
        }

        return lines.Where(l => l.Time >= from && l.Time < to);
    }

    private static IEnumerable<Line> Rolled(RecordedEvent[] known, string user, Line[] explicitly) =>
        from entry in HistoryModel.OfUser(known, user)
        let operation = entry.Kind switch { "user-rolled-in" => "rolled-in", "user-rolled-out" => "rolled-out", "user-removed-by-deletion" => "segment-deleted", _ => null }
        where operation is not null && !explicitly.Any(l => l.Operation == "segment-deleted" && l.Position == entry.Position) // one deletion, one line
        select new Line(user, entry.Segment!, operation, entry.At);

    private static List<Line> Explicit(IEnumerable<RecordedEvent> known)
    {
        var lines = new List<Line>();
        var open = new Dictionary<(string User, long SegmentId), (string Segment, DateTimeOffset? ExpiresAt)>();
        foreach (var e in known)
        {
            var user = e.StreamId.Split('-', 2)[1];
            switch (e.Data)
            {
                case UserJoinedSegment joined:
                    open.Add((user, joined.SegmentId), (joined.Segment, Membership.ExpiryOf(e.RecordedAt, joined.Ttl, joined.ExpiresAt)));
                    lines.Add(new Line(user, joined.Segment, "joined", e.RecordedAt));
                    break;
                case MembershipRenewed renewed:
                    if (open[(user, renewed.SegmentId)].ExpiresAt is { } gone && gone < e.RecordedAt)
                    {
                        lines.AddRange([new Line(user, renewed.Segment, "expired", gone), new Line(user, renewed.Segment, "joined", e.RecordedAt)]);
                    }

                    open[(user, renewed.SegmentId)] = (renewed.Segment, Membership.ExpiryOf(e.RecordedAt, renewed.Ttl, renewed.ExpiresAt));
                    break;
                case UserLeftSegment left:
                    open.Remove((user, left.SegmentId), out var stay);
                    lines.Add(stay.ExpiresAt < e.RecordedAt
                        ? new Line(user, left.Segment, "expired", stay.ExpiresAt.Value)
                        : new Line(user, left.Segment, "left", e.RecordedAt));
                    break;
                case MembershipExpired expired:
                    open.Remove((user, expired.SegmentId));
                    lines.Add(new Line(user, expired.Segment, "expired", expired.ExpiresAt));
                    break;
                case SegmentDeleted:
                    foreach (var (key, member) in open.Where(o => o.Value.Segment == user).ToArray())
                    {
                        open.Remove(key);
                        lines.Add(member.ExpiresAt <= e.RecordedAt
                            ? new Line(key.User, member.Segment, "expired", member.ExpiresAt.Value)
                            : new Line(key.User, member.Segment, "segment-deleted", e.RecordedAt, e.Position));
                    }

                    break;
            }
        }

        lines.AddRange(open.Where(o => o.Value.ExpiresAt is not null).Select(o => new Line(o.Key.User, o.Value.Segment, "expired", o.Value.ExpiresAt!.Value)));
        return lines;
    }
}
