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
    public async Task Are_refused_by_the_name_of_what_is_wrong(string part, string with, string field)
    {
        var service = await UsageOf.Service(node);
        var body = Event("SERVICE", "ID").Replace(part, with, StringComparison.Ordinal).Replace("SERVICE", service, StringComparison.Ordinal);

        Assert.Equal([field], (await node.Record(body, CloudEvents.StructuredType)).IsProblem(400, "invalid-request").Fields);
        Assert.Equal([$"[1].{field}"], (await node.Record($"[{Event(service, "fine")},{body}]", CloudEvents.BatchType)).IsProblem(400, "invalid-request").Fields);
        Assert.Empty(await node.Recorded(service));
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
