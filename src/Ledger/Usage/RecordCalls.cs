using System.Text.Json.Serialization;
using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Usage;

/// <summary>What became of the calls of one request.</summary>
/// <param name="Accepted">Calls recorded by this request.</param>
/// <param name="Duplicates">Calls that had been recorded before.</param>
/// <param name="Results">One a call, in their order; not for streams and for requests of more than 1000 calls.</param>
/// <param name="Received">Of a stream: its lines. It balances: received = accepted + duplicates + rejected.</param>
/// <param name="Rejected">Of a stream: lines that were not taken.</param>
/// <param name="Rejections">Of a stream: the first 100 of them.</param>
public sealed record CallsAnswer(
    long Accepted, long Duplicates,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<CallResult>? Results = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] long? Received = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] long? Rejected = null,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<RejectedLine>? Rejections = null);

/// <summary>Whether a call was recorded now or before.</summary>
public enum CallStatus
{
    /// <summary>Recorded by this request.</summary>
    Recorded,

    /// <summary>Recorded before; the result is that of the first time.</summary>
    Duplicate,
}

/// <summary>What became of one call: where it stands in the log and what it costs. No amount is not the same as 0.</summary>
public sealed record CallResult(
    string Id, CallStatus Status, long Position, decimal? Amount, string? Currency, int? PriceVersion,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? UnpricedReason);

/// <summary>
/// Records calls: one, a list, a CloudEvent or a batch of them (all or nothing), or a stream of lines, each on its own. Each is
/// priced by the price in force when it happened, and recorded once.
/// </summary>
public static class RecordCalls
{
    /// <summary>Calls of one request that is not a stream.</summary>
    public const int MaxCalls = EventStoreOptions.MaxRequestEvents;

    /// <summary>Calls of one request that are answered one by one.</summary>
    public const int MaxResults = 1_000;

    /// <summary>The largest body, unpacked, of a request that is not a stream: 16 MiB.</summary>
    public const int MaxBodyBytes = 16 * 1024 * 1024;

    /// <summary>Newline-delimited JSON: a stream.</summary>
    public const string NdjsonType = "application/x-ndjson";

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/usage", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(RecordCalls)).WithTags("Usage").WithSummary("Record calls: JSON, NDJSON or CloudEvents")
        .Accepts<CallBody>("application/json", NdjsonType, CloudEvents.StructuredType, CloudEvents.BatchType)
        .Produces<CallsAnswer>().ProducesCommandProblems(404)
        .WithMetadata(new DisableRequestSizeLimitAttribute());

