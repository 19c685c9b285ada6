using System.Net;
using Ledger.EventStore;
using Ledger.Usage;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Usage;

public sealed class Correcting_calls(TestNode node) : IClassFixture<TestNode>
{
    private async Task<string> Call(string service, long tokens = 1_000_000, string occurredAt = "2026-11-19T12:00:00Z", string source = "gw", string? id = null)
    {
        id ??= UsageOf.NewId("call");
        (await node.Record(new { id, source, userId = "u1", serviceId = service, occurredAt, quantities = new { inputToken = tokens } })).Is(HttpStatusCode.OK);
        return id;
    }

    private Task<Answer> Void(string id, string reason = "booked twice", string source = "gw") =>
        node.Post($"/v1/usage/calls/{Uri.EscapeDataString(source)}/{Uri.EscapeDataString(id)}/void", new { reason });

    private Task<Answer> Price(string serviceId, string? from = null, string? to = null, bool dryRun = false) =>
        node.Post("/v1/usage/unpriced/price", new { serviceId, from, to, dryRun });

    private static string Counts(Answer answer)
    {
        var json = answer.Is(HttpStatusCode.OK).Json;
        Assert.Equal(Number("examined"), Number("priced") + Number("stillUnpriced") + Number("voided") + Number("pricedByOthers"));
        return $"{Number("examined")} {Number("priced")} {Number("stillUnpriced")} {json.GetProperty("amounts").GetRawText()}";

        long Number(string name) => json.GetProperty(name).GetInt64();
    }

    [Fact]
    public async Task A_call_taken_back_leaves_the_totals_and_stays_in_the_log()
    {
        var service = await UsageOf.Service(node);
        var (kept, gone) = (await Call(service), await Call(service, 3_000_000));
        Assert.Equal((2, "0.6", 0), await node.Totals(service));

        var answer = (await Void(gone)).Is(HttpStatusCode.OK);

        Assert.Equal((1, "0.15", 0), await node.Totals(service));
        Assert.Equal(("voided", "0.45", "booked twice"), (Text("status"), Text("amount"), Text("reason")));
        Assert.Equal(answer.Position, answer.Json.GetProperty("position").GetInt64());
        Assert.Equal([kept, gone], (await node.Recorded(service)).Select(c => c.CallId));
        var voided = Assert.IsType<CallVoided>((await node.Log()).Single(e => e.Position == answer.Position).Data);
        Assert.Equal((gone, 0.45m, "USD"), (voided.CallId, voided.Amount, voided.Currency));

        string? Text(string name) => answer.Json.GetProperty(name).GetString();
    }

    [Fact]
    public async Task Taking_a_call_back_again_changes_nothing_and_answers_as_before()
    {
        var service = await UsageOf.Service(node);
        var id = await Call(service);
        var first = await Void(id);

        var second = await Void(id, "another reason");

        Assert.Equal((first.Text, first.Position, true), (second.Text, second.Position, second.Replayed));
        Assert.Equal((0, null, 0), await node.Totals(service));
        Assert.Equal("duplicate", Assert.Single((await node.Record(new
        {
            id, source = "gw", userId = "u1", serviceId = service, occurredAt = "2026-11-19T12:00:00Z", quantities = new { inputToken = 1_000_000 },
        })).Each("status", "results")));
    }

