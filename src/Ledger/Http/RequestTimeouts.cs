using Microsoft.AspNetCore.Http.Timeouts;

namespace Ledger.Http;

/// <summary>
/// Ends what takes too long. A body or an answer that streams may go on for as long as it flows: the server's least rates, and the
/// limit of each statement, are what ends those.
/// </summary>
public static class RequestTimeouts
{
    /// <summary>Registers the limit of every request.</summary>
    public static IServiceCollection AddLedgerTimeouts(this IServiceCollection services) => services.AddRequestTimeouts(options =>
        options.DefaultPolicy = new RequestTimeoutPolicy
        {
            Timeout = Limits.RequestTimeout,
            WriteTimeoutResponse = static context => Problems.For(TimedOut(context)).ExecuteAsync(context),
        });

    private static Rejection TimedOut(HttpContext context) => new(
        "timeout",
        $"The request took longer than {Limits.RequestTimeout.TotalSeconds} s."
        + (HttpMethods.IsGet(context.Request.Method) ? "" : " It may be stored all the same: repeat it with the same idempotency key to find out."));

    /// <summary>Ends requests. Call it after routing.</summary>
    public static WebApplication UseLedgerTimeouts(this WebApplication app)
    {
        app.UseRequestTimeouts();
        app.Use(static async (context, next) =>
        {
            await next(context);
            // An answer that was being written when the time was up is cut off, and must not look like a whole one.
            if (context.Features.Get<IHttpRequestTimeoutFeature>() is { RequestTimeoutToken.IsCancellationRequested: true }
                && context.Response.ContentType != Problems.ContentType)
            {
                context.Abort();
            }
        });
        return app;
    }

    /// <summary>Says that from here on the request streams.</summary>
    public static void LetStream(this HttpContext context) => context.Features.Get<IHttpRequestTimeoutFeature>()?.DisableTimeout();
}
