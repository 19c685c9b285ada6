using OpenTelemetry;
using OpenTelemetry.Logs;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Ledger.Hosting;

/// <summary>
/// Traces, metrics and logs over OTLP when OTEL_EXPORTER_OTLP_ENDPOINT is set; nothing is collected otherwise. The exporter
/// reads the standard OTEL_ variables itself.
/// </summary>
public static class TelemetryExport
{
    /// <summary>The variable that turns the export on.</summary>
    public const string EndpointVariable = "OTEL_EXPORTER_OTLP_ENDPOINT";

    private static readonly string[] Sources = [EventStore.Telemetry.Name, "Npgsql", "Microsoft.AspNetCore"];
    private static readonly string[] Meters =
        [EventStore.Telemetry.Name, "Ledger", "Npgsql", "Microsoft.AspNetCore.Hosting", "Microsoft.AspNetCore.Server.Kestrel", "System.Runtime"];

    /// <summary>Registers the export with the node, which flushes it when it stops.</summary>
    public static void AddTelemetryExport(this WebApplicationBuilder builder)
    {
        if (string.IsNullOrEmpty(Environment.GetEnvironmentVariable(EndpointVariable)))
        {
            return;
        }

        AppContext.SetSwitch("Microsoft.AspNetCore.Hosting.SuppressActivityOpenTelemetryData", false);
        builder.Logging.AddOpenTelemetry(logs =>
        {
            logs.SetResourceBuilder(Describe(ResourceBuilder.CreateDefault()));
            logs.AddOtlpExporter();
        });
        builder.Services.AddSingleton(_ => OpenTelemetrySdk.Create(telemetry => telemetry
            .ConfigureResource(resource => Describe(resource))
            .WithTracing(tracing => tracing.AddSource(Sources).AddOtlpExporter())
            .WithMetrics(metrics => metrics.AddMeter(Meters).AddOtlpExporter())));
        builder.Services.AddHostedService<Lifetime>();
    }

    private static ResourceBuilder Describe(ResourceBuilder resource) =>
        resource.AddService("ledger", serviceVersion: ApiDescription.Version).AddEnvironmentVariableDetector();

    /// <summary>Makes the SDK when the node starts; the container disposes of it, and so flushes it, when the node stops.</summary>
    private sealed class Lifetime(OpenTelemetrySdk sdk) : IHostedService
    {
        public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken)
        {
            sdk.TracerProvider.ForceFlush();
            sdk.MeterProvider.ForceFlush();
            return Task.CompletedTask;
        }
    }
}
