using Ledger.Authentication;
using Ledger.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Ledger.Grpc;

/// <summary>gRPC on ports of its own: they answer nothing else, and no other port answers it.</summary>
public static class GrpcFace
{
    /// <summary>Its services.</summary>
    public static IServiceCollection AddGrpcFace(this IServiceCollection services) => services
        .AddSingleton<GrpcProblems>()
        .AddSingleton<UsageService>()
        .AddSingleton<HealthService>()
        .AddSingleton(s =>
        {
            var (authenticator, rates) = (s.GetRequiredService<Authenticator>(), s.GetRequiredService<CallRates>());
            var transport = new GrpcTransport(
                s.GetRequiredService<GrpcProblems>().Of, (http, needed) => Refuse(authenticator, rates, http, needed),
                s.GetRequiredService<RequestsUnderWay>().Watch);
            s.GetRequiredService<UsageService>().AddTo(transport);
            s.GetRequiredService<HealthService>().AddTo(transport);
            return transport;
        });

    /// <summary>Makes a port speak gRPC: HTTP/2 without TLS, by prior knowledge.</summary>
    public static void SpeakGrpc(ListenOptions port)
    {
        port.Protocols = HttpProtocols.Http2;
        port.Use(next => connection =>
        {
            connection.Features.Set(new Port());
            return next(connection);
        });
    }

    /// <summary>Answers what comes in on such ports, before anything else sees it.</summary>
    public static void UseGrpcFace(this WebApplication app) =>
        app.MapWhen(http => http.Features.Get<Port>() is not null, grpc => grpc.Run(app.Services.GetRequiredService<GrpcTransport>().Answer));

    /// <summary>Puts the caller on the request, by the metadata <c>authorization</c>; or says why it is refused. Probes of an orchestrator are not counted, as over HTTP.</summary>
    private static async ValueTask<GrpcStatus?> Refuse(Authenticator authenticator, CallRates rates, HttpContext http, Requirement needed)
    {
        if (needed == Requirement.Nothing)
        {
            return null;
        }

        var (caller, refusal) = await authenticator.Identify(http.Request, http.RequestAborted);
        if (caller is not null)
        {
            http.Features.Set(caller);
            refusal = Authenticator.Refuse(caller, needed);
        }

        if (refusal is not null)
        {
            CredentialMetrics.Count(refusal);
        }

        refusal = rates.Take(http) ?? refusal;
        return refusal is null ? null : GrpcProblems.Of(refusal, http);
    }

    /// <summary>Marks a connection.</summary>
    private sealed class Port;
}
