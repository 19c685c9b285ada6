using Ledger.Authentication;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Events;
using Ledger.Grpc;
using Ledger.History;
using Ledger.Http;
using Ledger.Keys;
using Ledger.Reports;
using Ledger.Log;
using Ledger.Segments;
using Ledger.Services;
using Ledger.Usage;
using Ledger.Users;
using Microsoft.Extensions.Logging.Console;
using Npgsql;

namespace Ledger.Hosting;

/// <summary>Puts a node together.</summary>
public static class LedgerHost
{
    /// <summary>How long requests in flight may take once the node is told to stop.</summary>
    public static readonly TimeSpan ShutdownTimeout = TimeSpan.FromSeconds(5);

    /// <summary>A node on the given database, ready to be started. The schema is up to date, or brought up to date at start.</summary>
    public static WebApplication Build(LedgerSettings settings, string connectionString, TimeProvider? wallClock = null, Action<WebApplicationBuilder>? configure = null)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "Ledger" });
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            Limits.Apply(kestrel);
            kestrel.Listen(settings.Urls, _ => { });
            kestrel.Listen(settings.GrpcUrls, GrpcFace.SpeakGrpc);
        });
        builder.Services.Configure<HostOptions>(o => o.ShutdownTimeout = ShutdownTimeout);
        builder.Logging.AddConsole(o => o.FormatterName = LogLine.Format).AddConsoleFormatter<LogLine, ConsoleFormatterOptions>()
            .SetMinimumLevel(LogLevel.Information)
            // A connection that breaks the rules of HTTP/2 is closed; a line for each of its frames would fill the log.
            .AddFilter("Microsoft.AspNetCore.Server.Kestrel.Http2", LogLevel.None)
            .AddFilter("Microsoft", LogLevel.Warning).AddFilter("Npgsql", LogLevel.Warning);
        builder.Services.AddRoutingCore();
        builder.Services.AddSingleton(_ => new CallRates(settings.RatePerSecond, settings.RateBurst)).AddLedgerTimeouts();
        builder.Services.AddLedgerProblems().AddLedgerJson().AddRejectionOf(StoreRejections.Of);
        builder.Services.AddApiDescription();
        builder.Services.AddMetricCollector();
        builder.Services.AddEventStore(settings, connectionString, wallClock ?? TimeProvider.System).AddOperations();
        builder.Services.AddUsers(SegmentsFeature.MembershipEvents.Select(e => e.Item1), UsageViewsFeature.EventsOfUsers, UsageViewsFeature.UserOf);
        builder.Services.AddSegments(new SweepInterval(settings.SweepInterval));
        builder.Services.AddAiServices().AddUsage().AddEvents().AddGrpcFace().AddCompressedBodies();
        builder.Services.AddHistory().AddReports().AddTransparencyLog();
        builder.Services.AddKeys().AddAuthenticating(settings.Tokens);
        builder.Services.AddGateway(settings.MessageGateway).AddSummary(settings.CampaignSummary).AddCampaigns();
        builder.AddTelemetryExport();
        configure?.Invoke(builder);

        var app = builder.Build();
        app.UseServerSpans();
        app.UseGrpcFace();
        app.UseSecurityHeaders("/docs");
        app.UseLedgerProblems();
        app.UseLedgerRouting();
        app.UseLedgerTimeouts();
        app.UseAuthenticating();
        app.UseCallRates("/health");
        app.UseCompressedBodies();
        app.UseEndpoints(_ => { });
        app.MapUsers();
        app.MapSegments();
        app.MapAiServices();
        app.MapUsage();
        app.MapEvents();
        app.MapHistory();
        app.MapReports();
        app.MapCampaigns();
        app.MapTransparencyLog();
        app.MapKeys();
        app.MapOperations();
        app.MapMetrics();
        app.MapApiDescription();
        return app;
    }

    /// <summary>Where a node that was started listens for gRPC; the addresses before these are HTTP's.</summary>
    public static IReadOnlyList<string> GrpcUrls(this WebApplication node) =>
        [.. node.Urls.Skip(Listening.Split(node.Services.GetRequiredService<LedgerSettings>().Urls).Length)];

    private static IServiceCollection AddEventStore(this IServiceCollection services, LedgerSettings settings, string connectionString, TimeProvider wallClock) => services
        .AddSingleton(settings)
        .AddSingleton(settings.Store)
        .AddSingleton(settings.Transparency)
        .AddSingleton(LedgerEvents.Types)
        .AddSingleton(new Migrations(typeof(LedgerHost).Assembly))
        .AddSingleton(new LedgerClock(wallClock))
        .AddSingleton(s => settings.DirectDatabase is null
            ? EventStoreDatabase.Connect(connectionString, settings.Store, "ledger", settings.RequestPoolSize, s.GetService<ILoggerFactory>(), DatabaseRole.Reader)
            : PooledDatabase.Connect(connectionString, "ledger", settings.RequestPoolSize, s.GetService<ILoggerFactory>()))
        .AddSingleton(s => new BackgroundDatabase(EventStoreDatabase.Connect(
            settings.DirectDatabase ?? connectionString, settings.Store, "ledger-background", BackgroundDatabase.PoolSize, s.GetService<ILoggerFactory>(),
            DatabaseRole.Writer)))
        .AddSingleton(s => new AllTenantsDatabase(EventStoreDatabase.Connect(
            settings.DirectDatabase ?? connectionString, settings.Store, "ledger-all-tenants", AllTenantsDatabase.PoolSize, s.GetService<ILoggerFactory>(),
            DatabaseRole.Writer)))
        .AddSingleton(s => OwnerDatabase.Connect(settings.DirectDatabase ?? connectionString, settings.Store, s.GetService<ILoggerFactory>()))
        .AddSingleton<IReadOnlyList<IProjection>>(s => [.. s.GetServices<IProjection>()])
        .AddSingleton(s => ActivatorUtilities.CreateInstance<SchemaMigrator>(s, s.GetRequiredService<OwnerDatabase>().Source))
        .AddSingleton<EventReader>()
        .AddSingleton<LogPages>()
        .AddSingleton<IReadOnlyList<ExportSection>>([TransparencyLog.Tables])
        .AddForAllTenants<LogExport>()
        .AddForAllTenants<LogImport>()
        .AddSingleton<LogTimes>()
        .AddSingleton<Views>()
        .AddInBackground<Appender>()
        .AddSingleton<Daemon>()
        .AddSingleton<ViewDatabase>()
        .AddSingleton<CommandHandler>()
        .AddSingleton<Queries>()
        .AddHostedService<StoreLifetime>();

    /// <summary>A service whose connections are those of <see cref="BackgroundDatabase"/>.</summary>
    internal static IServiceCollection AddInBackground<T>(this IServiceCollection services) where T : class =>
        services.AddSingleton(s => ActivatorUtilities.CreateInstance<T>(s, s.GetRequiredService<BackgroundDatabase>().Source));

    /// <summary>A service whose connections are those of <see cref="AllTenantsDatabase"/>.</summary>
    internal static IServiceCollection AddForAllTenants<T>(this IServiceCollection services) where T : class =>
        services.AddSingleton(s => ActivatorUtilities.CreateInstance<T>(s, s.GetRequiredService<AllTenantsDatabase>().Source));
}

