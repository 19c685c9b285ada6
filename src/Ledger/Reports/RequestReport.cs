using Ledger.EventStore;
using Ledger.Http;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Reports;

/// <summary>Asks for a report of a month. One of a month that is over is the same for everybody who asks.</summary>
public sealed record RequestReport(string Kind, string Month, string? UserId = null)
{
    /// <summary>Reports of a tenant that were not deleted.</summary>
    public const int MaxKept = 1_000;

    /// <summary>Reports of a tenant that wait to be made.</summary>
    public const int MaxWaiting = 100;

    /// <summary>Decides on what has become of a report under this id.</summary>
    public Decision Decide(Report report)
    {
        if (report.IsOfClosedMonth && report.Status != Report.Failed)
        {
            return Decision.Nothing;
        }

        return Decision.Of(new ReportRequested(Kind, Month, UserId));
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/reports", Handle)
        .Requires(Scopes.HistoryRead).WithName(nameof(RequestReport)).WithTags("Reports").WithSummary("Ask for a report of a month; one of a month that is over is made once")
        .Produces<ReportAnswer>(201).Produces<ReportAnswer>().ProducesCommandProblems();

    private static async Task<IResult> Handle(
        RequestReport body, HttpContext http, CommandHandler handler, EventReader log, ReportsReader reports, LedgerClock clock,
        CancellationToken cancellation)
    {
        var now = clock.GetUtcNow();
        var errors = new Validation();
        errors.Check(body.Kind == Report.Memberships, "kind", $"must be {Report.Memberships}");
        var isMonth = Reports.Month.TryParse(body.Month, out var month);
        if (errors.Check(isMonth && month.Begin >= Reports.Month.Earliest, "month", "is not a month from 1970-01 on, such as 2026-11"))
        {
            errors.Check(month.Begin <= now, "month", "has not begun yet");
        }

        if (body.UserId is not null)
        {
            errors.CheckUserId(body.UserId, "userId");
        }

        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command(body);
        var id = month.End <= now ? Report.IdOfClosedMonth(context.TenantId, body.Kind, month, body.UserId) : $"{EventId.New():N}";
        var stream = Report.StreamOf(id);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var (report, version) = await log.Fold(new StreamKey(context.TenantId, stream), Report.Initial(id), Report.Evolve, cancellation);
                var decision = body.Decide(report);
                if (decision.Events.Count > 0 && await reports.Refuse(context.TenantId, cancellation) is { } full)
                {
                    decision = full;
                }

                return new Decided(decision, stream, Report.StreamType, [new StreamCondition(stream, version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        // The first request under this key may have made up another id.
        id = result.Changed ? Report.IdOf((await log.ReadAt(context.TenantId, result.FirstPosition, cancellation))!.StreamId) : id;
        var asked = Report.Initial(id);
        await foreach (var recorded in log.ReadStream(new StreamKey(context.TenantId, Report.StreamOf(id)), toVersion: result.Version, cancellation: cancellation))
        {
            asked = Report.Evolve(asked, recorded); // as it was right after the request, however fast the report is made
        }

        http.Answer(result);
        ETags.Write(http.Response, asked.Version);
        http.Response.Headers.Location = $"/v1/reports/{id}";
        return Results.Json(ReportAnswer.Of(asked), statusCode: result.Changed ? 201 : 200);
    }
}
