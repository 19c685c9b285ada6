using System.Globalization;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Services;

namespace Ledger.Usage;

/// <summary>
/// What late pricing came to. It balances: examined = priced + stillUnpriced + voided + pricedByOthers. Nothing was stored when
/// it was a dry run.
/// </summary>
/// <param name="Examined">Calls that waited for a price.</param>
/// <param name="Priced">Those that got one.</param>
/// <param name="StillUnpriced">Those for which the price list has nothing yet.</param>
/// <param name="Voided">Those taken back meanwhile.</param>
/// <param name="PricedByOthers">Those that another request priced meanwhile.</param>
/// <param name="Amounts">What the priced ones cost, by currency.</param>
/// <param name="DryRun">Whether it was only asked what would be.</param>
public sealed record LatePricing(
    long Examined, long Priced, long StillUnpriced, long Voided, long PricedByOthers, IReadOnlyDictionary<string, string> Amounts, bool DryRun);

/// <summary>
/// Prices the calls of a service that have no price yet, by what is now in force for the time when they happened: one event a
/// call, so that totals follow and the history shows it. Doing it again prices what is left.
/// </summary>
/// <param name="ServiceId">Whose calls.</param>
/// <param name="From">Those that happened from here on.</param>
/// <param name="To">Those that happened before.</param>
/// <param name="DryRun">Only says what would be.</param>
public sealed record PriceUnpriced(string ServiceId, DateTimeOffset? From = null, DateTimeOffset? To = null, bool DryRun = false)
{
    /// <summary>The price of a call that has none, by the price list as it is now; null when there still is none.</summary>
    public static CallPriced? Decide(CallRecorded call, long position, PriceList prices)
    {
        var price = prices.Price(call.Quantities, call.OccurredAt);
        return price.IsPriced
            ? new CallPriced(
                call.Source, call.CallId, position, call.UserId, call.ServiceId, call.OccurredAt, call.Quantities,
                price.Amount!.Value, price.Currency!, price.PriceVersion!.Value, call.UnpricedReason!)
            : null;
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/usage/unpriced/price", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(PriceUnpriced)).WithTags("Usage").WithSummary("Price the calls that have no price by what is now in the price list")
        .Produces<LatePricing>().ProducesCommandProblems(404);

    private static async Task<IResult> Handle(
        PriceUnpriced body, HttpContext http, LatePricer pricer, Views views, EventReader log, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(body.ServiceId, "serviceId");
        errors.Check(body.From is null || body.To is null || body.From < body.To, "to", "must be later than from");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        // What was acknowledged before this request is examined.
        var head = await log.ReadHead(cancellation);
        if (!await views.WaitFor([CallsProjection.View], head, Positions.WaitOf(http.Request), cancellation))
        {
            return Problems.Result("view-behind", $"The view has not reached position {head} yet.");
        }

        http.LetStream(); // page by page, as many as there are
        var (pricing, position, rejection) = await pricer.Run(http.Command(body), body, head, cancellation);
        if (rejection is not null)
        {
            return Problems.For(rejection);
        }

        http.AnswerPosition(Math.Max(position, head));
        return Results.Ok(pricing);
    }
}

/// <summary>Runs late pricing, page by page.</summary>
public sealed class LatePricer(ServiceLoader services, Appender appender, EventReader log, ViewDatabase views)
{
    /// <summary>Calls that are priced and stored together.</summary>
    public const int PageCalls = 1_000;

    /// <summary>Prices the calls of a service recorded up to a position. Refused only when there is no such service.</summary>
    public async Task<(LatePricing Pricing, long Position, Rejection? Rejection)> Run(
        CommandContext context, PriceUnpriced command, long upTo, CancellationToken cancellation)
    {
        var run = new Totals();
        var service = await services.Load(context.TenantId, command.ServiceId, fresh: true, cancellation);
        if (!service.Exists)
        {
            return (run.Answer(command.DryRun), 0, ServiceRejections.NotFound(command.ServiceId));
        }

        var after = (At: command.From ?? Call.MinOccurredAt, Position: 0L);
        while (await ReadPage(context.TenantId, command, after, upTo, cancellation) is { Count: > 0 } page)
        {
            after = page[^1];
            var calls = (await log.ReadAt(context.TenantId, [.. page.Select(p => p.Position)], cancellation)).OrderBy(e => e.Position).ToList();
            run.Examined += calls.Count;
            for (var attempt = 0; calls.Count > 0; attempt++)
            {
                if (attempt == CommandHandler.MaxAttempts)
                {
                    return (run.Answer(command.DryRun), 0, new Rejection("version-conflict", "The price list kept changing meanwhile. Send it again: what was priced stays."));
                }

                try
                {
                    calls = await Price(context, calls, service, command.DryRun, run);
                }
                catch (Exception exception) when (RefusedRequestException.IsUnavailable(exception))
                {
                    throw RefusedRequestException.OfStream(run.Examined - calls.Count, run.Position);
                }

                service = calls.Count == 0 ? service : await services.Load(context.TenantId, command.ServiceId, fresh: true, cancellation);
            }
        }

        return (run.Answer(command.DryRun), run.Position, null);
    }

