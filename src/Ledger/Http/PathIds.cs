using Microsoft.AspNetCore.Http.Features;

namespace Ledger.Http;

/// <summary>
/// Any id works in a path when it is percent-encoded. The server decodes a path but leaves <c>%2F</c>, so that a slash
/// in an id is no separator; it thereby makes <c>a%2Fb</c> (for <c>a/b</c>) and <c>a%252Fb</c> (for the text <c>a%2Fb</c>)
/// look alike. So <c>%25</c> is kept as well until routing is done, and then both are decoded in the route values.
/// Endpoints take a plain string. What no path can name are the ids <c>.</c> and <c>..</c>: clients and the server resolve
/// them away, escaped or not.
/// </summary>
public static class PathIds
{
    /// <summary>Routes, with ids decoded exactly once and no parameter passed over. Call it where <c>UseRouting</c> would stand.</summary>
    public static WebApplication UseLedgerRouting(this WebApplication app)
    {
        app.UseHeadRequests();
        app.Use(KeepPercents);
        app.UseRouting();
        app.Use(DecodeRouteValues);
        app.Use(KnownParameters.Check);
        return app;
    }

    /// <summary>An id as a segment of a path, for <c>Location</c> and links.</summary>
    public static string Encode(string id) => Uri.EscapeDataString(id);

    private static Task KeepPercents(HttpContext context, RequestDelegate next)
    {
        var target = context.Features.Get<IHttpRequestFeature>()?.RawTarget;
        if (target is { Length: > 0 } && target[0] == '/' && target.Contains("%25", StringComparison.Ordinal))
        {
            var query = target.IndexOf('?', StringComparison.Ordinal);
            var path = query < 0 ? target : target[..query];
            if (path.Contains("%25", StringComparison.Ordinal))
                context.Request.Path = PathString.FromUriComponent(path.Replace("%25", "%2525", StringComparison.Ordinal));
        }
        return next(context);
    }

    private static Task DecodeRouteValues(HttpContext context, RequestDelegate next)
    {
        foreach (var (name, value) in context.Request.RouteValues)
        {
            if (value is not string text || !text.Contains('%', StringComparison.Ordinal)) continue;
            var decoded = text.Replace("%2F", "/", StringComparison.OrdinalIgnoreCase).Replace("%25", "%", StringComparison.Ordinal);
            context.Request.RouteValues[name] = decoded;
        }
        return next(context);
    }
}
