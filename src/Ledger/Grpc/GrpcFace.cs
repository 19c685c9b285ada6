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
            var rates = s.GetRequiredService<CallRates>();
            var transport = new GrpcTransport(
                s.GetRequiredService<GrpcProblems>().Of,
                http => !IsHealth(http.Request.Path) && rates.Take(http) is { } rejection ? GrpcProblems.Of(rejection, http) : null);
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

    /// <summary>Probes of an orchestrator are not counted, as over HTTP.</summary>
    private static bool IsHealth(PathString path) => path.StartsWithSegments("/grpc.health.v1.Health");

    /// <summary>Marks a connection.</summary>
    private sealed class Port;
}
