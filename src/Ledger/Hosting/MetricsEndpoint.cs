using System.IO.Compression;
using System.Text;
using Ledger.Http;
using Microsoft.Extensions.Primitives;
using Microsoft.Net.Http.Headers;

namespace Ledger.Hosting;

/// <summary>Answers everything measured, to be scraped.</summary>
public static class MetricsEndpoint
{
    /// <summary>Where.</summary>
    public const string Path = "/metrics";

    private const string TextType = "text/plain; version=0.0.4; charset=utf-8";
    private const string OpenMetricsType = "application/openmetrics-text; version=1.0.0; charset=utf-8";

    /// <summary>What gathers the metrics, started before everything that is added after it.</summary>
    public static IServiceCollection AddMetricCollector(this IServiceCollection services) => services
        .AddMetrics()
        .AddSingleton<MetricCollector>()
        .AddHostedService(s => s.GetRequiredService<MetricCollector>());

    /// <summary>The route. What it shows is of all tenants.</summary>
    public static void MapMetrics(this IEndpointRouteBuilder routes)
    {
        var route = Map(routes);
        _ = routes.ServiceProvider.GetRequiredService<LedgerSettings>().OpenMetrics ? route.RequiresNothing() : route.RequiresOperator();
    }

    private static RouteHandlerBuilder Map(IEndpointRouteBuilder routes) => routes
        .MapGet(Path, Handle)
        .WithName("GetMetrics").WithTags("Operations").WithSummary("Everything this node measures, as Prometheus reads it")
        .Produces<string>(200, "text/plain", "application/openmetrics-text")
        .Produces<Problem>(406, Problems.ContentType)
        .DisableHttpMetrics();

    private static async Task Handle(HttpContext http, MetricCollector collector)
    {
        var (request, response) = (http.Request, http.Response);
        response.Headers.Append(HeaderNames.Vary, "Accept, Accept-Encoding");
        if (Negotiate(request.Headers.Accept) is not { } format)
        {
            await Problems.Result("not-acceptable", $"This can be had as text/plain or application/openmetrics-text, not as '{request.Headers.Accept}'.").ExecuteAsync(http);
            return;
        }

        var text = PrometheusText.Write(collector.Collect(), format, TelemetryExport.Describe());
        response.ContentType = format == PrometheusFormat.OpenMetrics ? OpenMetricsType : TextType;
        response.Headers.CacheControl = "no-store";
        if (TakesGzip(request.Headers.AcceptEncoding))
        {
            response.Headers.ContentEncoding = "gzip";
            await using var gzip = new GZipStream(response.Body, CompressionLevel.Fastest, leaveOpen: true);
            await gzip.WriteAsync(Encoding.UTF8.GetBytes(text), http.RequestAborted);
        }
        else
        {
            await response.WriteAsync(text, http.RequestAborted);
        }
    }

    /// <summary>The format with the greater weight in <c>Accept</c>, the text where they are equal; null when it takes neither.</summary>
    internal static PrometheusFormat? Negotiate(StringValues accept)
    {
        if (accept.All(string.IsNullOrWhiteSpace))
        {
            return PrometheusFormat.Text;
        }

        if (!MediaTypeHeaderValue.TryParseList(accept, out var ranges))
        {
            return null;
        }

        var text = WeightOf(ranges, "text", "plain", "0.0.4", "1.0.0");
        var openMetrics = WeightOf(ranges, "application", "openmetrics-text", "1.0.0", "0.0.1");
        return openMetrics > text ? PrometheusFormat.OpenMetrics : text > 0 ? PrometheusFormat.Text : null;
    }

    /// <summary>The weight that the most precise range gives to a type; a range may ask for a version.</summary>
    private static double WeightOf(IList<MediaTypeHeaderValue> ranges, string type, string subtype, params string[] versions) => ranges
        .Where(range => range.MatchesAllTypes || (Same(range.Type, type) && (range.MatchesAllSubTypes || Same(range.SubType, subtype))))
        .Select(range => (
            Range: range,
            Version: HeaderUtilities.RemoveQuotes(range.Parameters.FirstOrDefault(p => Same(p.Name, "version"))?.Value ?? default).Value))
        .Where(range => range.Version is null or "" || versions.Contains(range.Version))
        .Select(range => (
            Precision: range.Range.MatchesAllTypes ? 0 : range.Range.MatchesAllSubTypes ? 1 : 2, Weight: range.Range.Quality ?? 1))
        .DefaultIfEmpty().Max().Weight;

    private static bool TakesGzip(StringValues encodings) =>
        StringWithQualityHeaderValue.TryParseList(encodings, out var all) && all.Any(e => Same(e.Value, "gzip") && (e.Quality ?? 1) > 0);

    private static bool Same(StringSegment one, string other) => one.Equals(other, StringComparison.OrdinalIgnoreCase);
}
