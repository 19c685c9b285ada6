using Ledger.EventStore;
using System.Net;
using Ledger.Http;
using Ledger.Services;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Services;

public sealed class A_price(TestNode node) : IClassFixture<TestNode>
{
    private const string PerCall = """{"currency":"USD","components":[{"unit":"call","price":"1"}]}""";

    private static int s_number;

    private async Task<string> Service()
    {
        var id = $"priced-{Interlocked.Increment(ref s_number)}";
        (await node.Post("/v1/services", new { serviceId = id, title = id })).Is(HttpStatusCode.Created);
        return $"/v1/services/{id}";
    }

    private Task<Answer> Set(string service, DateTimeOffset from, string price = "1") =>
        node.Post($"{service}/prices", new { currency = "USD", effectiveFrom = Rfc3339.Format(from), components = new[] { new { unit = "call", price } } });

    [Fact]
    public async Task is_set_read_and_listed()
    {
        var service = await Service();
        var now = Rfc3339.Format(node.Clock.Now);

        var set = (await node.Post($"{service}/prices", """{"currency":"USD","components":[{"unit":"call","price":"0.010"},{"unit":"inputToken","price":0.15,"per":1000000}]}""")).Is(HttpStatusCode.Created);

        Assert.Equal($"{service}/prices/1", set.Headers["Location"]);
        Assert.Equal("\"2\"", set.ETag);
        const string Components = """[{"unit":"call","price":"0.01","per":1},{"unit":"inputToken","price":"0.15","per":1000000}]""";
        Assert.Equal($$"""{"priceVersion":1,"currency":"USD","effectiveFrom":"{{now}}","components":{{Components}},"setAt":"{{now}}"}""", set.Text);
        var listed = $$"""{"priceVersion":1,"currency":"USD","effectiveFrom":"{{now}}","effectiveUntil":null,"inForce":true,"components":{{Components}},"setAt":"{{now}}","position":{{set.Position}}}""";
        Assert.Equal($$"""{"items":[{{listed}}],"nextCursor":null}""", (await node.Get($"{service}/prices")).Text);
        Assert.Equal(listed, (await node.Get(set.Headers["Location"])).Is(HttpStatusCode.OK).Text);
        var read = await node.Get(service);
        Assert.Equal((set.Text, "\"2\""), (read.Json.GetProperty("price").GetRawText(), read.ETag));
    }

    [Fact]
    public async Task is_set_from_now_on_unless_said_otherwise()
    {
        var service = await Service();
        node.Clock.Advance(TimeSpan.FromMinutes(5));
        Assert.Equal(Rfc3339.Format(node.Clock.Now), (await node.Post($"{service}/prices", PerCall)).Json.GetProperty("effectiveFrom").GetString());
        Assert.Equal("2020-02-29T22:30:00Z", (await node.Post(
            $"{service}/prices", """{"currency":"USD","components":[{"unit":"call","price":"1"}],"effectiveFrom":"2020-03-01T00:30:00+02:00"}""")).Json.GetProperty("effectiveFrom").GetString());
    }

