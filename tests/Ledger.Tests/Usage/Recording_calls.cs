using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json;
using Ledger.Http;
using Ledger.Usage;

namespace Ledger.Tests.Usage;

public sealed class Recording_calls(TestNode node) : IClassFixture<TestNode>
{
    private static readonly string s_at = "2026-11-19T12:00:00Z";

    private static object Call(string serviceId, string? id, long inputTokens = 1200, string userId = "u1", string? occurredAt = null) => new
    {
        id, source = "gw", userId, serviceId, occurredAt = occurredAt ?? s_at, quantities = new { inputToken = inputTokens, outputToken = 340 }, tags = new { team = "search" },
    };

    [Fact]
    public async Task Answers_with_the_position_and_what_the_call_costs()
    {
        var service = await UsageOf.Service(node);

        var answer = (await node.Record(Call(service, "r-1"))).Is(HttpStatusCode.OK);

        Assert.Equal(
            $$"""{"accepted":1,"duplicates":0,"results":[{"id":"r-1","status":"recorded","position":{{answer.Position}},"amount":"0.000384","currency":"USD","priceVersion":1}]}""",
            answer.Text);
        var recorded = Assert.Single(await node.Recorded(service));
        Assert.Equal(("gw", "r-1", "u1", DateTimeOffset.Parse(s_at, CultureInfo.InvariantCulture)), (recorded.Source, recorded.CallId, recorded.UserId, recorded.OccurredAt));
        Assert.Equal([("call", 1m), ("inputToken", 1200m), ("outputToken", 340m)], recorded.Quantities.Select(q => (q.Key, q.Value)));
        Assert.Equal([("team", "search")], recorded.Tags!.Select(t => (t.Key, t.Value)));
        Assert.Equal($"usage-{service}-2026-11-19", (await node.Log()).Single(e => e.Position == answer.Position).StreamId);
    }

    [Fact]
    public async Task Takes_the_credentials_name_now_and_one_call_for_what_is_left_out_and_makes_an_id()
    {
        var service = await UsageOf.Service(node);

        var answer = (await node.Record(new { userId = "u1", serviceId = service })).Is(HttpStatusCode.OK);

        var recorded = Assert.Single(await node.Recorded(service));
        Assert.Equal((Ledger.Requests.Anonymous, node.Clock.Now, 1m, (decimal?)0m), (recorded.Source, recorded.OccurredAt, recorded.Quantities["call"], recorded.Amount));
        Assert.Equal(recorded.CallId, Assert.Single(answer.Each("id", "results")));
        Assert.Equal(1, (await node.Record(new { userId = "u1", serviceId = service })).Json.GetProperty("accepted").GetInt64());
        Assert.Equal(2, (await node.Recorded(service)).Length);
    }

    public static TheoryData<string> SameContent =>
    [
        """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:00Z","quantities":{"inputToken":1200,"outputToken":340.5},"tags":{"a":"1","b":"2"}}""",
        """{"tags":{"b":"2","a":"1"},"quantities":{"outputToken":"340.500","inputToken":"1200"},"occurredAt":"2026-11-19T12:00:00Z","serviceId":"SERVICE","userId":"u1","source":"gw","id":"ID"}""",
        """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T13:00:00.000+01:00","quantities":{"inputToken":1.2e3,"outputToken":340.5,"call":1},"tags":{"a":"1","b":"2"}}""",
        """{"id":"I\u0044","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19t12:00:00.0000001z","quantities":{"inputToken":1200.0,"outputToken":340.50,"call":"1.0"},"tags":{"a":"1","b":"\u0032"}}""",
    ];

    [Theory, MemberData(nameof(SameContent))]
    public async Task Answers_a_repeat_with_the_first_outcome_however_it_is_written(string repeat)
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("same");
        string Of(string text) => text.Replace("SERVICE", service, StringComparison.Ordinal).Replace("I\\u0044", $"\\u0073{id[1..]}", StringComparison.Ordinal).Replace("\"ID\"", $"\"{id}\"", StringComparison.Ordinal);
        var first = (await node.Record(Of(SameContent.First().Data))).Is(HttpStatusCode.OK);
        await UsageOf.SetPrice(node, service, "99");

