using Ledger.Http;

namespace Ledger.Authentication;

/// <summary>Puts the caller on each request before anything of it is read, or refuses it.</summary>
public static class Authenticating
{
    /// <summary>How often the caller of a request that lasts, whichever it is, is looked at again. One who may no longer is cut off.</summary>
    public static readonly TimeSpan RecheckInterval = TimeSpan.FromMilliseconds(250);

    /// <summary>Its services. Kinds of credentials are registered as <see cref="ICredentials"/> by whoever has them.</summary>
    public static IServiceCollection AddAuthenticating(this IServiceCollection services, TokenSettings? tokens)
    {
        if (tokens is not null)
        {
            services.AddSingleton(tokens).AddSingleton<TokenKeys>().AddSingleton<ICredentials, JsonWebTokens>();
        }

        return services.AddSingleton<Authenticator>().AddSingleton<RequestsUnderWay>().AddSingleton<Access>().AddHostedService(s => s.GetRequiredService<Access>());
    }

    /// <summary>Asks for what the endpoint requires. It stands right behind routing; what has no endpoint has nothing to guard.</summary>
    public static void UseAuthenticating(this WebApplication app)
    {
        var (authenticator, rates) = (app.Services.GetRequiredService<Authenticator>(), app.Services.GetRequiredService<CallRates>());
        var underWay = app.Services.GetRequiredService<RequestsUnderWay>();
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

            Task Continue(Authentication identified) => GoOn(http, identified, needed, next, underWay, rates);
        });
    }

    private static Task GoOn(HttpContext http, Authentication identified, Requirement needed, RequestDelegate next, RequestsUnderWay underWay, CallRates rates)
    {
        if (identified.Caller is { } caller)
        {
            http.Features.Set(caller);
            if (Authenticator.Refuse(caller, needed) is not { } refusal)
            {
                return underWay.Watch(http, needed, next(http));
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
}
