using System.Globalization;
using System.Net;
using System.Numerics;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Usage;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Usage;

public sealed class Usage_totals(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static readonly string[] s_zones =
        ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia", "America/St_Johns"];

    private static readonly string[] s_groups = ["user", "service", "currency"];
    private static readonly string[] s_units = ["hour", "day", "month"];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Are_those_of_the_model_by_every_group_in_every_zone_now_and_as_known_before()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var events = new RandomCalls(random);
        for (var round = 0; round < (LongTests.Wanted ? 20 : 2); round++)
        {
            await events.Append(node, 400);
            await node.CatchUp();
            var log = await node.Log();
            for (var i = 0; i < 250; i++)
            {
                await Check(Question.Of(random, events, log));
            }
        }

        foreach (var view in (string[])["Calls", "UsageTotals", "Users"])
        {
            var live = await node.Rows(view);
            await node.Rebuild(view);
            Assert.Equal(live, await node.Rows(view));
        }

        Assert.Empty(node.Errors);
    }

    private async Task Check(Question question)
    {
        var expected = question.Answer();
        var items = new List<Group>();
        string? cursor = null;
        var pages = 0;
        do
        {
            var query = $"/v1/usage/totals?{question.Query}&limit={question.Limit}{(cursor is null ? "" : $"&cursor={cursor}")}";
            var page = await node.Get(query);
            Assert.True(page.Status == HttpStatusCode.OK, $"{query}\n{page.Text}\n{string.Join('\n', node.Errors)}");
            items.AddRange(page.Items.Select(i => Group.Read(question, i)));
            var total = Group.Read(question, page.Json.GetProperty("total"));
            Assert.True($"{expected.Total.Numbers}" == $"{total.Numbers}", $"total of {query}\nExpected:\n{expected.Total.Numbers}\nActual:\n{total.Numbers}");
            cursor = page.Json.GetProperty("nextCursor").GetString();
            pages++;
        }
        while (cursor is not null);

        var (e, a) = (string.Join('\n', expected.Items), string.Join('\n', items));
        Assert.True(e == a, $"{question.Query} in {pages} pages (seed {LongTests.Seed})\nExpected:\n{e}\nActual:\n{a}");
        Assert.Equal(expected.Total.Numbers.Calls, items.Sum(i => i.Numbers.Calls));
    }

    /// <summary>Sums as whole numbers: amounts in units of 10^-15, quantities of 10^-9.</summary>
    private sealed record Numbers(long Calls, long Unpriced, SortedDictionary<string, BigInteger> Quantities, SortedDictionary<string, BigInteger> Amounts)
    {
        public BigInteger Amount => Amounts.Values.Aggregate(BigInteger.Zero, (a, b) => a + b);

        public static Numbers Of(IEnumerable<ModelCall> calls)
        {
            var numbers = new Numbers(0, 0, new(StringComparer.Ordinal), new(StringComparer.Ordinal));
            foreach (var call in calls)
            {
                numbers = numbers with { Calls = numbers.Calls + 1, Unpriced = numbers.Unpriced + (call.Amount is null ? 1 : 0) };
                foreach (var (unit, quantity) in call.Recorded.Quantities)
                {
                    numbers.Quantities[unit] = numbers.Quantities.GetValueOrDefault(unit) + new BigInteger(quantity * 1_000_000_000m);
                }

                if (call.Amount is { } amount)
                {
                    numbers.Amounts[call.Currency!] = numbers.Amounts.GetValueOrDefault(call.Currency!) + new BigInteger(amount * 1_000_000_000_000_000m);
                }
            }

            return numbers;
        }

        public override string ToString() =>
            $"{Calls} calls, {Unpriced} unpriced, {string.Join(' ', Quantities.Select(q => $"{q.Key}={Text(q.Value, 9)}"))}, {string.Join(' ', Amounts.Select(a => $"{a.Key}={Text(a.Value, 15)}"))}";

        public static string Text(BigInteger value, int decimals)
        {
            var digits = value.ToString(CultureInfo.InvariantCulture).PadLeft(decimals + 1, '0');
            var fraction = digits[^decimals..].TrimEnd('0');
            return fraction.Length > 0 ? $"{digits[..^decimals]}.{fraction}" : digits[..^decimals];
        }
    }

    private sealed record Group(string Key, Numbers Numbers)
    {
        public override string ToString() => $"{Key}: {Numbers}";

        /// <summary>Reads an item; its fields must be those of the groups asked for, and its numbers plain and trimmed.</summary>
        public static Group Read(Question question, JsonElement item)
        {
            var numbers = new Numbers(
                item.GetProperty("calls").GetInt64(), item.GetProperty("unpricedCalls").GetInt64(), Sums(item.GetProperty("quantities"), 9), Sums(item.GetProperty("amounts"), 15));
            string[] fields = [.. item.EnumerateObject().Select(p => p.Name)];
            if (!fields.Contains("user") && !fields.Contains("service") && !fields.Contains("start") && !fields.Contains("currency"))
            {
                return new Group("", numbers);
            }

            return new Group(string.Join('|', question.Groups.Select(g => g is "user" or "service" or "currency" ? item.GetProperty(g).GetString() : question.Interval(item))), numbers);
        }

        private static SortedDictionary<string, BigInteger> Sums(JsonElement sums, int decimals) => new(
            sums.EnumerateObject().ToDictionary(s => s.Name, s =>
            {
                var text = s.Value.GetString()!;
                var point = text.IndexOf('.', StringComparison.Ordinal);
                var value = BigInteger.Parse(text.Replace(".", "", StringComparison.Ordinal), CultureInfo.InvariantCulture) * BigInteger.Pow(10, decimals - (point < 0 ? 0 : text.Length - point - 1));
                Assert.Equal(Numbers.Text(value, decimals), text);
                return value;
            }), StringComparer.Ordinal);
    }

    /// <summary>A question, and its answer by looking at every call.</summary>
    private sealed record Question(IReadOnlyList<ModelCall> Known, string[] Groups, string Query, int Limit)
    {
        public string? User { get; init; }

        public string? Service { get; init; }

        public string? Currency { get; init; }

        public DateTimeOffset? From { get; init; }

        public DateTimeOffset? To { get; init; }

        public TimeZoneInfo Zone { get; init; } = TimeZoneInfo.Utc;

        public string? Sort { get; init; }

        public bool Descending { get; init; }

        public static Question Of(Random random, RandomCalls events, IReadOnlyList<RecordedEvent> log)
        {
            var position = random.Next(4) == 0 ? random.Next(1, log.Count + 1) : (long?)null;
            var groups = s_groups.Where(_ => random.Next(2) == 0).ToList();
            var unit = random.Next(3) > 0 ? s_units[random.Next(3)] : null;
            var asInterval = unit is not null && random.Next(3) == 0;
            if (unit is not null)
            {
                groups.Add(unit);
            }

            var shuffled = groups.ToArray();
            if (!asInterval)
            {
                random.Shuffle(shuffled);
            }

            var zone = random.Next(5) == 0 ? null : s_zones[random.Next(s_zones.Length)];
            var (from, to) = ((DateTimeOffset?)events.Instant(), (DateTimeOffset?)events.Instant());
            (from, to) = from <= to ? (from, to) : (to, from);
            to = unit switch
            {
                "hour" when to - from > TimeSpan.FromDays(400) => from + TimeSpan.FromDays(random.Next(1, 400)),
                "day" when to - from > TimeSpan.FromDays(9_000) => from + TimeSpan.FromDays(random.Next(1, 9_000)),
                _ => to,
            };
            from = unit is null or "month" && random.Next(3) == 0 ? null : from;
            to = unit is null or "month" && random.Next(3) == 0 ? null : to;
            var question = new Question(ModelCall.Of(log, position ?? long.MaxValue), shuffled, "", random.Next(4) == 0 ? random.Next(1, 10) : 1_000)
            {
                User = random.Next(3) == 0 ? RandomCalls.Users[random.Next(RandomCalls.Users.Length)] : null,
                Service = random.Next(3) == 0 ? RandomCalls.Services[random.Next(RandomCalls.Services.Length)] : null,
                Currency = random.Next(4) == 0 ? RandomCalls.Currencies[random.Next(RandomCalls.Currencies.Length)] : null,
                From = from, To = to, Zone = zone is null ? TimeZoneInfo.Utc : TimeZoneInfo.FindSystemTimeZoneById(zone),
                Sort = random.Next(3) switch { 0 => "amount", 1 => "calls", _ => null },
            };
            var order = random.Next(3) switch { 0 => "asc", 1 => "desc", _ => null };
            question = question with { Descending = order is null ? question.Sort is not null : order == "desc" };
            var named = asInterval ? shuffled[..^1] : shuffled;
            (string, string?)[] parameters =
            [
                ("groupBy", named.Length > 0 ? string.Join(',', named) : null),
                ("interval", asInterval ? unit switch { "hour" => "PT1H", "day" => "P1D", _ => "P1M" } : null),
                ("from", Time(from)), ("to", Time(to)), ("user", question.User), ("service", question.Service), ("currency", question.Currency),
                ("timeZone", zone), ("sort", question.Sort), ("order", order), ("position", position?.ToString(CultureInfo.InvariantCulture)),
            ];
            return question with { Query = string.Join('&', parameters.Where(p => p.Item2 is not null).Select(p => $"{p.Item1}={Uri.EscapeDataString(p.Item2!)}")) };
        }

        public (IReadOnlyList<Group> Items, Group Total) Answer()
        {
            var calls = Known.Where(c => c.Status != "voided" && (User is null || c.User == User) && (Service is null || c.Service == Service)
                && (Currency is null || c.Currency == Currency) && (From is null || c.At >= From) && (To is null || c.At < To)).ToArray();
            var total = new Group("", Numbers.Of(calls));
            if (Groups.Length == 0)
            {
                return ([total], total);
            }

            var items = calls.GroupBy(c => string.Join('|', Groups.Select(g => g switch
            {
                "user" => c.User,
                "service" => c.Service,
                "currency" => c.Amount is null ? "" : c.Currency,
                _ => Interval(c.At, g),
            }))).Select(g => new Group(g.Key, Numbers.Of(g)));
            // The separator sorts below everything that ids are made of here, as the end of a text does.
            var byKey = Comparer<Group>.Create((a, b) => Compare(a.Key.Split('|'), b.Key.Split('|')));
            var sorted = Sort switch
            {
                "calls" => Descending ? items.OrderByDescending(i => i.Numbers.Calls).ThenBy(i => i, byKey) : items.OrderBy(i => i.Numbers.Calls).ThenBy(i => i, byKey),
                "amount" => Descending ? items.OrderByDescending(i => i.Numbers.Amount).ThenBy(i => i, byKey) : items.OrderBy(i => i.Numbers.Amount).ThenBy(i => i, byKey),
                _ => Descending ? items.OrderByDescending(i => i, byKey) : items.OrderBy(i => i, byKey),
            };
            return ([.. sorted], total);
        }

        private static int Compare(string[] a, string[] b) => a.Zip(b, string.CompareOrdinal).FirstOrDefault(c => c != 0);

        /// <summary>The name of the hour, day or month of an instant: what the zone's clock and calendar show.</summary>
        private string Interval(DateTimeOffset at, string unit)
        {
            var offset = Zone.GetUtcOffset(at);
            var local = (at + offset).UtcDateTime;
            switch (unit)
            {
                case "month":
                    return $"{local:yyyy-MM}";
                case "day":
                    // Where a clock is set back over midnight, the day that had begun goes on.
                    var later = Enumerable.Range(1, 180).Select(m => at.AddMinutes(-m)).Max(t => (t + Zone.GetUtcOffset(t)).UtcDateTime);
                    return $"{(later.Date > local.Date ? later : local):yyyy-MM-dd}";
                default:
                    var start = new DateTimeOffset(local.Ticks - (local.Ticks % TimeSpan.TicksPerHour) - offset.Ticks, TimeSpan.Zero);
                    while (Zone.GetUtcOffset(start) != offset)
                    {
                        // The first instant of the offset, which lies between the two.
                        var (before, after) = (start.UtcTicks, at.UtcTicks);
                        while (after - before > 1)
                        {
                            var middle = (before + after) / 2;
                            (before, after) = Zone.GetUtcOffset(new DateTimeOffset(middle, TimeSpan.Zero)) == offset ? (before, middle) : (middle, after);
                        }

                        start = new DateTimeOffset(after, TimeSpan.Zero);
                    }

                    return $"{start:O}";
            }
        }

        /// <summary>The same of an item, whose bounds are checked to be the first and last instants of it.</summary>
        public string Interval(JsonElement item)
        {
            var unit = Groups.Single(s_units.Contains);
            var (start, end) = (item.GetProperty("start").GetDateTimeOffset(), item.GetProperty("end").GetDateTimeOffset());
            var name = Interval(start, unit);
            Assert.Equal(name, Interval(end.AddTicks(-10), unit));
            Assert.NotEqual(name, Interval(start.AddTicks(-10), unit));
            Assert.NotEqual(name, Interval(end, unit));
            return name;
        }
    }

    private static string? Time(DateTimeOffset? time) => time is { } t ? Rfc3339.Format(t) : null;
}
