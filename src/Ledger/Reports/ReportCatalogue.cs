using Ledger.EventStore;
using Ledger.Events;
using Ledger.Http;
using Microsoft.Net.Http.Headers;
using Npgsql;

namespace Ledger.Reports;

/// <summary>
/// A report. <c>status</c> is <c>pending</c>, <c>ready</c> or <c>failed</c>; what the file holds is known once it is ready.
/// <c>position</c> is that of the last event it takes into account.
/// </summary>
public sealed record ReportAnswer(
    string ReportId, string Kind, string Month, string? UserId, string Status, DateTimeOffset RequestedAt, long? Position, long? Rows, long? Bytes,
    string? Sha256, string Url, string? Error)
{
    internal static ReportAnswer Of(Report report) => new(
        report.Id, report.Kind, report.Month.ToString(), report.UserId, report.Status, report.RequestedAt, report.Completed?.Position,
        report.Completed?.Rows, report.Completed?.Bytes, report.Completed?.Sha256, $"/v1/reports/{report.Id}.csv", report.Error);
}

/// <summary>Answers which reports there are, and gives their files.</summary>
public static class ReportCatalogue
{
    private static readonly CsvTable<ReportAnswer> Csv = new(
        ["reportId", "kind", "month", "userId", "status", "requestedAt", "position", "rows", "bytes", "sha256", "url", "error"],
        (csv, report) =>
        {
            csv.Text(report.ReportId);
            csv.Text(report.Kind);
            csv.Text(report.Month);
            csv.Text(report.UserId);
            csv.Text(report.Status);
            csv.Time(report.RequestedAt);
            csv.Number(report.Position);
            csv.Number(report.Rows);
            csv.Number(report.Bytes);
            csv.Text(report.Sha256);
            csv.Text(report.Url);
            csv.Text(report.Error);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/reports/{reportId}.csv", GetFile)
            .Requires(Scopes.HistoryRead).WithName("GetReportFile").WithTags("Reports").WithSummary("The file of a report that is ready: user;segment;operation;time")
            .Produces<string>(200, Formats.CsvType).ProducesQueryProblems(404, 409);
        routes.MapGet("/v1/reports/{reportId}", GetOne)
            .Requires(Scopes.HistoryRead).WithName("GetReport").WithTags("Reports").WithSummary("What has become of a report")
            .Produces<ReportAnswer>().ProducesQueryProblems(404);
        routes.MapGet("/v1/reports", List)
            .Requires(Scopes.HistoryRead).WithName("ListReports").WithTags("Reports").WithSummary("All reports, the one asked for last first")
            .ProducesList<ReportAnswer>().ProducesQueryProblems(406);
    }

    internal static Rejection NotFound(string id) => new("report-not-found", $"There is no report '{id}'.");

    private static async Task<IResult> GetOne(string reportId, HttpContext http, EventReader log, Followers followers, CancellationToken cancellation)
    {
        var (report, rejection) = await Load(http, reportId, log, followers, cancellation);
        return rejection is null ? Results.Ok(ReportAnswer.Of(report)) : Problems.For(rejection);
    }

    private static async Task<IResult> GetFile(
        string reportId, HttpContext http, EventReader log, Followers followers, ReportFiles files, CancellationToken cancellation)
    {
        var (report, rejection) = await Load(http, reportId, log, followers, cancellation);
        if (rejection is not null)
        {
            return Problems.For(rejection);
        }

        if (report.Status == Report.Failed)
        {
            return Problems.Result("report-failed", $"The report '{reportId}' could not be made. {report.Error}");
        }

        if (report.Completed is not { } completed || await files.Read(http.TenantId(), report.RequestedPosition, 0, cancellation) is not { } first)
        {
            return Problems.Result("report-not-ready", $"The report '{reportId}' is still being made.");
        }

        http.Response.Headers.CacheControl = "private, no-cache";
        return new FileResult(files, http.TenantId(), report, completed, first);
    }

    /// <summary>From the stream, which is short, and not from the view: whoever has just asked for a report finds it.</summary>
    private static async Task<(Report Report, Rejection? Rejection)> Load(
        HttpContext http, string reportId, EventReader log, Followers followers, CancellationToken cancellation)
    {
        if (await Positions.AwaitAsync(http, followers.WaitForHead) is { } behind)
        {
            return (Report.Initial(reportId), behind);
        }

        var errors = new Validation();
        errors.CheckSlug(reportId, "reportId");
        if (errors.Rejection is { } invalid)
        {
            return (Report.Initial(reportId), invalid);
        }

        http.AnswerPosition(await log.ReadHead(cancellation));
        var (report, version) = await log.Fold(new StreamKey(http.TenantId(), Report.StreamOf(reportId)), Report.Initial(reportId), Report.Evolve, cancellation);
        if (!report.Exists)
        {
            return (report, NotFound(reportId));
        }

        ETags.Write(http.Response, version);
        return (report, null);
    }

    private static Task<IResult> List(
        [AsParameters] PageQuery page, HttpContext http, Queries queries, ReportsReader reports, CancellationToken cancellation) =>
        queries.Now(http, ReportsReader.Names, _ => ListAnswers.Answer<ReportAnswer, long>(
            http, page, "reports", [], Csv,
            async (before, rows) =>
            {
                var (position, found) = await reports.List(http.TenantId(), before == 0 ? long.MaxValue : before, rows, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(r => (ReportAnswer.Of(r), r.RequestedPosition))];
            }));

    /// <summary>Sends a file piece by piece; a slow reader holds one piece in memory and no connection to the database.</summary>
    private sealed class FileResult(ReportFiles files, string tenantId, Report report, ReportCompleted completed, byte[] first) : IResult
    {
        public async Task ExecuteAsync(HttpContext httpContext)
        {
            var (response, aborted) = (httpContext.Response, httpContext.RequestAborted);
            response.ContentType = $"{Formats.CsvType}; charset=utf-8; header=present";
            response.ContentLength = completed.Bytes;
            response.Headers.ContentDisposition = new ContentDispositionHeaderValue("attachment") { FileName = $"{report.Id}.csv" }.ToString();
            httpContext.LetStream();
            var piece = httpContext.WantsBody() ? first : null;
            for (var number = 1; piece is not null; number++)
            {
                await response.BodyWriter.WriteAsync(piece, aborted);
                piece = await files.Read(tenantId, report.RequestedPosition, number, aborted);
            }
        }
    }
}

/// <summary>Reads the view "Reports".</summary>
public sealed class ReportsReader(ViewDatabase snapshots, AllTenantsDatabase all, Views views, EventReader log)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Names = [ReportsProjection.View];

