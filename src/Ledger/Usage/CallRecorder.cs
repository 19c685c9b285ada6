using System.Globalization;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Services;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Usage;

/// <summary>What became of a reported call: refused, or stored (now or before) at a position.</summary>
/// <param name="Rejection">Why it was refused.</param>
/// <param name="CallId">What it is known by.</param>
/// <param name="Outcome">Stored now, or found stored.</param>
/// <param name="Position">The position of the event that records it.</param>
/// <param name="Recorded">What was stored now; null for one that was found stored.</param>
public readonly record struct CallOutcome(
    Rejection? Rejection, string CallId = "", AppendOutcome Outcome = default, long Position = 0, CallRecorded? Recorded = null);

/// <summary>Prices and stores calls: each once, however often and wherever it is reported.</summary>
public sealed class CallRecorder(ServiceLoader services, Appender appender, EventReader log, LedgerClock clock)
{
    /// <summary>
    /// Decides on one call: what it costs by the price in force when it happened, or that it can't be priced.
    /// </summary>
    public static (CallRecorded? Recorded, Rejection? Rejection) Decide(
        ReportedCall call, Service service, string source, string callId, DateTimeOffset now, string path = "")
    {
        if (!service.Exists)
        {
            return (null, ServiceRejections.NotFound(service.Id));
        }

        var occurredAt = call.OccurredAt ?? now;
        if (service.RetiredAt <= occurredAt)
        {
            return (null, ServiceRejections.Retired(service.Id));
        }

        if (occurredAt > now + Call.MaxAhead)
        {
            return (null, Validation.Field($"{path}{call.Fields.OccurredAt}", $"is more than {Call.MaxAhead.TotalMinutes} minutes ahead of {Rfc3339.Format(now)}"));
        }

        var price = service.Prices.Price(call.Quantities, occurredAt);
        return (
            new CallRecorded(
                source, callId, call.UserId, call.ServiceId, occurredAt, call.Quantities, call.Tags,
                price.Amount, price.Currency, price.PriceVersion, price.UnpricedReason),
            null);
    }

    /// <summary>
    /// Stores calls side by side in their order. With <paramref name="allOrNothing"/> a refusal of one is the refusal of all
    /// (the others' outcomes then say nothing), and their places in <c>errors</c> are <c>[0]</c>, <c>[1]</c>, … when
    /// <paramref name="isList"/>. Of a stream, <paramref name="lines"/> are the calls' numbers in it: what is streamed is stored
    /// whoever still listens, and waits for room in the queue, where others are refused.
    /// </summary>
    public async Task<CallOutcome[]> Record(
        CommandContext context, IReadOnlyList<ReportedCall> calls, bool allOrNothing, bool isList, IReadOnlyList<long>? lines, CancellationToken cancellation)
    {
        for (var attempt = 0; attempt < CommandHandler.MaxAttempts; attempt++)
        {
            var chunk = await Prepare(context, calls, fresh: attempt > 0, allOrNothing, isList, lines);
            if (chunk.Request is null)
            {
                UsageMetrics.Count(chunk.Outcomes, allOrNothing);
                return chunk.Outcomes;
            }

            var result = lines is null ? await appender.Append(chunk.Request, cancellation) : (await appender.AppendMany([chunk.Request]))[0];
            if (result.Outcome == AppendOutcome.ConditionFailed)
            {
                continue; // a service or a price list has changed meanwhile
            }

            for (var i = 0; i < chunk.Places.Count; i++)
            {
                var place = chunk.Places[i];
                var (outcome, position, _) = result.Events[i];
                chunk.Outcomes[place] = outcome == AppendOutcome.KeyReused
                    ? new CallOutcome(Conflict(context, calls[place], chunk.Outcomes[place], position, isList ? $"[{place}]." : ""), Position: position)
                    : chunk.Outcomes[place] with { Outcome = outcome, Position = position, Recorded = outcome == AppendOutcome.Appended ? chunk.Outcomes[place].Recorded : null };
            }

            UsageMetrics.Count(chunk.Outcomes, allOrNothing);
            return chunk.Outcomes;
        }

        var conflict = new Rejection("version-conflict", $"A service or its prices changed {CommandHandler.MaxAttempts} times while its calls were being priced. Send them again.");
        return [.. calls.Select(_ => new CallOutcome(conflict))];
    }

