using Ledger.Grpc.Health;
using Ledger.Hosting;
using Ledger.Http;
using ServiceDescriptor = Google.Protobuf.Reflection.ServiceDescriptor;

namespace Ledger.Grpc;

/// <summary><c>grpc.health.v1.Health</c>: what <c>GET /health/ready</c> says, for whoever asks over gRPC.</summary>
internal sealed class HealthService(Readiness readiness)
{
    /// <summary>Adds its method.</summary>
    public void AddTo(GrpcTransport transport) => transport.Add<HealthCheckRequest, HealthCheckResponse>(
        HealthReflection.Descriptor.FindTypeByName<ServiceDescriptor>("Health"), "Check", Requirement.Nothing, Limits.MaxCommandBodyBytes, Check);

    private async Task<GrpcReply<HealthCheckResponse>> Check(HealthCheckRequest request, HttpContext http, CancellationToken cancellation)
    {
        if (request.Service is not ("" or "ledger.v1.UsageService"))
        {
            return new GrpcStatus(GrpcCode.NotFound, $"There is no service {request.Service}.");
        }

        var health = await readiness.Ask(cancellation);
        return new HealthCheckResponse
        {
            Status = health.Status == "ok" ? HealthCheckResponse.Types.ServingStatus.Serving : HealthCheckResponse.Types.ServingStatus.NotServing,
        };
    }
}
