using Ledger.EventStore;
using Ledger.Usage;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Usage;

/// <summary>Random calls, as they would be recorded, priced later and taken back; they share no code with what reads them.</summary>
internal sealed class RandomCalls(Random random)
{
    public static readonly string[] Users = ["ada", "Bob", "=1+1", "ä/ö \U0001F600"];

    public static readonly string[] Services = ["gpt-4o-mini", "Whisper", "a.b_c"];

    public static readonly string[] Currencies = ["USD", "EUR", "CREDITS"];

    private static readonly string[] s_units = ["call", "inputToken", "outputToken", "second", "Image"];
    private static readonly string[] s_reasons = ["no-price", "no-component:second", "amount-out-of-range"];

    /// <summary>Instants around which something happens to some zone's clock, and some where nothing does.</summary>
    private static readonly DateTimeOffset[] s_instants =
    [
        At("2026-03-29T01:00Z"), At("2026-10-25T01:00Z"), // Europe/Berlin
        At("2026-03-08T07:00Z"), At("2026-11-01T06:00Z"), // America/New_York
        At("2026-04-04T15:00Z"), At("2026-10-03T15:30Z"), // Australia/Lord_Howe, half an hour
        At("2011-12-30T10:00Z"), // Pacific/Apia leaves out a day
        At("2026-01-01T00:00Z"), At("2026-11-20T11:45Z"), At("2026-11-19T18:30Z"), At("2026-11-19T18:15Z"),
        At("1969-12-31T23:59Z"), At("1905-06-01T12:00Z"),
    ];

    private readonly List<Pending> _pending = [];
    private int _named;

    private sealed record Pending(CallRecorded Call, long Position)
    {
        public CallPriced? Priced { get; set; }

        public bool Voided { get; set; }
    }

    /// <summary>The next events; the callback that gets their positions must be called before more are asked for.</summary>
    public (IReadOnlyList<object> Events, Action<IReadOnlyList<long>> Stored) Next(int count)
    {
        var events = new List<object>();
        for (var i = 0; i < count; i++)
        {
            var unpriced = _pending.Where(p => p is { Voided: false, Priced: null, Call.Amount: null }).ToArray();
            var live = _pending.Where(p => !p.Voided).ToArray();
            events.Add(random.Next(10) switch
            {
                0 or 1 when unpriced.Length > 0 => Price(unpriced[random.Next(unpriced.Length)]),
                2 when live.Length > 0 => Void(live[random.Next(live.Length)]),
                _ => Record(),
            });
        }

        return (events, positions =>
        {
            _pending.AddRange(events.Zip(positions).Where(e => e.First is CallRecorded).Select(e => new Pending((CallRecorded)e.First, e.Second)));
        });
    }

    /// <summary>Stores so many events in a node's log, in transactions of random size.</summary>
    public async Task Append(TestNode node, int count)
    {
        var appender = node.Services.GetRequiredService<Appender>();
        while (count > 0)
        {
            var (events, stored) = Next(Math.Min(count, random.Next(1, 30)));
            var result = await appender.Append(new AppendRequest
            {
                TenantId = Requests.DefaultTenant,
                Appends = [.. events.Select(e => new StreamAppend(StreamOf(e), Call.StreamType, [e]))],
                Identities = [.. events.Select(e => new EventIdentity(IdOf(e), "f"))],
            });
            Assert.Equal(AppendOutcome.Appended, result.Outcome);
            stored([.. result.Events.Select(e => e.Position)]);
            count -= events.Count;
        }
    }

    /// <summary>The same as a log that stands nowhere.</summary>
    public RecordedEvent[] Log(int count)
    {
        var log = new List<RecordedEvent>();
        while (log.Count < count)
        {
            var (events, stored) = Next(Math.Min(count - log.Count, random.Next(1, 30)));
            var positions = events.Select((_, i) => (long)log.Count + i + 1).ToArray();
            log.AddRange(events.Zip(positions, (e, position) =>
                Given.Recorded(StreamOf(e), e, position, TestClock.Start.AddSeconds(position), position)));
            stored(positions);
        }

        return [.. log];
    }

