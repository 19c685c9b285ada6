using System.Globalization;
using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Services;
using Ledger.Usage;

namespace Ledger.Tests.Grpc;

public sealed class A_call_over_grpc(GrpcNode node) : IClassFixture<GrpcNode>
{
    private const int InvalidArgument = 3, NotFound = 5, AlreadyExists = 6, FailedPrecondition = 9;

    private static object Timestamp(DateTimeOffset at) =>
        new { seconds = at.ToUnixTimeSeconds(), nanos = (int)(at.UtcTicks % TimeSpan.TicksPerSecond) * 100 };

    private static string NewId() => Guid.NewGuid().ToString("n");

    private async Task<RecordedEvent> Recorded(long position) => (await node.Http.Log(position - 1))[0];

    [Fact]
    public async Task is_recorded_and_priced()
    {
        var service = await node.Service("0.0015");
        var at = node.Http.Clock.Now.AddHours(-1).AddTicks(1234567);

        var recorded = (await node.Call("RecordCall", new
        {
            call = new { user_id = "ü 1", service_id = service, id = "r1", source = "gateway", occurred_at = Timestamp(at), quantities = new { call = "2.5" }, tags = new { team = "search" } },
        })).IsOk();

        Assert.Equal(
            $$"""{"id":"r1","status":"CALL_STATUS_RECORDED","position":{{recorded.Position}},"amount":"0.00375","currency":"USD","price_version":1}""",
            recorded["result"].GetRawText());
        var call = Assert.IsType<CallRecorded>((await Recorded(recorded.Position)).Data);
        Assert.Equal(("gateway", "r1", "ü 1", service, at.ToMicroseconds()), (call.Source, call.CallId, call.UserId, call.ServiceId, call.OccurredAt));
        Assert.Equal(KeyValuePair.Create("call", 2.5m), Assert.Single(call.Quantities));
        Assert.Equal(KeyValuePair.Create("team", "search"), Assert.Single(call.Tags!));
    }

    [Fact]
    public async Task needs_no_more_than_a_user_and_a_service()
    {
        var service = await node.Service("0.01");

        var recorded = (await node.Call("RecordCall", new { call = new { user_id = "u1", service_id = service } })).IsOk();

        var call = Assert.IsType<CallRecorded>((await Recorded(recorded.Position)).Data);
        Assert.Equal((Requests.Anonymous, node.Http.Clock.Now, 0.01m), (call.Source, call.OccurredAt, call.Amount));
        Assert.Equal(call.CallId, recorded["result"].GetProperty("id").GetString());
        Assert.Equal(KeyValuePair.Create("call", 1m), Assert.Single(call.Quantities));
        Assert.Null(call.Tags);
    }

    [Fact]
    public async Task without_a_price_has_no_amount_and_says_why()
    {
        var id = NewId();
        (await node.Call("RegisterService", new { service_id = id, title = id })).IsOk();

        var result = (await node.Call("RecordCall", new { call = new { user_id = "u1", service_id = id } })).IsOk()["result"];

        Assert.Equal("no-price", result.GetProperty("unpriced_reason").GetString());
        Assert.False(result.TryGetProperty("amount", out _) || result.TryGetProperty("currency", out _) || result.TryGetProperty("price_version", out _));
    }

    [Fact]
    public async Task that_was_recorded_before_is_a_duplicate_with_the_first_outcome_whichever_way_it_came()
    {
        var service = await node.Service("0.01");
        var body = new { id = NewId(), source = "gateway", userId = "u1", serviceId = service, quantities = new { call = "3" }, occurredAt = "2026-11-20T11:00:00Z" };
        var first = (await node.Http.Post("/v1/usage", body)).Is(HttpStatusCode.OK);
        (await node.Call("SetPrice", new { service_id = service, currency = "USD", components = new[] { new { unit = "call", price = "9" } }, effective_from = new { seconds = 0 } })).IsOk();

        var again = (await node.Call("RecordCall", new
        {
            call = new { user_id = "u1", service_id = service, body.id, body.source, quantities = new { call = "3.0" }, occurred_at = Timestamp(new(2026, 11, 20, 11, 0, 0, TimeSpan.Zero)) },
        })).IsOk();

        Assert.Equal(
            $$"""{"id":"{{body.id}}","status":"CALL_STATUS_DUPLICATE","position":{{first.Position}},"amount":"0.03","currency":"USD","price_version":1}""",
            again["result"].GetRawText());
        Assert.Equal(first.Position, again.Position);
        Assert.False(again.Replayed);
    }

