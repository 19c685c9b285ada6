using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;
using Npgsql;

namespace Ledger.Usage;

/// <summary>
/// A call. <c>status</c> is <c>priced</c>, <c>unpriced</c> or <c>voided</c>; a voided call shows what it counted until it was
/// taken back. The positions are those of the events that recorded it, priced it later and took it back.
/// </summary>
public sealed record CallAnswer(
    string Source, string Id, string UserId, string ServiceId, DateTimeOffset OccurredAt, DateTimeOffset RecordedAt, long Position, string Status,
    IReadOnlyDictionary<string, decimal> Quantities, IReadOnlyDictionary<string, string>? Tags,
    decimal? Amount, string? Currency, int? PriceVersion, string? UnpricedReason,
    long? PricedPosition, long? VoidedPosition, string? VoidReason);

/// <summary>Which calls are asked for.</summary>
/// <param name="User">Of this user.</param>
/// <param name="Service">Of this service.</param>
/// <param name="From">That happened at this instant or later.</param>
/// <param name="To">That happened before this instant.</param>
/// <param name="Status"><c>priced</c>, <c>unpriced</c> or <c>voided</c>.</param>
public readonly record struct CallsQuery(
    [FromQuery(Name = "user")] string? User, [FromQuery(Name = "service")] string? Service, [FromQuery(Name = "from")] QueryTime? From,
    [FromQuery(Name = "to")] QueryTime? To, [FromQuery(Name = "status")] string? Status)
{
    private static readonly string[] s_statuses = ["priced", "unpriced", "voided"];

    internal string?[] Filter => [User, Service, From?.ToString(), To?.ToString(), Status];

    internal void Check(Validation errors)
    {
        errors.Check(User is null || UserId.IsValid(User), "user", UserId.Rule);
        errors.Check(Service is null || Slug.IsValid(Service), "service", Slug.Rule);
        errors.Check(From is null || To is null || From.Value.Value <= To.Value.Value, "from", "must not be after to");
        errors.Check(Status is null || s_statuses.Contains(Status), "status", $"must be one of: {string.Join(", ", s_statuses)}");
    }
}

/// <summary>Answers which calls there are, the newest first.</summary>
public static class UsageCalls
{
    private static readonly CsvTable<CallAnswer> Csv = new(
        [
            "source", "id", "userId", "serviceId", "occurredAt", "recordedAt", "position", "status", "quantities", "tags", "amount", "currency",
            "priceVersion", "unpricedReason", "pricedPosition", "voidedPosition", "voidReason",
        ],
        (csv, call) =>
        {
            csv.Text(call.Source);
            csv.Text(call.Id);
            csv.Text(call.UserId);
            csv.Text(call.ServiceId);
            csv.Time(call.OccurredAt);
            csv.Time(call.RecordedAt);
            csv.Number(call.Position);
            csv.Text(call.Status);
            csv.Text(string.Join(';', call.Quantities.Select(q => $"{q.Key}={Decimals.Format(q.Value)}")));
            csv.Text(call.Tags is null ? null : JsonSerializer.Serialize(call.Tags, Json.Options));
            csv.Number(call.Amount);
            csv.Text(call.Currency);
            csv.Number(call.PriceVersion);
            csv.Text(call.UnpricedReason);
            csv.Number(call.PricedPosition);
            csv.Number(call.VoidedPosition);
            csv.Text(call.VoidReason);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/usage/calls", List)
            .Requires(Scopes.UsageRead).WithName("ListCalls").WithTags("Usage").WithSummary("The calls themselves, the newest first")
            .ProducesList<CallAnswer>().ProducesQueryProblems(406);
        routes.MapGet("/v1/usage/calls/{source}/{id}", GetOne)
            .Requires(Scopes.UsageRead).WithName("GetCall").WithTags("Usage").WithSummary("One call, by its source and the id the source gave it")
            .Produces<CallAnswer>().ProducesQueryProblems(404);
    }

    private static Task<IResult> List(
        [AsParameters] CallsQuery query, [AsParameters] PageQuery page, HttpContext http, Queries queries, UsageCallsReader calls,
        CancellationToken cancellation) =>
        queries.Now(http, UsageCallsReader.Views, async _ =>
        {
            var errors = new Validation();
            query.Check(errors);
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            return await ListAnswers.Answer<CallAnswer, UsageCallsReader.Key>(
                http, page, "calls", query.Filter, Csv,
                async (after, rows) =>
                {
                    var (position, found) = await calls.List(http.TenantId(), query, after, rows, cancellation);
                    http.AnswerPosition(position);
                    return [.. found.Select(c => (c, new UsageCallsReader.Key(c.OccurredAt, c.Position)))];
                });
        });

    private static Task<IResult> GetOne(
        string source, string id, HttpContext http, Queries queries, UsageCallsReader calls, CancellationToken cancellation) =>
        queries.Now(http, UsageCallsReader.Views, async _ =>
        {
            var (position, call) = await calls.Find(http.TenantId(), source, id, cancellation);
            http.AnswerPosition(position);
            return call is null ? Problems.Result("call-not-found", $"There is no call '{id}' of the source '{source}'.") : Results.Ok(call);
        });
}

/// <summary>Reads the view "Calls", with the calls' events.</summary>
public sealed class UsageCallsReader(ViewDatabase views)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [CallsProjection.View];