    /// <summary>Waits until the view has folded the event at a position; false when that takes too long.</summary>
    public async Task<bool> WaitFor(long position, TimeSpan wait, CancellationToken cancellation) =>
        await views.WaitFor(Names, position, wait, cancellation);

    /// <summary>A page of the list, the one asked for last first.</summary>
    public async Task<(long Position, IReadOnlyList<Report> Rows)> List(string tenantId, long before, int limit, CancellationToken cancellation)
    {
        var rows = new List<Report>();
        var position = await snapshots.Read(
            tenantId, Names,
            [
                Sql.Command(
                    $"select {ReportRow.Columns} from reports r where r.tenant_id = $1 and r.requested_position < $2 order by r.requested_position desc limit $3",
                    Sql.Value(tenantId), Sql.Value(before), Sql.Value(limit)),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(ReportRow.Read(reader, 0));
                }
            },
            cancellation);
        return (position, rows);
    }

    /// <summary>
    /// Why no further report is asked for; null when one may be. Of several that are asked for at the same moment, each may be the
    /// last. Costs the tenant's reports.
    /// </summary>
    internal async Task<Rejection?> Refuse(string tenantId, CancellationToken cancellation)
    {
        var head = await log.ReadHead(cancellation);
        if (!await views.WaitFor(Names, head, Positions.DefaultWait, cancellation))
        {
            return new Rejection("view-behind", $"How many reports the tenant has is not known up to position {head} yet.");
        }

        var (kept, waiting) = (await snapshots.Rows(
            tenantId,
            Sql.Command("select count(*), count(*) filter (where r.status = 'pending') from reports r where r.tenant_id = $1", Sql.Value(tenantId)),
            row => (row.GetInt64(0), row.GetInt64(1)), cancellation))[0];
        return waiting >= RequestReport.MaxWaiting
            ? new Rejection("too-many-reports", $"{RequestReport.MaxWaiting} reports of the tenant wait to be made: ask again when some of them are.")
            : kept >= RequestReport.MaxKept ? new Rejection("too-many-reports", $"The tenant has {RequestReport.MaxKept} reports: delete some.") : null;
    }

    /// <summary>
    /// Of the tenant after <paramref name="tenantId"/>, in turn, the report that waits longest to be made; with <paramref name="lost"/>,
    /// one of any tenant that was made and whose file is not there. Those that were asked for at the positions <paramref name="except"/>
    /// are passed over. Costs the reports that wait, or all of them.
    /// </summary>
    public async Task<(string TenantId, Report Report)?> Next(
        bool lost, string tenantId, IReadOnlyCollection<long> except, CancellationToken cancellation)
    {
        var rows = await new ViewDatabase(all.Source).Rows(
            TenantScope.Every,
            lost
                ? Sql.Command(
                    $"""
                     select r.tenant_id, {ReportRow.Columns} from reports r
                     where r.status = 'ready' and r.requested_position <> all($1) and not exists (
                       select from report_chunks c where c.tenant_id = r.tenant_id and c.requested_position = r.requested_position and c.number = 0)
                     limit 1
                     """,
                    Sql.Longs(except))
                : Sql.Command(
                    $"""
                     select r.tenant_id, {ReportRow.Columns} from reports r
                     where r.status = 'pending' and r.requested_position <> all($1)
                     order by r.tenant_id <= $2, r.tenant_id, r.requested_position limit 1
                     """,
                    Sql.Longs(except), Sql.Value(tenantId)),
            row => (TenantId: row.GetString(0), Report: ReportRow.Read(row, 1)), cancellation);
        return rows.Count == 0 ? null : rows[0];
    }

    /// <summary>
    /// Of all tenants, files whose report is not there any more, so many at once. What was asked for after the view's position may
    /// still come to be there. Costs two looks into indexes a file, however many pieces it has.
    /// </summary>
    public async Task<IReadOnlyList<(string TenantId, long RequestedPosition)>> Strays(int limit, CancellationToken cancellation) =>
        await new ViewDatabase(all.Source).Rows(
            TenantScope.Every,
            Sql.Command(
                """
                with recursive files (tenant_id, requested_position) as (
                  (select c.tenant_id, c.requested_position from report_chunks c order by c.tenant_id, c.requested_position limit 1)
                  union all
                  select n.tenant_id, n.requested_position
                  from files f
                  cross join lateral (
                    select c.tenant_id, c.requested_position from report_chunks c
                    where (c.tenant_id, c.requested_position) > (f.tenant_id, f.requested_position)
                    order by c.tenant_id, c.requested_position limit 1) n
                )
                select f.tenant_id, f.requested_position
                from files f
                where f.requested_position <= (select p.last_seq_id from mt_event_progression p where p.name = $1 || ':All') and not exists (
                  select from reports r where r.tenant_id = f.tenant_id and r.requested_position = f.requested_position)
                limit $2
                """,
                Sql.Value(ReportsProjection.View), Sql.Value(limit)),
            row => (row.GetString(0), row.GetInt64(1)), cancellation);

    /// <summary>The positions of the expiries of a month that were recorded in a later one, in order, so many at once.</summary>
    public async Task<IReadOnlyList<long>> LateExpiries(string tenantId, Month month, long after, int limit, CancellationToken cancellation) =>
        await snapshots.Rows(
            tenantId,
            Sql.Command(
                "select l.position from report_late_expiries l where l.tenant_id = $1 and l.month = $2 and l.position > $3 order by l.position limit $4",
                Sql.Value(tenantId), Sql.Value(DateOnly.FromDateTime(month.Begin.UtcDateTime)), Sql.Value(after), Sql.Value(limit)),
            row => row.GetInt64(0), cancellation);
}