/// <summary>Starts the event store before the first request is taken, and stops it after the last one is answered.</summary>
internal sealed class StoreLifetime(
    LedgerSettings settings, NpgsqlDataSource database, AllTenantsDatabase allTenants, OwnerDatabase owner, SchemaMigrator migrator, Views views, Appender appender, Daemon daemon,
    Sealer sealer)
    : IHostedLifecycleService
{
    public async Task StartingAsync(CancellationToken cancellationToken)
    {
        await migrator.CheckServer(settings.AcceptLosingEvents, cancellationToken);
        await migrator.Migrate(cancellationToken);
        if (settings.DirectDatabase is not null)
        {
            await PooledDatabase.Configure(database, settings.Store, cancellationToken);
            await PooledDatabase.Check(database, settings.Store, cancellationToken);
        }

        await DatabaseRoles.Check(database, settings.Store, cancellationToken);
        await views.Register(cancellationToken);
        await Replay.Sweep(owner.Source, settings.Store, cancellationToken);
        appender.Committed += _ => daemon.Wake();
        daemon.Disconnected += () =>
        {
            database.Clear();
            allTenants.Source.Clear();
        };
        CredentialMetrics.Begin();
        sealer.Start();
        daemon.Start();
    }

    public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StartedAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StoppingAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>The server has stopped by now: what is queued is stored, then the daemon ends at a batch's end.</summary>
    public async Task StoppedAsync(CancellationToken cancellationToken)
    {
        await appender.DisposeAsync();
        await sealer.DisposeAsync();
        await daemon.DisposeAsync();
    }
}

/// <summary>What the store throws, as refusals.</summary>
internal static class StoreRejections
{
    public static Rejection? Of(Exception exception) => exception switch
    {
        RefusedRequestException refused => refused.Rejection,
        AppendQueueFullException => new("queue-full", "Too many requests wait to be stored. Nothing of this one was."),
        EventStoreUnavailableException { OutcomeUnknown: true } => new(
            "store-unavailable",
            "The connection to the database was lost while the request was being stored; whether it was is not known. "
            + "Repeat it with the same idempotency key to find out."),
        EventStoreUnavailableException => new("store-unavailable", "The database can't be reached. Nothing was stored."),
        NpgsqlException { InnerException: TimeoutException } => new(
            "timeout", "The database took too long over a statement, which was cancelled."),
        NpgsqlException when DatabaseErrors.IsUnavailable(exception) => new("store-unavailable", "The database can't be reached."),
        _ => null,
    };
}
