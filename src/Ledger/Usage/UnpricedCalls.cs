using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Usage;

/// <summary>How many calls of a service have no price, for one reason.</summary>
public sealed record UnpricedCallsAnswer(string ServiceId, string Reason, long Calls);

/// <summary>Answers how many calls wait for a price, and why.</summary>
public static class UnpricedCalls
{
    private static readonly CsvTable<UnpricedCallsAnswer> Csv = new(
        ["serviceId", "reason", "calls"],
        (csv, row) =>
        {
            csv.Text(row.ServiceId);
            csv.Text(row.Reason);
            csv.Number(row.Calls);
        });

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/usage/unpriced", Handle)
        .Requires(Scopes.UsageRead).WithName("ListUnpricedCalls").WithTags("Usage").WithSummary("How many calls wait for a price, by service and reason")
        .ProducesList<UnpricedCallsAnswer>().ProducesQueryProblems(406);

    private static Task<IResult> Handle(
        [AsParameters] PageQuery page, HttpContext http, Queries queries, UnpricedCallsReader unpriced, CancellationToken cancellation) =>
        queries.Now(http, UsageCallsReader.Views, _ => ListAnswers.Answer<UnpricedCallsAnswer, UnpricedCallsReader.Key>(
            http, page, "unpriced", [], Csv,
            async (after, rows) =>
            {
                var (position, found) = await unpriced.List(http.TenantId(), after, rows, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(r => (r, new UnpricedCallsReader.Key(r.ServiceId, r.Reason)))];
            }));
}

/// <summary>Reads the counts of the view "Calls".</summary>
public sealed class UnpricedCallsReader(ViewDatabase views)
{
    /// <summary>Where a page of the list ends.</summary>
    public sealed record Key(string ServiceId, string Reason);

    /// <summary>A page of the counts, one range of the primary key.</summary>
    public async Task<(long Position, IReadOnlyList<UnpricedCallsAnswer> Rows)> List(string tenantId, Key? after, int limit, CancellationToken cancellation)
    {
        var rows = new List<UnpricedCallsAnswer>();
        var position = await views.Read(
            tenantId, UsageCallsReader.Views,
            [
                Sql.Command(
                    """
                    select u.service_id, u.reason, u.calls from unpriced_calls u
                    where u.tenant_id = $1 and (u.service_id, u.reason) > ($2, $3) order by u.service_id, u.reason limit $4
                    """,
                    Sql.Value(tenantId), Sql.Value(after?.ServiceId ?? ""), Sql.Value(after?.Reason ?? ""), Sql.Value(limit)),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(new UnpricedCallsAnswer(reader.GetString(0), reader.GetString(1), reader.GetInt64(2)));
                }
            },
            cancellation);
        return (position, rows);
    }
}