    public DateTimeOffset Instant()
    {
        var centre = s_instants[random.Next(s_instants.Length)];
        return random.Next(4) switch
        {
            0 => centre.AddMinutes(15 * random.Next(-8, 9)),
            1 => centre.AddMicroseconds(random.Next(-1, 2)),
            2 => centre.AddMicroseconds(random.NextInt64(-7_200_000_000, 7_200_000_000)),
            _ => centre.AddMicroseconds(random.NextInt64(-4_000_000_000_000, 4_000_000_000_000)),
        };
    }

    private static DateTimeOffset At(string text) => DateTimeOffset.Parse(text, System.Globalization.CultureInfo.InvariantCulture);

    private static string StreamOf(object e) => e switch
    {
        CallRecorded c => Call.StreamOf(c.ServiceId, c.OccurredAt),
        CallPriced c => Call.StreamOf(c.ServiceId, c.OccurredAt),
        CallVoided c => Call.StreamOf(c.ServiceId, c.OccurredAt),
        _ => throw new ArgumentOutOfRangeException(nameof(e)),
    };

    private static Guid IdOf(object e) => e switch
    {
        CallRecorded c => Call.IdOf(Requests.DefaultTenant, c.Source, c.CallId),
        CallPriced c => Call.PricingIdOf(Requests.DefaultTenant, c.Source, c.CallId),
        CallVoided c => Call.VoidIdOf(Requests.DefaultTenant, c.Source, c.CallId),
        _ => throw new ArgumentOutOfRangeException(nameof(e)),
    };

    private CallRecorded Record()
    {
        var quantities = s_units.Where(_ => random.Next(3) == 0).Prepend("call").Distinct().ToDictionary(u => u, u => u == "call" && random.Next(5) > 0 ? 1 : Quantity());
        var priced = random.Next(3) > 0;
        return new CallRecorded(
            "gateway", $"call-{++_named}", Users[random.Next(Users.Length)], Services[random.Next(Services.Length)], Instant(),
            quantities, random.Next(2) == 0 ? null : new Dictionary<string, string> { ["team"] = "search", ["=k"] = "a;b=c" },
            priced ? Amount() : null, priced ? Currencies[random.Next(Currencies.Length)] : null, priced ? random.Next(1, 5) : null,
            priced ? null : s_reasons[random.Next(s_reasons.Length)]);
    }

    private CallPriced Price(Pending call)
    {
        var c = call.Call;
        return call.Priced = new CallPriced(
            c.Source, c.CallId, call.Position, c.UserId, c.ServiceId, c.OccurredAt, c.Quantities, Amount(), Currencies[random.Next(Currencies.Length)],
            random.Next(1, 5), c.UnpricedReason!);
    }

    private static CallVoided Void(Pending call)
    {
        var c = call.Call;
        call.Voided = true;
        return new CallVoided(
            c.Source, c.CallId, call.Position, "a mistake", c.UserId, c.ServiceId, c.OccurredAt, c.Quantities,
            call.Priced?.Amount ?? c.Amount, call.Priced?.Currency ?? c.Currency, call.Priced is null ? c.UnpricedReason : null);
    }

    /// <summary>From nothing to the largest there is, with up to 15 decimals.</summary>
    private decimal Amount() => random.Next(4) switch
    {
        0 => 0,
        1 => 999_999_999.999_999_999_999_999m,
        2 => random.Next(1, 1_000) * 0.000_000_000_000_001m,
        _ => random.Next(1, 1_000_000) / 1_000m,
    };

    private decimal Quantity() => random.Next(4) switch
    {
        0 => 0,
        1 => 999_999_999_999.999_999_999m,
        2 => random.Next(1, 1_000) * 0.000_000_001m,
        _ => random.Next(1, 100_000),
    };
}
