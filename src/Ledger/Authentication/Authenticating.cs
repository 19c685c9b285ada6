using Ledger.Http;

namespace Ledger.Authentication;

/// <summary>Puts the caller on each request before anything of it is read, or refuses it.</summary>
public static class Authenticating
{
    /// <summary>Its services. Kinds of credentials are registered as <see cref="ICredentials"/> by whoever has them.</summary>
    public static IServiceCollection AddAuthenticating(this IServiceCollection services) => services
        .AddSingleton<Authenticator>()
        .AddSingleton<Access>()
        .AddHostedService(s => s.GetRequiredService<Access>());

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
            return identifying.IsCompletedSuccessfully ? Continue(http, identifying.Result, needed, rates, next) : Wait(http, identifying, needed, rates, next);
        });
    }

    private static async Task Wait(
        HttpContext http, ValueTask<Authentication> identifying, Requirement needed, CallRates rates, RequestDelegate next) =>
        await Continue(http, await identifying, needed, rates, next);

    private static Task Continue(HttpContext http, Authentication identified, Requirement needed, CallRates rates, RequestDelegate next)
    {
        if (identified.Caller is { } caller)
        {
            http.Features.Set(caller);
            if (Authenticator.Refuse(caller, needed) is not { } refusal)
            {
                return next(http);
            }

            identified = refusal;
        }

        if (rates.Take(http) is { } tooMany)
        {
            return Problems.For(tooMany).ExecuteAsync(http); // so that nobody tries secrets as fast as they are refused
        }

        Authenticator.Challenge(http, identified.Refusal!, needed);
        return Problems.For(identified.Refusal!).ExecuteAsync(http);
    }
}