        var second = (await node.Record(Of(repeat))).Is(HttpStatusCode.OK);

        Assert.Equal(first.Text.Replace("\"accepted\":1,\"duplicates\":0", "\"accepted\":0,\"duplicates\":1", StringComparison.Ordinal).Replace("recorded", "duplicate", StringComparison.Ordinal), second.Text);
        Assert.Equal(first.Position, second.Position);
        Assert.Single(await node.Recorded(service));
    }

    [Theory]
    [InlineData("userId", """{"id":"ID","source":"gw","userId":"u2","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:00Z","quantities":{"inputToken":1200}}""")]
    [InlineData("occurredAt", """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:01Z","quantities":{"inputToken":1200}}""")]
    [InlineData("only one of the two says when it happened", """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","quantities":{"inputToken":1200}}""")]
    [InlineData("quantities.inputToken", """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:00Z","quantities":{"inputToken":1201}}""")]
    [InlineData("quantities.inputToken, quantities.outputToken", """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:00Z","quantities":{"outputToken":1200}}""")]
    [InlineData("quantities.call", """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:00Z","quantities":{"inputToken":1200,"call":2}}""")]
    [InlineData("tags.team", """{"id":"ID","source":"gw","userId":"u1","serviceId":"SERVICE","occurredAt":"2026-11-19T12:00:00Z","quantities":{"inputToken":1200},"tags":{"team":"x"}}""")]
    public async Task Refuses_other_content_under_the_same_identity_and_names_both(string difference, string other)
    {
        var (service, id) = (await UsageOf.Service(node), UsageOf.NewId("other"));
        var first = (await node.Record(new { id, source = "gw", userId = "u1", serviceId = service, occurredAt = s_at, quantities = new { inputToken = 1200 } })).Is(HttpStatusCode.OK);

        var conflict = (await node.Record(other.Replace("SERVICE", service, StringComparison.Ordinal).Replace("ID", id, StringComparison.Ordinal))).IsProblem(409, "call-conflict");

        Assert.Equal(
            $"id '{id}' of the source 'gw' was recorded at position {first.Position} with other content. They differ: {difference}.",
            conflict.Json.GetProperty("detail").GetString());
        Assert.Equal(["id"], conflict.Fields);
        Assert.Single(await node.Recorded(service));
    }

    [Fact]
    public async Task Tells_sources_apart()
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("shared");

        Assert.Equal(2, (await node.Record(new[] { new { id, source = "a", userId = "u", serviceId = service }, new { id, source = "b", userId = "v", serviceId = service } }))
            .Json.GetProperty("accepted").GetInt64());
    }

    [Fact]
    public async Task Stores_a_list_whole_in_its_order_and_counts_what_it_names_twice_once()
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("list");

        var answer = (await node.Record(new[] { Call(service, $"{id}a"), Call(service, $"{id}b", occurredAt: "2020-02-29T23:59:59Z"), Call(service, $"{id}a"), Call(service, $"{id}c") })).Is(HttpStatusCode.OK);

        Assert.Equal((3, 1), (answer.Json.GetProperty("accepted").GetInt64(), answer.Json.GetProperty("duplicates").GetInt64()));
        Assert.Equal(["recorded", "recorded", "duplicate", "recorded"], answer.Each("status", "results"));
        var positions = answer.Each("position", "results");
        Assert.Equal(positions[0], positions[2]);
        Assert.Equal([$"{id}a", $"{id}b", $"{id}c"], (await node.Recorded(service)).Select(c => c.CallId));
    }

    [Fact]
    public async Task Stores_nothing_of_a_list_with_one_call_that_is_refused()
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("refused");
        (await node.Record(Call(service, id))).Is(HttpStatusCode.OK);
        var fine = Call(service, UsageOf.NewId("fine"));

        var unknown = (await node.Record(new[] { fine, Call("no-such", "x") })).IsProblem(404, "service-not-found");
        var conflict = (await node.Record(new[] { fine, fine, Call(service, id, 1) })).IsProblem(409, "call-conflict");
        var twice = (await node.Record(new[] { Call(service, "t"), Call(service, "t", 1) })).IsProblem(409, "call-conflict");
        var future = (await node.Record(new[] { fine, Call(service, "f", occurredAt: Rfc3339.Format(node.Clock.Now.AddMinutes(6))) })).IsProblem(400, "invalid-request");

        Assert.Contains("'no-such'", unknown.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal(["[2].id"], conflict.Fields);
        Assert.Equal(["[1].id"], twice.Fields);
        Assert.Equal(["[1].occurredAt"], future.Fields);
        Assert.Single(await node.Recorded(service));
    }

    [Fact]
    public async Task Takes_an_empty_list_for_nothing() =>
        Assert.Equal("""{"accepted":0,"duplicates":0,"results":[]}""", (await node.Record("[]")).Is(HttpStatusCode.OK).Text);

    [Fact]
    public async Task Answers_call_by_call_up_to_a_limit_and_takes_no_more_than_another()
    {
        var service = await UsageOf.Service(node);
        object[] Calls(int count) => [.. Enumerable.Range(0, count).Select(i => new { userId = "u", serviceId = service })];

        Assert.Equal(RecordCalls.MaxResults, (await node.Record(Calls(RecordCalls.MaxResults))).Each("id", "results").Length);
        Assert.False((await node.Record(Calls(RecordCalls.MaxResults + 1))).Json.TryGetProperty("results", out _));
        Assert.Equal(RecordCalls.MaxCalls, (await node.Record(Calls(RecordCalls.MaxCalls))).Json.GetProperty("accepted").GetInt64());
        Assert.Equal(["$"], (await node.Record(Calls(RecordCalls.MaxCalls + 1))).IsProblem(400, "invalid-request").Fields);
    }

    public static TheoryData<string, string> Bad => new()
    {
        { """{"userId":"","serviceId":"s"}""", "userId" },
        { """{"userId":"u","serviceId":"a b"}""", "serviceId" },
        { """{"serviceId":"s"}""", "userId" },
        { """{"userId":"u","serviceId":"s","extra":1}""", "extra" },
        { """{"userId":"u","serviceId":"s","id":""}""", "id" },
        { """{"userId":"u","serviceId":"s","id":"ID257"}""", "id" },
        { """{"userId":"u","serviceId":"s","source":" x"}""", "source" },
        { """{"userId":"u","serviceId":"s","occurredAt":"2026-11-19"}""", "occurredAt" },
        { """{"userId":"u","serviceId":"s","occurredAt":"1969-12-31T23:59:59.999999Z"}""", "occurredAt" },
        { """{"userId":"u","serviceId":"s","quantities":{"x":-1}}""", "quantities.x" },
        { """{"userId":"u","serviceId":"s","quantities":{"x":1e12}}""", "quantities.x" },
        { """{"userId":"u","serviceId":"s","quantities":{"x":0.0000000001}}""", "quantities.x" },
        { """{"userId":"u","serviceId":"s","quantities":{"x":"NaN"}}""", "quantities.x" },
        { """{"userId":"u","serviceId":"s","quantities":{"1x":1}}""", "quantities.1x" },
        { """{"userId":"u","serviceId":"s","quantities":{"x":1,"x":2}}""", "quantities.x" },
        { """{"userId":"u","serviceId":"s","quantities":{UNITS33}}""", "quantities" },
        { """{"userId":"u","serviceId":"s","tags":{TAGS17}}""", "tags" },
        { """{"userId":"u","serviceId":"s","tags":{"a":1}}""", "tags.a" },
        { """{"userId":"u","serviceId":"s","tags":{"":"x"}}""", "tags." },
        { """{"userId":"u","serviceId":"s","tags":{"a":"VALUE257"}}""", "tags.a" },
        { """{"userId":"u\u0000","serviceId":"s"}""", "userId" },
        { "[null]", "[0]" },
        { "[1]", "[0]" },
    };

    [Theory, MemberData(nameof(Bad))]
    public async Task Names_the_field_that_is_wrong_and_stores_nothing(string body, string field)
    {
        var head = await node.CatchUp();

        var problem = await node.Record(Expanded(body));

        Assert.Equal(HttpStatusCode.BadRequest, problem.Status);
        Assert.Equal([field], problem.Fields);
        Assert.Equal(head, await node.CatchUp());
    }

    [Fact]
    public async Task Takes_everything_up_to_its_limits()
    {
        var service = await UsageOf.Service(node, priced: false);
        var body = Expanded(
            """{"userId":"u","serviceId":"SERVICE","id":"ID256","source":"ID256","occurredAt":"1970-01-01T00:00:00Z","quantities":{UNITS32},"tags":{TAGS16}}""").Replace("SERVICE", service, StringComparison.Ordinal);

        (await node.Record(body)).Is(HttpStatusCode.OK);
        (await node.Record(new { userId = "u", serviceId = service, occurredAt = Rfc3339.Format(node.Clock.Now + Ledger.Usage.Call.MaxAhead), quantities = new { x = "999999999999.999999999" } })).Is(HttpStatusCode.OK);

        var recorded = await node.Recorded(service);
        Assert.Equal((256, 16, DateTimeOffset.UnixEpoch), (recorded[0].CallId.Length, recorded[0].Tags!.Count, recorded[0].OccurredAt));
        Assert.Equal(999_999_999_999.999999999m, recorded[1].Quantities["x"]);
        Assert.Equal("no-price", recorded[1].UnpricedReason);
    }

    private static string Expanded(string text) => text
        .Replace("ID256", new string('i', 256), StringComparison.Ordinal).Replace("ID257", new string('i', 257), StringComparison.Ordinal)
        .Replace("VALUE257", new string('v', 257), StringComparison.Ordinal)
        .Replace("UNITS32", string.Join(',', Enumerable.Range(0, 32).Select(i => $"\"u{i}\":1")), StringComparison.Ordinal)
        .Replace("UNITS33", string.Join(',', Enumerable.Range(0, 33).Select(i => $"\"u{i}\":1")), StringComparison.Ordinal)
        .Replace("TAGS16", string.Join(',', Enumerable.Range(0, 16).Select(i => $"\"{new string((char)('a' + i), 64)}\":\"{new string('v', 256)}\"")), StringComparison.Ordinal)
        .Replace("TAGS17", string.Join(',', Enumerable.Range(0, 17).Select(i => $"\"t{i}\":\"v\"")), StringComparison.Ordinal);

    [Fact]
    public async Task Refuses_what_is_too_large_or_in_a_format_that_is_not_read()
    {
        var large = new byte[RecordCalls.MaxBodyBytes + 1];
        large.AsSpan().Fill((byte)' ');

        (await node.Record(large, "application/json", "gzip")).IsProblem(413, "body-too-large");
        (await node.Record("{", "application/json")).IsProblem(400, "malformed-json");
        (await node.Record("x", "text/plain")).IsProblem(415, "unsupported-media-type");
        (await node.Record("{}", "application/json", null, ("Content-Encoding", "zstd"))).IsProblem(415, "unsupported-media-type");
        Assert.Equal("br, gzip, deflate", (await node.Record("{}", "application/json", null, ("Content-Encoding", "gzip, br"))).Headers["Accept-Encoding"]);
        foreach (var encoding in new[] { "gzip", "br", "deflate" })
        {
            var body = UsageOf.Packed(Encoding.UTF8.GetBytes("""{"userId":"u","serviceId":"s"}"""), encoding);
            (await node.Record("not packed at all"u8.ToArray(), "application/json", null, ("Content-Encoding", encoding))).IsProblem(400, "invalid-request");
            (await node.Record("not packed at all"u8.ToArray(), "application/x-ndjson", null, ("Content-Encoding", encoding))).IsProblem(400, "invalid-request");
            (await node.Record(body[..^3], "application/json", null, ("Content-Encoding", encoding))).IsProblem(400, "invalid-request");
            (await node.Record(body[..^3], "application/x-ndjson", null, ("Content-Encoding", encoding))).IsProblem(400, "invalid-request");
        }
    }

    [Theory]
    [InlineData("gzip")]
    [InlineData("br")]
    [InlineData("deflate")]
    public async Task Unpacks_what_comes_compressed(string encoding)
    {
        var service = await UsageOf.Service(node);

        (await node.Record(JsonSerializer.SerializeToUtf8Bytes(Call(service, UsageOf.NewId("packed"))), "application/json", encoding)).Is(HttpStatusCode.OK);

        Assert.Single(await node.Recorded(service));
    }

    [Fact]
    public async Task Makes_the_same_ids_again_under_an_idempotency_key()
    {
        var service = await UsageOf.Service(node);
        var key = ("Idempotency-Key", UsageOf.NewId("key"));
        object[] calls = [new { userId = "u", serviceId = service }, new { userId = "u", serviceId = service }];

        var first = await node.Record(calls, "application/json", null, key);
        var second = await node.Record(calls, "application/json", null, key);

        Assert.Equal((2, 0), (first.Json.GetProperty("accepted").GetInt64(), first.Json.GetProperty("duplicates").GetInt64()));
        Assert.Equal((0, 2), (second.Json.GetProperty("accepted").GetInt64(), second.Json.GetProperty("duplicates").GetInt64()));
        Assert.Equal(first.Each("id", "results"), second.Each("id", "results"));
        Assert.Equal((false, true), (first.Replayed, second.Replayed));
        (await node.Record(new { userId = "other", serviceId = service }, "application/json", null, key)).IsProblem(422, "idempotency-key-reused");
        (await node.Record(calls.Append(calls[0]), "application/json", null, key)).IsProblem(422, "idempotency-key-reused");
        (await node.Record(calls.Take(1), "application/json", null, key)).IsProblem(422, "idempotency-key-reused");
        Assert.Equal(2, (await node.Recorded(service)).Length);
    }

    [Fact]
    public async Task Prices_by_what_was_in_force_when_it_happened()
    {
        var service = await UsageOf.Service(node, priced: false);
        await UsageOf.SetPrice(node, service, "1", "2026-01-01T00:00:00Z");
        await UsageOf.SetPrice(node, service, "2", "2026-06-01T00:00:00Z", "EUR");
        object At(string at) => new { userId = "u", serviceId = service, occurredAt = at, quantities = new { inputToken = 1_000_000 } };

        var answer = await node.Record(new[]
        {
            At("2025-12-31T23:59:59.999999Z"), At("2026-01-01T00:00:00Z"), At("2026-05-31T23:59:59Z"), At("2026-06-01T00:00:00Z"),
            new { userId = "u", serviceId = service, quantities = new { image = 1 } },
        });

        Assert.Equal(["", "1", "1", "2", ""], answer.Each("amount", "results"));
        Assert.Equal(["", "USD", "USD", "EUR", ""], answer.Each("currency", "results"));
        Assert.Equal(["", "1", "1", "2", ""], answer.Each("priceVersion", "results"));
        Assert.Equal("no-price", answer.Json.GetProperty("results")[0].GetProperty("unpricedReason").GetString());
        Assert.Equal("no-component:image", answer.Json.GetProperty("results")[4].GetProperty("unpricedReason").GetString());
    }

    [Fact]
    public async Task Refuses_calls_after_a_services_end_and_takes_those_before_it()
    {
        var service = await UsageOf.Service(node);
        (await node.Delete($"/v1/services/{service}")).Is(HttpStatusCode.NoContent);
        node.Clock.Advance(TimeSpan.FromMinutes(1));

        (await node.Record(new { userId = "u", serviceId = service })).IsProblem(409, "service-retired");
        (await node.Record(new { userId = "u", serviceId = service, occurredAt = "2026-11-01T00:00:00Z" })).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Answers_a_repeat_with_the_first_outcome_when_the_service_was_retired_since()
    {
        var service = await UsageOf.Service(node);
        object call = new { id = UsageOf.NewId("before"), userId = "u", serviceId = service };
        var first = (await node.Record(call)).Is(HttpStatusCode.OK);
        var key = ("Idempotency-Key", UsageOf.NewId("before"));
        object keyed = new { userId = "u", serviceId = service };
        (await node.Record(keyed, "application/json", null, key)).Is(HttpStatusCode.OK);
        (await node.Delete($"/v1/services/{service}")).Is(HttpStatusCode.NoContent);
        node.Clock.Advance(TimeSpan.FromMinutes(1));

        Assert.True((await node.Record(keyed, "application/json", null, key)).Is(HttpStatusCode.OK).Replayed);
        var repeat = (await node.Record(call)).Is(HttpStatusCode.OK);

        Assert.Equal(("duplicate", first.Position), (Assert.Single(repeat.Each("status", "results")), repeat.Position));
        Assert.Equal(1, (await node.Record(call, "application/x-ndjson")).Receipt().Duplicates);
    }

    [Fact]
    public async Task Is_kept_in_every_view_with_everything_as_long_as_it_may_be()
    {
        var serviceId = new string('s', 128);
        (await node.Post("/v1/services", new { serviceId, title = serviceId })).Is(HttpStatusCode.Created);
        var random = new Random(LongTests.Seed);
        string Name(int length) => new([.. Enumerable.Range(0, length).Select(_ => (char)('a' + random.Next(26)))]);
        var units = Enumerable.Range(0, 16).ToDictionary(_ => Name(64), _ => "999999999999.999999999");
        var userId = string.Concat(Enumerable.Range(0, 128).Select(_ => char.ConvertFromUtf32(random.Next(0x10000, 0x10FFFF))));
        object Call(IReadOnlyDictionary<string, string> quantities) => new { userId, serviceId, quantities };

        (await node.Record(Call(units))).Is(HttpStatusCode.OK);
        Assert.Equal(["quantities"], (await node.Record(Call(units.Append(new("a", "1")).ToDictionary()))).IsProblem(400, "invalid-request").Fields);

        await node.CatchUp();
        Assert.Equal(1, (await node.Totals(serviceId)).Calls);
        Assert.All((await node.GetAsIs("/v1/projections")).Items, v => Assert.Equal("running", v.GetProperty("state").GetString()));
    }

    [Fact]
    public async Task Counts_the_items_of_a_list_before_it_makes_anything_of_them()
    {
        var many = "[" + string.Join(',', Enumerable.Repeat("{}", RecordCalls.MaxCalls + 1)) + "]";

        foreach (var mediaType in new[] { "application/json", CloudEvents.BatchType })
        {
            Assert.Equal(["$"], (await node.Record(many, mediaType)).IsProblem(400, "invalid-request").Fields);
        }
    }

    [Fact]
    public async Task Of_the_same_calls_at_two_nodes_at_once_stores_each_once()
    {
        await using var other = await node.StartBeside();
        var service = await UsageOf.Service(node);
        object[][] batches = [.. Enumerable.Range(0, 30).Select(b => Enumerable.Range(0, 20).Select(i => Call(service, $"{service}-{((b * 7) + (i * 3)) % 100}", inputTokens: 7)).ToArray())];

        var answers = await Task.WhenAll(batches.SelectMany(b => new[] { node, other }.Select(n => n.Record(b))));

        Assert.All(answers, a => a.Is(HttpStatusCode.OK));
        var recorded = await node.Recorded(service);
        Assert.Equal(100, recorded.Length);
        Assert.Equal(100, recorded.Select(c => c.CallId).Distinct().Count());
        Assert.Equal(100, answers.Sum(a => a.Json.GetProperty("accepted").GetInt64()));
        var positions = answers.SelectMany(a => a.Each("id", "results").Zip(a.Each("position", "results"))).Distinct().ToArray();
        Assert.Equal(100, positions.Length);
    }

    [Fact]
    public async Task Races_a_new_price_and_uses_the_one_that_was_first_in_the_log()
    {
        await using var other = await node.StartBeside();
        var service = await UsageOf.Service(node, priced: false);
        var recording = Task.Run(async () =>
        {
            for (var i = 0; i < 100; i++)
            {
                (await other.Record(new { userId = "u", serviceId = service, quantities = new { inputToken = 1_000_000 } })).Is(HttpStatusCode.OK);
            }
        }, TestContext.Current.CancellationToken);
        for (var price = 1; price <= 10; price++)
        {
            await UsageOf.SetPrice(node, service, $"{price}");
        }

        await recording;
        var (version, calls) = (0, 0);
        foreach (var recorded in await node.Log())
        {
            switch (recorded.Data)
            {
                case Ledger.Services.PriceSet set when recorded.StreamId == $"service-{service}":
                    version = set.Version;
                    break;
                case CallRecorded call when call.ServiceId == service:
                    calls++;
                    Assert.Equal((version == 0 ? null : version, version == 0 ? null : (decimal?)version), (call.PriceVersion, call.Amount));
                    break;
            }
        }

        Assert.Equal((10, 100), (version, calls));
    }
}
