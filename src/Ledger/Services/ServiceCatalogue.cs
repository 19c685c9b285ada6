using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Services;

/// <summary>An AI service. <c>price</c> is the one in force now, null when there is none.</summary>
public sealed record ServiceAnswer(
    string ServiceId, string Title, string? Description, PriceAnswer? Price, DateTimeOffset RegisteredAt, DateTimeOffset? RetiredAt)
{
    internal static ServiceAnswer Of(Service service, PriceAnswer? price) =>
        new(service.Id, service.Title, service.Description, price, service.RegisteredAt, service.RetiredAt);
}

/// <summary>A price as it was set.</summary>
public sealed record PriceAnswer(
    int PriceVersion, string Currency, DateTimeOffset EffectiveFrom, IReadOnlyList<PriceComponent> Components, DateTimeOffset SetAt)
{
    internal static PriceAnswer? Of(PriceVersion? price) =>
        price is null ? null : new(price.Version, price.Currency, price.EffectiveFrom, price.Components, price.SetAt);
}

/// <summary>Answers which services there are, and what they cost now.</summary>
public static class ServiceCatalogue
{
    private static readonly CsvTable<ServiceAnswer> Csv = new(
        ["serviceId", "title", "description", "priceVersion", "currency", "effectiveFrom", "components", "registeredAt", "retiredAt"],
        (csv, service) =>
        {
            csv.Text(service.ServiceId);
            csv.Text(service.Title);
            csv.Text(service.Description);
            csv.Number(service.Price?.PriceVersion);
            csv.Text(service.Price?.Currency);
            csv.Time(service.Price?.EffectiveFrom);
            csv.Text(service.Price is { } price ? PriceRow.Json(price.Components) : null);
            csv.Time(service.RegisteredAt);
            csv.Time(service.RetiredAt);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/services/{serviceId}", GetOne)
            .Requires(Scopes.UsageRead).WithName("GetService").WithTags("Services").WithSummary("A service with the price in force; also a retired one")
            .Produces<ServiceAnswer>().ProducesQueryProblems(404);
        routes.MapGet("/v1/services", List)
            .Requires(Scopes.UsageRead).WithName("ListServices").WithTags("Services").WithSummary("All services by id, with the price in force; retired ones when asked for")
            .ProducesList<ServiceAnswer>().ProducesQueryProblems(406);
    }

    private static Task<IResult> GetOne(
        string serviceId, HttpContext http, Queries queries, ServiceCatalogueReader catalogue, CancellationToken cancellation) =>
        queries.Now(http, ServiceCatalogueReader.Views, async now =>
        {
            var errors = new Validation();
            errors.CheckSlug(serviceId, "serviceId");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var (position, found) = await catalogue.Find(http.TenantId(), serviceId, now, cancellation);
            http.AnswerPosition(position);
            if (found is not { } row)
            {
                return Problems.For(ServiceRejections.NotFound(serviceId));
            }

            ETags.Write(http.Response, row.Version);
            return Results.Ok(row.Service);
        });

    private static Task<IResult> List(
        [AsParameters] PageQuery page, bool? includeRetired, HttpContext http, Queries queries, ServiceCatalogueReader catalogue,
        CancellationToken cancellation) =>
        queries.Now(http, ServiceCatalogueReader.Views, now => ListAnswers.Answer<ServiceAnswer, string>(
            http, page, "services", [$"{includeRetired ?? false}"], Csv,
            async (after, rows) =>
            {
                var (position, found) = await catalogue.List(http.TenantId(), includeRetired ?? false, after ?? "", rows, now, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(r => (r.Service, r.Service.ServiceId))];
            }));
}

/// <summary>Reads the view "Services", with the prices in force.</summary>
public sealed class ServiceCatalogueReader(ViewDatabase views)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [ServicesProjection.View];

    /// <summary>A service with the price in force at an instant, and the version of its stream.</summary>
    public async Task<(long Position, (ServiceAnswer Service, long Version)? Found)> Find(
        string tenantId, string serviceId, DateTimeOffset now, CancellationToken cancellation)
    {
        var (position, rows) = await Query("s.tenant_id = $1 and s.service_id = $3", tenantId, now, [Sql.Value(serviceId)], cancellation);
        return (position, rows.Count == 0 ? null : rows[0]);
    }

    /// <summary>A page of the list, by id, with the prices in force at an instant.</summary>
    public Task<(long Position, IReadOnlyList<(ServiceAnswer Service, long Version)> Rows)> List(
        string tenantId, bool includeRetired, string after, int limit, DateTimeOffset now, CancellationToken cancellation) =>
        Query(
            $"s.tenant_id = $1 {(includeRetired ? "" : "and s.retired_at is null")} and s.service_id > $3 order by s.service_id limit $4",
            tenantId, now, [Sql.Value(after), Sql.Value(limit)], cancellation);

    private async Task<(long Position, IReadOnlyList<(ServiceAnswer Service, long Version)> Rows)> Query(
        string where, string tenantId, DateTimeOffset at, NpgsqlParameter[] parameters, CancellationToken cancellation)
    {
        var rows = new List<(ServiceAnswer, long)>();
        var position = await views.Read(
            tenantId, Views,
            [
                Sql.Command(
                    $"""
                     select {ServiceRow.Columns}, {PriceRow.Columns}
                     from services s
                     left join lateral (
                       select * from service_prices p
                       where p.tenant_id = s.tenant_id and p.service_id = s.service_id and p.effective_from <= $2
                       order by p.effective_from desc, p.price_version desc limit 1) p on true
                     where {where}
                     """,
                    [Sql.Value(tenantId), Sql.Value(at), .. parameters]),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    var service = ServiceRow.Read(reader, 0);
                    var price = reader.IsDBNull(ServiceRow.Count) ? null : PriceAnswer.Of(PriceRow.Read(reader, ServiceRow.Count));
                    rows.Add((ServiceAnswer.Of(service, price), service.Version));
                }
            },
            cancellation);
        return (position, rows);
    }
}
