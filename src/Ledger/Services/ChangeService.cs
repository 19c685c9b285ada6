using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Services;

/// <summary>Changes a service's title or description. A field left out stays; null takes the description away.</summary>
public sealed record ChangeService(Patch<string> Title, Patch<string?> Description)
{
    /// <summary>Decides on the service, and on who has the new title; what is so already makes no event.</summary>
    public Decision Decide(Service service, ServiceTitle title)
    {
        if (!service.Exists)
        {
            return ServiceRejections.NotFound(service.Id);
        }

        if (service.IsRetired)
        {
            return ServiceRejections.Retired(service.Id);
        }

        if (title.IsTakenFrom(service.Id))
        {
            return ServiceRejections.TitleTaken(Title.Value!, title.ServiceId!);
        }

        var events = new List<object>();
        if (Title.IsSet && Title.Value != service.Title)
        {
            events.Add(new ServiceRenamed(Title.Value!));
        }

        if (Description.IsSet && Description.Value != service.Description)
        {
            events.Add(new ServiceDescribed(Description.Value));
        }

        return Decision.Of(events);
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPatch("/v1/services/{serviceId}", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(ChangeService)).WithTags("Services").WithSummary("Change a service's title or description")
        .Accepts<ChangeService>("application/json", "application/merge-patch+json")
        .Produces<ServiceAnswer>().ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string serviceId, ChangeService body, HttpContext http, CommandHandler handler, ServiceLoader services, LedgerClock clock,
        CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(serviceId, "serviceId");
        errors.Check(!body.Title.IsSet || (body.Title.Value is { } given && ServiceTitle.IsValid(given)), "title", ServiceTitle.Rule);
        ServiceRules.CheckDescription(errors, body.Description.Value);
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command(body);
        var ifMatch = http.IfMatch();
        var stream = Service.StreamOf(serviceId);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var service = await services.Load(context.TenantId, serviceId, fresh: true, cancellation);
                var title = ServiceTitle.Free;
                List<StreamCondition> conditions = [new StreamCondition(stream, service.Version)];
                if (body.Title.Value is { } wanted)
                {
                    title = await services.LoadTitle(context.TenantId, wanted, cancellation);
                    conditions.Add(new StreamCondition(ServiceTitle.StreamOf(wanted), title.Version));
                }

                var decision = ifMatch.Allows(service.Version) ? body.Decide(service, title) : IfMatch.Failed(service.Version);
                return new Decided(decision, stream, Service.StreamType, conditions) { Beside = ServiceTitle.Follow(service, decision) };
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        var changed = await services.LoadAt(context.TenantId, serviceId, result.Version, cancellation);
        var at = result.Changed ? result.RecordedAt : clock.GetUtcNow();
        return Results.Ok(ServiceAnswer.Of(changed, PriceAnswer.Of(changed.Prices.InForceAt(at))));
    }
}