    [Theory]
    [InlineData("""{"components":[{"unit":"call","price":"1"}]}""", "currency", "is missing")]
    [InlineData("""{"currency":"usd","components":[{"unit":"call","price":"1"}]}""", "currency", "3 to 12")]
    [InlineData("""{"currency":"US","components":[{"unit":"call","price":"1"}]}""", "currency", "3 to 12")]
    [InlineData("""{"currency":"USD"}""", "components", "is missing")]
    [InlineData("""{"currency":"USD","components":[]}""", "components", "1 to 32")]
    [InlineData("""{"currency":"USD","components":[null]}""", "components[0]", "may not be null")]
    [InlineData("""{"currency":"USD","components":[{"price":"1"}]}""", "components[0].unit", "is missing")]
    [InlineData("""{"currency":"USD","components":[{"unit":"","price":"1"}]}""", "components[0].unit", "1 to 64")]
    [InlineData("""{"currency":"USD","components":[{"unit":"a b","price":"1"}]}""", "components[0].unit", "1 to 64")]
    [InlineData("""{"currency":"USD","components":[{"unit":"a","price":"1"},{"unit":"b","price":"1"},{"unit":"a","price":"2"}]}""", "components[2].unit", "twice")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call"}]}""", "components[0].price", "is missing")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"-0.01"}]}""", "components[0].price", "0 or more")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1000000000"}]}""", "components[0].price", "less than 1 000 000 000")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"0.0000000000001"}]}""", "components[0].price", "12 decimals")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"much"}]}""", "components[0].price", "is not a decimal")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":null}]}""", "components[0].price", "decimal")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":3}]}""", "components[0].per", "must divide 1 000 000 000 000")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":0}]}""", "components[0].per", "must divide")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":-1}]}""", "components[0].per", "must divide")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":10000000000000}]}""", "components[0].per", "must divide")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":0.5}]}""", "components[0].per", "whole number")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":1e25}]}""", "components[0].per", "whole number")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","per":null}]}""", "components[0].per", "whole number")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1","tax":1}]}""", "components[0].tax", "")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1"}],"effectiveFrom":"1969-12-31T23:59:59.999999Z"}""", "effectiveFrom", "1970-01-01T00:00:00Z")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1"}],"effectiveFrom":"9999-12-31T00:00:00.000001Z"}""", "effectiveFrom", "9999-12-31T00:00:00Z")]
    [InlineData("""{"currency":"USD","components":[{"unit":"call","price":"1"}],"effectiveFrom":"2026-11-20"}""", "effectiveFrom", "RFC 3339")]
    public async Task is_not_set_to_what_is_not_allowed(string body, string field, string rule)
    {
        var service = await Service();

        var refused = (await node.Post($"{service}/prices", body)).IsProblem(400, field.EndsWith("tax", StringComparison.Ordinal) ? "unknown-field" : "invalid-request");

        Assert.Equal([field], refused.Fields);
        Assert.Contains(rule, refused.Json.GetProperty("errors").GetProperty(field)[0].GetString(), StringComparison.Ordinal);
        Assert.Equal("\"1\"", (await node.Get(service)).ETag);
    }

    [Fact]
    public async Task goes_to_its_limits()
    {
        var service = await Service();
        var components = Enumerable.Range(0, 33).Select(i => new { unit = $"{new string('u', 62)}{i:00}", price = "999999999.999999999999", per = 1_000_000_000_000 }).ToArray();

        Assert.Equal(["components"], (await node.Post($"{service}/prices", new { currency = "ABCDEFGHIJKL", components })).IsProblem(400, "invalid-request").Fields);
        var set = (await node.Post($"{service}/prices", new { currency = "ABCDEFGHIJKL", components = components[..32], effectiveFrom = "9999-12-31T00:00:00Z" })).Is(HttpStatusCode.Created);
        (await node.Post($"{service}/prices", new { currency = "AB1", components = new[] { new { unit = "u", price = "0.000000000001", per = "1000000000000.0" } }, effectiveFrom = "1970-01-01T00:00:00Z" })).Is(HttpStatusCode.Created);

        Assert.Equal(set.Json.GetProperty("components").GetRawText(), (await node.Get($"{service}/prices/1")).Json.GetProperty("components").GetRawText());
        Assert.Equal("""[{"unit":"u","price":"0.000000000001","per":1000000000000}]""", (await node.Get($"{service}/prices/2")).Json.GetProperty("components").GetRawText());
    }

    [Fact]
    public async Task is_in_force_from_its_instant_until_the_next_ones()
    {
        var service = await Service();
        var now = node.Clock.Now;
        await Set(service, now.AddDays(-10));
        await Set(service, now.AddDays(10));
        await Set(service, now.AddDays(-5));
        await Set(service, now.AddDays(10), "2");

        Assert.Equal(
            [$"1 {Day(-10)} {Day(-5)} False", $"2 {Day(10)} {Day(10)} False", $"3 {Day(-5)} {Day(10)} True", $"4 {Day(10)}  False"],
            await Listed($"{service}/prices"));
        Assert.Equal(3, (await node.Get(service)).Json.GetProperty("price").GetProperty("priceVersion").GetInt32());
        Assert.Equal("4", await InForceAt(now.AddDays(10)));
        Assert.Equal("3", await InForceAt(now.AddDays(10).AddMicroseconds(-1)));
        Assert.Equal("1", await InForceAt(now.AddDays(-10)));
        Assert.Equal("", await InForceAt(now.AddDays(-10).AddMicroseconds(-1)));
        Assert.True((await node.Get($"{service}/prices/1?at={Day(-6)}")).Json.GetProperty("inForce").GetBoolean());
        node.Clock.Advance(TimeSpan.FromDays(10));
        Assert.Equal(4, (await node.Get(service)).Json.GetProperty("price").GetProperty("priceVersion").GetInt32());

        string Day(int day) => Rfc3339.Format(now.AddDays(day));
        async Task<string> InForceAt(DateTimeOffset at) =>
            string.Join(' ', (await node.Get($"{service}/prices?at={Rfc3339.Format(at)}")).Items.Where(p => p.GetProperty("inForce").GetBoolean()).Select(p => p.GetProperty("priceVersion")));
    }

    private async Task<string[]> Listed(string path) =>
        [.. (await node.Get(path)).Is(HttpStatusCode.OK).Items.Select(p => $"{p.GetProperty("priceVersion")} {p.GetProperty("effectiveFrom")} {p.GetProperty("effectiveUntil")} {p.GetProperty("inForce")}")];

    [Fact]
    public async Task in_the_past_does_not_move_what_was_known_before()
    {
        await Service();
        var before = node.Position;
        var service = await Service();
        var registered = node.Position;
        var now = node.Clock.Now;
        var first = (await Set(service, now.AddDays(-10))).Position;
        node.Clock.Advance(TimeSpan.FromDays(1));
        await Set(service, now.AddDays(-5), "2");

        Assert.Equal([$"1 {Rfc3339.Format(now.AddDays(-10))}  True"], await Listed($"{service}/prices?position={first}"));
        Assert.Equal(
            [$"1 {Rfc3339.Format(now.AddDays(-10))} {Rfc3339.Format(now.AddDays(-5))} False", $"2 {Rfc3339.Format(now.AddDays(-5))}  True"],
            await Listed($"{service}/prices"));
        Assert.Empty(await Listed($"{service}/prices?position={registered}"));
        (await node.Get($"{service}/prices/2?position={first}")).IsProblem(404, "price-not-found");
        (await node.Get($"{service}/prices?position={before}")).IsProblem(404, "service-not-found");
        (await node.Get($"{service}/prices?position=999999999")).IsProblem(400, "invalid-request");
        (await node.Get($"{service}/prices?at=yesterday")).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task that_was_never_set_is_not_found()
    {
        var service = await Service();
        await node.Post($"{service}/prices", PerCall);

        Assert.Contains("no price 2", (await node.Get($"{service}/prices/2")).IsProblem(404, "price-not-found").Text, StringComparison.Ordinal);
        Assert.Equal(["priceVersion"], (await node.Get($"{service}/prices/0")).IsProblem(400, "invalid-request").Fields);
        Assert.Equal(["priceVersion"], (await node.Get($"{service}/prices/one")).IsProblem(400, "invalid-request").Fields);
    }

    [Fact]
    public async Task is_listed_page_by_page_and_exported()
    {
        var service = await Service();
        var now = node.Clock.Now;
        for (var i = 0; i < 5; i++)
        {
            await Set(service, now.AddDays(i));
        }

        var listed = new List<string>();
        string? cursor = null;
        do
        {
            var page = (await node.Get($"{service}/prices?limit=2{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
            listed.AddRange(page.Each("priceVersion"));
            cursor = page.Json.GetProperty("nextCursor").GetString();
        }
        while (cursor is not null);

        Assert.Equal(["1", "2", "3", "4", "5"], listed);
        Assert.StartsWith(
            "priceVersion,currency,effectiveFrom,effectiveUntil,inForce,components,setAt,position\r\n"
            + $"1,USD,{Rfc3339.Format(now)},{Rfc3339.Format(now.AddDays(1))},true,\"[{{\"\"unit\"\":\"\"call\"\",\"\"price\"\":\"\"1\"\",\"\"per\"\":1}}]\",{Rfc3339.Format(now)},",
            (await node.Get($"{service}/prices", ("Accept", "text/csv"))).Text, StringComparison.Ordinal);
        Assert.Equal(5, (await node.Get($"{service}/prices", ("Accept", "application/x-ndjson"))).Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        cursor = (await node.Get($"{service}/prices?limit=2")).Json.GetProperty("nextCursor").GetString();
        (await node.Get($"{await Service()}/prices?cursor={cursor}")).IsProblem(400, "invalid-cursor");
        (await node.Get($"{service}/prices?cursor={cursor}&at=2026-11-20T12:00:00Z")).IsProblem(400, "invalid-cursor");
    }

    [Fact]
    public async Task loaded_for_decisions_is_the_one_that_is_listed()
    {
        var service = await Service();
        var id = service["/v1/services/".Length..];
        var loader = node.Services.GetRequiredService<ServiceLoader>();
        var cancellation = TestContext.Current.CancellationToken;
        Assert.Null((await loader.Load(Requests.DefaultTenant, id, fresh: false, cancellation)).Prices.InForceAt(node.Clock.Now));
        await using var other = await node.StartBeside();
        await other.Post($"{service}/prices", PerCall);

        var loaded = await Task.WhenAll(
            loader.Load(Requests.DefaultTenant, [id, "never-was", id], fresh: true, cancellation),
            loader.Load(Requests.DefaultTenant, ["never-was", id], fresh: true, cancellation));

        Assert.Equal([(id, true), ("never-was", false), (id, true)], loaded[0].Select(s => (s.Id, s.Exists)));
        Assert.Equal([("never-was", false), (id, true)], loaded[1].Select(s => (s.Id, s.Exists)));
        Assert.All(loaded.SelectMany(s => s).Where(s => s.Exists), s => Assert.Equal((1, 2), (s.Prices.Count, s.Version)));
        Assert.Equal(1, (await loader.Load(Requests.DefaultTenant, id, fresh: false, cancellation)).Prices.Count);
        Assert.Equal((0, 1), (await loader.LoadAt(Requests.DefaultTenant, id, 1, cancellation)) is var first ? (first.Prices.Count, first.Version) : default);
    }

    [Fact]
    public async Task loaded_for_decisions_is_the_one_in_the_log_after_a_backup_was_restored_under_a_running_node()
    {
        await using var restored = await node.StartAnew();
        var cancellation = TestContext.Current.CancellationToken;
        var loader = restored.Services.GetRequiredService<ServiceLoader>();
        var database = restored.Services.GetRequiredService<OwnerDatabase>().Source;
        await restored.Post("/v1/services", new { serviceId = "s", title = "S" });
        await restored.Post("/v1/services/s/prices", PerCall);
        Assert.Equal("USD", await CurrencyOf());

        await Execute("update mt_events set id = gen_random_uuid(), data = jsonb_set(data, '{currency}', '\"EUR\"') where type = 'price_set'");
        Assert.Equal("EUR", await CurrencyOf());
        await Execute("delete from mt_events where type = 'price_set'");
        Assert.Null(await CurrencyOf());

        async Task<string?> CurrencyOf() => (await loader.Load(Requests.DefaultTenant, "s", fresh: true, cancellation)).Prices.InForceAt(restored.Clock.Now)?.Currency;
        async Task Execute(string sql)
        {
            await using var command = database.CreateCommand(sql);
            Assert.Equal(1, await command.ExecuteNonQueryAsync(cancellation));
        }
    }

    /// <summary>The list told once more in the simplest way, for any instant and any position.</summary>
    [Fact]
    public async Task is_answered_for_any_instant_and_any_position_as_a_simple_list_would_and_the_same_after_a_rebuild()
    {
        var random = new Random(LongTests.Seed);
        var service = await Service();
        var known = new List<(int Version, DateTimeOffset From, long Position)>();
        var start = node.Clock.Now;
        for (var version = 1; version <= 40; version++)
        {
            var from = start.AddDays(random.Next(-6, 7));
            known.Add((version, from, (await Set(service, from, $"{version}")).Is(HttpStatusCode.Created).Position!.Value));
            node.Clock.Advance(TimeSpan.FromHours(random.Next(3)));
            if (random.Next(4) == 0)
            {
                await node.Patch(service, new { description = $"{version}" });
            }
        }

        await Compare(queries: 30);
        await node.CatchUp();
        var live = await node.Rows("Services");
        await node.Rebuild("Services");
        Assert.Equal(live, await node.Rows("Services"));
        await Compare(queries: 5);
        Assert.Empty(node.Errors);

        async Task Compare(int queries)
        {
            for (var i = 0; i < queries; i++)
            {
                var at = start.AddDays(random.Next(-8, 9)).AddMicroseconds(random.Next(-1, 2));
                var position = random.Next(3) == 0 ? known[^1].Position : known[0].Position + random.Next((int)(known[^1].Position - known[0].Position + 1));
                var then = known.Where(p => p.Position <= position).ToArray();
                var order = then.OrderBy(p => p.From).ThenBy(p => p.Version).ToList();
                var inForce = order.LastOrDefault(p => p.From <= at).Version;
                var expected = then.Select(p => order.IndexOf(p) + 1 is var next && next < order.Count
                    ? $"{p.Version} {Rfc3339.Format(p.From)} {Rfc3339.Format(order[next].From)} {p.Version == inForce}"
                    : $"{p.Version} {Rfc3339.Format(p.From)}  {p.Version == inForce}");

                var actual = await Listed($"{service}/prices?at={Rfc3339.Format(at)}&position={position}");

                Assert.True(expected.SequenceEqual(actual), $"LEDGER_TEST_SEED={LongTests.Seed}, at {at:O}, position {position}:\n{string.Join('\n', expected)}\ninstead of\n{string.Join('\n', actual)}");
            }
        }
    }
}
