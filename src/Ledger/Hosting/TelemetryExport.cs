using OpenTelemetry;
using OpenTelemetry.Logs;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace Ledger.Hosting;

/// <summary>
/// Traces, metrics and logs over OTLP, each when an endpoint is set for it; nothing is collected for export otherwise. The
/// exporter reads the standard OTEL_ variables itself.
/// </summary>
public static class TelemetryExport
{
    /// <summary>The variable that turns the export of everything on.</summary>
    public const string EndpointVariable = "OTEL_EXPORTER_OTLP_ENDPOINT";

    // Tells nodes apart, and a node from what it was before a restart.
    private static readonly string s_instance = Guid.NewGuid().ToString();
    private static readonly string[] Sources = [EventStore.Telemetry.Name, "Ledger", "Npgsql", "Microsoft.AspNetCore"];

    /// <summary>Registers the export with the node, which flushes it when it stops.</summary>
    public static void AddTelemetryExport(this WebApplicationBuilder builder)
    {
        var (traces, metrics, logs) = (IsExported("TRACES"), IsExported("METRICS"), IsExported("LOGS"));
        if (!traces && !metrics && !logs)
        {
            return;
        }

        AppContext.SetSwitch("Microsoft.AspNetCore.Hosting.SuppressActivityOpenTelemetryData", false);
        builder.Services.AddSingleton(_ => OpenTelemetrySdk.Create(telemetry =>
        {
            telemetry.ConfigureResource(resource => Describe(resource)).UseOtlpExporter();
            if (traces)
            {
                telemetry.WithTracing(tracing => tracing.AddSource(Sources));
            }

            if (metrics)
            {
                telemetry.WithMetrics(metrics => metrics.AddMeter(MetricCollector.Meters));
            }

            // The message as it reads, beside the template and its values.
            telemetry.WithLogging(null, options => options.IncludeFormattedMessage = true);
        }));
        if (logs)
        {
            builder.Services.AddSingleton<ILoggerProvider, ExportedLog>();
        }

        builder.Services.AddHostedService<Lifetime>();
    }

    /// <summary>What the node says of itself wherever its telemetry goes, by OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.</summary>
    public static IEnumerable<KeyValuePair<string, object?>> Describe() =>
        Describe(ResourceBuilder.CreateEmpty()).Build().Attributes.Select(a => KeyValuePair.Create(a.Key, (object?)a.Value));

    private static ResourceBuilder Describe(ResourceBuilder resource) =>
        resource.AddService("ledger", serviceVersion: ApiDescription.Version, serviceInstanceId: s_instance).AddEnvironmentVariableDetector();

    /// <summary>Whether there is somewhere to send a signal to, and nobody has said not to.</summary>
    private static bool IsExported(string signal) =>
        !string.Equals(Variable("OTEL_SDK_DISABLED"), "true", StringComparison.OrdinalIgnoreCase)
        && (Variable(EndpointVariable) ?? Variable($"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT")) is not null
        && !string.Equals(Variable($"OTEL_{signal}_EXPORTER"), "none", StringComparison.OrdinalIgnoreCase);

    private static string? Variable(string name) => Environment.GetEnvironmentVariable(name) is { Length: > 0 } value ? value : null;

    /// <summary>Makes the SDK when the node starts; the container disposes of it, and so flushes it, when the node stops.</summary>
    private sealed class Lifetime(OpenTelemetrySdk sdk) : IHostedService
    {
        public Task StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken)
        {
            sdk.TracerProvider.ForceFlush();
            sdk.MeterProvider.ForceFlush();
            sdk.LoggerProvider.ForceFlush();
            return Task.CompletedTask;
        }
    }

    /// <summary>Takes the host's log to the SDK, under the host's own filters.</summary>
    private sealed class ExportedLog(OpenTelemetrySdk sdk) : ILoggerProvider
    {
        private readonly ILoggerFactory _loggers = sdk.GetLoggerFactory();

        public ILogger CreateLogger(string categoryName) => _loggers.CreateLogger(categoryName);

        public void Dispose()
        {
            // The SDK ends with the node.
        }
    }
}