    [Fact]
    public async Task with_the_id_of_another_is_a_conflict()
    {
        var service = await node.Service();
        var id = NewId();
        var first = (await node.Call("RecordCall", new { call = new { user_id = "u1", service_id = service, id, source = "g" } })).IsOk();

        var other = (await node.Call("RecordCall", new { call = new { user_id = "u2", service_id = service, id, source = "g" } })).IsRefused(AlreadyExists, "call-conflict");

        Assert.Equal([("call.id", $"'{id}' of the source 'g' was recorded at position {first.Position} with other content")], other.Violations);
        Assert.Equal($"call.id '{id}' of the source 'g' was recorded at position {first.Position} with other content. They differ: userId.", other.Message);
    }

    [Fact]
    public async Task without_an_id_is_recorded_once_a_key_whichever_way_it_comes()
    {
        var service = await node.Service();
        var (call, key) = (new { user_id = "u1", service_id = service }, NewId());

        var first = (await node.Call("RecordCall", new { call }, ("idempotency-key", key))).IsOk();
        var again = (await node.Call("RecordCall", new { call }, ("idempotency-key", key))).IsOk();
        var http = (await node.Http.Post("/v1/usage", new { userId = "u1", serviceId = service }, ("Idempotency-Key", key))).Is(HttpStatusCode.OK);
        var other = await node.Call("RecordCall", new { call = new { user_id = "u2", service_id = service } }, ("idempotency-key", key));

        Assert.Equal((first.Position, first.Position), (again.Position, http.Position));
        Assert.Equal((false, true, true), (first.Replayed, again.Replayed, http.Replayed));
        other.IsRefused(AlreadyExists, "idempotency-key-reused");
    }

    [Theory]
    [InlineData("""{}""", "call", "is missing")]
    [InlineData("""{"call":{"service_id":"$"}}""", "call.user_id", "is not a user id")]
    [InlineData("""{"call":{"user_id":"u1"}}""", "call.service_id", "is not a slug")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","id":""}}""", "call.id", "must be 1 to 256 characters")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","source":" s"}}""", "call.source", "no space at either end")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","occurred_at":{"seconds":-1}}}""", "call.occurred_at", "must not be before 1970-01-01T00:00:00Z")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","occurred_at":{"seconds":253402300800}}}""", "call.occurred_at", "is not a Timestamp")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","occurred_at":{"seconds":1,"nanos":1000000000}}}""", "call.occurred_at", "is not a Timestamp")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","occurred_at":{"seconds":4102444800}}}""", "call.occurred_at", "is more than 5 minutes ahead")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","quantities":{"inputToken":"1,5"}}}""", "call.quantities.inputToken", "is not a decimal")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","quantities":{"inputToken":""}}}""", "call.quantities.inputToken", "is not a decimal")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","quantities":{"inputToken":"-1"}}}""", "call.quantities.inputToken", "must be 0 or more")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","quantities":{"inputToken":"0.0000000001"}}}""", "call.quantities.inputToken", "at most 9 decimals")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","quantities":{"Über.Tags.X":"1"}}}""", "call.quantities.Über.Tags.X", "is not a unit")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","tags":{"":"x"}}}""", "call.tags.", "must have a name of 1 to 64 characters")]
    [InlineData("""{"call":{"user_id":"u1","service_id":"$","tags":{"team":"a\u0000b"}}}""", "call.tags", "holds what is not text")]
    [InlineData("""{"call":{"user_id":"u\u00001","service_id":"$"}}""", "call.user_id", "holds what is not text")]
    public async Task is_refused_with_the_field_and_the_rule(string request, string field, string rule)
    {
        var service = await node.Service();

        var refused = (await node.Call("RecordCall", JsonElement.Parse(request.Replace("$", service, StringComparison.Ordinal)))).IsRefused(InvalidArgument, "invalid-request");

        var (wrong, why) = Assert.Single(refused.Violations);
        Assert.Equal(field, wrong);
        Assert.Contains(rule, why, StringComparison.Ordinal);
        Assert.Equal($"{field} {why}.", refused.Message);
    }

    [Fact]
    public async Task of_a_service_that_is_not_registered_is_refused() =>
        (await node.Call("RecordCall", new { call = new { user_id = "u1", service_id = "nobody" } })).IsRefused(NotFound, "service-not-found");

    [Fact]
    public async Task of_a_retired_service_is_refused()
    {
        var service = await node.Service();
        (await node.Http.Delete($"/v1/services/{service}")).Is(HttpStatusCode.NoContent);

        (await node.Call("RecordCall", new { call = new { user_id = "u1", service_id = service } })).IsRefused(FailedPrecondition, "service-retired");
    }

    [Fact]
    public async Task is_taken_back_once()
    {
        var service = await node.Service("0.5");
        var id = NewId();
        var recorded = (await node.Call("RecordCall", new { call = new { user_id = "u1", service_id = service, id, source = "g/1", occurred_at = new { seconds = 1_700_000_000 } } })).IsOk();

        var voided = (await node.Call("VoidCall", new { source = "g/1", id, reason = "sent twice" })).IsOk();
        var again = (await node.Call("VoidCall", new { source = "g/1", id, reason = "another reason" })).IsOk();

        Assert.Equal(
            $$"""{"source":"g/1","id":"{{id}}","reason":"sent twice","user_id":"u1","service_id":"{{service}}","occurred_at":{"seconds":1700000000},"quantities":{"call":"1"},"amount":"0.5","currency":"USD","position":{{voided.Position}}}""",
            voided.Response!.Value.GetRawText());
        Assert.Equal((voided.Response.Value.GetRawText(), voided.Position, true), (again.Response!.Value.GetRawText(), again.Position, again.Replayed));
        Assert.Equal(recorded.Position, Assert.IsType<CallVoided>((await Recorded(voided.Position)).Data).CallPosition);
    }

    [Fact]
    public async Task that_was_never_recorded_is_not_taken_back()
    {
        (await node.Call("VoidCall", new { source = "g", id = NewId(), reason = "r" })).IsRefused(NotFound, "call-not-found");
        var refused = (await node.Call("VoidCall", new { id = "i", reason = new string('r', VoidCall.MaxReasonLength + 1) })).IsRefused(InvalidArgument, "invalid-request");
        Assert.Equal(["source", "reason"], refused.Violations.Select(v => v.Field));
    }
}

