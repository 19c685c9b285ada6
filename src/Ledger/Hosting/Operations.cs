using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Hosting;

/// <summary>The state of every view.</summary>
public sealed record ProjectionsAnswer(IReadOnlyList<ViewStatus> Items);

/// <summary>What a readiness check found.</summary>
public sealed record HealthAnswer(string Status, IReadOnlyDictionary<string, string> Checks);

/// <summary>Health, and the daemon's views: looking, pausing, resuming, rebuilding.</summary>
public static class Operations
{
    /// <summary>How long what a readiness check found is the answer to further ones.</summary>
    public static readonly TimeSpan ReadinessKept = TimeSpan.FromSeconds(1);

    /// <summary>What the routes need.</summary>
    public static IServiceCollection AddOperations(this IServiceCollection services) => services
        .AddSingleton(s => new Readiness(
            cancellation => Check(
                s.GetRequiredService<SchemaMigrator>(), s.GetRequiredService<Npgsql.NpgsqlDataSource>(), s.GetRequiredService<Views>(),
                s.GetRequiredService<Sealer>(), cancellation),
            TimeProvider.System));

    /// <summary>The routes.</summary>
    public static void MapOperations(this IEndpointRouteBuilder routes)
    {
        routes.MapGet("/health/live", () => Results.Ok(new HealthAnswer("ok", new Dictionary<string, string>())))
            .RequiresNothing().WithName("GetLiveness").WithTags("Operations").WithSummary("Whether the process runs").Produces<HealthAnswer>();
        routes.MapGet("/health/ready", Ready)
            .RequiresNothing().WithName("GetReadiness").WithTags("Operations").WithSummary("Whether database, schema and daemon are fit for work")
            .Produces<HealthAnswer>().Produces<HealthAnswer>(503);
        routes.MapGet("/v1/projections", List)
            .RequiresOperator().WithName("ListProjections").WithTags("Operations").WithSummary("How far every view is, and what is wrong with it")
            .Produces<ProjectionsAnswer>().ProducesQueryProblems();
        Ask("rebuild", "RebuildProjection", "Fold a view anew from the first event, beside the live one", (v, name, c) => v.Rebuild(name, c));
        Ask("pause", "PauseProjection", "Stop a view at its position", (v, name, c) => v.Pause(name, c));
        Ask("resume", "ResumeProjection", "Let a paused or failed view go on", (v, name, c) => v.Resume(name, c));

        void Ask(string verb, string id, string summary, Func<Views, string, CancellationToken, Task<bool>> ask) => routes
            .MapPost($"/v1/projections/{{name}}/{verb}", async (string name, HttpContext http, Views views, EventReader log, CancellationToken cancellation) =>
            {
                if (!await ask(views, name, cancellation))
                {
                    return Problems.Result("projection-not-found", $"There is no projection '{name}'.");
                }

                http.AnswerPosition(await log.ReadHead(cancellation)); // it adds nothing to the log
                return Results.Accepted("/v1/projections");
            })
            .RequiresOperator().WithName(id).WithTags("Operations").WithSummary(summary).Produces(202).ProducesCommandProblems(404);
    }

    private static async Task<IResult> List(HttpContext http, Views views, CancellationToken cancellation)
    {
        var items = await views.Refresh(cancellation);
        http.AnswerPosition(items.Count == 0 ? 0 : items.Min(i => i.Position));
        return Results.Ok(new ProjectionsAnswer([.. items.Select(i => i with { Error = FirstLine(i.Error), RebuildError = FirstLine(i.RebuildError) })]));

        // What went wrong, without the stack: that is in the table and in the log.
        static string? FirstLine(string? text) => text?.Split('\n')[0].TrimEnd();
    }

    /// <summary>Looks whether database, schema and daemon are fit for work: status <c>ok</c> or <c>not-ready</c>.</summary>
    private static async Task<HealthAnswer> Check(SchemaMigrator migrator, Npgsql.NpgsqlDataSource database, Views views, Sealer sealer, CancellationToken cancellation)
    {
        var checks = new Dictionary<string, string>();
        try
        {
            checks["schema"] = await migrator.IsUpToDate(database, cancellation) ? "ok" : "not up to date";
            checks["database"] = "ok";
            var failed = (await views.Refresh(cancellation)).Where(v => v.State == "failed").Select(v => v.Name).ToArray();
            checks["daemon"] = !await views.IsKept(cancellation) ? "no node keeps the views"
                : failed.Length > 0 ? $"stopped: {string.Join(", ", failed)}"
                : "ok";
            checks["log"] = sealer.Refusal is null ? "ok" : "no checkpoint is signed";
        }
        catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
        {
            checks["database"] = "unreachable";
        }
        catch (SchemaMismatchException)
        {
            checks["schema"] = "newer than this program";
        }

        return new HealthAnswer(checks.Values.All(c => c == "ok") ? "ok" : "not-ready", checks);
    }

    private static async Task<IResult> Ready(HttpContext http, CancellationToken cancellation)
    {
        var health = await http.RequestServices.GetRequiredService<Readiness>().Ask(cancellation);
        return Results.Json(health, statusCode: health.Status == "ok" ? 200 : 503);
    }
}