    [Fact]
    public async Task What_is_not_there_or_not_well_said_is_not_taken_back()
    {
        var id = await Call(await UsageOf.Service(node));

        (await Void("no-such")).IsProblem(404, "call-not-found");
        (await Void(id, source: "other")).IsProblem(404, "call-not-found");
        Assert.Equal(["reason"], (await Void(id, "")).IsProblem(400, "invalid-request").Fields);
        Assert.Equal(["reason"], (await Void(id, new string('x', VoidCall.MaxReasonLength + 1))).IsProblem(400, "invalid-request").Fields);
        (await Void(id, new string('x', VoidCall.MaxReasonLength))).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task A_call_is_found_by_any_source_and_id()
    {
        var service = await UsageOf.Service(node);
        var id = await Call(service, source: "/gw/eu?x=%2F", id: $"a/b {service} ä%");

        (await Void(id, source: "/gw/eu?x=%2F")).Is(HttpStatusCode.OK);

        Assert.Equal(0, (await node.Totals(service)).Calls);
    }

    [Fact]
    public async Task Unpriced_calls_get_the_price_of_when_they_happened()
    {
        var service = await UsageOf.Service(node, priced: false);
        await Call(service, occurredAt: "2026-01-15T00:00:00Z");
        await Call(service, occurredAt: "2026-02-15T00:00:00Z");
        var early = await Call(service, occurredAt: "2025-12-15T00:00:00Z");
        Assert.Equal((3, null, 3), await node.Totals(service));
        await UsageOf.SetPrice(node, service, "1", "2026-01-01T00:00:00Z");
        await UsageOf.SetPrice(node, service, "2", "2026-02-01T00:00:00Z");

        Assert.Equal("""3 2 1 {"USD":"3"}""", Counts(await Price(service, dryRun: true)));
        Assert.Equal((3, null, 3), await node.Totals(service));
        Assert.Equal("""3 2 1 {"USD":"3"}""", Counts(await Price(service)));

        Assert.Equal((3, "3", 1), await node.Totals(service));
        Assert.Equal("1 0 1 {}", Counts(await Price(service)));
        await UsageOf.SetPrice(node, service, "0.5", "2025-12-01T00:00:00Z");
        Assert.Equal("""1 1 0 {"USD":"0.5"}""", Counts(await Price(service)));
        Assert.Equal((3, "3.5", 0), await node.Totals(service));
        Assert.Equal([(1, 1m), (2, 2m), (3, 0.5m)], (await node.Log()).Select(e => e.Data).OfType<CallPriced>().Where(p => p.ServiceId == service).Select(p => (p.PriceVersion, p.Amount)));
        (await Void(early)).Is(HttpStatusCode.OK);
        Assert.Equal((2, "3", 0), await node.Totals(service));
    }

    [Fact]
    public async Task A_cursor_that_was_edited_is_refused()
    {
        var service = await UsageOf.Service(node);
        await Call(service);
        (await node.Record(new { userId = "u2", serviceId = service })).Is(HttpStatusCode.OK);
        var cursor = (await node.Get($"/v1/usage/totals?service={service}&groupBy=user&sort=amount&limit=1")).Json.GetProperty("nextCursor").GetString()!;
        var text = System.Text.Encoding.Latin1.GetString(System.Buffers.Text.Base64Url.DecodeFromChars(cursor));
        Assert.Contains("\"0.15\"", text, StringComparison.Ordinal);
        var edited = System.Buffers.Text.Base64Url.EncodeToString(System.Text.Encoding.Latin1.GetBytes(text.Replace("0.15", "1;drop", StringComparison.Ordinal)));

        (await node.Get($"/v1/usage/totals?service={service}&groupBy=user&sort=amount&limit=1&cursor={edited}")).IsProblem(400, "invalid-cursor");
    }

    [Fact]
    public async Task A_later_price_does_not_change_what_was_priced()
    {
        var service = await UsageOf.Service(node);
        await Call(service);
        await UsageOf.SetPrice(node, service, "100", "2026-01-01T00:00:00Z");

        Assert.Equal("0 0 0 {}", Counts(await Price(service)));
        Assert.Equal((1, "0.15", 0), await node.Totals(service));
    }

    [Fact]
    public async Task Only_calls_of_the_time_asked_for_are_priced()
    {
        var service = await UsageOf.Service(node, priced: false);
        string[] times = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"];
        foreach (var time in times)
        {
            await Call(service, occurredAt: time);
        }

        await UsageOf.SetPrice(node, service, "1", "2020-01-01T00:00:00Z");

        Assert.Equal("""1 1 0 {"USD":"1"}""", Counts(await Price(service, "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z")));
        Assert.Equal("""1 1 0 {"USD":"1"}""", Counts(await Price(service, to: "2026-01-02T00:00:00Z")));
        Assert.Equal("""1 1 0 {"USD":"1"}""", Counts(await Price(service)));
        Assert.Equal(["to"], (await Price(service, "2026-01-02T00:00:00Z", "2026-01-02T00:00:00Z")).IsProblem(400, "invalid-request").Fields);
        (await Price("no-such")).IsProblem(404, "service-not-found");
    }

    [Fact]
    public async Task More_unpriced_calls_than_a_page_are_priced_once_by_two_who_try_at_once_while_some_are_taken_back()
    {
        await using var other = await node.StartBeside();
        var service = await UsageOf.Service(node, priced: false);
        const int Calls = (2 * LatePricer.PageCalls) + 100;
        (await node.Record(Enumerable.Range(0, Calls).Select(i => new
        {
            id = $"{service}-{i}", source = "gw", userId = $"u{i % 7}", serviceId = service, occurredAt = "2026-11-19T12:00:00Z", quantities = new { inputToken = 1_000_000 },
        }))).Is(HttpStatusCode.OK);
        await UsageOf.SetPrice(node, service, "1", "2020-01-01T00:00:00Z");
        await node.CatchUp();

        var pricing = new[] { Price(service), other.Post("/v1/usage/unpriced/price", new { serviceId = service }, ("Prefer", "wait=30")) };
        var voids = Enumerable.Range(0, 60).Select(i => Void($"{service}-{i * 35}")).ToArray();
        await Task.WhenAll([.. pricing, .. voids]);

        Assert.All(voids, v => v.Result.Is(HttpStatusCode.OK));
        Assert.All(pricing, p => Counts(p.Result));
        await node.CatchUp(); // with what the other node stored
        var log = await node.Log();
        var priced = log.Select(e => e.Data).OfType<CallPriced>().Where(p => p.ServiceId == service).ToArray();
        Assert.Equal(priced.Length, priced.Select(p => p.CallId).Distinct().Count());
        Assert.Equal(priced.Length, pricing.Sum(p => p.Result.Json.GetProperty("priced").GetInt64()));
        foreach (var voided in log.Where(e => e.Data is CallVoided v && v.ServiceId == service))
        {
            var call = (CallVoided)voided.Data!;
            var before = log.Any(e => e.Position < voided.Position && e.Data is CallPriced p && p.CallId == call.CallId && p.Source == call.Source);
            Assert.Equal(before ? 1m : null, call.Amount);
            Assert.DoesNotContain(log, e => e.Position > voided.Position && e.Data is CallPriced p && p.CallId == call.CallId && p.Source == call.Source);
        }

        Assert.Equal(Calls - 60, priced.Count(p => !log.Any(e => e.Data is CallVoided v && v.CallId == p.CallId)));
        Assert.Equal((Calls - 60, $"{Calls - 60}", 0), await node.Totals(service));
    }
}