public sealed class Calls_over_grpc(GrpcNode node) : IClassFixture<GrpcNode>
{
    private const int InvalidArgument = 3, NotFound = 5, AlreadyExists = 6, ResourceExhausted = 8;

    private static object[] Calls(string service, int count, string prefix = "r") =>
        [.. Enumerable.Range(0, count).Select(i => new { user_id = $"u{i % 7}", service_id = service, id = $"{prefix}{i}", source = service })];

    [Fact]
    public async Task are_recorded_a_thousand_at_once_each_once()
    {
        var service = await node.Service("0.001");

        var first = (await node.Call("RecordCalls", new { calls = Calls(service, RecordCalls.MaxResults) })).IsOk();
        var again = (await node.Call("RecordCalls", new { calls = Calls(service, RecordCalls.MaxResults) })).IsOk();

        var results = first["results"].EnumerateArray().ToArray();
        Assert.Equal(Enumerable.Range(0, 1000).Select(i => $"r{i} CALL_STATUS_RECORDED 0.001"), results.Select(r => $"{r.GetProperty("id")} {r.GetProperty("status")} {r.GetProperty("amount")}"));
        Assert.Equal(Enumerable.Range(0, 1000).Select(i => first.Position - 999 + i), results.Select(r => r.GetProperty("position").GetInt64()));
        Assert.Equal((1000, first.Position), (first["accepted"].GetInt32(), first["position"].GetInt64()));
        Assert.False(first.Response!.Value.TryGetProperty("duplicates", out _));
        Assert.Equal((1000, first.Position), (again["duplicates"].GetInt32(), again.Position));
        Assert.False(again.Response!.Value.TryGetProperty("accepted", out _));
        Assert.All(again["results"].EnumerateArray(), r => Assert.Equal("CALL_STATUS_DUPLICATE", r.GetProperty("status").GetString()));
    }

