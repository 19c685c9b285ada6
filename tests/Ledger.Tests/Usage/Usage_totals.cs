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

    private static readonly string[] s_tables = ["usage_service_totals", "usage_service_sums", "usage_totals"];
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

        await AreMadeOfQuartersByTheMigration();
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Have_the_fields_of_the_groups_asked_for()
    {
        await using var own = await WithThreeCalls();

        Assert.Equal(
            """{"items":[{"calls":3,"quantities":{"call":"3","inputToken":"1200.5"},"amounts":{"EUR":"2","USD":"0.5"},"unpricedCalls":1}],"total":{"calls":3,"quantities":{"call":"3","inputToken":"1200.5"},"amounts":{"EUR":"2","USD":"0.5"},"unpricedCalls":1},"nextCursor":null}""",
            (await own.Get("/v1/usage/totals")).Is(HttpStatusCode.OK).Text);
        Assert.Equal(
            """{"items":[{"currency":null,"calls":1,"quantities":{"call":"1"},"amounts":{},"unpricedCalls":1},{"currency":"EUR","calls":1,"quantities":{"call":"1"},"amounts":{"EUR":"2"},"unpricedCalls":0},{"currency":"USD","calls":1,"quantities":{"call":"1","inputToken":"1200.5"},"amounts":{"USD":"0.5"},"unpricedCalls":0}],"total":{"calls":3,"quantities":{"call":"3","inputToken":"1200.5"},"amounts":{"EUR":"2","USD":"0.5"},"unpricedCalls":1},"nextCursor":null}""",
            (await own.Get("/v1/usage/totals?groupBy=currency")).Is(HttpStatusCode.OK).Text);
        Assert.Equal(
            """{"user":"u","service":"m","start":"2026-11-19T23:00:00Z","end":"2026-11-20T23:00:00Z","calls":3,"quantities":{"call":"3","inputToken":"1200.5"},"amounts":{"EUR":"2","USD":"0.5"},"unpricedCalls":1}""" + "\n",
            (await own.Get("/v1/usage/totals?groupBy=user,service,day&timeZone=Europe/Berlin", ("Accept", "application/x-ndjson"))).Is(HttpStatusCode.OK).Text);
    }

    [Fact]
    public async Task Come_as_a_table_whose_rows_add_up()
    {
        await using var own = await WithThreeCalls();

        Assert.Equal(
            """
            user,service,start,end,currency,calls,unpricedCalls,amount,quantities
            u,,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,,1,1,,call=1
            u,,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,EUR,1,0,2,call=1
            u,,2026-11-01T00:00:00Z,2026-12-01T00:00:00Z,USD,1,0,0.5,call=1;inputToken=1200.5

            """.ReplaceLineEndings("\r\n"),
            (await own.Get("/v1/usage/totals?groupBy=user&interval=P1M", ("Accept", "text/csv"))).Is(HttpStatusCode.OK).Text);
    }

    [Fact]
    public async Task Of_nothing_are_nothing()
    {
        await using var own = await node.StartAnew();
        const string Zero = """{"calls":0,"quantities":{},"amounts":{},"unpricedCalls":0}""";

        Assert.Equal($$"""{"items":[{{Zero}}],"total":{{Zero}},"nextCursor":null}""", (await own.Get("/v1/usage/totals")).Is(HttpStatusCode.OK).Text);
        Assert.Equal($$"""{"items":[],"total":{{Zero}},"nextCursor":null}""", (await own.Get("/v1/usage/totals?groupBy=user,day")).Is(HttpStatusCode.OK).Text);
        Assert.Equal(
            $$"""{"items":[],"total":{{Zero}},"nextCursor":null}""",
            (await own.Get("/v1/usage/totals?groupBy=hour&from=2026-11-20T12:00:00Z&to=2026-11-20T12:00:00Z")).Is(HttpStatusCode.OK).Text);
    }

    [Fact]
    public async Task At_an_instant_are_those_of_the_calls_before_it()
    {
        await using var own = await WithThreeCalls();

        Assert.Equal(2, (await own.Get("/v1/usage/totals?at=2026-11-20T12:01:00Z")).Json.GetProperty("total").GetProperty("calls").GetInt64());
        Assert.Equal(0, (await own.Get("/v1/usage/totals?at=2026-11-20T12:00:00Z")).Json.GetProperty("total").GetProperty("calls").GetInt64());
        Assert.Equal(3, (await own.Get("/v1/usage/totals?at=2026-11-20T12:01:00.000001Z&to=2027-01-01T00:00:00Z")).Json.GetProperty("total").GetProperty("calls").GetInt64());
        Assert.Equal(1, (await own.Get("/v1/usage/totals?position=1")).Json.GetProperty("total").GetProperty("calls").GetInt64());
        (await own.Get("/v1/usage/totals?position=4")).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task Can_have_more_digits_than_a_decimal()
    {
        await using var own = await node.StartAnew();
        var most = new CallRecorded(
            "s", "1", "u", "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 1 }, null, 999_999_999.999_999_999_999_999m, "USD", 1, null);
        var appender = own.Services.GetRequiredService<Appender>();
        for (var i = 0; i < 12; i++)
        {
            await appender.Append(new AppendRequest { TenantId = Requests.DefaultTenant, Appends = [new StreamAppend("usage-m-2026-11-20", Call.StreamType, [.. Enumerable.Repeat(most, 10_000)])] }, Cancellation);
        }

        await own.CatchUp();

        Assert.Equal("119999999999999.99999999988", (await own.Get("/v1/usage/totals")).Json.GetProperty("total").GetProperty("amounts").GetProperty("USD").GetString());
    }

    [Fact]
    public async Task Have_as_many_units_as_a_call_can_have()
    {
        await using var own = await WithThreeCalls();
        foreach (var count in (int[])[5, 9, Call.MaxQuantities + 1])
        {
            var quantities = Enumerable.Range(1, count - 1).ToDictionary(i => $"u{i:00}", i => (decimal)i).Append(new("call", 1)).ToDictionary();
            var call = new CallRecorded("s", $"many-{count}", "many", $"m{count}", TestClock.Start, quantities, null, 1, "USD", 1, null);
            await own.Services.GetRequiredService<Appender>().Append(
                new AppendRequest { TenantId = Requests.DefaultTenant, Appends = [new StreamAppend(Call.StreamOf(call.ServiceId, call.OccurredAt), Call.StreamType, [call])] }, Cancellation);
            await own.CatchUp();

            var total = (await own.Get($"/v1/usage/totals?service=m{count}")).Is(HttpStatusCode.OK).Json.GetProperty("total");
            Assert.Equal(
                quantities.OrderBy(q => q.Key, StringComparer.Ordinal).Select(q => $"{q.Key} {q.Value}"),
                total.GetProperty("quantities").EnumerateObject().Select(q => $"{q.Name} {q.Value}"));
        }
    }

    [Theory]
    [InlineData("groupBy=team", "groupBy")]
    [InlineData("groupBy=user,user", "groupBy")]
    [InlineData("groupBy=day,hour", "groupBy")]
    [InlineData("interval=P2D", "interval")]
    [InlineData("interval=p1d", "interval")]
    [InlineData("groupBy=day&interval=PT1H", "interval")]
    [InlineData("timeZone=Europe/Atlantis", "timeZone")]
    [InlineData("timeZone=../../../etc/passwd", "timeZone")]
    [InlineData("timeZone=Europe", "timeZone")]
    [InlineData("timeZone=tzdata.zi", "timeZone")]
    [InlineData("timeZone=leapseconds", "timeZone")]
    [InlineData("timeZone=", "timeZone")]
    [InlineData("user=%20", "user")]
    [InlineData("service=a%20b", "service")]
    [InlineData("currency=usd", "currency")]
    [InlineData("sort=user", "sort")]
    [InlineData("order=down", "order")]
    [InlineData("from=2026-11-20T12:00:00Z&to=2026-11-20T11:59:59Z", "from")]
    [InlineData("from=2026-11-20", "from")]
    [InlineData("groupBy=hour&from=2020-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to")]
    [InlineData("limit=1001", "limit")]
    [InlineData("cursor=abc", "cursor")]
    public async Task Are_refused_where_the_question_is_none(string query, string field)
    {
        foreach (var format in (string[])["application/json", "text/csv"])
        {
            var refused = await node.GetAsIs($"/v1/usage/totals?{query}", ("Accept", format));
            Assert.True(HttpStatusCode.BadRequest == refused.Status, refused.Text);
            Assert.Equal(field, refused.Fields.Single());
        }
    }

    [Theory]
    [InlineData("localtime")]
    [InlineData("posixrules")]
    [InlineData("right/Europe/Berlin")]
    [InlineData("europe/berlin")] // in other letters, once the zone is known by its own
    public async Task Know_a_zone_by_its_own_name_only(string timeZone)
    {
        (await node.Get("/v1/usage/totals?groupBy=day&timeZone=Europe/Berlin")).Is(HttpStatusCode.OK);

        Assert.Equal(["timeZone"], (await node.Get($"/v1/usage/totals?groupBy=day&timeZone={timeZone}")).IsProblem(400, "invalid-request").Fields);
    }

    [Fact]
    public async Task Take_the_cursor_of_the_same_question_only()
    {
        await using var own = await WithThreeCalls();
        var cursor = (await own.Get("/v1/usage/totals?groupBy=currency&limit=1")).Json.GetProperty("nextCursor").GetString();

        (await own.Get($"/v1/usage/totals?groupBy=currency&limit=1&cursor={cursor}")).Is(HttpStatusCode.OK);
        (await own.Get($"/v1/usage/totals?groupBy=currency&limit=1&sort=calls&cursor={cursor}")).IsProblem(400, "invalid-cursor");
    }

    [Theory]
    [InlineData(null, null, "service,day", "usage_service_sums_pkey", "calls_by_time")]
    [InlineData(null, null, "service,hour", "usage_service_totals_pkey", "calls_by_time")]
    [InlineData(null, "m", "day", "usage_service_sums_pkey", "calls_of_service")]
    [InlineData(null, null, "user", "usage_totals_of_service", "calls_by_time")]
    [InlineData(null, "m", "user,hour", "usage_totals_of_service", "calls_of_service")]
    [InlineData("u", null, "day", "usage_totals_pkey", "calls_pkey")]
    [InlineData("u", "m", "currency", "usage_totals_pkey", "calls_pkey")]
    public async Task Read_nothing_outside_their_range(string? user, string? service, string groups, string quarters, string calls)
    {
        var (from, to) = (TestClock.Start.AddDays(-7).AddMinutes(1), TestClock.Start.AddMinutes(1));
        var errors = new Validation();
        var question = UsageTotalsQuestion.Read(
            Requests.DefaultTenant, new UsageTotalsQuery(groups, new QueryTime(from), new QueryTime(to), user, service, null, null, null, null, null), null, null, errors);
        Assert.Null(errors.Rejection);
        var intervals = question.Unit is { } unit ? ZonedIntervals.Covering(from, to, unit, TimeZoneInfo.Utc) : null;

        var ranges = UsageRanges.Of(from, to, intervals, wide: !question.OfUsers, single: false);

        var plan = await Plans.Of(node, new UsageTotalsStatement(question, ranges, wider: null, intervals, after: null, limit: 100).Command());

        var table = s_tables.First(t => quarters.StartsWith(t, StringComparison.Ordinal));
        Assert.Contains(quarters, Plans.IndexesOn(table, plan));
        Assert.Equal([calls], Plans.IndexesOn("calls", plan));
        Assert.Equal(2, plan.Split(" on calls c").Length); // once
        Assert.DoesNotContain("Seq Scan", plan, StringComparison.Ordinal);
        Assert.DoesNotContain("Filter: ((bucket", plan, StringComparison.Ordinal);
        Assert.DoesNotContain("Filter: ((occurred_at", plan, StringComparison.Ordinal);
        Assert.DoesNotContain("Seq Scan", await Plans.Of(node, UsageTotalsStatement.SpanOf(question)), StringComparison.Ordinal);
    }

    /// <summary>A ledger from before the wider sums were kept gets the same ones.</summary>
    private async Task AreMadeOfQuartersByTheMigration()
    {
        var (database, migrations) = (node.Services.GetRequiredService<OwnerDatabase>().Source, node.Services.GetRequiredService<Migrations>());
        await using var connection = await database.OpenConnectionAsync(Cancellation);
        await using var command = new NpgsqlCommand(
            $"""
             create schema earlier;
             create table earlier.usage_service_totals as table usage_service_totals;
             set search_path = earlier;
             {migrations.Creating("usage_service_sums").Sql}
             reset search_path;
             select (select count(*) from usage_service_sums),
               (select count(*) from usage_service_sums s join earlier.usage_service_sums e
                  on (s.*)::text = (e.*)::text);
             """, connection);
        await using var reader = await command.ExecuteReaderAsync(Cancellation);
        Assert.True(await reader.ReadAsync(Cancellation));
        Assert.True(reader.GetInt64(0) > 10);
        Assert.Equal(reader.GetInt64(0), reader.GetInt64(1));
    }

    /// <summary>A node with three calls of one user and service: two at noon, in USD and without a price, and one in EUR a minute later.</summary>
    private async Task<TestNode> WithThreeCalls()
    {
        var own = await node.StartAnew();
        var priced = new CallRecorded(
            "s", "1", "u", "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 1, ["inputToken"] = 1200.50m }, null, 0.50m, "USD", 1, null);
        var once = new Dictionary<string, decimal> { ["call"] = 1 };
        await own.Services.GetRequiredService<Appender>().Append(
            new AppendRequest
            {
                TenantId = Requests.DefaultTenant,
                Appends =
                [
                    new StreamAppend("usage-m-2026-11-20", Call.StreamType,
                    [
                        priced, priced with { CallId = "2", Quantities = once, Amount = null, Currency = null, PriceVersion = null, UnpricedReason = "no-price" },
                        priced with { CallId = "3", Quantities = once, Amount = 2, Currency = "EUR", OccurredAt = TestClock.Start.AddMinutes(1) },
                    ]),
                ],
            }, Cancellation);
        await own.CatchUp();
        return own;
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
