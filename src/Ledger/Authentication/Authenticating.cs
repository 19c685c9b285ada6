using Ledger.Http;
using Microsoft.AspNetCore.Http.Features;

namespace Ledger.Authentication;

/// <summary>Puts the caller on each request before anything of it is read, or refuses it.</summary>
public static class Authenticating
{
    /// <summary>How often the caller of a request that lasts, such as a stream, is looked at again. One who may no longer is cut off.</summary>
    public static readonly TimeSpan RecheckInterval = TimeSpan.FromMilliseconds(250);

    /// <summary>Its services. Kinds of credentials are registered as <see cref="ICredentials"/> by whoever has them.</summary>
    public static IServiceCollection AddAuthenticating(this IServiceCollection services, TokenSettings? tokens)
    {
        if (tokens is not null)
        {
            services.AddSingleton(tokens).AddSingleton<TokenKeys>().AddSingleton<ICredentials, JsonWebTokens>();
        }

        return services.AddSingleton<Authenticator>().AddSingleton<Access>().AddHostedService(s => s.GetRequiredService<Access>());
    }

    /// <summary>Asks for what the endpoint requires. It stands right behind routing; what has no endpoint has nothing to guard.</summary>
    public static void UseAuthenticating(this WebApplication app)
    {
        var (authenticator, rates) = (app.Services.GetRequiredService<Authenticator>(), app.Services.GetRequiredService<CallRates>());
        app.Use(next => http =>
        {
            // Routing puts endpoints of its own, with no route, in the place of those that it refuses the method or the body of.
            if (http.GetEndpoint() is not RouteEndpoint endpoint)
            {
                return next(http);
            }

            var needed = endpoint.Metadata.GetMetadata<Requirement>()
                ?? throw new InvalidOperationException($"{endpoint.DisplayName} does not say what it requires.");
            if (needed == Requirement.Nothing)
            {
                return next(http);
            }

            var identifying = authenticator.Identify(http.Request, http.RequestAborted);
            return identifying.IsCompletedSuccessfully ? Continue(identifying.Result) : Wait();

            async Task Wait() => await Continue(await identifying);

            Task Continue(Authentication identified) => GoOn(http, identified, needed, next, authenticator, rates);
        });
    }

    private static Task GoOn(HttpContext http, Authentication identified, Requirement needed, RequestDelegate next, Authenticator authenticator, CallRates rates)
    {
        if (identified.Caller is { } caller)
        {
            http.Features.Set(caller);
            if (Authenticator.Refuse(caller, needed) is not { } refusal)
            {
                return MayLast(http.Request) ? Watch(http, needed, next, authenticator) : next(http);
            }

            identified = refusal;
        }

        CredentialMetrics.Count(identified.Refusal!);
        if (rates.Take(http) is { } tooMany)
        {
            return Problems.For(tooMany).ExecuteAsync(http); // so that nobody tries secrets as fast as they are refused
        }

        Authenticator.Challenge(http, identified.Refusal!, needed);
        return Problems.For(identified.Refusal!).ExecuteAsync(http);
    }

    /// <summary>Whether a request may take long because of its caller: one who sends a stream, or asks for one.</summary>
    private static bool MayLast(HttpRequest request)
    {
        if (request.Headers.Authorization.Count == 0)
        {
            return false;
        }

        if (request.HttpContext.Features.Get<IHttpRequestBodyDetectionFeature>() is { CanHaveBody: true })
        {
            return request.ContentLength is null or > Limits.MaxCommandBodyBytes;
        }

        // The log and files are streams whatever is accepted.
        return request.Path.Value is "/v1/events" || request.Path.Value!.EndsWith(".csv", StringComparison.Ordinal)
            || (request.Headers.Accept.ToString() is { Length: > 0 } accept
                && (accept.Contains("ndjson", StringComparison.OrdinalIgnoreCase) || accept.Contains("csv", StringComparison.OrdinalIgnoreCase)));
    }

    private static async Task Watch(HttpContext http, Requirement needed, RequestDelegate next, Authenticator authenticator)
    {
        var answering = next(http);
        while (await Task.WhenAny(answering, Task.Delay(RecheckInterval)) != answering)
        {
            var (caller, refusal) = await authenticator.Identify(http.Request, CancellationToken.None);
            if (caller is null ? refusal!.Code == "unauthorized" : Authenticator.Refuse(caller, needed) is not null)
            {
                http.Abort();
                break;
            }
        }

        await answering;
    }
}