    [Fact]
    public async Task of_more_than_a_thousand_are_counted_only_and_more_than_ten_thousand_are_refused()
    {
        var service = await node.Service();

        var many = (await node.Call("RecordCalls", new { calls = Calls(service, RecordCalls.MaxCalls) })).IsOk();
        var tooMany = (await node.Call("RecordCalls", new { calls = Calls(service, RecordCalls.MaxCalls + 1) })).IsRefused(InvalidArgument, "invalid-request");

        Assert.Equal(10_000, many["accepted"].GetInt32());
        Assert.False(many.Response!.Value.TryGetProperty("results", out _));
        Assert.Equal([("calls", "must hold at most 10000")], tooMany.Violations);
    }

    [Fact]
    public async Task that_are_none_change_nothing()
    {
        await node.Service(); // so that the log is not empty, whichever test comes first
        var none = (await node.Call("RecordCalls", new { })).IsOk();

        Assert.Equal((await node.Http.Log())[^1].Position, none.Position);
        Assert.Equal($$"""{"position":{{none.Position}}}""", none.Response!.Value.GetRawText());
    }

    [Fact]
    public async Task are_recorded_all_or_none()
    {
        var service = await node.Service();
        var before = (await node.Call("RecordCalls", new { })).Position;

        var unknown = (await node.Call("RecordCalls", new { calls = new[] { new { user_id = "u1", service_id = service }, new { user_id = "u1", service_id = "nobody" } } })).IsRefused(NotFound, "service-not-found");
        var wrong = (await node.Call("RecordCalls", new
        {
            calls = new object[]
            {
                new { user_id = "u1", service_id = service },
                new { service_id = service, quantities = new { inputToken = "many" } },
                new { user_id = "u1", service_id = service, occurred_at = new { seconds = -5 } },
            },
        })).IsRefused(InvalidArgument, "invalid-request");
        var twice = (await node.Call("RecordCalls", new
        {
            calls = new[] { new { user_id = "u1", service_id = service, id = "x", source = service }, new { user_id = "u2", service_id = service, id = "x", source = service } },
        })).IsRefused(AlreadyExists, "call-conflict");

        Assert.Equal("There is no service 'nobody'.", unknown.Message);
        Assert.Equal(["calls[1].quantities.inputToken", "calls[1].user_id", "calls[2].occurred_at"], wrong.Violations.Select(v => v.Field).Order(StringComparer.Ordinal));
        Assert.EndsWith("There is more: see errors.", wrong.Message, StringComparison.Ordinal);
        Assert.Equal("calls[1].id", Assert.Single(twice.Violations).Field);
        Assert.Equal(before, (await node.Call("RecordCalls", new { })).Position);
    }

    [Fact]
    public async Task name_as_many_wrong_fields_as_clients_take_metadata()
    {
        var calls = Enumerable.Range(0, 200).Select(_ => new { user_id = new string('x', 129), service_id = "no slug" });

        var refused = (await node.Call("RecordCalls", new { calls })).IsRefused(InvalidArgument, "invalid-request");

        Assert.InRange(refused.Violations.Length, 10, Validation.MaxFields - 1);
        Assert.Equal("calls[0].user_id", refused.Violations[0].Field);
    }

    [Fact]
    public async Task come_compressed_and_large()
    {
        var service = await node.Service();
        var calls = Enumerable.Range(0, 10_000).Select(i => new { user_id = "u1", service_id = service, id = $"{i}", source = service, tags = new { text = new string('ä', 250) } }).ToArray();

        (await node.Call(new GrpcCall("RecordCalls", new { calls = calls[..9_000] }))).IsOk();
        var packed = (await node.Call(new GrpcCall("RecordCalls", new { calls }) { Gzip = true })).IsOk();

        Assert.Equal((1_000, 9_000), (packed["accepted"].GetInt32(), packed["duplicates"].GetInt32()));
    }

    [Fact]
    public async Task that_are_larger_than_a_message_may_be_are_refused()
    {
        var calls = new[] { new { user_id = "u1", service_id = "s", tags = new { text = new string('x', RecordCalls.MaxBodyBytes) } } };

        foreach (var gzip in (bool[])[false, true])
        {
            var refused = await node.Call(new GrpcCall("RecordCalls", new { calls }) { Gzip = gzip });
            Assert.Equal((ResourceExhausted, $"The message is larger than {RecordCalls.MaxBodyBytes} bytes."), (refused.Code, refused.Message));
        }
    }

