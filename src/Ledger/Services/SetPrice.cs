using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Services;

/// <summary>Adds a price to a service's price list, in force from now on or from an instant in the past or in the future.</summary>
public sealed record SetPrice(string Currency, IReadOnlyList<PriceComponent> Components, DateTimeOffset? EffectiveFrom = null)
{
    /// <summary>The earliest instant a price may be in force from.</summary>
    public static readonly DateTimeOffset MinEffectiveFrom = DateTimeOffset.UnixEpoch;

    /// <summary>The latest instant a price may be in force from.</summary>
    public static readonly DateTimeOffset MaxEffectiveFrom = new(9999, 12, 31, 0, 0, 0, TimeSpan.Zero);

    /// <summary>Decides on the service.</summary>
    public Decision Decide(Service service, DateTimeOffset now)
    {
        if (!service.Exists)
        {
            return ServiceRejections.NotFound(service.Id);
        }

        // Calls from before its end may still wait for a price.
        if (service.RetiredAt <= (EffectiveFrom ?? now))
        {
            return ServiceRejections.Retired(service.Id);
        }

        if (service.Prices.Count >= PriceList.MaxVersions)
        {
            return ServiceRejections.TooManyPrices(service.Id);
        }

        return Decision.Of(new PriceSet(service.Prices.Count + 1, Currency, EffectiveFrom ?? now, Components));
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/services/{serviceId}/prices", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(SetPrice)).WithTags("Services").WithSummary("Add a price, in force from now, the past or the future on")
        .Produces<PriceAnswer>(201).ProducesCommandProblems(404, 412);

    private static async Task<IResult> Handle(
        string serviceId, SetPrice body, HttpContext http, CommandHandler handler, ServiceLoader services, EventReader log, LedgerClock clock,
        CancellationToken cancellation)
    {
        var (result, price) = await body.Run(serviceId, http.Command(body), http.IfMatch(), handler, services, log, clock, cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        ETags.Write(http.Response, result.Version);
        return Results.Created($"/v1/services/{serviceId}/prices/{price!.PriceVersion}", price);
    }

    /// <summary>Runs it, whichever way it came: what became of it, and the price unless it was refused.</summary>
    internal async Task<(CommandResult Result, PriceAnswer? Price)> Run(
        string serviceId, CommandContext context, IfMatch ifMatch, CommandHandler handler, ServiceLoader services, EventReader log,
        LedgerClock clock, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(serviceId, "serviceId");
        Check(errors);
        if (errors.Rejection is { } invalid)
        {
            return (new CommandResult { Rejection = invalid }, null);
        }

        var stream = Service.StreamOf(serviceId);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var service = await services.Load(context.TenantId, serviceId, fresh: true, cancellation);
                var decision = ifMatch.Allows(service.Version) ? Decide(service, clock.GetUtcNow()) : IfMatch.Failed(service.Version);
                return new Decided(decision, stream, Service.StreamType, [new StreamCondition(stream, service.Version)]);
            },
            cancellation);
        if (result.Rejection is not null)
        {
            return (result, null);
        }

        var stored = (await log.ReadAt(context.TenantId, result.FirstPosition, cancellation))!;
        return (result, PriceAnswer.Of(new PriceVersion((PriceSet)stored.Data!, stored.RecordedAt, stored.Position)));
    }

    private void Check(Validation errors)
    {
        errors.Check(Services.Currency.IsValid(Currency), "currency", Services.Currency.Rule);
        errors.Check(
            EffectiveFrom is null || (EffectiveFrom >= MinEffectiveFrom && EffectiveFrom <= MaxEffectiveFrom), "effectiveFrom",
            $"must be from {Rfc3339.Format(MinEffectiveFrom)} to {Rfc3339.Format(MaxEffectiveFrom)}");
        errors.Check(Components.Count is > 0 and <= PriceVersion.MaxComponents, "components", $"must be 1 to {PriceVersion.MaxComponents}");
        var units = new HashSet<string>(StringComparer.Ordinal);
        for (var i = 0; i < Components.Count; i++)
        {
            var (unit, price, per) = Components[i];
            if (errors.Check(Unit.IsValid(unit), $"components[{i}].unit", Unit.Rule))
            {
                errors.Check(units.Add(unit), $"components[{i}].unit", "is named twice");
            }

            errors.Check(
                price is >= 0 and < PriceVersion.PriceLimit && decimal.Round(price, PriceVersion.MaxPriceDecimals) == price, $"components[{i}].price",
                $"must be 0 or more and less than 1 000 000 000, with at most {PriceVersion.MaxPriceDecimals} decimals");
            errors.Check(
                per is > 0 and <= PriceVersion.MaxPer && PriceVersion.MaxPer % per == 0, $"components[{i}].per",
                "must divide 1 000 000 000 000, so that every amount is an exact decimal");
        }
    }
}
