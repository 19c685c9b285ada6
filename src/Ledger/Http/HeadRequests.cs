namespace Ledger.Http;

/// <summary>
/// HEAD is answered wherever GET is, with the same headers and no body. It runs as a GET whose body the server drops; what would
/// stream for long asks <see cref="WantsBody"/> first.
/// </summary>
public static class HeadRequests
{
    /// <summary>Makes a GET of every HEAD. Call it before routing.</summary>
    public static WebApplication UseHeadRequests(this WebApplication app)
    {
        app.Use(static (context, next) => HttpMethods.IsHead(context.Request.Method) ? AsGet(context, next) : next(context));
        return app;
    }

    /// <summary>Whether there is anybody to read the body.</summary>
    public static bool WantsBody(this HttpContext context) => context.Features.Get<HeadersOnly>() is null;

    private static async Task AsGet(HttpContext context, RequestDelegate next)
    {
        context.Features.Set(HeadersOnly.Instance);
        context.Request.Method = HttpMethods.Get;
        try
        {
            await next(context);
        }
        finally
        {
            context.Request.Method = HttpMethods.Head; // for whoever tells of the request afterwards
        }
    }

    private sealed class HeadersOnly
    {
        public static readonly HeadersOnly Instance = new();
    }
}
