using Ledger.EventStore;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Campaigns;

/// <summary>An event that tells what became of a message that was taken.</summary>
internal sealed record AttemptOutcome(TakenMessage Message, object Event);

/// <summary>
/// Records what became of attempts. The id of such an event is made of the message and the attempt, so there is one of each
/// attempt, whoever is first: the worker, or whoever took the worker for dead.
/// </summary>
public sealed class OutcomeRecorder(Appender appender, LedgerClock clock)
{
    /// <summary>Outcomes recorded in one request.</summary>
    public const int MaxAtOnce = 500;

    /// <summary>The actor of what is recorded of messages.</summary>
    public const string Actor = "ledger-campaigns";

    /// <summary>Records outcomes; returns where each stands, or where the one stands that was recorded of the same attempt before, and whether it is the own one.</summary>
    internal async Task<IReadOnlyList<(AttemptOutcome Outcome, long Position, bool IsOwn)>> Record(IReadOnlyList<AttemptOutcome> outcomes, CancellationToken cancellation)
    {
        var now = clock.GetUtcNow();
        var recorded = new List<(AttemptOutcome, long, bool)>(outcomes.Count);
        foreach (var tenant in outcomes.GroupBy(o => o.Message.TenantId))
        {
            var groups = tenant.GroupBy(o => o.Message.CampaignId).ToArray();
            var ordered = groups.SelectMany(g => g).ToArray();
            var result = await appender.Append(
                new AppendRequest
                {
                    TenantId = tenant.Key,
                    Appends = [.. groups.Select(g => new StreamAppend(Message.StreamOf(g.Key, now), Message.StreamType, [.. g.Select(o => o.Event)]))],
                    Identities =
                    [
                        .. ordered.Select(o => new EventIdentity(
                            Message.OutcomeId(o.Message.TenantId, o.Message.Id, o.Message.Attempt), EventTypes.MartenAlias(o.Event.GetType()))),
                    ],
                    Actor = Actor,
                },
                cancellation);
            for (var i = 0; i < ordered.Length; i++)
            {
                recorded.Add((ordered[i], result.Events[i].Position, result.Events[i].Outcome == AppendOutcome.Appended));
            }
        }

        return recorded;
    }
}