    /// <summary>Where a page of the list ends.</summary>
    public sealed record Key(DateTimeOffset OccurredAt, long Position);

    /// <summary>What a statement must say of calls c to be offered the indexes that begin with the service.</summary>
    internal const string OfService = "c.position < 9223372036854775807";

    /// <summary>What a statement must say of calls c to be offered the indexes that begin with the time.</summary>
    internal const string ByTime = "c.position > 0";

    private const string Columns =
        """
        e.data ->> 'source', e.data ->> 'callId', c.user_id, c.service_id, c.occurred_at, e.timestamp, c.position, c.status,
        e.data -> 'quantities', e.data -> 'tags', c.amount, c.currency, c.price_version, c.unpriced_reason,
        c.priced_position, c.voided_position,
        (select v.data ->> 'reason' from mt_events v where v.seq_id = c.voided_position limit 1)
        """;

    /// <summary>One call, by the id of its event and then by primary key.</summary>
    public async Task<(long Position, CallAnswer? Call)> Find(string tenantId, string source, string callId, CancellationToken cancellation)
    {
        var (position, rows) = await Query(
            tenantId,
            Sql.Command(
                $"""
                 select {Columns}
                 from mt_events e
                 cross join lateral (
                   select * from calls c
                   where c.tenant_id = $2 and c.user_id = e.data ->> 'userId' and c.service_id = e.data ->> 'serviceId'
                     and c.occurred_at = (e.data ->> 'occurredAt')::timestamptz and c.position = e.seq_id limit 1) c
                 where e.id = $1 and e.tenant_id = $2
                 """,
                Sql.Value(Call.IdOf(tenantId, source, callId)), Sql.Value(tenantId)),
            cancellation);
        return (position, rows.SingleOrDefault());
    }

    /// <summary>A page of calls, the newest first. See <see cref="PageOf"/> for what it costs.</summary>
    public Task<(long Position, IReadOnlyList<CallAnswer> Rows)> List(
        string tenantId, CallsQuery query, Key? after, int limit, CancellationToken cancellation) =>
        Query(tenantId, PageOf(tenantId, query, after, limit), cancellation);

