using Ledger.EventStore;
using Ledger.Usage;

namespace Ledger.Tests.Usage;

/// <summary>A call as the log tells it up to a position, told once more in the simplest way.</summary>
internal sealed record ModelCall(CallRecorded Recorded, long Position, DateTimeOffset RecordedAt)
{
    public decimal? Amount { get; init; } = Recorded.Amount;

    public string? Currency { get; init; } = Recorded.Currency;

    public int? PriceVersion { get; init; } = Recorded.PriceVersion;

    public string? UnpricedReason { get; init; } = Recorded.UnpricedReason;

    public long? PricedPosition { get; init; }

    public long? VoidedPosition { get; init; }

    public string? VoidReason { get; init; }

    public string User => Recorded.UserId;

    public string Service => Recorded.ServiceId;

    public DateTimeOffset At => Recorded.OccurredAt;

    public string Status => VoidedPosition is not null ? "voided" : Amount is null ? "unpriced" : "priced";

    /// <summary>All calls known at a position, in the order in which they were recorded.</summary>
    public static IReadOnlyList<ModelCall> Of(IEnumerable<RecordedEvent> log, long upTo = long.MaxValue)
    {
        var calls = new SortedDictionary<long, ModelCall>();
        foreach (var recorded in log.Where(e => e.Position <= upTo))
        {
            switch (recorded.Data)
            {
                case CallRecorded e:
                    calls[recorded.Position] = new ModelCall(e, recorded.Position, recorded.RecordedAt);
                    break;
                case CallPriced e:
                    calls[e.CallPosition] = calls[e.CallPosition] with
                    {
                        Amount = e.Amount, Currency = e.Currency, PriceVersion = e.PriceVersion, UnpricedReason = null, PricedPosition = recorded.Position,
                    };
                    break;
                case CallVoided e:
                    calls[e.CallPosition] = calls[e.CallPosition] with { VoidedPosition = recorded.Position, VoidReason = e.Reason };
                    break;
            }
        }

        return [.. calls.Values];
    }
}
