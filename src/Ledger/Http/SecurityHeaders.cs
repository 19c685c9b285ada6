namespace Ledger.Http;

/// <summary>
/// Headers that keep a browser from doing more with an answer than showing it. What the server itself answers, bare, has none:
/// it is no content.
/// </summary>
public static class SecurityHeaders
{
    /// <summary>An answer is data: it loads nothing, and nobody frames it.</summary>
    public const string Policy = "default-src 'none'; frame-ancestors 'none'";

    /// <summary>Pages load scripts and styles of this node, and ask nobody but this node. Styles stand in their elements, too.</summary>
    public const string PagesPolicy =
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    /// <summary>Puts them on every answer, where the answer does not say otherwise. Under <paramref name="pages"/> lie pages for people.</summary>
    public static WebApplication UseSecurityHeaders(this WebApplication app, PathString pages)
    {
        app.Use((context, next) =>
        {
            // At the last moment, because an answer to a failure begins with no headers.
            context.Response.OnStarting(
                context.Request.Path.StartsWithSegments(pages) ? SetOnPage : Set, context.Response);
            return next(context);
        });
        return app;
    }

    private static readonly Func<object, Task> Set = static response => Write((HttpResponse)response, Policy);

    private static readonly Func<object, Task> SetOnPage = static response => Write((HttpResponse)response, PagesPolicy);

    private static Task Write(HttpResponse response, string policy)
    {
        var headers = response.Headers;
        headers.XContentTypeOptions = "nosniff";
        headers.XFrameOptions = "DENY";
        headers.ContentSecurityPolicy = policy;
        headers["Referrer-Policy"] = "no-referrer";
        if (headers.CacheControl.Count == 0)
        {
            headers.CacheControl = "no-store";
        }

        return Task.CompletedTask;
    }
}
