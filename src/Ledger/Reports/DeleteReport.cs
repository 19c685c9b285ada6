using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Reports;

/// <summary>Deletes a report and its file. That it was there stays in the log; asked for again, it is made again.</summary>
public sealed record DeleteReport
{
    /// <summary>Decides on the report.</summary>
    public static Decision Decide(Report report)
    {
        if (!report.Exists)
        {
            return ReportCatalogue.NotFound(report.Id);
        }

        return Decision.Of(new ReportDeleted());
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapDelete("/v1/reports/{reportId}", Handle)
        .Requires(Scopes.Admin).WithName(nameof(DeleteReport)).WithTags("Reports").WithSummary("Delete a report and its file")
        .Produces(204).ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string reportId, HttpContext http, CommandHandler handler, EventReader log, ReportFiles files, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(reportId, "reportId");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command<object?>(null);
        var ifMatch = http.IfMatch();
        var stream = Report.StreamOf(reportId);
        var deleted = Report.Initial(reportId);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                (deleted, var version) = await log.Fold(new StreamKey(context.TenantId, stream), Report.Initial(reportId), Report.Evolve, cancellation);
                var current = deleted.Exists ? version : 0;
                var decision = ifMatch.Allows(current) ? Decide(deleted) : IfMatch.Failed(current);
                return new Decided(decision, stream, Report.StreamType, [new StreamCondition(stream, version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        // It is deleted by now, whether or not who asked is still there.
        await files.Delete(context.TenantId, deleted.RequestedPosition, CancellationToken.None);
        http.Answer(result);
        return Results.NoContent();
    }
}
