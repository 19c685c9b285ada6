using System.Globalization;
using Ledger.EventStore;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Reports;

// These names and shapes are stored, in the stream report-{id}.

/// <summary>Somebody asked for a report of a month (yyyy-MM, UTC), of one user or, without one, of all.</summary>
public sealed record ReportRequested(string Kind, string Month, string? UserId);

/// <summary>A report was made, of what was known at <paramref name="Position"/>: so many rows, in a file of so many bytes with this SHA-256.</summary>
public sealed record ReportCompleted(long Position, long Rows, long Bytes, string Sha256);

/// <summary>A report could not be made.</summary>
public sealed record ReportFailed(string Reason);

/// <summary>A report was deleted, and its file with it.</summary>
public sealed record ReportDeleted;

/// <summary>A month by UTC.</summary>
public readonly record struct Month(DateTimeOffset Begin)
{
    /// <summary>The first month that reports are made of.</summary>
    public static readonly DateTimeOffset Earliest = DateTimeOffset.UnixEpoch;

    /// <summary>Where the next one begins.</summary>
    public DateTimeOffset End => Begin.AddMonths(1);

    /// <summary>The month an instant falls into.</summary>
    public static Month Of(DateTimeOffset instant) => new(new DateTimeOffset(instant.UtcDateTime.Year, instant.UtcDateTime.Month, 1, 0, 0, 0, TimeSpan.Zero));

    /// <summary>Reads yyyy-MM.</summary>
    public static bool TryParse(string text, out Month month)
    {
        var parsed = DateTimeOffset.TryParseExact(
            text, "yyyy-MM", CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var begin);
        month = new Month(begin);
        return parsed && text.All(c => char.IsAsciiDigit(c) || c == '-') && begin.Year < 9999;
    }

    /// <summary>As it is written, yyyy-MM.</summary>
    public override string ToString() => Begin.ToString("yyyy-MM", CultureInfo.InvariantCulture);
}

/// <summary>A report as its stream tells it.</summary>
public sealed record Report(
    string Id, string Status, string Kind, Month Month, string? UserId, DateTimeOffset RequestedAt, long RequestedPosition, ReportCompleted? Completed,
    string? Error, long Version)
{
    /// <summary>What became of it.</summary>
    public const string Pending = "pending", Ready = "ready", Failed = "failed", Deleted = "deleted";

    /// <summary>The only kind there is: who came into and out of segments.</summary>
    public const string Memberships = "memberships";

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "report";

    /// <summary>Whether there is such a report.</summary>
    public bool Exists => Status.Length > 0 && Status != Deleted;

    /// <summary>
    /// Whether its month was over when it was asked for. Then nothing that was recorded later can belong to the month: no event
    /// is recorded earlier than the one before it, and the request itself came after the month's end.
    /// </summary>
    public bool IsOfClosedMonth => Exists && RequestedAt >= Month.End;

    /// <summary>Where the times it tells of end, exclusive: with the month, or, while that lasts, with the instant of the request.</summary>
    public DateTimeOffset Until => IsOfClosedMonth ? Month.End : RequestedAt.AddMicroseconds(1);

    /// <summary>A report that was never asked for.</summary>
    public static Report Initial(string id) => new(id, "", "", default, null, default, 0, null, null, 0);

    /// <summary>The stream of a report.</summary>
    public static string StreamOf(string id) => $"report-{id}";

    /// <summary>The report a stream belongs to.</summary>
    public static string IdOf(string streamId) => streamId["report-".Length..];

    /// <summary>The id of the report of a month that is over: there is one a month, user and kind, whoever asks.</summary>
    public static string IdOfClosedMonth(string tenantId, string kind, Month month, string? userId) =>
        userId is null ? $"{kind}-{month}" : $"{kind}-{month}-{EventId.From(tenantId, "report", kind, month.ToString(), userId):N}";

    /// <summary>Folds one event of the stream.</summary>
    public static Report Evolve(Report report, RecordedEvent recorded)
    {
        report = report with { Version = recorded.Version };
        return recorded.Data switch
        {
            ReportRequested e => new Report(
                report.Id, Pending, e.Kind, MonthOf(e), e.UserId, recorded.RecordedAt, recorded.Position, null, null, recorded.Version),
            ReportCompleted e => report with { Status = Ready, Completed = e },
            ReportFailed e => report with { Status = Failed, Error = e.Reason },
            ReportDeleted => report with { Status = Deleted },
            _ => throw new InvalidOperationException($"{recorded.Type} does not belong into the stream of a report."),
        };
    }

    private static Month MonthOf(ReportRequested requested) =>
        Month.TryParse(requested.Month, out var month) ? month : throw new InvalidOperationException($"'{requested.Month}' is not a month.");
}
