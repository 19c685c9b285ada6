using System.Net;
using System.Text;
using Ledger.Usage;

namespace Ledger.Tests.Usage;

public sealed class CloudEvents_as_calls(TestNode node) : IClassFixture<TestNode>
{
    private static string Event(string service, string id, string more = "") =>
        $$"""{"specversion":"1.0","type":"ai.call","id":"{{id}}","source":"/gateways/eu","subject":"u1","time":"2026-11-19T12:00:00Z"{{more}},"data":{"serviceId":"{{service}}","quantities":{"inputToken":1000},"tags":{"team":"x"} } }""";

    [Theory]
    [InlineData("")]
    [InlineData(",\"datacontenttype\":\"application/json; charset=utf-8\",\"dataschema\":\"https://example.com/x\"")]
    [InlineData(",\"traceparent\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\",\"sampledrate\":30,\"flag\":true,\"nothing\":null")]
    public async Task Are_read_from_their_envelope(string more)
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("ce");

        var answer = (await node.Record(Event(service, id, more), CloudEvents.StructuredType)).Is(HttpStatusCode.OK);
        var repeat = (await node.Record(Event(service, id), "application/cloudevents+json; charset=UTF-8")).Is(HttpStatusCode.OK);

        var call = Assert.Single(await node.Recorded(service));
        Assert.Equal(("/gateways/eu", id, "u1", 0.00015m), (call.Source, call.CallId, call.UserId, call.Amount));
        Assert.Equal(new DateTimeOffset(2026, 11, 19, 12, 0, 0, TimeSpan.Zero), call.OccurredAt);
        Assert.Equal("x", call.Tags!["team"]);
        Assert.Equal((1, 1), (answer.Json.GetProperty("accepted").GetInt64(), repeat.Json.GetProperty("duplicates").GetInt64()));
    }

    [Fact]
    public async Task Are_the_same_call_in_every_mode_and_as_plain_JSON()
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("modes");

        var structured = await node.Record(Event(service, id), CloudEvents.StructuredType);
        var batched = await node.Record($"[{Event(service, id)},{Event(service, id + "2")}]", CloudEvents.BatchType);
        var binary = await node.Record(
            $$"""{"serviceId":"{{service}}","quantities":{"inputToken":1000},"tags":{"team":"x"} }""", "application/json", null,
            ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-id", id), ("ce-source", "/gateways/eu"), ("Ce-Subject", "u1"), ("ce-time", "2026-11-19T13:00:00+01:00"));
        var plain = await node.Record(new
        {
            id, source = "/gateways/eu", userId = "u1", serviceId = service, occurredAt = "2026-11-19T12:00:00Z", quantities = new { inputToken = 1000 }, tags = new { team = "x" },
        });

        Assert.Equal(["recorded"], structured.Each("status", "results"));
        Assert.Equal(["duplicate", "recorded"], batched.Each("status", "results"));
        Assert.Equal(["duplicate"], binary.Each("status", "results"));
        Assert.Equal(["duplicate"], plain.Each("status", "results"));
        Assert.Equal(2, (await node.Recorded(service)).Length);
    }

    [Fact]
    public async Task Have_their_headers_decoded()
    {
        var service = await UsageOf.Service(node);

        (await node.Record(
            $$"""{"serviceId":"{{service}}"}""", "application/json", null,
            ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-id", "Euro%20%E2%82%AC"), ("ce-source", "/a%25b"), ("ce-subject", "J%C3%BCrgen"))).Is(HttpStatusCode.OK);

        var call = Assert.Single(await node.Recorded(service));
        Assert.Equal(("Euro €", "/a%b", "Jürgen"), (call.CallId, call.Source, call.UserId));
    }

    [Fact]
    public async Task May_name_the_user_in_the_data()
    {
        var service = await UsageOf.Service(node);

        (await node.Record(Event(service, UsageOf.NewId("data")).Replace("\"subject\":\"u1\",", "", StringComparison.Ordinal).Replace("\"serviceId\"", "\"userId\":\"u7\",\"serviceId\"", StringComparison.Ordinal), CloudEvents.StructuredType)).Is(HttpStatusCode.OK);

        Assert.Equal("u7", Assert.Single(await node.Recorded(service)).UserId);
    }

    [Theory]
    [InlineData("\"specversion\":\"1.0\"", "\"specversion\":\"0.3\"", "specversion")]
    [InlineData("\"specversion\":\"1.0\",", "", "specversion")]
    [InlineData("\"type\":\"ai.call\",", "", "type")]
    [InlineData("\"id\":\"ID\",", "", "id")]
    [InlineData("\"id\":\"ID\",", "\"id\":7,", "id")]
    [InlineData("\"source\":\"/gateways/eu\"", "\"source\":\"\"", "source")]
    [InlineData("\"subject\":\"u1\",", "", "subject")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"time\":\"yesterday\"", "time")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"datacontenttype\":\"text/xml\"", "datacontenttype")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"data_base64\":\"AAAA\"", "data_base64")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"Upper\":1", "Upper")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"deep\":{}", "deep")]
    [InlineData("\"serviceId\":\"SERVICE\",", "", "data.serviceId")]
    [InlineData("\"serviceId\":\"SERVICE\"", "\"serviceId\":\"SERVICE\",\"more\":1", "data.more")]
    [InlineData("\"serviceId\":\"SERVICE\"", "\"serviceId\":\"SERVICE\",\"userId\":\"u2\"", "subject")]
    [InlineData("\"id\":\"ID\"", "\"id\":\" \"", "id")]
    [InlineData("\"source\":\"/gateways/eu\"", "\"source\":\"..\"", "source")]
    [InlineData("\"subject\":\"u1\"", "\"subject\":\" u1\"", "subject")]
    [InlineData("\"subject\":\"u1\",\"time\":\"2026-11-19T12:00:00Z\",\"data\":{", "\"data\":{\"userId\":\" u1\",", "data.userId")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"time\":\"1969-12-31T23:59:59Z\"", "time")]
    [InlineData("\"time\":\"2026-11-19T12:00:00Z\"", "\"time\":\"2099-01-01T00:00:00Z\"", "time")]
    [InlineData("\"serviceId\":\"SERVICE\"", "\"serviceId\":\"-\"", "data.serviceId")]
    [InlineData("\"inputToken\":1000", "\"inputToken\":-5", "data.quantities.inputToken")]
    [InlineData("\"team\":\"x\"", "\"\":\"x\"", "data.tags.")]
    public async Task Are_refused_by_the_name_of_what_is_wrong(string part, string with, string field)
    {
        var service = await UsageOf.Service(node);
        var body = Event("SERVICE", "ID").Replace(part, with, StringComparison.Ordinal).Replace("SERVICE", service, StringComparison.Ordinal);

        Assert.Equal([field], (await node.Record(body, CloudEvents.StructuredType)).IsProblem(400, "invalid-request").Fields);
        Assert.Equal([$"[1].{field}"], (await node.Record($"[{Event(service, "fine")},{body}]", CloudEvents.BatchType)).IsProblem(400, "invalid-request").Fields);
        Assert.Empty(await node.Recorded(service));
    }

    [Fact]
    public async Task Of_a_batch_are_numbered_by_their_place_though_one_before_can_not_be_read()
    {
        var service = await UsageOf.Service(node);
        var first = Event(service, "first").Replace("\"subject\":\"u1\",", "", StringComparison.Ordinal);
        var second = Event(service, "second").Replace("\"inputToken\":1000", "\"inputToken\":-5", StringComparison.Ordinal);

        var refused = await node.Record($"[{first},{second}]", CloudEvents.BatchType);

        Assert.Equal(["[0].subject", "[1].data.quantities.inputToken"], refused.IsProblem(400, "invalid-request").Fields);
    }

    [Theory]
    [InlineData("ce-id", "%20", "", "ce-id")]
    [InlineData("ce-source", "..", "", "ce-source")]
    [InlineData("ce-subject", "%20u1", "", "ce-subject")]
    [InlineData("ce-subject", null, ",\"userId\":\" u1\"", "userId")]
    [InlineData("ce-subject", "u1", ",\"userId\":\"u2\"", "ce-subject")]
    [InlineData("ce-time", "1969-12-31T23:59:59Z", "", "ce-time")]
    [InlineData("ce-time", "2099-01-01T00:00:00Z", "", "ce-time")]
    [InlineData("ce-time", null, ",\"quantities\":{\"inputToken\":-5}", "quantities.inputToken")]
    [InlineData("ce-time", null, ",\"tags\":{\"\":\"x\"}", "tags.")]
    [InlineData("ce-time", null, ",\"more\":1", "more")]
    public async Task In_binary_mode_are_refused_by_the_name_of_the_header_or_of_the_field_in_the_body(string header, string? value, string more, string field)
    {
        var service = await UsageOf.Service(node);
        var headers = new Dictionary<string, string?>
        {
            ["ce-specversion"] = "1.0", ["ce-type"] = "t", ["ce-id"] = "id", ["ce-source"] = "s", ["ce-subject"] = "u1", [header] = value,
        };

        var refused = await node.Record(
            $$"""{"serviceId":"{{service}}"{{more}}}""", "application/json", null, [.. headers.Where(h => h.Value is not null).Select(h => (h.Key, h.Value!))]);

        Assert.Equal([field], refused.Is(HttpStatusCode.BadRequest).Fields);
        Assert.StartsWith($"{field} ", refused.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task That_were_recorded_with_other_content_are_refused_by_their_own_names()
    {
        var service = await UsageOf.Service(node);
        var id = UsageOf.NewId("differs");
        var other = Event(service, id).Replace("12:00", "13:00", StringComparison.Ordinal).Replace("\"inputToken\":1000", "\"inputToken\":7", StringComparison.Ordinal);
        (await node.Record(Event(service, id), CloudEvents.StructuredType)).Is(HttpStatusCode.OK);

        var structured = (await node.Record(other, CloudEvents.StructuredType)).IsProblem(409, "call-conflict");
        var binary = (await node.Record(
            $$"""{"serviceId":"{{service}}","quantities":{"inputToken":1000},"tags":{"team":"x"} }""", "application/json", null,
            ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-id", id), ("ce-source", "/gateways/eu"), ("ce-subject", "u2"))).IsProblem(409, "call-conflict");

        Assert.Equal("id", Assert.Single(structured.Fields));
        Assert.EndsWith("They differ: time, data.quantities.inputToken.", structured.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal("ce-id", Assert.Single(binary.Fields));
        Assert.EndsWith("They differ: ce-subject.", binary.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task In_binary_mode_are_refused_by_the_name_of_the_header() =>
        Assert.Equal(
            ["ce-id", "ce-source", "ce-type", "ce-subject"],
            (await node.Record("""{"serviceId":"s"}""", "application/json", null, ("ce-specversion", "1.0"))).IsProblem(400, "invalid-request").Fields);

    [Theory]
    [InlineData(CloudEvents.StructuredType, "[]")]
    [InlineData(CloudEvents.StructuredType, "\"x\"")]
    [InlineData(CloudEvents.BatchType, "{}")]
    [InlineData(CloudEvents.BatchType, "[1]")]
    public async Task Are_objects_and_batches_are_lists(string mediaType, string body) =>
        Assert.Equal(HttpStatusCode.BadRequest, (await node.Record(Encoding.UTF8.GetBytes(body), mediaType)).Status);
}