    private async Task<Chunk> Prepare(CommandContext context, IReadOnlyList<ReportedCall> calls, bool fresh, bool allOrNothing, bool isList, IReadOnlyList<long>? lines)
    {
        var loaded = new Dictionary<string, Service>(StringComparer.Ordinal);
        foreach (var call in calls)
        {
            loaded.TryAdd(call.ServiceId, null!);
        }

        foreach (var service in await services.Load(context.TenantId, [.. loaded.Keys], fresh, CancellationToken.None))
        {
            loaded[service.Id] = service;
        }

        // Under a key, calls without an id are told from those of another list by how many there are.
        var ofRequest = context.IdempotencyKey is not null && lines is null ? $"/{calls.Count}" : "";
        var now = clock.GetUtcNow();
        var chunk = new Chunk(new CallOutcome[calls.Count], new List<int>(calls.Count));
        var identities = new List<EventIdentity>(calls.Count);
        var appends = new List<StreamAppend>();
        List<object>? run = null;
        var refused = false;
        for (var i = 0; i < calls.Count; i++)
        {
            var call = calls[i];
            var source = call.Source ?? context.Actor ?? Requests.Anonymous;
            var callId = call.Id ?? MadeId(context, lines?[i] ?? i);
            var identity = new EventIdentity(
                Call.IdOf(context.TenantId, source, callId), call.Id is null ? $"{call.Fingerprint()}{ofRequest}" : call.Fingerprint());
            var (recorded, rejection) = Decide(call, loaded[call.ServiceId], source, callId, now, isList ? $"[{i}]." : "");
            chunk.Outcomes[i] = new CallOutcome(rejection, callId, Recorded: recorded);
            if (recorded is null && rejection!.Code == ServiceRejections.RetiredCode && await FindEarlier(context.TenantId, identity, callId) is { } earlier)
            {
                chunk.Outcomes[i] = earlier;
                continue;
            }

            if (recorded is null)
            {
                refused = true;
                continue;
            }

            chunk.Places.Add(i);
            identities.Add(identity);
            if (run is null || !IsSameJournal((CallRecorded)run[^1], recorded))
            {
                appends.Add(new StreamAppend(Call.StreamOf(recorded.ServiceId, recorded.OccurredAt), Call.StreamType, run = []));
            }

            run.Add(recorded);
        }

        if (chunk.Places.Count == 0 || (refused && allOrNothing))
        {
            return chunk;
        }

        return chunk with
        {
            Request = new AppendRequest
            {
                TenantId = context.TenantId,
                Appends = appends,
                Identities = identities,
                AllOrNothing = allOrNothing,
                Conditions = [.. loaded.Values.Where(s => s.Exists).Select(s => new StreamCondition(Service.StreamOf(s.Id), s.Version))],
                Actor = context.Actor,
                CorrelationId = context.CorrelationId,
            },
        };
    }

    /// <summary>A repeat of a call that was recorded before its service was retired has its first outcome.</summary>
    private async Task<CallOutcome?> FindEarlier(string tenantId, EventIdentity identity, string callId) =>
        await log.FindRequest(tenantId, identity.Id) is { } stored && stored.Fingerprint == identity.Fingerprint
            ? new CallOutcome(null, callId, AppendOutcome.Duplicate, stored.FirstPosition)
            : null;

    private static bool IsSameJournal(CallRecorded one, CallRecorded other) =>
        one.ServiceId == other.ServiceId && one.OccurredAt.UtcDateTime.Date == other.OccurredAt.UtcDateTime.Date;

    /// <summary>With an idempotency key, a repeat makes the same ids.</summary>
    private static string MadeId(CommandContext context, long index) =>
        (context.IdempotencyKey is { } key
            ? EventId.From(context.TenantId, "call-of-key", key, index.ToString(CultureInfo.InvariantCulture))
            : EventId.New()).ToString();

    private static Rejection Conflict(CommandContext context, ReportedCall call, CallOutcome decided, long position, string path)
    {
        if (call.Id is null && context.IdempotencyKey is { } key)
        {
            return new Rejection("idempotency-key-reused", $"The key '{key}' was used before for other calls.");
        }

        var source = decided.Recorded!.Source;
        return Validation.Field(
            $"{path}{call.Fields.Id}",
            position == 0
                ? $"'{decided.CallId}' of the source '{source}' is there twice, with other content"
                : $"'{decided.CallId}' of the source '{source}' was recorded at position {position} with other content",
            "call-conflict");
    }

    private sealed record Chunk(CallOutcome[] Outcomes, List<int> Places)
    {
        public AppendRequest? Request { get; init; }
    }
}