    [Fact]
    public async Task come_from_64_callers_at_once()
    {
        var service = await node.Service();

        var outcomes = await Task.WhenAll(Enumerable.Range(0, 64).Select(i => node.Call("RecordCalls", new { calls = Calls(service, 10, $"c{i / 2}-") })));

        Assert.Equal((320, 320), (outcomes.Sum(o => Count(o, "accepted")), outcomes.Sum(o => Count(o, "duplicates"))));

        static int Count(Outcome outcome, string field) => outcome.IsOk().Response!.Value.TryGetProperty(field, out var count) ? count.GetInt32() : 0;
    }
}

public sealed class A_service_over_grpc(GrpcNode node) : IClassFixture<GrpcNode>
{
    private const int InvalidArgument = 3, NotFound = 5, AlreadyExists = 6, Aborted = 10;

    private static string NewId() => Guid.NewGuid().ToString("n");

    private static object Timestamp(DateTimeOffset at) => new { seconds = at.ToUnixTimeSeconds() };

    [Fact]
    public async Task is_registered_priced_and_seen_over_http()
    {
        var id = NewId();

        var registered = (await node.Call("RegisterService", new { service_id = id, title = $"GPT {id}", description = "" })).IsOk();
        var priced = (await node.Call("SetPrice", new
        {
            service_id = id, currency = "USD", effective_from = Timestamp(node.Http.Clock.Now),
            components = new object[] { new { unit = "call", price = "0.010" }, new { unit = "inputToken", price = "1.5e-1", per = 1_000_000 } },
        })).IsOk();

        var now = node.Http.Clock.Now.ToUnixTimeSeconds();
        Assert.Equal(
            $$"""{"service_id":"{{id}}","title":"GPT {{id}}","description":"","registered_at":{"seconds":{{now}}},"version":1,"position":{{registered.Position}}}""",
            registered.Response!.Value.GetRawText());
        Assert.Equal(
            """{"price_version":1,"currency":"USD","effective_from":{"seconds":#},"components":[{"unit":"call","price":"0.01","per":1},{"unit":"inputToken","price":"0.15","per":1000000}],"set_at":{"seconds":#},"version":2,"position":$}"""
                .Replace("#", $"{now}", StringComparison.Ordinal).Replace("$", $"{priced.Position}", StringComparison.Ordinal),
            priced.Response!.Value.GetRawText());
        var seen = await node.Http.GetAsIs($"/v1/services/{id}", ("Ledger-Min-Position", $"{priced.Position}"));
        Assert.Equal("0.15", seen.Json.GetProperty("price").GetProperty("components")[1].GetProperty("price").GetString());
    }

    [Fact]
    public async Task gets_an_id_of_its_own_and_no_description()
    {
        var registered = (await node.Call("RegisterService", new { title = NewId() })).IsOk();

        Assert.True(Guid.TryParse(registered.Text("service_id"), out _));
        Assert.False(registered.Response!.Value.TryGetProperty("description", out _));
    }

    [Fact]
    public async Task is_registered_once_a_key_whichever_way_it_comes()
    {
        var (title, key) = (NewId(), NewId());

        var first = (await node.Call("RegisterService", new { title, description = "d" }, ("idempotency-key", key))).IsOk();
        var again = (await node.Call("RegisterService", new { title, description = "d" }, ("idempotency-key", key))).IsOk();
        var http = (await node.Http.Post("/v1/services", new { title, description = "d" }, ("Idempotency-Key", key))).Is(HttpStatusCode.Created);
        var other = await node.Call("RegisterService", new { title = NewId() }, ("idempotency-key", key));

        Assert.Equal((first.Text("service_id"), first.Position, true), (again.Text("service_id"), again.Position, again.Replayed));
        Assert.Equal((first.Text("service_id"), true), (http.Json.GetProperty("serviceId").GetString(), http.Replayed));
        other.IsRefused(AlreadyExists, "idempotency-key-reused");
    }