    private static async Task<IResult> Handle(HttpContext http, CallRecorder recorder, StreamedCalls stream, EventReader log, CancellationToken cancellation)
    {
        var context = http.Command<object?>(null);
        if (http.Request.ContentType?.StartsWith(NdjsonType, StringComparison.OrdinalIgnoreCase) ?? false)
        {
            http.LetStream();
            var (receipt, last) = await stream.Run(context, http.Request.BodyReader, cancellation);
            http.AnswerPosition(last);
            return Results.Ok(receipt);
        }

        if (await Bodies.ReadWhole(http.Request, MaxBodyBytes, cancellation) is not { } body)
        {
            return Problems.Result("body-too-large", $"The body is larger than {MaxBodyBytes} bytes. Send lines of {NdjsonType} instead.");
        }

        var errors = new Validation();
        var calls = Read(http.Request, body, errors, out var isList);
        var (result, answer) = await Run(context, calls, errors, isList, recorder, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.Ok(answer);
    }

    /// <summary>
    /// Records calls, all or nothing, whichever way they came: what became of them, and the answer unless they were refused.
    /// They are refused, and may not be whole, when <paramref name="errors"/> holds what was found wrong with them already.
    /// </summary>
    internal static async Task<(CommandResult Result, CallsAnswer? Answer)> Run(
        CommandContext context, IReadOnlyList<ReportedCall> calls, Validation errors, bool isList, CallRecorder recorder, EventReader log,
        CancellationToken cancellation)
    {
        if (errors.Rejection is { } invalid)
        {
            return (new CommandResult { Rejection = invalid }, null);
        }

        var outcomes = calls.Count == 0 ? [] : await recorder.Record(context, calls, allOrNothing: true, isList, lines: null, cancellation);
        if (Array.FindIndex(outcomes, o => o.Rejection is not null) is >= 0 and var refused)
        {
            return (new CommandResult { Rejection = await Explain(context.TenantId, calls[refused], outcomes[refused], log, cancellation) }, null);
        }

        var duplicates = outcomes.Count(o => o.Outcome == AppendOutcome.Duplicate);
        var result = new CommandResult
        {
            Position = calls.Count == 0 ? await log.ReadHead(cancellation) : outcomes.Max(o => o.Position),
            Replayed = context.IdempotencyKey is not null && duplicates > 0 && duplicates == calls.Count,
        };
        return (result, new CallsAnswer(
            outcomes.Length - duplicates, duplicates, calls.Count <= MaxResults ? await ResultsOf(context.TenantId, outcomes, log, cancellation) : null));
    }

    private static IReadOnlyList<ReportedCall> Read(HttpRequest request, byte[] body, Validation errors, out bool isList)
    {
        // Before anything is made of them: small items in a large body are many objects.
        if (!CheckCount(Json.CountItems(body, MaxCalls), errors))
        {
            isList = true;
            return [];
        }

        if (CloudEvents.IsCloudEvent(request))
        {
            return CloudEvents.Read(request, body, errors, out isList);
        }

        isList = body.AsSpan().TrimStart(" \t\r\n"u8) is [(byte)'[', ..];
        return Check(isList ? Json.ReadOr<List<CallBody>>(body, errors) ?? [] : Json.ReadOr<CallBody>(body, errors) is { } one ? [one] : [], errors, isList);
    }

    /// <summary>Those of some calls that are well-formed; what is wrong with the others is noted.</summary>
    internal static IReadOnlyList<ReportedCall> Check(IReadOnlyList<CallBody> bodies, Validation errors, bool isList)
    {
        var calls = new List<ReportedCall>(bodies.Count);
        for (var i = 0; CheckCount(bodies.Count, errors) && i < bodies.Count; i++)
        {
            if (ReportedCall.From(bodies[i], errors, isList ? $"[{i}]." : "") is { } call)
            {
                calls.Add(call);
            }
        }

        return calls;
    }

    private static bool CheckCount(int calls, Validation errors) =>
        calls <= MaxCalls || errors.Check(false, JsonErrors.Root, $"must hold at most {MaxCalls} calls; send lines of {NdjsonType} instead");

    /// <summary>Of a conflict, says in which fields the two differ.</summary>
    private static async Task<Rejection> Explain(
        string tenantId, ReportedCall call, CallOutcome outcome, EventReader log, CancellationToken cancellation)
    {
        if (outcome.Position == 0 || (await log.ReadAt(tenantId, outcome.Position, cancellation))?.Data is not CallRecorded recorded)
        {
            return outcome.Rejection!;
        }

        var differences = call.DifferencesFrom(recorded).ToArray();
        var what = differences.Length > 0 ? string.Join(", ", differences) : "only one of the two says when it happened";
        return outcome.Rejection! with { Detail = $"{outcome.Rejection.Detail} They differ: {what}." };
    }

    /// <summary>Of a call that was found stored, the result is what was recorded the first time.</summary>
    private static async Task<IReadOnlyList<CallResult>> ResultsOf(
        string tenantId, CallOutcome[] outcomes, EventReader log, CancellationToken cancellation)
    {
        var stored = outcomes.Where(o => o.Recorded is null).Select(o => o.Position).Distinct().ToArray();
        var first = (await log.ReadAt(tenantId, stored, cancellation)).ToDictionary(e => e.Position, e => (CallRecorded)e.Data!);
        return
        [
            .. outcomes.Select(o => (Outcome: o, Call: o.Recorded ?? first[o.Position])).Select(r => new CallResult(
                r.Call.CallId, r.Outcome.Outcome == AppendOutcome.Duplicate ? CallStatus.Duplicate : CallStatus.Recorded, r.Outcome.Position,
                r.Call.Amount, r.Call.Currency, r.Call.PriceVersion, r.Call.UnpricedReason)),
        ];
    }
}
