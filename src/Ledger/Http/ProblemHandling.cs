using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;
using System.Text.Unicode;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Diagnostics;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.AspNetCore.Http.Metadata;
using Microsoft.AspNetCore.Routing.Template;
using Microsoft.Extensions.Options;
using Microsoft.Net.Http.Headers;

namespace Ledger.Http;

/// <summary>
/// Turns whatever goes wrong around an endpoint into a problem: failed binding, exceptions, bare status codes. The server
/// itself answers bare, before any code of ours, only what is no HTTP request: a bad request line, too large a header.
/// </summary>
public static class ProblemHandling
{
    /// <summary>Registers the handling of exceptions, and makes failed binding an exception.</summary>
    public static IServiceCollection AddLedgerProblems(this IServiceCollection services)
    {
        services.Configure<RouteHandlerOptions>(options => options.ThrowOnBadRequest = true);
        return services.AddExceptionHandler<ProblemExceptionHandler>();
    }

    /// <summary>Registers how an exception of a kind that this folder does not know, the store's for example, is answered; null: not mine.</summary>
    public static IServiceCollection AddRejectionOf(this IServiceCollection services, Func<Exception, Rejection?> map) => services.AddSingleton(map);

    /// <summary>Puts the handling first in the pipeline; call it before everything that may fail.</summary>
    public static WebApplication UseLedgerProblems(this WebApplication app)
    {
        app.UseExceptionHandler(new ExceptionHandlerOptions
        {
            AllowStatusCode404Response = true,
            ExceptionHandler = context => Problems.Result("internal-error", InternalDetail).ExecuteAsync(context),
        });
        app.UseStatusCodePages(context => Bare(context.HttpContext).ExecuteAsync(context.HttpContext));
        app.Use(RefuseUnreadable);
        return app;
    }

    internal const string InternalDetail = "The request failed for a reason that is not yours. The trace id finds it in our logs.";

    /// <summary>The answer to a 415, with the header that says what would be read.</summary>
    internal static IResult UnsupportedMediaType(HttpContext context, string detail)
    {
        var accepted = string.Join(", ", AcceptedTypes(context));
        if (accepted.Length == 0) return Problems.Result("unsupported-media-type", detail);
        var header = context.Request.Method switch { "POST" => "Accept-Post", "PATCH" => "Accept-Patch", _ => HeaderNames.Accept };
        context.Response.Headers[header] = accepted;
        return Problems.Result("unsupported-media-type", $"{detail} It may be: {accepted}.");
    }

    private static IResult Bare(HttpContext context)
    {
        var request = context.Request;
        return context.Response.StatusCode switch
        {
            400 => Problems.Result("invalid-request", "The request is not valid."),
            401 => Problems.Result("unauthorized", "The request has no valid credential."),
            403 => Problems.Result("forbidden", "The credential does not allow this."),
            404 => Problems.Result("not-found", "No resource has this address."),
            405 => NotAllowed(context),
            406 => Problems.Result("not-acceptable", $"This cannot be given as '{request.Headers.Accept}'."),
            408 => Problems.Result("request-timeout", "The body came too slowly."),
            412 => Problems.Result("precondition-failed", "The resource is not in the expected version."),
            413 => TooLarge,
            415 => UnsupportedMediaType(context, $"The body cannot be read as '{request.ContentType}'."),
            429 => Problems.Result("rate-limited", "There were too many requests."),
            503 => Problems.Result("store-unavailable", "The service is not available for the moment."),
            >= 500 => Problems.Result("internal-error", InternalDetail),
            _ => Results.Empty,
        };
    }

    internal static IResult TooLarge { get; } = Problems.Result("body-too-large", "The body is larger than this resource takes.");

    // Routing does not know of HEAD, which is possible where GET is.
    private static IResult NotAllowed(HttpContext context)
    {
        var methods = context.Response.Headers.GetCommaSeparatedValues(HeaderNames.Allow);
        if (methods.Contains(HttpMethods.Get))
            context.Response.Headers.Allow = string.Join(", ", methods.Append(HttpMethods.Head).Order(StringComparer.Ordinal));
        return Problems.Result("method-not-allowed", $"{context.Request.Method} is not possible here; possible: {context.Response.Headers.Allow}.");
    }

    // A URL that is not text would be taken for another one, and bytes in another charset would fail deep inside, as if the fault were ours.
    private static Task RefuseUnreadable(HttpContext context, RequestDelegate next)
    {
        var request = context.Request;
        if (context.Features.Get<IHttpRequestFeature>()?.RawTarget is { } target && target.Contains('%', StringComparison.Ordinal) && !IsText(target))
            return Problems.Result("invalid-request", "The URL must be percent-encoded UTF-8 without U+0000.").ExecuteAsync(context);
        // Who stands between may have gone by the other length, and take the rest for another request; the server keeps it under this name.
        if (request.Headers.TransferEncoding.Count > 0 && request.Headers.ContainsKey("X-Content-Length"))
        {
            context.Response.Headers.Connection = "close";
            return Problems.Result("invalid-request", "Content-Length and Transfer-Encoding can't be given together.").ExecuteAsync(context);
        }
        if (request.ContentType is { } type && type.Contains("charset", StringComparison.OrdinalIgnoreCase) && MediaTypeHeaderValue.TryParse(type, out var parsed))
        {
            if (!HeaderUtilities.RemoveQuotes(parsed.Charset).Equals("utf-8", StringComparison.OrdinalIgnoreCase))
                return UnsupportedMediaType(context, "The body must be in UTF-8.").ExecuteAsync(context);
            // UTF-8 goes without saying; the framework stumbles over its spellings.
            parsed.Charset = default;
            request.ContentType = parsed.ToString();
        }
        return next(context);
    }

