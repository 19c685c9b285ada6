using Google.Protobuf.Collections;
using Google.Protobuf.WellKnownTypes;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Services;
using Ledger.Usage;
using Proto = Ledger.Grpc.V1;

namespace Ledger.Grpc;

/// <summary>
/// <c>ledger.v1.UsageService</c>: each method turns its message into the command that HTTP has, runs it, and turns the outcome
/// back. The rules are the commands'.
/// </summary>
internal sealed class UsageService(
    CommandHandler handler, ServiceLoader services, CallRecorder recorder, Appender appender, EventReader log, LedgerClock clock,
    Queries queries, UsageTotalsReader totals)
{
    /// <summary>Adds its methods.</summary>
    public void AddTo(GrpcTransport transport)
    {
        var service = Proto.UsageReflection.Descriptor.FindTypeByName<Google.Protobuf.Reflection.ServiceDescriptor>("UsageService");
        var (read, write) = (new Requirement(Scopes.UsageRead), new Requirement(Scopes.UsageWrite));
        transport
            .Add<Proto.RecordCallRequest, Proto.RecordCallResponse>(service, "RecordCall", write, Limits.MaxCommandBodyBytes, RecordOne)
            .Add<Proto.RecordCallsRequest, Proto.RecordCallsResponse>(service, "RecordCalls", write, RecordCalls.MaxBodyBytes, RecordMany)
            .Add<Proto.VoidCallRequest, Proto.VoidCallResponse>(service, "VoidCall", write, Limits.MaxCommandBodyBytes, Void)
            .Add<Proto.QueryTotalsRequest, Proto.QueryTotalsResponse>(service, "QueryTotals", read, Limits.MaxCommandBodyBytes, Query)
            .Add<Proto.RegisterServiceRequest, Proto.RegisterServiceResponse>(service, "RegisterService", write, Limits.MaxCommandBodyBytes, Register)
            .Add<Proto.SetPriceRequest, Proto.SetPriceResponse>(service, "SetPrice", write, Limits.MaxCommandBodyBytes, SetAPrice);
    }

    private async Task<GrpcReply<Proto.RecordCallResponse>> RecordOne(Proto.RecordCallRequest request, HttpContext http, CancellationToken cancellation)
    {
        if (request.Call is null)
        {
            return GrpcProblems.Of(Validation.Field("call", "is missing"), http);
        }

        var errors = new Validation();
        var call = BodyOf(request.Call, errors, "");
        var (result, answer) = await RecordCalls.Run(Context(http), RecordCalls.Check([call], errors, isList: false), errors, isList: false, recorder, log, cancellation);
        return result.Rejection is { } rejection
            ? GrpcProblems.Of(rejection, http, "call")
            : Reply(http, result, new Proto.RecordCallResponse { Result = ResultOf(answer!.Results![0]) });
    }

    private async Task<GrpcReply<Proto.RecordCallsResponse>> RecordMany(Proto.RecordCallsRequest request, HttpContext http, CancellationToken cancellation)
    {
        var errors = new Validation();
        var calls = request.Calls.Select((call, i) => BodyOf(call, errors, $"[{i}].")).ToArray();
        var (result, answer) = await RecordCalls.Run(Context(http), RecordCalls.Check(calls, errors, isList: true), errors, isList: true, recorder, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return GrpcProblems.Of(rejection, http, "calls");
        }

        var response = new Proto.RecordCallsResponse { Accepted = answer!.Accepted, Duplicates = answer.Duplicates, Position = result.Position };
        response.Results.AddRange((answer.Results ?? []).Select(ResultOf));
        return Reply(http, result, response);
    }

    private async Task<GrpcReply<Proto.VoidCallResponse>> Void(Proto.VoidCallRequest request, HttpContext http, CancellationToken cancellation)
    {
        var (result, voided) = await new VoidCall(request.Reason).Run(request.Source, request.Id, Context(http), appender, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return GrpcProblems.Of(rejection, http);
        }

        var response = new Proto.VoidCallResponse
        {
            Source = voided!.Source, Id = voided.Id, Reason = voided.Reason, UserId = voided.UserId, ServiceId = voided.ServiceId,
            OccurredAt = voided.OccurredAt.ToTimestamp(), Position = voided.Position,
        };
        foreach (var (unit, quantity) in voided.Quantities)
        {
            response.Quantities[unit] = Decimals.Format(quantity);
        }

        if (voided.Amount is { } amount)
        {
            (response.Amount, response.Currency) = (Decimals.Format(amount), voided.Currency);
        }

        if (voided.UnpricedReason is { } reason)
        {
            response.UnpricedReason = reason;
        }

        return Reply(http, result, response);
    }

    private async Task<GrpcReply<Proto.QueryTotalsResponse>> Query(Proto.QueryTotalsRequest request, HttpContext http, CancellationToken cancellation)
    {
        var errors = new Validation();
        var query = new UsageTotalsQuery(
            request.GroupBy.Count > 0 ? string.Join(',', request.GroupBy) : null, QueryTimeOf(request.From, errors, "from"), QueryTimeOf(request.To, errors, "to"),
            request.HasUser ? request.User : null, request.HasService ? request.Service : null, request.HasCurrency ? request.Currency : null, Interval: null,
            request.HasTimeZone ? request.TimeZone : null, request.HasSort ? request.Sort : null, request.HasOrder ? request.Order : null);
        var asOfQuery = new AsOfQuery(QueryTimeOf(request.At, errors, "at"), request.HasPosition ? request.Position : null);
        if (errors.Rejection is { } unread)
        {
            return GrpcProblems.Of(unread, http);
        }

        var (asOf, behind) = await queries.Resolve(http, UsageTotalsReader.Views, asOfQuery);
        if (asOf is null)
        {
            return GrpcProblems.Of(behind!, http);
        }

        var page = new PageQuery(request.HasLimit ? request.Limit : null, request.HasCursor ? request.Cursor : null);
        var (rejection, position, found) = await UsageTotals.Run(http.TenantId(), query, asOfQuery, asOf, page, totals, cancellation);
        if (found is null)
        {
            return GrpcProblems.Of(rejection!, http);
        }

        var response = new Proto.QueryTotalsResponse { Total = TotalOf(found.Total), Position = position };
        response.Items.AddRange(found.Items.Select(TotalOf));
        if (found.NextCursor is { } next)
        {
            response.NextCursor = next;
        }

        http.AnswerPosition(position);
        return response;
    }

    private async Task<GrpcReply<Proto.RegisterServiceResponse>> Register(Proto.RegisterServiceRequest request, HttpContext http, CancellationToken cancellation)
    {
        var command = new RegisterService(
            request.Title, request.HasServiceId ? request.ServiceId : null, request.HasDescription ? request.Description : null);
        var (result, registered) = await command.Run(http.Command(command, "POST /v1/services"), handler, services, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return GrpcProblems.Of(rejection, http);
        }

        var response = new Proto.RegisterServiceResponse
        {
            ServiceId = registered!.Id, Title = registered.Title, RegisteredAt = registered.RegisteredAt.ToTimestamp(),
            Version = result.Version, Position = result.Position,
        };
        if (registered.Description is { } description)
        {
            response.Description = description;
        }

        return Reply(http, result, response);
    }

    private async Task<GrpcReply<Proto.SetPriceResponse>> SetAPrice(Proto.SetPriceRequest request, HttpContext http, CancellationToken cancellation)
    {
        var errors = new Validation();
        var components = request.Components
            .Select((c, i) => new PriceComponent(c.Unit, DecimalOf(c.Price, errors, $"components[{i}].price"), c.HasPer ? c.Per : 1)).ToArray();
        var command = new SetPrice(request.Currency, components, TimeOf(request.EffectiveFrom, errors, "effectiveFrom"));
        if (errors.Rejection is { } unread)
        {
            return GrpcProblems.Of(unread, http);
        }

        var context = http.Command(command, $"POST /v1/services/{PathIds.Encode(request.ServiceId)}/prices");
        var (result, price) = await command.Run(request.ServiceId, context, http.IfMatch(), handler, services, log, clock, cancellation);
        if (result.Rejection is { } rejection)
        {
            return GrpcProblems.Of(rejection, http);
        }

        var response = new Proto.SetPriceResponse
        {
            PriceVersion = price!.PriceVersion, Currency = price.Currency, EffectiveFrom = price.EffectiveFrom.ToTimestamp(),
            SetAt = price.SetAt.ToTimestamp(), Version = result.Version, Position = result.Position,
        };
        response.Components.AddRange(price.Components.Select(c => new Proto.PriceComponent { Unit = c.Unit, Price = Decimals.Format(c.Price), Per = c.Per }));
        return Reply(http, result, response);
    }

    /// <summary>The context of a command that the ids of its calls make idempotent.</summary>
    private static CommandContext Context(HttpContext http) => http.Command<object?>(null);

    private static GrpcReply<TResponse> Reply<TResponse>(HttpContext http, CommandResult result, TResponse response) where TResponse : class
    {
        http.Answer(result);
        return response;
    }

    private static CallBody BodyOf(Proto.Call call, Validation errors, string path) => new(
        call.UserId, call.ServiceId, call.HasId ? call.Id : null, call.HasSource ? call.Source : null,
        TimeOf(call.OccurredAt, errors, $"{path}occurredAt"), QuantitiesOf(call.Quantities, errors, path), call.Tags);

    private static Dictionary<string, decimal> QuantitiesOf(MapField<string, string> quantities, Validation errors, string path)
    {
        var read = new Dictionary<string, decimal>(quantities.Count, StringComparer.Ordinal);
        foreach (var (unit, text) in quantities)
        {
            read[unit] = DecimalOf(text, errors, $"{path}quantities.{unit}");
        }

        return read;
    }

    private static decimal DecimalOf(string text, Validation errors, string field)
    {
        errors.Check(Decimals.TryParse(text, out var value), field, Decimals.Rule);
        return value;
    }

    private static DateTimeOffset? TimeOf(Timestamp? time, Validation errors, string field)
    {
        if (time is null)
        {
            return null;
        }

        try
        {
            return time.ToDateTimeOffset().ToMicroseconds();
        }
        catch (InvalidOperationException)
        {
            errors.Add(field, "is not a Timestamp: its seconds must be of the years 1 to 9999, its nanos from 0 to 999 999 999");
            return null;
        }
    }

    private static QueryTime? QueryTimeOf(Timestamp? time, Validation errors, string field) =>
        TimeOf(time, errors, field) is { } at ? new QueryTime(at) : null;

    private static Proto.UsageTotal TotalOf(UsageTotal total)
    {
        var result = new Proto.UsageTotal
        {
            Start = total.Start?.ToTimestamp(), End = total.End?.ToTimestamp(), Calls = total.Calls, UnpricedCalls = total.UnpricedCalls,
            Quantities = { total.Quantities.ToDictionary() }, Amounts = { total.Amounts.ToDictionary() },
        };
        if (total.User is { } user)
        {
            result.User = user;
        }

        if (total.Service is { } service)
        {
            result.Service = service;
        }

        if (total.Currency.Value is { } currency)
        {
            result.Currency = currency;
        }

        return result;
    }

    private static Proto.CallResult ResultOf(CallResult call)
    {
        var result = new Proto.CallResult
        {
            Id = call.Id, Position = call.Position,
            Status = call.Status == CallStatus.Duplicate ? Proto.CallStatus.Duplicate : Proto.CallStatus.Recorded,
        };
        if (call.Amount is { } amount)
        {
            (result.Amount, result.Currency, result.PriceVersion) = (Decimals.Format(amount), call.Currency, call.PriceVersion!.Value);
        }

        if (call.UnpricedReason is { } reason)
        {
            result.UnpricedReason = reason;
        }

        return result;
    }
}