    /// <summary>
    /// Reads a page off the end of one index range: of a user and a service off the primary key, of a service or of everything
    /// off an index of its own; calls that are not priced off the partial indexes. Of a user alone, a page of each service the
    /// user has called is read, and these are merged. Only the status <c>priced</c> is filtered, at the cost of the calls that
    /// are not, which lie in between.
    /// </summary>
    internal static NpgsqlBatchCommand PageOf(string tenantId, CallsQuery query, Key? after, int limit)
    {
        var parameters = new SqlParameters();
        var tenant = parameters.Add(Sql.Value(tenantId));
        var rows = parameters.Add(Sql.Value(limit));
        // A literal, so that the planner knows which of the partial indexes hold it.
        var status = query.Status is { } s ? $"and c.status = '{s}'" : "";
        var index = query.User is not null ? "" : query.Service is not null ? $"and {OfService}" : $"and {ByTime}";
        var where = $"c.tenant_id = {tenant}";
        where += query.User is { } user ? $" and c.user_id = {parameters.Add(Sql.Value(user))}" : "";
        var ofUser = $"{where} {(query.Status == "priced" ? "" : status)}";
        where += query.Service is { } service ? $" and c.service_id = {parameters.Add(Sql.Value(service))}"
            : query.User is not null ? " and c.service_id = k.service_id" : "";
        where += query.From is { } from ? $" and c.occurred_at >= {parameters.Add(Sql.Value(from.Value))}" : "";
        where += query.To is { } to ? $" and c.occurred_at < {parameters.Add(Sql.Value(to.Value))}" : "";
        where += after is not null ? $" and (c.occurred_at, c.position) < ({parameters.Add(Sql.Value(after.OccurredAt))}, {parameters.Add(Sql.Value(after.Position))})" : "";
        var page = $"select * from calls c where {where} {status} {index} order by c.occurred_at desc, c.position desc limit {rows}";
        var merged = query is { User: not null, Service: null }
            ? $"""
               with recursive called (service_id) as (
                 (select c.service_id from calls c where {ofUser} order by c.service_id limit 1)
                 union all
                 select (select c.service_id from calls c where {ofUser} and c.service_id > k.service_id order by c.service_id limit 1)
                 from called k where k.service_id is not null
               )
               select c.* from called k cross join lateral ({page}) c
               where k.service_id is not null order by c.occurred_at desc, c.position desc limit {rows}
               """
            : page;
        return Sql.Command(
            $"""
             select {Columns}
             from ({merged}) c
             cross join lateral (select * from mt_events e where e.seq_id = c.position limit 1) e
             order by c.occurred_at desc, c.position desc
             """,
            parameters.All);
    }

    private async Task<(long Position, IReadOnlyList<CallAnswer> Rows)> Query(
        string tenantId, NpgsqlBatchCommand command, CancellationToken cancellation)
    {
        var rows = new List<CallAnswer>();
        var position = await views.Read(
            tenantId, Views, [command],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(new CallAnswer(
                        reader.GetString(0), reader.GetString(1), reader.GetString(2), reader.GetString(3),
                        reader.GetFieldValue<DateTimeOffset>(4), reader.GetFieldValue<DateTimeOffset>(5), reader.GetInt64(6), reader.GetString(7),
                        JsonSerializer.Deserialize<Dictionary<string, decimal>>(reader.GetFieldValue<byte[]>(8), Json.Options)!,
                        reader.IsDBNull(9) ? null : JsonSerializer.Deserialize<Dictionary<string, string>>(reader.GetFieldValue<byte[]>(9), Json.Options),
                        reader.Maybe<decimal?>(10), reader.Maybe<string>(11), reader.Maybe<int?>(12), reader.Maybe<string>(13),
                        reader.Maybe<long?>(14), reader.Maybe<long?>(15), reader.Maybe<string>(16)));
                }
            },
            cancellation);
        return (position, rows);
    }
}

/// <summary>The parameters of a statement that is put together from parts.</summary>
internal sealed class SqlParameters
{
    private readonly List<NpgsqlParameter> _parameters = [];

    public NpgsqlParameter[] All => [.. _parameters];

    /// <summary>Adds one and returns how the statement calls it.</summary>
    public string Add(NpgsqlParameter parameter)
    {
        _parameters.Add(parameter);
        return $"${_parameters.Count}";
    }
}
