using System.Text.Json.Serialization;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Usage;

/// <summary>A call that was taken back: what it counted until then, why and at which position that ended.</summary>
public sealed record VoidedCall(
    string Source, string Id, string Status, string Reason, long Position, string UserId, string ServiceId, DateTimeOffset OccurredAt,
    IReadOnlyDictionary<string, decimal> Quantities, decimal? Amount, string? Currency,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? UnpricedReason);

/// <summary>Takes a call back: totals follow, and both stay in the history. Its id stays taken.</summary>
public sealed record VoidCall(string Reason)
{
    /// <summary>Characters of a reason.</summary>
    public const int MaxReasonLength = 1_000;

    /// <summary>Decides on what was recorded of the call: it is taken back with what it counts by now.</summary>
    public CallVoided Decide(CallRecorded recorded, long position, CallPriced? priced) => new(
        recorded.Source, recorded.CallId, position, Reason, recorded.UserId, recorded.ServiceId, recorded.OccurredAt, recorded.Quantities,
        priced?.Amount ?? recorded.Amount, priced?.Currency ?? recorded.Currency, priced is null ? recorded.UnpricedReason : null);

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/usage/calls/{source}/{id}/void", Handle)
        .Requires(Scopes.UsageWrite).WithName(nameof(VoidCall)).WithTags("Usage").WithSummary("Take a call back; doing it again changes nothing")
        .Produces<VoidedCall>().ProducesCommandProblems(404);

    private static async Task<IResult> Handle(
        string source, string id, VoidCall body, HttpContext http, Appender appender, EventReader log, CancellationToken cancellation)
    {
        var (result, voided) = await body.Run(source, id, http.Command(body), appender, log, cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.Ok(voided);
    }

    /// <summary>Runs it, whichever way it came: what became of it, and the call unless it was refused.</summary>
    internal async Task<(CommandResult Result, VoidedCall? Voided)> Run(
        string source, string id, CommandContext context, Appender appender, EventReader log, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.Check(TextId.IsValid(source, Call.MaxIdCharacters), "source", Call.IdRule);
        errors.Check(TextId.IsValid(id, Call.MaxIdCharacters), "id", Call.IdRule);
        errors.Check(Reason.Length is > 0 and <= MaxReasonLength, "reason", $"must have 1 to {MaxReasonLength} characters");
        if (errors.Rejection is { } invalid)
        {
            return (new CommandResult { Rejection = invalid }, null);
        }

        var (callId, pricingId, voidId) = (
            Call.IdOf(context.TenantId, source, id), Call.PricingIdOf(context.TenantId, source, id), Call.VoidIdOf(context.TenantId, source, id));
        for (var attempt = 0; attempt < CommandHandler.MaxAttempts; attempt++)
        {
            var stored = (await log.ReadIds(context.TenantId, [callId, pricingId, voidId], cancellation)).ToDictionary(e => e.Id);
            if (!stored.TryGetValue(callId, out var call))
            {
                return (new CommandResult { Rejection = new Rejection("call-not-found", $"There is no call '{id}' of the source '{source}'.") }, null);
            }

            if (stored.TryGetValue(voidId, out var earlier))
            {
                return Answer((CallVoided)earlier.Data!, earlier.Position, isReplayed: true);
            }

            var recorded = (CallRecorded)call.Data!;
            var priced = stored.GetValueOrDefault(pricingId)?.Data as CallPriced;
            var voided = Decide(recorded, call.Position, priced);
            var result = await appender.Append(
                new AppendRequest
                {
                    TenantId = context.TenantId,
                    Appends = [new StreamAppend(call.StreamId, Call.StreamType, [voided])],
                    Identities = [new EventIdentity(voidId, "void")],
                    Absent = voided.Amount is null ? [pricingId] : [], // it may be priced just now
                    Actor = context.Actor,
                    CorrelationId = context.CorrelationId,
                },
                cancellation);
            if (result.Outcome == AppendOutcome.Appended)
            {
                return Answer(voided, result.LastPosition, isReplayed: false);
            }
        }

        var conflict = new Rejection("version-conflict", $"The call changed {CommandHandler.MaxAttempts} times while it was being taken back. Send it again.");
        return (new CommandResult { Rejection = conflict }, null);
    }

    private static (CommandResult Result, VoidedCall Voided) Answer(CallVoided voided, long position, bool isReplayed) => (
        new CommandResult { Position = position, Replayed = isReplayed },
        new VoidedCall(
            voided.Source, voided.CallId, "voided", voided.Reason, position, voided.UserId, voided.ServiceId, voided.OccurredAt,
            voided.Quantities, voided.Amount, voided.Currency, voided.UnpricedReason));
}
