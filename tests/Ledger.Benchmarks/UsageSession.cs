using System.Globalization;
using System.Net.Http.Headers;
using System.Numerics;
using System.Text.Json;

namespace Ledger.Benchmarks;

/// <summary>
/// Many calls in lists over many connections, some of them sent twice, some late, some without a price; a <c>kill -9</c> of
/// service and PostgreSQL in their midst, after which everything is sent again. What they come to is known beforehand, without
/// any of the service's code, and must be what the log, the views, the totals and a rebuild say.
/// </summary>
internal sealed class UsageSession : CrashSession
{
    private const int DefaultCalls = 2_000_000;

    /// <summary>Calls of a list that no other list before it has, and those of the list before it that it has, too.</summary>
    private const int NewOfList = 95;
    private const int RepeatsOfList = 5;

    /// <summary>Every so many calls one that is late, and one that is of a unit without a price.</summary>
    private const int LateEvery = 20;
    private const int PictureEvery = 97;

    private static readonly TimeSpan Duration = TimeSpan.FromDays(3);

    private readonly int _count;
    private readonly DateTime _end;
    private readonly ServicePrice[][] _prices;
    private readonly CallList[] _lists;
    private long _before; // the position before the first call

    private UsageSession(int count, CancellationToken stopping)
        : base(stopping)
    {
        _count = count;
        _end = new DateTime(DateTime.UtcNow.Ticks / TimeSpan.TicksPerSecond * TimeSpan.TicksPerSecond, DateTimeKind.Utc);
        _prices = [.. Enumerable.Range(0, GatewayServices.Count).Select(s => PricesOf(s, _end))];
        _lists = [.. Enumerable.Range(0, (count + NewOfList - 1) / NewOfList).Select(n => new CallList(n))];
    }

    /// <summary>A list by its number, and whether it was answered.</summary>
    private sealed record CallList(int Number)
    {
        public bool Acknowledged { get; set; }
    }

    /// <summary>What a call costs, in units of 10^-<see cref="AmountDecimals"/>; without a currency it has no price.</summary>
    private readonly record struct Cost(string Currency, BigInteger Amount, string? UnpricedReason)
    {
        public const int AmountDecimals = 15;
    }

    /// <summary>Runs all steps; false when one of them failed.</summary>
    public static async Task<bool> Run(BenchOptions options)
    {
        await using var session = new UsageSession(Math.Max(2 * Connections * NewOfList, options.Events ?? DefaultCalls), options.Stopping);
        return await session.Run();
    }

    protected override async Task RunSteps()
    {
        await Step("start on an empty folder", Start);
        await Step($"register {GatewayServices.Count} services with three prices each", RegisterServices);
        await Step($"send {_count} calls in {_lists.Length} lists, kill -9 in the middle", SendAndKill);
        await Step("start again after the crash", Start);
        await Step("send everything again, also what was acknowledged", SendAgain);
        await Step("every call is there exactly once", ExpectEachCallOnce);
        var expected = TallyOfAll();
        await Step("amounts by the log and by all views are exact", () => ExpectSums(expected));
        await Step("quantities by the log and the totals are exact", () => ExpectQuantities(expected));
        await Step("calls without a price are counted exactly, by reason", () => ExpectUnpriced(expected));
        await Step("totals that are asked for are exact", () => ExpectTotals(expected));
        await Step("all views equal a rebuild, row for row", () => RebuildAll("calls", "unpriced_calls", "usage_totals", "usage_service_totals", "usage_service_sums", "users", "services"));
        await Step("amounts are exact after it", () => ExpectSums(expected));
    }

    /// <summary>Three prices of a service, not set in the order in which they come into force; one changes the currency.</summary>
    private static ServicePrice[] PricesOf(int service, DateTime end)
    {
        return [Version(2, TimeSpan.FromDays(2)), Version(1, TimeSpan.FromDays(50)), Version(3, TimeSpan.FromDays(1))];

        ServicePrice Version(int number, TimeSpan ago)
        {
            List<PricePart> parts =
            [
                new("inputToken", 15 + service + (7 * number), 2, 1_000_000),
                new("outputToken", 61 + (3 * service) + (11 * number), 2, 1_000_000),
                new("audioSecond", 100 + number, 6, 1),
            ];
            if (service % 3 == 0)
            {
                parts.Add(new PricePart("call", 5 + number, 3, 8));
            }

            return new ServicePrice(end - ago, service == 7 && number == 3 ? "CREDITS" : service % 2 == 0 ? "USD" : "EUR", [.. parts]);
        }
    }

