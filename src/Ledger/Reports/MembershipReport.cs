using System.Runtime.CompilerServices;
using Ledger.EventStore;
using Ledger.History;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Users;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Reports;

/// <summary>One line of a report: a user came into a segment, or out of it, at a time.</summary>
internal sealed record ReportLine(string User, string Segment, string Operation, DateTimeOffset Time)
{
    public const string Joined = "joined", Left = "left", Expired = "expired", Deleted = "segment-deleted", RolledIn = "rolled-in", RolledOut = "rolled-out";

    public static readonly CsvTable<ReportLine> Table = new(
        ["user", "segment", "operation", "time"],
        (csv, line) =>
        {
            csv.Text(line.User);
            csv.Text(line.Segment);
            csv.Text(line.Operation);
            csv.Time(line.Time);
        },
        ';');
}

/// <summary>
/// Makes the lines of a report of memberships: of what was known at its position, whenever it is made. A membership ends at its
/// <c>expires_at</c>, whether or not that was recorded by then.
/// </summary>
public sealed class MembershipReport(
    BackgroundDatabase background, EventReader log, LogTimes times, Views views, ViewDatabase snapshots, HistoryMarks marks, RolloutTurns rollouts,
    StaysAtDeletion deletions, StaysOfMonth stays, ReportsReader reports)
{
    /// <summary>Events and lines worked on at once.</summary>
    public const int MaxLinesAtOnce = 5_000;

    /// <summary>How long after its decision a command may be recorded, at most, to be looked for beyond the position of a report.</summary>
    public static readonly TimeSpan MaxLateness = TimeSpan.FromHours(1);

    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(30);

    /// <summary>
    /// The position of the last event a report takes into account: of a month that was over the last one recorded in it, else
    /// the one before the request. It follows from the log alone.
    /// </summary>
    public async Task<long> CutOf(Report report, CancellationToken cancellation) =>
        report.IsOfClosedMonth ? await times.LastBefore(report.Month.End, cancellation) : report.RequestedPosition - 1;

    /// <summary>The lines, by time, streamed.</summary>
    internal IAsyncEnumerable<ReportLine> Lines(string tenantId, Report report, long cut, CancellationToken cancellation) =>
        report.UserId is { } user ? OfUser(tenantId, user, report, cut, cancellation) : OfAll(tenantId, report, cut, cancellation);

    /// <summary>One user's lines, from the user's stream and the turns of roll-outs and segments, folded in order of position.</summary>
    private async IAsyncEnumerable<ReportLine> OfUser(
        string tenantId, string user, Report report, long cut, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await WaitFor(cut, cancellation);
        var turns = new Queue<RolloutTurn>();
        await foreach (var page in rollouts.Pages(tenantId, 0, cut, newestFirst: false, cancellation))
        {
            foreach (var turn in page.Where(t => t.Deleted || t.Moves(user, out _) is not null))
            {
                turns.Enqueue(turn);
            }
        }

        var lines = new List<ReportLine>();
        var open = new Dictionary<long, (string Segment, DateTimeOffset? ExpiresAt)>();
        await foreach (var recorded in log.ReadStream(new StreamKey(tenantId, User.StreamOf(user)), cancellation: cancellation))
        {
            if (recorded.Position > cut)
            {
                break;
            }

            while (turns.TryPeek(out var turn) && turn.Position < recorded.Position)
            {
                Turn(turns.Dequeue());
            }

            switch (recorded.Data)
            {
                case UserJoinedSegment e:
                    open[e.SegmentId] = (e.Segment, Membership.ExpiryOf(recorded.RecordedAt, e.Ttl, e.ExpiresAt));
                    Add(e.Segment, ReportLine.Joined, recorded.RecordedAt);
                    break;

                case MembershipRenewed e:
                    if (open[e.SegmentId].ExpiresAt is { } ranOut && ranOut < recorded.RecordedAt)
                    {
                        Add(e.Segment, ReportLine.Expired, ranOut);
                        Add(e.Segment, ReportLine.Joined, recorded.RecordedAt);
                    }

                    open[e.SegmentId] = (e.Segment, Membership.ExpiryOf(recorded.RecordedAt, e.Ttl, e.ExpiresAt));
                    break;

                case UserLeftSegment e:
                    open.Remove(e.SegmentId, out var stay);
                    var late = stay.ExpiresAt < recorded.RecordedAt;
                    Add(e.Segment, late ? ReportLine.Expired : ReportLine.Left, late ? stay.ExpiresAt!.Value : recorded.RecordedAt);
                    break;

                case MembershipExpired e:
                    open.Remove(e.SegmentId);
                    Add(e.Segment, ReportLine.Expired, e.ExpiresAt);
                    break;
            }
        }

        while (turns.TryDequeue(out var turn))
        {
            Turn(turn);
        }

        foreach (var (segment, expiresAt) in open.Values.Where(s => s.ExpiresAt is not null))
        {
            Add(segment, ReportLine.Expired, expiresAt!.Value);
        }

        // Sorting is stable: what happened at one instant stays in the order in which it was recorded.
        foreach (var line in lines.OrderBy(l => l.Time))
        {
            yield return line;
        }

        void Turn(RolloutTurn turn)
        {
            var moved = turn.Moves(user, out _);
            var held = false;
            if (turn.Deleted && open.Remove(turn.SegmentId, out var stay))
            {
                held = stay.ExpiresAt is null || stay.ExpiresAt > turn.At;
                if (!held)
                {
                    Add(turn.Segment, ReportLine.Expired, stay.ExpiresAt!.Value);
                }
            }

            if (turn.Deleted && (held || moved is false))
            {
                Add(turn.Segment, ReportLine.Deleted, turn.At);
            }
            else if (moved is { } into)
            {
                Add(turn.Segment, into ? ReportLine.RolledIn : ReportLine.RolledOut, turn.At);
            }
        }

        void Add(string segment, string operation, DateTimeOffset time)
        {
            if (time >= report.Month.Begin && time < report.Until && time < report.Month.End)
            {
                lines.Add(new ReportLine(user, segment, operation, time));
            }
        }
    }

    /// <summary>
    /// All users' lines. They are gathered in a table of this connection alone and sorted there, so that neither their number
    /// nor their order costs memory.
    /// </summary>
    private async IAsyncEnumerable<ReportLine> OfAll(string tenantId, Report report, long cut, [EnumeratorCancellation] CancellationToken cancellation)
    {
        await WaitFor(cut, cancellation);
        await using var connection = await background.Source.OpenConnectionAsync(cancellation);
        await Execute(connection, "drop table if exists pg_temp.report_lines");
        await Execute(connection, "create temp table report_lines (time timestamptz, position bigint, user_id text collate \"C\", segment text collate \"C\", operation text)");
        try
        {
            await Gather(tenantId, report, cut, lines => Copy(connection, report, lines, cancellation), cancellation);
            await using var command = new NpgsqlCommand(
                "select distinct time, position, user_id, segment, operation from pg_temp.report_lines order by time, position, user_id, segment, operation", connection)
            {
                CommandTimeout = 0,
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                yield return new ReportLine(reader.GetString(2), reader.GetString(3), reader.GetString(4), reader.GetFieldValue<DateTimeOffset>(0));
            }
        }
        finally
        {
            if (connection.State == System.Data.ConnectionState.Open)
            {
                await Execute(connection, "drop table if exists pg_temp.report_lines");
            }
        }
    }

    /// <summary>A line with the position of its event; 0 for an expiry that no event up to the report's position tells of.</summary>
    private readonly record struct Gathered(ReportLine Line, long Position);

    private async Task Gather(string tenantId, Report report, long cut, Func<List<Gathered>, Task> write, CancellationToken cancellation)
    {
        var start = await times.LastBefore(report.Month.Begin, cancellation);
        await foreach (var events in Events(tenantId, "user_joined_segment", start, cut, cancellation))
        {
            await write([.. events.Select(e => Line(e, ((UserJoinedSegment)e.Data!).Segment, ReportLine.Joined, e.RecordedAt))]);
        }

        await foreach (var events in Events(tenantId, "membership_expired", start, cut, cancellation))
        {
            await write([.. events.Select(e => Line(e, ((MembershipExpired)e.Data!).Segment, ReportLine.Expired, ((MembershipExpired)e.Data).ExpiresAt))]);
        }

        await foreach (var events in Events(tenantId, "user_left_segment", start, cut, cancellation))
        {
            var expiries = await stays.ExpiriesBefore(tenantId, events, cancellation);
            await write([.. events.Select(e => RanOut(e, expiries) is { } at
                ? Line(e, ((UserLeftSegment)e.Data!).Segment, ReportLine.Expired, at)
                : Line(e, ((UserLeftSegment)e.Data!).Segment, ReportLine.Left, e.RecordedAt))]);
        }

        await foreach (var events in Events(tenantId, "membership_renewed", start, cut, cancellation))
        {
            var expiries = await stays.ExpiriesBefore(tenantId, events, cancellation);
            await write([.. events.Where(e => RanOut(e, expiries) is not null).SelectMany(e => (Gathered[])
            [
                Line(e, ((MembershipRenewed)e.Data!).Segment, ReportLine.Expired, RanOut(e, expiries)!.Value),
                Line(e, ((MembershipRenewed)e.Data!).Segment, ReportLine.Joined, e.RecordedAt),
            ])]);
        }

        await foreach (var page in rollouts.Pages(tenantId, start, cut, newestFirst: false, cancellation))
        {
            foreach (var turn in page.Where(t => t.Deleted))
            {
                await foreach (var users in deletions.Users(tenantId, turn.SegmentId, turn.At, cancellation))
                {
                    await write([.. users.Select(u => new Gathered(new ReportLine(u, turn.Segment, ReportLine.Deleted, turn.At), turn.Position))]);
                }
            }
        }

        await GatherUnrecorded(tenantId, report, cut, write, cancellation);
    }

    /// <summary>
    /// Expiries that no event up to the report's position tells of. What has not been recorded even now is found among the
    /// stays; what has been since, afterwards, among later events, where the views have passed all that the stays had seen.
    /// </summary>
    private async Task GatherUnrecorded(string tenantId, Report report, long cut, Func<List<Gathered>, Task> write, CancellationToken cancellation)
    {
        await stays.RunOut(
            tenantId, report.Month.Begin, report.Until, cut,
            page => write([.. page.Select(s => new Gathered(new ReportLine(s.UserId, s.Segment, ReportLine.Expired, s.ExpiresAt), 0))]), cancellation);
        await WaitFor(await snapshots.Position(StaysOfMonth.Views, cancellation), cancellation);
        var after = cut;
        for (var late = await reports.LateExpiries(tenantId, report.Month, after, MaxLinesAtOnce, cancellation); late.Count > 0;
            late = await reports.LateExpiries(tenantId, report.Month, after, MaxLinesAtOnce, cancellation))
        {
            after = late[^1];
            await write([.. (await log.ReadAt(tenantId, [.. late], cancellation))
                .Select(e => Line(e, ((MembershipExpired)e.Data!).Segment, ReportLine.Expired, ((MembershipExpired)e.Data).ExpiresAt, position: 0))]);
        }

        if (!report.IsOfClosedMonth)
        {
            // Recorded in the rest of the month, however late: nobody may have been there to record it.
            var endOfMonth = await times.LastBefore(report.Month.End, cancellation);
            await foreach (var events in Events(tenantId, "membership_expired", cut, endOfMonth, cancellation))
            {
                await write([.. events.Where(e => ((MembershipExpired)e.Data!).ExpiresAt < report.Until)
                    .Select(e => Line(e, ((MembershipExpired)e.Data!).Segment, ReportLine.Expired, ((MembershipExpired)e.Data).ExpiresAt, position: 0))]);
            }
        }

        var end = await times.LastBefore(report.Until + MaxLateness, cancellation);
        foreach (var kind in (string[])["user_left_segment", "membership_renewed"])
        {
            await foreach (var events in Events(tenantId, kind, cut, end, cancellation))
            {
                var expiries = await stays.ExpiriesBefore(tenantId, events, cancellation);
                await write([.. events.Where(e => expiries.TryGetValue(e.Position, out var at) && at < report.Until)
                    .Select(e => Line(e, HistoryEntry.Of(e).Segment!, ReportLine.Expired, expiries[e.Position], position: 0))]);
            }
        }
    }

    private static DateTimeOffset? RanOut(RecordedEvent recorded, IReadOnlyDictionary<long, DateTimeOffset> expiries) =>
        expiries.TryGetValue(recorded.Position, out var at) && at < recorded.RecordedAt ? at : null;

    private static Gathered Line(RecordedEvent recorded, string segment, string operation, DateTimeOffset time, long? position = null) =>
        new(new ReportLine(User.IdOf(recorded.StreamId), segment, operation, time), position ?? recorded.Position);

    private async IAsyncEnumerable<IReadOnlyList<RecordedEvent>> Events(
        string tenantId, string type, long after, long upTo, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var waiting = new List<long>();
        await foreach (var positions in marks.Positions(
            tenantId, [new HistoryMark(HistoryMarks.Kind, HistoryKinds.Of(type))], after, upTo, newestFirst: false, cancellation))
        {
            waiting.AddRange(positions);
            if (waiting.Count + HistoryMarks.BlockPositions > MaxLinesAtOnce)
            {
                yield return await log.ReadAt(tenantId, [.. waiting], cancellation);
                waiting.Clear();
            }
        }

        yield return await log.ReadAt(tenantId, [.. waiting], cancellation);
    }

    private static async Task Copy(NpgsqlConnection connection, Report report, List<Gathered> lines, CancellationToken cancellation)
    {
        lines.RemoveAll(g => g.Line.Time < report.Month.Begin || g.Line.Time >= report.Until || g.Line.Time >= report.Month.End);
        if (lines.Count == 0)
        {
            return;
        }

        await using var copy = await connection.BeginBinaryImportAsync(
            "copy pg_temp.report_lines (time, position, user_id, segment, operation) from stdin (format binary)", cancellation);
        foreach (var (line, position) in lines)
        {
            await copy.StartRowAsync(cancellation);
            await copy.WriteAsync(line.Time, NpgsqlDbType.TimestampTz, cancellation);
            await copy.WriteAsync(position, NpgsqlDbType.Bigint, cancellation);
            await copy.WriteAsync(line.User, NpgsqlDbType.Text, cancellation);
            await copy.WriteAsync(line.Segment, NpgsqlDbType.Text, cancellation);
            await copy.WriteAsync(line.Operation, NpgsqlDbType.Text, cancellation);
        }

        await copy.CompleteAsync(cancellation);
    }

    private async Task WaitFor(long position, CancellationToken cancellation)
    {
        if (!await views.WaitFor([HistoryMarks.View, .. StaysOfMonth.Views, .. ReportsReader.Names], position, s_patience, cancellation))
        {
            throw new TimeoutException($"The views have not reached position {position}.");
        }
    }

    private static async Task Execute(NpgsqlConnection connection, string statement)
    {
        await using var command = new NpgsqlCommand(statement, connection);
        await command.ExecuteNonQueryAsync();
    }
}
