using Ledger.EventStore;

namespace Ledger.Reports;

/// <summary>Reports of months: what is stored, what is kept, what can be called.</summary>
public static class ReportsFeature
{
    /// <summary>Its events, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(ReportRequested), "report_requested"),
        (typeof(ReportCompleted), "report_completed"),
        (typeof(ReportFailed), "report_failed"),
        (typeof(ReportDeleted), "report_deleted"),
    ];

    /// <summary>Its services.</summary>
    public static IServiceCollection AddReports(this IServiceCollection services) => services
        .AddSingleton<IProjection, ReportsProjection>()
        .AddSingleton<ReportsReader>()
        .AddSingleton<ReportFiles>()
        .AddSingleton<MembershipReport>()
        .AddSingleton<ReportMaker>()
        .AddHostedService(services => services.GetRequiredService<ReportMaker>());

    /// <summary>Its routes.</summary>
    public static void MapReports(this IEndpointRouteBuilder routes)
    {
        RequestReport.Map(routes);
        DeleteReport.Map(routes);
        ReportCatalogue.Map(routes);
    }
}