    /// <summary>The call of a number; all of it follows from that.</summary>
    private GatewayCall CallOf(int number)
    {
        var bits = UserIds.Scatter(number + (1L << 50));
        var ago = bits % LateEvery == 0
            ? TimeSpan.FromDays(3) + TimeSpan.FromSeconds((bits >> 16) % (57 * 86_400))
            : TimeSpan.FromMilliseconds((long)(Duration.TotalMilliseconds * (_count - number) / _count));
        var call = GatewayCall.Of(number, _end - ago) with { Id = $"call-{number}", Images = number % PictureEvery == 0 ? 1 : 0 };
        return call with { AudioMilliseconds = call.Service % 4 == 0 ? 1 + (long)((bits >> 40) % 60_000) : 0 };
    }

    /// <summary>The numbers of a list's calls: its own, and some of the list before it, which is most likely under way at the same time; the first repeats its own.</summary>
    private IEnumerable<int> NumbersOf(CallList list)
    {
        var first = list.Number * NewOfList;
        return Enumerable.Range(0, RepeatsOfList).Select(r => first + (r * (NewOfList / RepeatsOfList)) - (list.Number == 0 ? 0 : NewOfList))
            .Concat(Enumerable.Range(first, Math.Min(NewOfList, _count - first)));
    }

    private Cost CostOf(GatewayCall call)
    {
        if (_prices[call.Service].Where(p => p.From <= call.OccurredAt).MaxBy(p => p.From) is not { } price)
        {
            return new Cost("", 0, "no-price");
        }

        if (call.Images > 0)
        {
            return new Cost("", 0, "no-component:image");
        }

        var amount = BigInteger.Zero;
        foreach (var part in price.Parts)
        {
            var thousandths = QuantitiesOf(call).Where(q => q.Unit == part.Unit).Sum(q => q.Thousandths);
            amount += BigInteger.DivRem(
                thousandths * part.Digits * BigInteger.Pow(10, Cost.AmountDecimals), 1_000 * BigInteger.Pow(10, part.Decimals) * part.Per, out var rest);
            Expect(rest.IsZero, $"{call} costs more decimals than were thought of.");
        }

        return new Cost(price.Currency, amount, null);
    }

    private static IEnumerable<(string Unit, long Thousandths)> QuantitiesOf(GatewayCall call) =>
        ((string Unit, long Thousandths)[])
        [
            ("call", 1_000), ("inputToken", call.InputTokens * 1_000), ("outputToken", call.OutputTokens * 1_000),
            .. call.AudioMilliseconds == 0 ? [] : ((string, long)[])[("audioSecond", call.AudioMilliseconds)],
            .. call.Images == 0 ? [] : ((string, long)[])[("image", call.Images * 1_000)],
        ];

    private async Task RegisterServices() => await GatewayServices.Register(
        async (path, body) => _before = await Send(HttpMethod.Post, path, body), service => _prices[service]);

    private async Task SendAndKill()
    {
        var acknowledged = await SendAndKill(_lists, SendList);
        Console.WriteLine($"      {acknowledged} lists were acknowledged");
    }

    /// <summary>Of a list that was acknowledged nothing may be new; all others bring what is not there yet.</summary>
    private async Task SendAgain()
    {
        var acknowledged = _lists.Where(l => l.Acknowledged).ToHashSet();
        var told = acknowledged.SelectMany(NumbersOf).Distinct().Count();
        var stored = await Database.Scalar<long>("select count(*) from mt_events where type = 'call_recorded'");
        Console.WriteLine($"      {told} calls were acknowledged and {stored} are stored; of {_count}");
        var accepted = await OverConnections(_lists, async (connection, list) =>
        {
            var accepted = await SendList(connection, list);
            Expect(accepted == 0 || !acknowledged.Contains(list), $"Of list {list.Number}, which was acknowledged, {accepted} calls are new.");
            return (long)accepted;
        });
        Expect(accepted.Sum() == _count - stored, $"{accepted.Sum()} calls were new, but {_count - stored} were missing.");
    }