    [Fact]
    public async Task is_priced_once_a_key_whichever_way_it_comes()
    {
        var (service, key) = (await node.Service(), NewId());
        object price = new { service_id = service, currency = "EUR", components = new[] { new { unit = "call", price = "2.0" } }, effective_from = new { seconds = 1_700_000_000 } };

        var first = (await node.Call("SetPrice", price, ("idempotency-key", key))).IsOk();
        var again = (await node.Call("SetPrice", price, ("idempotency-key", key))).IsOk();
        var http = await node.Http.Post(
            $"/v1/services/{service}/prices", new { currency = "EUR", components = new[] { new { unit = "call", price = "2" } }, effectiveFrom = "2023-11-14T22:13:20Z" }, ("Idempotency-Key", key));

        Assert.Equal((2, 2, 2), (first["price_version"].GetInt32(), again["price_version"].GetInt32(), http.Is(HttpStatusCode.Created).Json.GetProperty("priceVersion").GetInt32()));
        Assert.Equal((false, true, true), (first.Replayed, again.Replayed, http.Replayed));
    }

    [Fact]
    public async Task is_refused_by_the_rules_that_http_has()
    {
        var service = await node.Service();

        (await node.Call("RegisterService", new { service_id = service, title = NewId() })).IsRefused(AlreadyExists, "service-exists");
        (await node.Call("RegisterService", new { title = service })).IsRefused(AlreadyExists, "title-taken");
        var wrong = (await node.Call("RegisterService", new { service_id = "a/b", title = "", description = new string('d', Service.MaxDescriptionLength + 1) })).IsRefused(InvalidArgument, "invalid-request");
        Assert.Equal(["service_id", "title", "description"], wrong.Violations.Select(v => v.Field));
        var key = (await node.Call("RegisterService", new { title = NewId() }, ("idempotency-key", "a b"))).IsRefused(InvalidArgument, "invalid-request");
        Assert.Equal("idempotency-key", Assert.Single(key.Violations).Field);
        var text = (await node.Call("RegisterService", new { title = NewId(), description = "a\0b" })).IsRefused(InvalidArgument, "invalid-request");
        Assert.Equal("description", Assert.Single(text.Violations).Field);
    }

    [Theory]
    [InlineData("""{"service_id":"$","components":[{"unit":"call","price":"1"}]}""", "currency", "is not a currency")]
    [InlineData("""{"service_id":"$","currency":"USD"}""", "components", "must be 1 to 32")]
    [InlineData("""{"service_id":"$","currency":"USD","components":[{"unit":"call"}]}""", "components[0].price", "is not a decimal")]
    [InlineData("""{"service_id":"$","currency":"USD","components":[{"unit":"call","price":"1"},{"unit":"call","price":"1"}]}""", "components[1].unit", "is named twice")]
    [InlineData("""{"service_id":"$","currency":"USD","components":[{"unit":"call","price":"1","per":0}]}""", "components[0].per", "must divide")]
    [InlineData("""{"service_id":"$","currency":"USD","components":[{"unit":"call","price":"1"}],"effective_from":{"seconds":-1}}""", "effective_from", "must be from 1970")]
    [InlineData("""{"service_id":"$","currency":"USD","components":[{"unit":"call","price":"1"}],"effective_from":{"nanos":-1}}""", "effective_from", "is not a Timestamp")]
    [InlineData("""{"service_id":"a b","currency":"USD","components":[{"unit":"call","price":"1"}]}""", "service_id", "is not a slug")]
    public async Task takes_no_price_that_is_none(string request, string field, string rule)
    {
        var service = await node.Service();

        var refused = (await node.Call("SetPrice", JsonElement.Parse(request.Replace("$", service, StringComparison.Ordinal)))).IsRefused(InvalidArgument, "invalid-request");

        var (wrong, why) = Assert.Single(refused.Violations);
        Assert.Equal(field, wrong);
        Assert.Contains(rule, why, StringComparison.Ordinal);
    }

    [Fact]
    public async Task takes_a_price_only_in_the_version_that_if_match_names()
    {
        var service = await node.Service();
        object price = new { service_id = service, currency = "USD", components = new[] { new { unit = "call", price = "2" } } };

        (await node.Call("SetPrice", price, ("if-match", "\"1\""))).IsRefused(Aborted, "precondition-failed");
        Assert.Equal(3, (await node.Call("SetPrice", price, ("if-match", "\"2\""))).IsOk()["version"].GetInt32());
        (await node.Call("SetPrice", new { service_id = "nobody", currency = "USD", components = new[] { new { unit = "call", price = "2" } } })).IsRefused(NotFound, "service-not-found");
    }
}
