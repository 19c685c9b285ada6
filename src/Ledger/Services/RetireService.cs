using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Services;

/// <summary>Retires a service: it stays with its prices, for what was before, and takes nothing new. Doing it again does nothing.</summary>
public sealed record RetireService
{
    /// <summary>Decides on the service.</summary>
    public static Decision Decide(Service service)
    {
        if (!service.Exists)
        {
            return ServiceRejections.NotFound(service.Id);
        }

        return service.IsRetired ? Decision.Nothing : Decision.Of(new ServiceRetired());
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapDelete("/v1/services/{serviceId}", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(RetireService)).WithTags("Services").WithSummary("Retire a service; its prices, id and title stay")
        .Produces(204).ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string serviceId, HttpContext http, CommandHandler handler, ServiceLoader services, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(serviceId, "serviceId");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command<object?>(null);
        var ifMatch = http.IfMatch();
        var stream = Service.StreamOf(serviceId);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var service = await services.Load(context.TenantId, serviceId, fresh: true, cancellation);
                var decision = ifMatch.Allows(service.Version) ? Decide(service) : IfMatch.Failed(service.Version);
                return new Decided(decision, stream, Service.StreamType, [new StreamCondition(stream, service.Version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.NoContent();
    }
}