    /// <summary>Prices what the price list has a price for, and returns the calls to decide again because it has changed.</summary>
    private async Task<List<RecordedEvent>> Price(CommandContext context, List<RecordedEvent> calls, Service service, bool dryRun, Totals run)
    {
        var appends = new List<AppendRequest>();
        var priced = new List<(RecordedEvent Call, CallPriced Event)>();
        foreach (var call in calls)
        {
            if (PriceUnpriced.Decide((CallRecorded)call.Data!, call.Position, service.Prices) is not { } pricing)
            {
                run.StillUnpriced++;
                continue;
            }

            priced.Add((call, pricing));
            appends.Add(new AppendRequest
            {
                TenantId = context.TenantId,
                Appends = [new StreamAppend(call.StreamId, Call.StreamType, [pricing])],
                Identities = [new EventIdentity(Call.PricingIdOf(context.TenantId, pricing.Source, pricing.CallId), "priced")],
                Absent = [Call.VoidIdOf(context.TenantId, pricing.Source, pricing.CallId)],
                Conditions = [new StreamCondition(Service.StreamOf(service.Id), service.Version)],
                Actor = context.Actor,
                CorrelationId = context.CorrelationId,
            });
        }

        if (dryRun)
        {
            priced.ForEach(p => run.Add(p.Event, position: 0));
            return [];
        }

        var again = new List<RecordedEvent>();
        foreach (var ((call, pricing), result) in priced.Zip(await appender.AppendMany(appends)))
        {
            switch (result)
            {
                case { Outcome: AppendOutcome.Appended }:
                    run.Add(pricing, result.LastPosition);
                    break;
                case { Outcome: AppendOutcome.ConditionFailed, Found: null }:
                    again.Add(call);
                    break;
                case { Outcome: AppendOutcome.ConditionFailed }:
                    run.Voided++;
                    break;
                default:
                    run.PricedByOthers++;
                    break;
            }
        }

        return again;
    }

    private async Task<List<(DateTimeOffset At, long Position)>> ReadPage(
        string tenantId, PriceUnpriced command, (DateTimeOffset At, long Position) after, long upTo, CancellationToken cancellation)
    {
        var page = new List<(DateTimeOffset, long)>();
        await views.Read(
            tenantId, [CallsProjection.View],
            [
                Sql.Command(
                    $"""
                     select c.occurred_at, c.position from calls c
                     where c.tenant_id = $1 and c.service_id = $2 and c.status = 'unpriced' and {UsageCallsReader.OfService}
                       and (c.occurred_at, c.position) > ($3, $4) and c.occurred_at < $5 and c.position <= $6
                     order by c.occurred_at, c.position limit $7
                     """,
                    Sql.Value(tenantId), Sql.Value(command.ServiceId), Sql.Value(after.At), Sql.Value(after.Position),
                    Sql.Value(command.To ?? DateTimeOffset.MaxValue), Sql.Value(upTo), Sql.Value(PageCalls)),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    page.Add((reader.GetFieldValue<DateTimeOffset>(0), reader.GetInt64(1)));
                }
            },
            cancellation);
        return page;
    }

    private sealed class Totals
    {
        // In units of the last decimal an amount may have: a sum of amounts may need more digits than a decimal holds.
        private static readonly decimal Unit = (decimal)Math.Pow(10, PricedAmount.MaxAmountDecimals);

        private readonly SortedDictionary<string, Int128> _amounts = new(StringComparer.Ordinal);

        public long Examined { get; set; }

        public long StillUnpriced { get; set; }

        public long Voided { get; set; }

        public long PricedByOthers { get; set; }

        public long Position { get; private set; }

        private long Priced { get; set; }

        public void Add(CallPriced priced, long position)
        {
            Priced++;
            Position = Math.Max(Position, position);
            _amounts[priced.Currency] = _amounts.GetValueOrDefault(priced.Currency) + (Int128)(priced.Amount * Unit);
        }

        public LatePricing Answer(bool dryRun) => new(
            Examined, Priced, StillUnpriced, Voided, PricedByOthers, _amounts.ToDictionary(a => a.Key, a => Format(a.Value)), dryRun);

        private static string Format(Int128 amount)
        {
            var digits = amount.ToString(CultureInfo.InvariantCulture).PadLeft(PricedAmount.MaxAmountDecimals + 1, '0');
            var text = $"{digits[..^PricedAmount.MaxAmountDecimals]}.{digits[^PricedAmount.MaxAmountDecimals..]}";
            return text.TrimEnd('0').TrimEnd('.');
        }
    }
}