    /// <summary>Sends a list; every call in it must be answered with what it costs. Returns how many were new.</summary>
    private async Task<int> SendList(HttpConnection connection, CallList list)
    {
        GatewayCall[] calls = [.. NumbersOf(list).Select(CallOf)];
        var answer = await connection.Send(HttpConnection.Request("POST", "/v1/usage", GatewayCall.Json(calls)));
        Expect(answer.Status == 200 && answer.Position > 0, $"List {list.Number}: {answer.Status} {answer.Text}");
        using var json = JsonDocument.Parse(answer.Body);
        var (accepted, duplicates) = (json.RootElement.GetProperty("accepted").GetInt32(), json.RootElement.GetProperty("duplicates").GetInt32());
        var results = json.RootElement.GetProperty("results");
        Expect(accepted + duplicates == calls.Length && results.GetArrayLength() == calls.Length, $"List {list.Number} of {calls.Length} calls does not balance: {answer.Text}");
        foreach (var (call, result) in calls.Zip(results.EnumerateArray()))
        {
            var cost = CostOf(call);
            var (currency, amount) = (result.GetProperty("currency").GetString() ?? "", result.GetProperty("amount").GetString());
            Expect(
                result.GetProperty("id").GetString() == call.Id && currency == cost.Currency
                && amount == (cost.Currency.Length == 0 ? null : Fixed.Text(cost.Amount, Cost.AmountDecimals)),
                $"{call} costs {cost}, and was answered with {result}");
        }

        list.Acknowledged = true;
        return accepted;
    }

    private async Task ExpectEachCallOnce()
    {
        var found = await Database.Scalar<string>(
            """
            select format('%s calls, %s different ones from call-%s to call-%s, and %s events up to position %s',
              count(*), count(distinct n), min(n), max(n), (select count(*) from mt_events), (select max(seq_id) from mt_events))
            from (select substring(data ->> 'callId' from '^call-(\d+)$')::int n from mt_events where type = 'call_recorded' and data ->> 'source' = 'SOURCE') c
            """.Replace("SOURCE", GatewayCall.Source, StringComparison.Ordinal));
        var events = _before + _count;
        Expect(
            found == $"{_count} calls, {_count} different ones from call-0 to call-{_count - 1}, and {events} events up to position {events}",
            $"There are {found}.");
    }

    /// <summary>What all calls come to.</summary>
    private Tally TallyOfAll()
    {
        var expected = new Tally();
        for (var number = 0; number < _count; number++)
        {
            var call = CallOf(number);
            var service = GatewayServices.IdOf(call.Service);
            var cost = CostOf(call);
            expected.Add(service, cost.Currency, 1, cost.Amount);
            if (cost.UnpricedReason is { } reason)
            {
                expected.Unpriced[(service, reason)] = expected.Unpriced.GetValueOrDefault((service, reason)) + 1;
            }

            foreach (var (unit, thousandths) in QuantitiesOf(call))
            {
                expected.Quantities[(service, unit)] = expected.Quantities.GetValueOrDefault((service, unit)) + thousandths;
            }
        }

        return expected;
    }

    private async Task ExpectSums(Tally expected)
    {
        await WaitForViews();
        await UsageSums.ExpectSame(Database, expected.Lines);
        foreach (var (currency, sum) in expected.Sums.GroupBy(s => s.Key.Currency, s => s.Value.Amount).OrderBy(g => g.Key, StringComparer.Ordinal).Select(g => (g.Key, g.Aggregate(BigInteger.Add))))
        {
            Console.WriteLine(currency.Length == 0 ? $"      {expected.Unpriced.Values.Sum()} calls without a price" : $"      {Fixed.Text(sum, Cost.AmountDecimals)} {currency}");
        }
    }

    private async Task ExpectQuantities(Tally expected)
    {
        string[] lines = [.. expected.Quantities.Select(q => $"{q.Key.Service} {q.Key.Unit} {Fixed.Text(q.Value, 3)}")];
        foreach (var (name, rows) in new[]
        {
            ("the log", "select data ->> 'serviceId', q.key, q.value::numeric from mt_events cross join lateral jsonb_each_text(data -> 'quantities') q where type = 'call_recorded'"),
            ("usage_totals", "select service_id, unit, quantity from usage_totals cross join lateral unnest(string_to_array(units, ','), quantities) q (unit, quantity)"),
            ("usage_service_totals", "select service_id, unit, quantity from usage_service_totals cross join lateral unnest(string_to_array(units, ','), quantities) q (unit, quantity)"),
        })
        {
            UsageSums.ExpectSame(name, lines, await UsageSums.Lines(
                Database, $"select format('%s %s %s', service, unit, trim_scale(sum(quantity))) from ({rows}) x (service, unit, quantity) group by service, unit"));
        }
    }

