using Ledger.EventStore;
using Ledger.Http;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Services;

/// <summary>Registers an AI service under an id that none had before and a title that no other has. The id is made up unless given.</summary>
public sealed record RegisterService(string Title, string? ServiceId = null, string? Description = null)
{
    /// <summary>Decides on what the id has been so far, and on who has the title.</summary>
    public Decision Decide(Service service, ServiceTitle title)
    {
        if (service.Exists)
        {
            return ServiceRejections.Exists(service.Id);
        }

        if (title.IsTakenFrom(service.Id))
        {
            return ServiceRejections.TitleTaken(Title, title.ServiceId!);
        }

        return Decision.Of(new ServiceRegistered(service.Id, Title, Description));
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/services", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(RegisterService)).WithTags("Services").WithSummary("Register an AI service")
        .Produces<ServiceAnswer>(201).ProducesCommandProblems();

    private static async Task<IResult> Handle(
        RegisterService body, HttpContext http, CommandHandler handler, ServiceLoader services, EventReader log, CancellationToken cancellation)
    {
        var (result, registered) = await body.Run(http.Command(body), handler, services, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        return Results.Created($"/v1/services/{registered!.Id}", ServiceAnswer.Of(registered, price: null));
    }

    /// <summary>Runs it, whichever way it came: what became of it, and the service unless it was refused.</summary>
    internal async Task<(CommandResult Result, Service? Registered)> Run(
        CommandContext context, CommandHandler handler, ServiceLoader services, EventReader log, CancellationToken cancellation)
    {
        var errors = new Validation();
        if (ServiceId is not null)
        {
            errors.CheckSlug(ServiceId, "serviceId");
        }

        errors.Check(ServiceTitle.IsValid(Title), "title", ServiceTitle.Rule);
        ServiceRules.CheckDescription(errors, Description);
        if (errors.Rejection is { } invalid)
        {
            return (new CommandResult { Rejection = invalid }, null);
        }

        var serviceId = ServiceId ?? EventId.New().ToString();
        var (stream, titleStream) = (Service.StreamOf(serviceId), ServiceTitle.StreamOf(Title));
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var service = await services.Load(context.TenantId, serviceId, fresh: true, cancellation);
                var title = await services.LoadTitle(context.TenantId, Title, cancellation);
                var decision = Decide(service, title);
                return new Decided(
                    decision, stream, Service.StreamType, [new StreamCondition(stream, service.Version), new StreamCondition(titleStream, title.Version)])
                {
                    Beside = ServiceTitle.Follow(service, decision),
                };
            },
            cancellation);
        if (result.Rejection is not null)
        {
            return (result, null);
        }

        // The first request under this key may have made up another id.
        var stored = await log.ReadAt(context.TenantId, result.FirstPosition, cancellation);
        return (result, Service.Evolve(Service.Initial(serviceId), stored!));
    }
}

/// <summary>What holds for the fields of a service, whether it is registered or changed.</summary>
internal static class ServiceRules
{
    public static void CheckDescription(Validation errors, string? description) => errors.Check(
        description is null || description.Length <= Service.MaxDescriptionLength, "description",
        $"must have at most {Service.MaxDescriptionLength} characters");
}
