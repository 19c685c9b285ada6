using System.Diagnostics;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Http.Features;

namespace Ledger.Hosting;

/// <summary>
/// Says on the server's span what a request was and what became of it, by OpenTelemetry's semantic conventions for HTTP; gRPC's
/// face does so for its own. Probes and scrapes, which come every few seconds, leave no span.
/// </summary>
public static class ServerSpans
{
    private static readonly HashSet<string> Methods = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

    /// <summary>Puts it first, around everything that may answer.</summary>
    public static void UseServerSpans(this WebApplication app) => app.Use(async (http, next) =>
    {
        if (http.Features.Get<IHttpActivityFeature>()?.Activity is not { IsAllDataRequested: true } span)
        {
            await next(http);
            return;
        }

        if (IsProbe(http.Request.Path))
        {
            span.IsAllDataRequested = false;
            span.ActivityTraceFlags &= ~ActivityTraceFlags.Recorded;
            await next(http);
            return;
        }

        try
        {
            await next(http);
        }
        catch (Exception exception)
        {
            span.SetTag("error.type", exception.GetType().FullName).SetStatus(ActivityStatusCode.Error);
            throw;
        }
        finally
        {
            if (span.GetTagItem("rpc.system") is null)
            {
                Describe(span, http);
            }
        }
    });

    private static bool IsProbe(PathString path) =>
        path.StartsWithSegments("/health") || path == MetricsEndpoint.Path || path.StartsWithSegments("/grpc.health.v1.Health");

    private static void Describe(Activity span, HttpContext http)
    {
        var (request, status) = (http.Request, http.Response.StatusCode);
        // The handling of exceptions takes the endpoint off the request.
        var failure = http.Features.Get<IExceptionHandlerFeature>();
        var route = ((failure?.Endpoint ?? http.GetEndpoint()) as RouteEndpoint)?.RoutePattern.RawText;
        var isKnown = Methods.Contains(request.Method);
        span.DisplayName = (isKnown ? request.Method : "HTTP") + (route is null ? "" : $" {route}");
        span.SetTag("http.request.method", isKnown ? request.Method : "_OTHER");
        span.SetTag("http.request.method_original", isKnown ? null : request.Method);
        span.SetTag("http.route", route);
        span.SetTag("http.response.status_code", status);
        span.SetTag("url.scheme", request.Scheme);
        span.SetTag("url.path", request.Path.Value);
        span.SetTag("server.address", request.Host.Host);
        span.SetTag("server.port", request.Host.Port);
        span.SetTag("network.protocol.version", request.Protocol is "HTTP/2" ? "2" : request.Protocol.Replace("HTTP/", "", StringComparison.Ordinal));
        span.SetTag("user_agent.original", request.Headers.UserAgent is [{ } agent, ..] ? agent : null);
        if (status >= 500)
        {
            span.SetTag("error.type", failure?.Error.GetType().FullName ?? $"{status}").SetStatus(ActivityStatusCode.Error);
        }
    }
}
