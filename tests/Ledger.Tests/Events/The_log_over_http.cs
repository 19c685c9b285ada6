using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Events;
using Ledger.Http;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Events;

public sealed class The_log_over_http(TestNode node) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static List<long> Positions(IEnumerable<JsonElement> events) => [.. events.Select(e => e.GetProperty("position").GetInt64())];

    private static List<JsonElement> Lines(Answer answer) =>
        [.. answer.Is(HttpStatusCode.OK).Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonElement.Parse(l))];

    private static long[] Dense(long from, long to) => [.. Enumerable.Range(0, (int)(to - from + 1)).Select(i => from + i)];

    [Fact]
    public async Task shows_each_event_with_all_its_fields_and_its_data_as_it_is_stored()
    {
        await node.Put("/v1/users/fields", """{"attributes":{"name":"ä \"quoted\" 😀","n":12345678901234567890.5}}""");

        var answer = await node.GetAsIs("/v1/events?stream=user-fields");
        Assert.Equal("application/x-ndjson", answer.Headers["Content-Type"]);
        var line = Assert.Single(Lines(answer));
        var stored = (await node.Log()).Single(e => e.StreamId == "user-fields");

        Assert.Equal(
            ["position", "id", "streamId", "version", "type", "data", "recordedAt", "actor", "correlationId", "causationId"],
            line.EnumerateObject().Select(p => p.Name));
        Assert.Equal(
            (stored.Position, stored.Id, "user-fields", 1L, stored.Type, Rfc3339.Format(stored.RecordedAt), "anonymous", stored.CorrelationId),
            (line.GetProperty("position").GetInt64(), line.GetProperty("id").GetGuid(), line.GetProperty("streamId").GetString(),
                line.GetProperty("version").GetInt64(), line.GetProperty("type").GetString(), line.GetProperty("recordedAt").GetString(),
                line.GetProperty("actor").GetString(), line.GetProperty("correlationId").GetString()));
        Assert.Equal(System.Text.Encoding.UTF8.GetString(stored.Json.Span), line.GetProperty("data").GetRawText());
        Assert.Equal(JsonValueKind.Null, line.GetProperty("causationId").ValueKind);
    }

    [Fact]
    public async Task is_had_whole_and_in_order_whatever_the_format_and_the_page()
    {
        await using var own = await node.StartAnew();
        foreach (var i in Enumerable.Range(1, 25))
        {
            await own.Put($"/v1/users/w{i}", "{}");
        }

        Assert.Equal(Dense(1, 25), Positions(Lines(await own.GetAsIs("/v1/events"))));
        Assert.Equal(Dense(11, 15), Positions(Lines(await own.GetAsIs("/v1/events?after=10&limit=5"))));
        Assert.Empty(Lines(await own.GetAsIs("/v1/events?after=25")));
        var paged = new List<JsonElement>();
        var cursor = "";
        do
        {
            var page = (await own.GetAsIs($"/v1/events?limit=10{cursor}", ("Accept", "application/json"))).Is(HttpStatusCode.OK);
            Assert.Equal(25, page.Position);
            paged.AddRange(page.Items);
            var next = page.Json.GetProperty("nextCursor");
            cursor = next.ValueKind == JsonValueKind.Null ? "" : $"&cursor={next.GetString()}";
        }
        while (cursor.Length > 0);

        Assert.Equal(Dense(1, 25), Positions(paged));
    }

    [Fact]
    public async Task is_filtered_by_stream_and_type()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "f" });
        await own.Put("/v1/users/a1/segments/f", null);
        await own.Put("/v1/users/a2/segments/f", null);
        await own.Put("/v1/users/b1", "{}");
        await own.Delete("/v1/users/a1/segments/f");

        Assert.Equal([2, 3, 5], Positions(Lines(await own.GetAsIs("/v1/events?stream=user-a"))));
        Assert.Equal([2, 3], Positions(Lines(await own.GetAsIs("/v1/events?type=user_joined_segment"))));
        Assert.Equal([2], Positions(Lines(await own.GetAsIs("/v1/events?type=user_joined_segment&stream=user-a1"))));
        Assert.Equal([3, 5], Positions((await own.GetAsIs("/v1/events?after=2&stream=user-a", ("Accept", "application/json"))).Items));
        Assert.Empty(Lines(await own.GetAsIs("/v1/events?stream=user_a&type=%25")));
    }

    [Fact]
    public async Task with_a_filter_that_hardly_matches_comes_in_short_pages_that_lead_on()
    {
        await using var own = await node.StartAnew();
        await Fill(own, (LogPages.MaxPositions * ListEvents.MaxPagesLookedThrough) + 10, bytes: 1);
        await own.Put("/v1/users/rare", "{}");

        var first = (await own.GetAsIs("/v1/events?stream=user-rare", ("Accept", "application/json"))).Is(HttpStatusCode.OK);
        Assert.Empty(first.Items);
        var second = await own.GetAsIs(
            $"/v1/events?stream=user-rare&cursor={first.Json.GetProperty("nextCursor").GetString()}", ("Accept", "application/json"));

        Assert.Equal([(LogPages.MaxPositions * ListEvents.MaxPagesLookedThrough) + 11], Positions(second.Items));
        Assert.Equal(JsonValueKind.Null, second.Json.GetProperty("nextCursor").ValueKind);
        Assert.Single(Lines(await own.GetAsIs("/v1/events?stream=user-rare")));
    }

    [Fact]
    public async Task of_large_events_comes_in_pages_bounded_in_bytes()
    {
        await using var own = await node.StartAnew();
        await Fill(own, 100, bytes: 20_000);

        var page = await own.GetAsIs("/v1/events?limit=1000", ("Accept", "application/json"));

        Assert.InRange(page.Items.Count(), 1, (LogPages.MaxPageBytes / 20_000) + 1);
        Assert.Equal(JsonValueKind.String, page.Json.GetProperty("nextCursor").ValueKind);
        Assert.Equal(Dense(1, 100), Positions(Lines(await own.GetAsIs("/v1/events"))));
        Assert.Equal(Dense(1, 100), Positions(Lines(await own.GetAsIs("/v1/streams/filled", ("Accept", "application/x-ndjson")))));
    }

    [Fact]
    public async Task shows_events_this_program_does_not_know()
    {
        await using var own = await node.StartAnew();
        await Fill(own, 1, bytes: 3);

        Assert.Equal("""{"x": "aaa"}""", Lines(await own.GetAsIs("/v1/events"))[0].GetProperty("data").GetRawText());
    }

    [Theory]
    [InlineData("?after=-1", "after")]
    [InlineData("?after=1000000", "after")]
    [InlineData("?after=x", "after")]
    [InlineData("?limit=0", "limit")]
    [InlineData("?limit=1001", "limit")]
    [InlineData("?stream=", "stream")]
    [InlineData("?stream=a%01b", "stream")]
    [InlineData("?type=a%0Ab", "type")]
    [InlineData("?cursor=AAAA", "cursor")]
    [InlineData("?follow=maybe", "follow")]
    public async Task refuses_what_it_does_not_understand(string query, string field) =>
        Assert.Equal([field], (await node.GetAsIs($"/v1/events{query}")).Is(HttpStatusCode.BadRequest).Fields);

    [Fact]
    public async Task takes_filters_up_to_the_longest()
    {
        (await node.GetAsIs($"/v1/events?stream={new string('s', ListEvents.MaxFilterChars)}&limit=1000")).Is(HttpStatusCode.OK);
        Assert.Equal(["stream"], (await node.GetAsIs($"/v1/events?stream={new string('s', ListEvents.MaxFilterChars + 1)}")).IsProblem(400, "invalid-request").Fields);
        Assert.Equal(["type"], (await node.GetAsIs($"/v1/events?type={new string('s', ListEvents.MaxFilterChars + 1)}")).IsProblem(400, "invalid-request").Fields);
    }

    [Theory]
    [InlineData("-1")]
    [InlineData("1.5")]
    [InlineData("99999999")]
    public async Task refuses_a_last_event_id_that_is_none(string id) =>
        Assert.Equal(
            ["Last-Event-ID"],
            (await node.GetAsIs("/v1/events", ("Accept", "text/event-stream"), ("Last-Event-ID", id))).IsProblem(400, "invalid-request").Fields);

    [Fact]
    public async Task is_not_given_in_other_formats()
    {
        (await node.GetAsIs("/v1/events", ("Accept", "text/csv"))).IsProblem(406, "not-acceptable");
        (await node.GetAsIs("/v1/events?follow=true", ("Accept", "application/json"))).IsProblem(406, "not-acceptable");
        (await node.GetAsIs("/v1/streams/x", ("Accept", "text/csv"))).IsProblem(406, "not-acceptable");
    }

    [Fact]
    public async Task waits_for_a_position_that_is_still_to_come()
    {
        await using var own = await node.StartAnew();
        var waiting = own.GetAsIs("/v1/events", ("Ledger-Min-Position", "1"), ("Prefer", "wait=30"));
        await own.Put("/v1/users/first", "{}");

        Assert.Equal([1], Positions(Lines(await waiting)));
        (await own.GetAsIs("/v1/events", ("Ledger-Min-Position", "2"), ("Prefer", "wait=0"))).IsProblem(503, "view-behind");
    }

    [Fact]
    public async Task shows_one_stream_in_order_of_version()
    {
        await node.Post("/v1/segments", new { slug = "st" });
        foreach (var _ in Enumerable.Range(0, 3))
        {
            await node.Put("/v1/users/a%2Fb/segments/st", null);
            await node.Delete("/v1/users/a%2Fb/segments/st");
        }

        var whole = (await node.GetAsIs("/v1/streams/user-a%2Fb")).Is(HttpStatusCode.OK);
        Assert.Equal("\"6\"", whole.ETag);
        Assert.Equal(["1", "2", "3", "4", "5", "6"], whole.Each("version"));
        Assert.All(whole.Each("streamId"), s => Assert.Equal("user-a/b", s));
        Assert.Equal(JsonValueKind.Null, whole.Json.GetProperty("nextCursor").ValueKind);
        var first = await node.GetAsIs("/v1/streams/user-a%2Fb?limit=4");
        Assert.Equal(["1", "2", "3", "4"], first.Each("version"));
        Assert.Equal(["5", "6"], (await node.GetAsIs($"/v1/streams/user-a%2Fb?cursor={first.Json.GetProperty("nextCursor").GetString()}")).Each("version"));
        Assert.Equal(["4", "5"], (await node.GetAsIs("/v1/streams/user-a%2Fb?after=3&limit=2")).Each("version"));
        Assert.Empty((await node.GetAsIs("/v1/streams/user-a%2Fb?after=6")).Each("version"));
        Assert.Equal(6, Lines(await node.GetAsIs("/v1/streams/user-a%2Fb", ("Accept", "application/x-ndjson"))).Count);
        Assert.Equal(3, Lines(await node.GetAsIs("/v1/streams/user-a%2Fb?after=1&limit=3", ("Accept", "application/x-ndjson"))).Count);
    }

    [Fact]
    public async Task knows_no_stream_without_events()
    {
        (await node.GetAsIs("/v1/streams/user-nobody")).IsProblem(404, "stream-not-found");
        Assert.Equal(["after"], (await node.GetAsIs("/v1/streams/user-nobody?after=-1")).IsProblem(400, "invalid-request").Fields);
        Assert.Equal(["limit"], (await node.GetAsIs("/v1/streams/user-nobody?limit=1001")).IsProblem(400, "invalid-request").Fields);
    }

    [Fact]
    public async Task shows_nothing_of_other_tenants()
    {
        await using var own = await node.StartAnew();
        await Fill(own, 3, bytes: 1, tenant: "other");
        await own.Put("/v1/users/mine", "{}");

        Assert.Equal([4], Positions(Lines(await own.GetAsIs("/v1/events"))));
        (await own.GetAsIs("/v1/streams/filled")).IsProblem(404, "stream-not-found");
        await using var following = await Following.Start(own, "?limit=1");
        Assert.Equal([4], Positions(await following.Events(1)));
    }

    /// <summary>Stores events of a kind the program does not know, as another program would.</summary>
    private static async Task Fill(TestNode own, int events, int bytes, string tenant = Requests.DefaultTenant)
    {
        await using var command = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(
            """
            insert into mt_events (seq_id, id, stream_id, version, data, type, tenant_id)
            select i, gen_random_uuid(), 'filled', i, jsonb_build_object('x', repeat('a', $2)), 'from_elsewhere', $3 from generate_series(1, $1) i
            """);
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = events });
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = bytes });
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = tenant });
        await command.ExecuteNonQueryAsync(Cancellation);
    }
}
