using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Usage;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Usage;

public sealed class Listing_calls(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static readonly string[] s_before = ["source", "id", "userId", "serviceId", "occurredAt", "recordedAt", "position", "status"];
    private static readonly string[] s_after = ["amount", "currency", "priceVersion", "unpricedReason", "pricedPosition", "voidedPosition", "voidReason"];
    private static readonly string?[] s_statuses = [null, "priced", "unpriced", "voided"];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Answers_as_the_model_does_with_every_filter()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var events = new RandomCalls(random);
        await events.Append(node, 500);
        await node.CatchUp();
        var model = ModelCall.Of(await node.Log());

        foreach (var user in RandomCalls.Users.Append(null).Append("nobody"))
        {
            foreach (var service in RandomCalls.Services.Append(null).Append("none"))
            {
                foreach (var status in s_statuses)
                {
                    foreach (var (from, to) in (IEnumerable<(DateTimeOffset?, DateTimeOffset?)>)[(null, null), Range(), (Some(), null), (null, Some())])
                    {
                        var expected = model
                            .Where(c => (user is null || c.User == user) && (service is null || c.Service == service) && (status is null || c.Status == status)
                                && (from is null || c.At >= from) && (to is null || c.At < to))
                            .OrderByDescending(c => c.At).ThenByDescending(c => c.Position).Select(Shown).ToArray();
                        var query = Query(("user", user), ("service", service), ("status", status), ("from", Time(from)), ("to", Time(to)));
                        var seen = await Walk(query, random.Next(3) == 0 ? random.Next(1, 20) : 1_000);
                        Assert.True(expected.SequenceEqual(seen), $"{query}\nExpected:\n{string.Join('\n', expected)}\nActual:\n{string.Join('\n', seen)}");
                    }
                }
            }
        }

        Assert.Empty(node.Errors);

        DateTimeOffset? Some() => model[random.Next(model.Count)].At.AddMicroseconds(random.Next(-1, 2));

        (DateTimeOffset?, DateTimeOffset?) Range() => Some() is var a && Some() is var b && a <= b ? (a, b) : (b, a);
    }

    [Fact]
    public async Task Shows_every_call_once_while_more_are_recorded()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var busy = await node.StartAnew();
        await using var _ = busy;
        var events = new RandomCalls(new Random(LongTests.Seed));
        await events.Append(busy, 200);
        await busy.CatchUp();
        foreach (var filter in new[] { "", $"user={RandomCalls.Users[0]}", $"service={RandomCalls.Services[0]}" })
        {
            var there = (await busy.Get($"/v1/usage/calls?limit=1000&{filter}")).Items.Select(c => c.GetProperty("position").GetInt64()).ToArray();
            var seen = new List<(DateTimeOffset At, long Position)>();
            string? cursor = null;
            do
            {
                var page = (await busy.Get($"/v1/usage/calls?limit=7&{filter}{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
                seen.AddRange(page.Items.Select(c => (c.GetProperty("occurredAt").GetDateTimeOffset(), c.GetProperty("position").GetInt64())));
                cursor = page.Json.GetProperty("nextCursor").GetString();
                await events.Append(busy, 5);
                await busy.CatchUp();
            }
            while (cursor is not null);

            Assert.Equal(seen.OrderByDescending(c => c), seen);
            Assert.Equal(seen.Count, seen.Distinct().Count());
            Assert.Empty(there.Except(seen.Select(c => c.Position)));
        }
    }

    [Fact]
    public async Task Finds_one_by_its_source_and_id()
    {
        var one = await node.StartAnew();
        await using var _ = one;
        await new RandomCalls(new Random(LongTests.Seed)).Append(one, 50);
        await one.CatchUp();

        foreach (var call in (await one.Get("/v1/usage/calls")).Items)
        {
            var found = (await one.Get($"/v1/usage/calls/gateway/{call.GetProperty("id").GetString()}")).Is(HttpStatusCode.OK);
            Assert.True(JsonElement.DeepEquals(call, found.Json), $"{call} {found.Text}");
            Assert.NotNull(found.Position);
        }

        Assert.Contains("'x/y'", (await one.Get("/v1/usage/calls/gateway/x%2Fy")).IsProblem(404, "call-not-found").Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
        (await one.Get("/v1/usage/calls/gatewa/call-1")).IsProblem(404, "call-not-found");
    }

    [Fact]
    public async Task Can_be_had_as_lines_and_as_a_table_that_runs_no_formula()
    {
        var export = await node.StartAnew();
        await using var _ = export;
        var quantities = new Dictionary<string, decimal> { ["call"] = 1, ["inputToken"] = 1200.5m };
        var priced = new CallRecorded(
            "=gateway", "req,1", "=1+1", "m", TestClock.Start, quantities, new Dictionary<string, string> { ["team"] = "a\"b" }, 0.000384m, "USD", 3, null);
        var voided = new CallRecorded("s", "2", "u", "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 1 }, null, null, null, null, "no-price");
        var appender = export.Services.GetRequiredService<Appender>();
        await appender.Append(
            new AppendRequest { TenantId = Requests.DefaultTenant, Appends = [new StreamAppend("usage-m-2026-11-20", Call.StreamType, [priced, voided])] }, Cancellation);
        await appender.Append(
            new AppendRequest
            {
                TenantId = Requests.DefaultTenant,
                Appends = [new StreamAppend("usage-m-2026-11-20", Call.StreamType, [new CallVoided("s", "2", 2, "@twice", "u", "m", TestClock.Start, voided.Quantities, null, null, "no-price")])],
            }, Cancellation);
        await export.CatchUp();

        Assert.Equal(
            """
            source,id,userId,serviceId,occurredAt,recordedAt,position,status,quantities,tags,amount,currency,priceVersion,unpricedReason,pricedPosition,voidedPosition,voidReason
            s,2,u,m,2026-11-20T12:00:00Z,2026-11-20T12:00:00Z,2,voided,call=1,,,,,no-price,,3,'@twice
            '=gateway,"req,1",'=1+1,m,2026-11-20T12:00:00Z,2026-11-20T12:00:00Z,1,priced,call=1;inputToken=1200.5,"{""team"":""a\""b""}",0.000384,USD,3,,,,

            """.ReplaceLineEndings("\r\n"),
            (await export.Get("/v1/usage/calls", ("Accept", "text/csv"))).Text);
        Assert.Equal(
            """
            {"source":"s","id":"2","userId":"u","serviceId":"m","occurredAt":"2026-11-20T12:00:00Z","recordedAt":"2026-11-20T12:00:00Z","position":2,"status":"voided","quantities":{"call":"1"},"tags":null,"amount":null,"currency":null,"priceVersion":null,"unpricedReason":"no-price","pricedPosition":null,"voidedPosition":3,"voidReason":"@twice"}
            {"source":"=gateway","id":"req,1","userId":"=1+1","serviceId":"m","occurredAt":"2026-11-20T12:00:00Z","recordedAt":"2026-11-20T12:00:00Z","position":1,"status":"priced","quantities":{"call":"1","inputToken":"1200.5"},"tags":{"team":"a\"b"},"amount":"0.000384","currency":"USD","priceVersion":3,"unpricedReason":null,"pricedPosition":null,"voidedPosition":null,"voidReason":null}

            """,
            (await export.Get("/v1/usage/calls", ("Accept", "application/x-ndjson"))).Text);
    }

    [Theory]
    [InlineData("status=done", "status")]
    [InlineData("status=Priced", "status")]
    [InlineData("from=yesterday", "from")]
    [InlineData("from=2026-11-20T12:00:00Z&to=2026-11-20T11:59:59Z", "from")]
    [InlineData("service=a%20b", "service")]
    [InlineData("user=%20", "user")]
    [InlineData("limit=0", "limit")]
    [InlineData("limit=1001", "limit")]
    [InlineData("cursor=abc", "cursor")]
    public async Task Refuses_what_is_no_filter_naming_it(string query, string field)
    {
        var refused = await node.GetAsIs($"/v1/usage/calls?{query}");

        Assert.Equal((HttpStatusCode.BadRequest, field), (refused.Status, refused.Fields.Single()));
    }

    [Fact]
    public async Task Counts_those_without_a_price_by_service_and_reason()
    {
        var counted = await node.StartAnew();
        await using var _ = counted;
        await new RandomCalls(new Random(LongTests.Seed)).Append(counted, 200);
        await counted.CatchUp();
        var expected = ModelCall.Of(await counted.Log()).Where(c => c.Status == "unpriced").GroupBy(c => (c.Service, Reason: c.UnpricedReason!))
            .OrderBy(g => g.Key.Service, StringComparer.Ordinal).ThenBy(g => g.Key.Reason, StringComparer.Ordinal)
            .Select(g => $"{g.Key.Service} {g.Key.Reason} {g.Count()}").ToArray();

        var seen = new List<string>();
        string? cursor = null;
        do
        {
            var page = (await counted.Get($"/v1/usage/unpriced?limit=2{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
            seen.AddRange(page.Items.Select(r => $"{r.GetProperty("serviceId")} {r.GetProperty("reason")} {r.GetProperty("calls")}"));
            cursor = page.Json.GetProperty("nextCursor").GetString();
        }
        while (cursor is not null);

        Assert.Equal(expected, seen);
        Assert.StartsWith("serviceId,reason,calls\r\n", (await counted.Get("/v1/usage/unpriced", ("Accept", "text/csv"))).Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, null, null, "calls_by_time")]
    [InlineData(null, null, "priced", "calls_by_time")]
    [InlineData(null, null, "unpriced", "calls_not_priced_by_time")]
    [InlineData(null, "m", null, "calls_of_service")]
    [InlineData(null, "m", "voided", "calls_not_priced_of_service")]
    [InlineData("u", null, null, "calls_pkey")]
    [InlineData("u", null, "priced", "calls_pkey")]
    [InlineData("u", null, "unpriced", "calls_not_priced_of_user")]
    [InlineData("u", "m", null, "calls_pkey")]
    [InlineData("u", "m", "voided", "calls_not_priced_of_user")]
    public async Task Reads_a_page_off_the_end_of_one_index(string? user, string? service, string? status, string index)
    {
        var command = UsageCallsReader.PageOf(
            Requests.DefaultTenant, new CallsQuery(user, service, new QueryTime(TestClock.Start.AddDays(-1)), new QueryTime(TestClock.Start), status),
            new UsageCallsReader.Key(TestClock.Start, 7), 100);

        var plan = await Plans.Of(node, command);

        Assert.All(Plans.IndexesOn("calls", plan), used => Assert.Equal(index, used));
        Assert.DoesNotContain("Seq Scan", plan, StringComparison.Ordinal);
        Assert.Matches("Index Cond: .*ROW\\(occurred_at, \"position\"\\) <", plan);
        Assert.True(status == "priced" == System.Text.RegularExpressions.Regex.IsMatch(plan, "Filter: .*\\(status\\)::text = 'priced'"), plan);
    }

    private async Task<List<string>> Walk(string query, int limit)
    {
        var seen = new List<string>();
        string? cursor = null;
        do
        {
            var page = (await node.Get($"/v1/usage/calls?limit={limit}{query}{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
            seen.AddRange(page.Items.Select(Shown));
            cursor = page.Json.GetProperty("nextCursor").GetString();
        }
        while (cursor is not null);

        return seen;
    }

    private static string Shown(ModelCall c) => string.Join(' ', (IEnumerable<object?>)[
        c.Recorded.Source, c.Recorded.CallId, c.User, c.Service, Time(c.At), Time(c.RecordedAt), c.Position, c.Status,
        string.Join(',', c.Recorded.Quantities.OrderBy(q => q.Key, StringComparer.Ordinal).Select(q => $"{q.Key}={Decimals.Format(q.Value)}")),
        string.Join(',', (c.Recorded.Tags ?? new Dictionary<string, string>()).OrderBy(t => t.Key, StringComparer.Ordinal).Select(t => $"{t.Key}={t.Value}")),
        c.Amount is { } amount ? Decimals.Format(amount) : "", c.Currency, c.PriceVersion, c.UnpricedReason, c.PricedPosition, c.VoidedPosition, c.VoidReason]);

    private static string Shown(JsonElement c) => string.Join(' ',
        s_before.Select(f => c.GetProperty(f).ToString())
        .Append(Pairs(c.GetProperty("quantities"))).Append(Pairs(c.GetProperty("tags")))
        .Concat(s_after.Select(f => c.GetProperty(f).ToString())));

    private static string Pairs(JsonElement pairs) => pairs.ValueKind == JsonValueKind.Null
        ? "" : string.Join(',', pairs.EnumerateObject().OrderBy(p => p.Name, StringComparer.Ordinal).Select(p => $"{p.Name}={p.Value.GetString()}"));

    private static string? Time(DateTimeOffset? time) => time is { } t ? Rfc3339.Format(t) : null;

    private static string Query(params (string Name, string? Value)[] parameters) =>
        string.Concat(parameters.Where(p => p.Value is not null).Select(p => $"&{p.Name}={Uri.EscapeDataString(p.Value!)}"));
}

/// <summary>The plans of statements, as the service's own connections make them.</summary>
internal static partial class Plans
{
    /// <summary>The plan of a statement of requests.</summary>
    public static Task<string> Of(TestNode node, NpgsqlBatchCommand command) => Of(node.Services.GetRequiredService<NpgsqlDataSource>(), command);

    /// <summary>The plan of a statement over one of a node's pools; with what it has read, where it is run.</summary>
    public static async Task<string> Of(NpgsqlDataSource database, NpgsqlBatchCommand command, bool analyze = false)
    {
        await using var explain = database.CreateCommand($"explain {(analyze ? "(analyze, timing off) " : "")}{command.CommandText}");
        foreach (NpgsqlParameter parameter in command.Parameters)
        {
            explain.Parameters.Add(parameter.Clone());
        }

        var lines = new List<string>();
        await using var reader = await explain.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        while (await reader.ReadAsync(TestContext.Current.CancellationToken))
        {
            lines.Add(reader.GetString(0));
        }

        return string.Join('\n', lines);
    }

    /// <summary>The indexes that a plan reads a table through.</summary>
    public static string[] IndexesOn(string table, string plan)
    {
        var found = Scan().Matches(plan).Where(m => m.Groups[2].Value == table).Select(m => m.Groups[1].Value).Distinct().ToArray();
        Assert.True(found.Length > 0, plan);
        return found;
    }

    [System.Text.RegularExpressions.GeneratedRegex(@"Scan (?:Backward )?using (\w+) on (\w+)")]
    private static partial System.Text.RegularExpressions.Regex Scan();
}