    private async Task ExpectUnpriced(Tally expected)
    {
        string[] lines = [.. expected.Unpriced.Select(u => $"{u.Key.Service} {u.Key.Reason} {u.Value}")];
        foreach (var (name, rows) in new[]
        {
            ("the log", "select data ->> 'serviceId', data ->> 'unpricedReason', 1 from mt_events where type = 'call_recorded' and data ->> 'amount' is null"),
            ("calls", "select service_id, unpriced_reason, 1 from calls where status = 'unpriced'"),
            ("unpriced_calls", "select service_id, reason, calls from unpriced_calls"),
        })
        {
            UsageSums.ExpectSame(name, lines, await UsageSums.Lines(
                Database, $"select format('%s %s %s', service, reason, sum(calls)) from ({rows}) x (service, reason, calls) group by service, reason"));
        }
    }

    /// <summary>Groups of every kind, added up here, come to the same as the calls; so does the total that an answer names.</summary>
    private async Task ExpectTotals(Tally expected)
    {
        foreach (var groups in new[] { "service,currency", "service,currency,day", "user,service,currency" })
        {
            var answered = new Tally();
            using var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/usage/totals?groupBy={groups}");
            request.Headers.Accept.Add(new MediaTypeWithQualityHeaderValue("application/x-ndjson"));
            using var response = await Http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
            Expect(response.IsSuccessStatusCode, $"Totals by {groups}: {(int)response.StatusCode}");
            using var lines = new StreamReader(await response.Content.ReadAsStreamAsync());
            var items = 0;
            for (; await lines.ReadLineAsync() is { } line; items++)
            {
                using var item = JsonDocument.Parse(line);
                Add(answered, item.RootElement.GetProperty("service").GetString()!, item.RootElement);
            }

            Console.WriteLine($"      {items} totals by {groups}");
            UsageSums.ExpectSame($"GET {request.RequestUri}", expected.Lines, answered.Lines);
        }

        using var all = JsonDocument.Parse(await Http.GetStringAsync("/v1/usage/totals?groupBy=service&limit=1"));
        var total = all.RootElement.GetProperty("total");
        Expect(
            total.GetProperty("calls").GetInt64() == _count && total.GetProperty("unpricedCalls").GetInt64() == expected.Unpriced.Values.Sum(),
            $"The total of all is {total}");
        UsageSums.ExpectSame(
            "The total of all",
            [.. expected.Sums.Where(s => s.Key.Currency.Length > 0).GroupBy(s => s.Key.Currency, s => s.Value.Amount).Select(g => $"{g.Key} {Fixed.Text(g.Aggregate(BigInteger.Add), Cost.AmountDecimals)}")],
            [.. total.GetProperty("amounts").EnumerateObject().Select(a => $"{a.Name} {a.Value.GetString()}")]);

        static void Add(Tally sums, string service, JsonElement item)
        {
            var currency = item.GetProperty("currency").GetString() ?? "";
            var amounts = item.GetProperty("amounts").EnumerateObject().ToArray();
            var calls = item.GetProperty("calls").GetInt64();
            Expect(
                currency.Length == 0 ? amounts.Length == 0 && item.GetProperty("unpricedCalls").GetInt64() == calls
                    : amounts is [var one] && one.Name == currency && item.GetProperty("unpricedCalls").GetInt64() == 0,
                $"This is not of one currency: {item}");
            sums.Add(service, currency, calls, currency.Length == 0 ? 0 : Fixed.Parse(amounts[0].Value.GetString()!, Cost.AmountDecimals));
        }
    }

    /// <summary>Sums by service and currency, reason or unit. Amounts have <see cref="Cost.AmountDecimals"/> decimals, quantities three.</summary>
    private sealed class Tally
    {
        public Dictionary<(string Service, string Currency), (long Calls, BigInteger Amount)> Sums { get; } = [];

        public Dictionary<(string Service, string Reason), long> Unpriced { get; } = [];

        public Dictionary<(string Service, string Unit), BigInteger> Quantities { get; } = [];

        public string[] Lines => [.. Sums.Select(s => UsageSums.Line(s.Key.Service, s.Key.Currency, s.Value.Calls, Fixed.Text(s.Value.Amount, Cost.AmountDecimals)))];

        public void Add(string service, string currency, long calls, BigInteger amount)
        {
            var sum = Sums.GetValueOrDefault((service, currency));
            Sums[(service, currency)] = (sum.Calls + calls, sum.Amount + amount);
        }
    }
}
