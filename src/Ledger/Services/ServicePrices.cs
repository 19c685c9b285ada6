using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Services;

/// <summary>
/// A price in its list. It is the one in force from <c>effectiveFrom</c> up to <c>effectiveUntil</c>, where another takes over
/// (null: none does yet); where both are the same it never is, as a later one was set for the same instant. <c>inForce</c>
/// tells of the instant asked about.
/// </summary>
public sealed record ListedPrice(
    int PriceVersion, string Currency, DateTimeOffset EffectiveFrom, DateTimeOffset? EffectiveUntil, bool InForce,
    IReadOnlyList<PriceComponent> Components, DateTimeOffset SetAt, long Position);

/// <summary>Answers which prices a service has, had and will have.</summary>
public static class ServicePrices
{
    private static readonly CsvTable<ListedPrice> Csv = new(
        ["priceVersion", "currency", "effectiveFrom", "effectiveUntil", "inForce", "components", "setAt", "position"],
        (csv, price) =>
        {
            csv.Number(price.PriceVersion);
            csv.Text(price.Currency);
            csv.Time(price.EffectiveFrom);
            csv.Time(price.EffectiveUntil);
            csv.Bool(price.InForce);
            csv.Text(PriceRow.Json(price.Components));
            csv.Time(price.SetAt);
            csv.Number(price.Position);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/services/{serviceId}/prices", List)
            .Requires(Scopes.UsageRead).WithName("ListPrices").WithTags("Services").WithSummary("All prices of a service as they were set, and which is in force")
            .ProducesList<ListedPrice>().ProducesQueryProblems(404, 406);
        routes.MapGet("/v1/services/{serviceId}/prices/{priceVersion}", GetOne)
            .Requires(Scopes.UsageRead).WithName("GetPrice").WithTags("Services").WithSummary("One price of a service")
            .Produces<ListedPrice>().ProducesQueryProblems(404);
    }

    private static Task<IResult> List(
        string serviceId, [AsParameters] AsOfQuery query, [AsParameters] PageQuery page, HttpContext http, Queries queries,
        ServicePricesReader prices, CancellationToken cancellation) =>
        queries.AsOf(http, ServicePricesReader.Views, query, async asOf =>
        {
            var errors = new Validation();
            errors.CheckSlug(serviceId, "serviceId");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            // Asked before the list, which may already be under way to the caller when it turns out to be nobody's.
            var (position, exists, _) = await prices.Read(http.TenantId(), serviceId, asOf, 0, 0, cancellation);
            http.AnswerPosition(position);
            return !exists ? Problems.For(ServiceRejections.NotFound(serviceId)) : await ListAnswers.Answer<ListedPrice, int>(
                http, page, "prices", [serviceId, .. query.Filter], Csv,
                async (after, limit) =>
                {
                    var (position, _, rows) = await prices.Read(http.TenantId(), serviceId, asOf, after, limit, cancellation);
                    http.AnswerPosition(position);
                    return [.. rows.Select(p => (p, p.PriceVersion))];
                });
        });

    private static Task<IResult> GetOne(
        string serviceId, int priceVersion, [AsParameters] AsOfQuery query, HttpContext http, Queries queries, ServicePricesReader prices,
        CancellationToken cancellation) =>
        queries.AsOf(http, ServicePricesReader.Views, query, async asOf =>
        {
            var errors = new Validation();
            errors.CheckSlug(serviceId, "serviceId");
            errors.Check(priceVersion > 0, "priceVersion", "must be 1 or more");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var (position, exists, rows) = await prices.Read(http.TenantId(), serviceId, asOf, priceVersion - 1, 1, cancellation);
            http.AnswerPosition(position);
            return !exists ? Problems.For(ServiceRejections.NotFound(serviceId))
                : rows is [var price] && price.PriceVersion == priceVersion ? Results.Ok(price)
                : Problems.For(ServiceRejections.PriceNotFound(serviceId, priceVersion));
        });
}

/// <summary>Reads the prices of the view "Services".</summary>
public sealed class ServicePricesReader(ViewDatabase views)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [ServicesProjection.View];

    /// <summary>
    /// Prices in the order of their versions, from after one on, as known at a position; and whether the service itself was
    /// known then.
    /// </summary>
    public async Task<(long Position, bool Exists, IReadOnlyList<ListedPrice> Rows)> Read(
        string tenantId, string serviceId, AsOf asOf, int afterVersion, int limit, CancellationToken cancellation)
    {
        var exists = false;
        var rows = new List<ListedPrice>();
        var position = await views.Read(
            tenantId, Views,
            [
                Sql.Command(
                    "select 1 from services s where s.tenant_id = $1 and s.service_id = $2 and s.registered_position <= $3",
                    Sql.Value(tenantId), Sql.Value(serviceId), Sql.Value(asOf.KnownAt)),
                Sql.Command(
                    $"""
                     select {PriceRow.Columns}, n.effective_from, coalesce(p.price_version = (
                       select f.price_version from service_prices f
                       where f.tenant_id = $1 and f.service_id = $2 and f.position <= $3 and f.effective_from <= $4
                       order by f.effective_from desc, f.price_version desc limit 1), false)
                     from service_prices p
                     left join lateral (
                       select n.effective_from from service_prices n
                       where n.tenant_id = $1 and n.service_id = $2 and n.position <= $3
                         and (n.effective_from, n.price_version) > (p.effective_from, p.price_version)
                       order by n.effective_from, n.price_version limit 1) n on true
                     where p.tenant_id = $1 and p.service_id = $2 and p.position <= $3 and p.price_version > $5
                     order by p.price_version limit $6
                     """,
                    Sql.Value(tenantId), Sql.Value(serviceId), Sql.Value(asOf.KnownAt), Sql.Value(asOf.At), Sql.Value(afterVersion), Sql.Value(limit)),
            ],
            async reader =>
            {
                exists = await reader.ReadAsync(cancellation);
                await reader.NextResultAsync(cancellation);
                while (await reader.ReadAsync(cancellation))
                {
                    var price = PriceRow.Read(reader, 0);
                    rows.Add(new ListedPrice(
                        price.Version, price.Currency, price.EffectiveFrom, reader.Maybe<DateTimeOffset?>(PriceRow.Count),
                        reader.GetBoolean(PriceRow.Count + 1), price.Components, price.SetAt, price.Position));
                }
            },
            cancellation);
        return (position, exists, rows);
    }
}