    private static bool IsText(string target)
    {
        var bytes = new byte[target.Length];
        var count = 0;
        for (var i = 0; i < target.Length; i++)
        {
            if (target[i] != '%')
            {
                bytes[count++] = (byte)target[i]; // the server takes none but ASCII
                continue;
            }
            if (i + 2 >= target.Length || !byte.TryParse(target.AsSpan(i + 1, 2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out bytes[count++])) return false;
            i += 2;
        }
        var text = bytes.AsSpan(0, count);
        return Utf8.IsValid(text) && !text.Contains((byte)0);
    }

    // Routing has put a bare 415 in the place of the endpoint, so its siblings are looked up by the path.
    private static IEnumerable<string> AcceptedTypes(HttpContext context) =>
        from endpoint in context.RequestServices.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
        where endpoint.Metadata.GetMetadata<IHttpMethodMetadata>() is not { } methods || methods.HttpMethods.Contains(context.Request.Method)
        where new TemplateMatcher(new RouteTemplate(endpoint.RoutePattern), []).TryMatch(context.Request.Path, [])
        group endpoint by (endpoint.Order, endpoint.RoutePattern.InboundPrecedence) into alike
        orderby alike.Key
        select alike into alike
        from type in alike.SelectMany(e => e.Metadata.GetOrderedMetadata<IAcceptsMetadata>()).SelectMany(a => a.ContentTypes).Distinct()
        select type;
}

/// <summary>Exceptions as problems. Only what is our fault is logged as an error.</summary>
internal sealed partial class ProblemExceptionHandler(
    IEnumerable<Func<Exception, Rejection?>> maps, IOptions<JsonOptions> json, ILogger<ProblemExceptionHandler> logger) : IExceptionHandler
{
    public async ValueTask<bool> TryHandleAsync(HttpContext httpContext, Exception exception, CancellationToken cancellationToken)
    {
        try
        {
            await Answer(httpContext, exception).ExecuteAsync(httpContext);
        }
        catch (OperationCanceledException) when (httpContext.RequestAborted.IsCancellationRequested)
        {
            // Who asked has not waited for the answer.
        }

        return true;
    }

    private IResult Answer(HttpContext context, Exception exception)
    {
        foreach (var map in maps)
            if (map(exception) is { } rejection) return Problems.For(rejection);
        switch (exception)
        {
            case BadHttpRequestException { StatusCode: 413 }:
                return ProblemHandling.TooLarge;
            case BadHttpRequestException { StatusCode: 415 }:
                return ProblemHandling.UnsupportedMediaType(context, $"The body cannot be read as '{context.Request.ContentType}'.");
            case BadHttpRequestException { StatusCode: 408 }:
                return Problems.Result("request-timeout", "The body came too slowly.");
            case BadHttpRequestException { InnerException: JsonException wrong }:
                var type = EndpointOf(context)?.Metadata.GetMetadata<IAcceptsMetadata>()?.RequestType;
                return Problems.For(JsonErrors.Explain(wrong, type, json.Value.SerializerOptions));
            case BadHttpRequestException bad:
                return Problems.For(BindingErrors.Explain(bad, context));
            case ConnectionResetException or ConnectionAbortedException:
                return Problems.Result("invalid-request", "The request broke off.");
            case TimeoutException or OperationCanceledException when !context.RequestAborted.IsCancellationRequested:
                LogTimeout(exception, context.Request.Method, context.Request.Path);
                return Problems.Result("timeout", "The answer took too long. Nothing is known to be wrong with the request.");
            default:
                LogFailure(exception, context.Request.Method, context.Request.Path);
                return Problems.Result("internal-error", ProblemHandling.InternalDetail);
        }
    }

    /// <summary>The endpoint that failed; the middleware has taken it off the request.</summary>
    internal static Endpoint? EndpointOf(HttpContext context) => context.Features.Get<IExceptionHandlerFeature>()?.Endpoint;

    [LoggerMessage(Level = LogLevel.Error, Message = "{Method} {Path} failed")]
    private partial void LogFailure(Exception exception, string method, PathString path);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Method} {Path} timed out")]
    private partial void LogTimeout(Exception exception, string method, PathString path);
}

/// <summary>Says which parameter could not be read. The framework tells it in a message of its own words and types only.</summary>
internal static partial class BindingErrors
{
    public static Rejection Explain(BadHttpRequestException exception, HttpContext context)
    {
        if (Failed().Match(exception.Message) is { Success: true } failed && Find(context, failed.Groups[1].Value) is { } wrong)
            return Validation.Field(KnownParameters.NameOf(wrong), JsonErrors.Expectation(wrong.ParameterInfo.ParameterType));
        if (Missing().Match(exception.Message) is { Success: true } missing)
        {
            if (missing.Groups[2].Value.Contains("body", StringComparison.Ordinal)) return NoBody;
            if (Find(context, missing.Groups[1].Value) is { } absent) return Validation.Field(KnownParameters.NameOf(absent), "is missing");
        }
        return exception.Message.Contains("body", StringComparison.Ordinal) ? NoBody : new("invalid-request", "The request is not valid.");
    }

    private static Rejection NoBody { get; } = new("invalid-request", "The request needs a body.");

    private static IParameterBindingMetadata? Find(HttpContext context, string name) =>
        ProblemExceptionHandler.EndpointOf(context)?.Metadata.GetOrderedMetadata<IParameterBindingMetadata>().FirstOrDefault(p => p.Name == name);

    [GeneratedRegex("^Failed to bind parameter \"[^\"]* ([^\" ]+)\" from \"")]
    private static partial Regex Failed();

    [GeneratedRegex("^Required parameter \"[^\"]* ([^\" ]+)\" was not provided from (.*)\\.$")]
    private static partial Regex Missing();
}
