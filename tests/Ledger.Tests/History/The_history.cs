using System.Globalization;
using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.History;
using Ledger.Http;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.History;

public sealed class The_history(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static string Of(string user, string more = "") => $"/v1/history?user={Uri.EscapeDataString(user)}{more}";

    private static string[] Shown(Answer answer) =>
        [.. answer.Is(HttpStatusCode.OK).Items.Select(i => $"{i.GetProperty("position")} {i.GetProperty("kind")} {i.GetProperty("user")} {i.GetProperty("segment")}")];

    [Fact]
    public async Task Says_who_did_what_when()
    {
        await node.Post("/v1/segments", new { slug = "says", description = "what for" });
        var joined = node.Clock.Now;
        await node.Put("/v1/users/says-u/segments/says", """{"ttl":"PT1H"}""");
        node.Clock.Advance(TimeSpan.FromHours(2));
        await node.Sweep();
        await node.CatchUp();

        var entries = (await node.Get(Of("says-u", "&segment=says"))).Is(HttpStatusCode.OK).Items.ToArray();

        Assert.Equal(["membership-expired", "user-joined-segment"], entries.Select(e => e.GetProperty("kind").GetString()));
        var (expired, join) = (entries[0], entries[1]);
        Assert.Equal(Rfc3339.Format(joined.AddHours(1)), expired.GetProperty("at").GetString());
        Assert.Equal(Rfc3339.Format(node.Clock.Now), expired.GetProperty("recordedAt").GetString());
        Assert.Equal("ledger-sweeper", expired.GetProperty("actor").GetString());
        Assert.Equal(Rfc3339.Format(joined), join.GetProperty("at").GetString());
        Assert.Equal(Rfc3339.Format(joined), join.GetProperty("recordedAt").GetString());
        Assert.Equal(("says-u", "says", "anonymous"), (join.GetProperty("user").GetString(), join.GetProperty("segment").GetString(), join.GetProperty("actor").GetString()));
        Assert.Equal(JsonValueKind.Null, join.GetProperty("service").ValueKind);
        Assert.Equal("PT1H", join.GetProperty("detail").GetProperty("ttl").GetString());
        Assert.False(join.GetProperty("detail").TryGetProperty("segment", out var _));
        Assert.Equal("what for", (await node.Get("/v1/history?segment=says&kind=segment-created")).Items.Single().GetProperty("detail").GetProperty("description").GetString());
    }

    [Fact]
    public async Task Of_a_user_tells_of_roll_outs_and_deletions_although_no_event_of_the_user_exists()
    {
        await node.Post("/v1/segments", new { slug = "moves", rolloutPercent = "0" });
        await node.Post("/v1/segments", new { slug = "ends" });
        await node.Put("/v1/users/moved/segments/ends", null);
        await node.Put("/v1/users/short/segments/ends", """{"ttl":"PT1S"}""");
        await node.Patch("/v1/segments/moves", new { rolloutPercent = "100" });
        await node.Patch("/v1/segments/moves", new { rolloutPercent = "50" }); // bucket of "moved" below 50 % or not: the model's business
        await node.Patch("/v1/segments/moves", new { rolloutPercent = "0" });
        await node.Patch("/v1/segments/moves", new { rolloutPercent = "100" });
        node.Clock.Advance(TimeSpan.FromSeconds(2));
        await node.Delete("/v1/segments/ends");
        await node.Delete("/v1/segments/moves");

        // Other tests roll segments out to everybody, too.
        var entries = (await node.Get(Of("moved", "&order=oldest"))).Is(HttpStatusCode.OK).Items
            .Where(e => e.GetProperty("segment").GetString() is "moves" or "ends").ToArray();

        Assert.Equal(
            ["user-joined-segment ends", "user-rolled-in moves", "user-rolled-out moves", "user-rolled-in moves", "user-removed-by-deletion ends", "user-removed-by-deletion moves"],
            entries.Select(e => $"{e.GetProperty("kind").GetString()} {e.GetProperty("segment").GetString()}"));
        Assert.Equal("explicit", entries[4].GetProperty("detail").GetProperty("source").GetString());
        Assert.Equal("rollout", entries[5].GetProperty("detail").GetProperty("source").GetString());
        Assert.Equal("100", entries[1].GetProperty("detail").GetProperty("percent").GetString());
        // What had run out before its segment was deleted was never recorded as expired; it is told all the same.
        var shortly = (await node.Get(Of("short", "&segment=ends&kind=membership-expired"))).Items.Single();
        Assert.True(shortly.GetProperty("at").GetDateTimeOffset() < shortly.GetProperty("recordedAt").GetDateTimeOffset());
        Assert.Equal(["user-rolled-in"], (await node.Get(Of("never-heard-of", "&kind=user-rolled-in&limit=1"))).Each("kind"));
    }

    [Fact]
    public async Task Is_what_the_log_says_under_any_filter_and_in_pages_of_any_length()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var world = new RandomWorld(node, random, "any");
        await world.Begin();
        await world.Run(LongTests.Wanted ? 1_500 : 150, TimeSpan.FromHours(10));
        await node.CatchUp();
        var log = await node.Log();

        foreach (var user in world.Users.Append(null).Append("nobody"))
        {
            var all = user is null ? log.Select(HistoryModel.Of).ToArray() : [.. HistoryModel.OfUser(log, user)];
            for (var i = 0; i < (LongTests.Wanted ? 100 : 12); i++)
            {
                var kinds = all.Select(e => e.Kind).Where(k => user is not null || !HistoryKinds.OfUsersOnly.Contains(k)).Distinct().ToArray();
                var (segment, service) = (Maybe(4, world.Slugs), Maybe(5, world.Services));
                var (kind, actor) = (Maybe(3, kinds), Maybe(6, ["anonymous", "ledger-sweeper", "nobody"]));
                var (from, to) = (Instant(), Instant());
                (from, to) = from > to ? (to, from) : (from, to);
                var oldest = random.Next(2) == 0;
                var expected = all.Where(e => (segment is null || e.Segment == segment) && (service is null || e.Service == service)
                    && (kind is null || e.Kind == kind) && (actor is null || e.Actor == actor)
                    && (from is null || e.RecordedAt >= from) && (to is null || e.RecordedAt < to));
                expected = oldest ? expected : expected.Reverse();
                var query = "?" + Query("user", user) + Query("segment", segment) + Query("service", service) + Query("kind", kind) + Query("actor", actor)
                    + Query("from", from is null ? null : Rfc3339.Format(from.Value)) + Query("to", to is null ? null : Rfc3339.Format(to.Value))
                    + (oldest ? "&order=oldest" : random.Next(2) == 0 ? "&order=newest" : "");
                var told = $"Seed {LongTests.Seed}: {query}";

                Assert.True(expected.Select(Line).SequenceEqual(await Pages(query, 1 + random.Next(40))), told);
                var lines = (await node.Get($"/v1/history{query}", ("Accept", "application/x-ndjson"))).Is(HttpStatusCode.OK).Text.Split('\n')[..^1];
                Assert.True(expected.Select(Line).SequenceEqual(lines.Select(l => Line(JsonElement.Parse(l)))), told);

                string? Maybe(int chance, string[] values) => values.Length > 0 && random.Next(chance) == 0 ? values[random.Next(values.Length)] : null;
            }
        }

        Assert.Empty(node.Errors);

        DateTimeOffset? Instant() => random.Next(3) > 0 ? null : log[random.Next(log.Count)].RecordedAt.AddMicroseconds(random.Next(-1, 2));
    }

    private async Task<List<string>> Pages(string query, int limit)
    {
        var lines = new List<string>();
        string? cursor = null;
        do
        {
            var page = (await node.Get($"/v1/history{query}&limit={limit}{Query("cursor", cursor)}")).Is(HttpStatusCode.OK);
            lines.AddRange(page.Items.Select(Line));
            Assert.True(page.Items.Count() == limit || page.Json.GetProperty("nextCursor").ValueKind == JsonValueKind.Null);
            cursor = page.Json.GetProperty("nextCursor").GetString();
        }
        while (cursor is not null);
        return lines;
    }

    [Fact]
    public async Task Keeps_its_pages_while_events_are_appended()
    {
        await node.Post("/v1/segments", new { slug = "pages" });
        for (var i = 0; i < 5; i++)
        {
            await node.Put($"/v1/users/pages-{i}/segments/pages", null);
        }

        var whole = Shown(await node.Get("/v1/history?segment=pages"));
        var first = await node.Get("/v1/history?segment=pages&limit=2");
        await node.Put("/v1/users/pages-more/segments/pages", null);
        var second = await node.Get($"/v1/history?segment=pages&limit=10&cursor={first.Json.GetProperty("nextCursor").GetString()}");

        Assert.Equal(whole, Shown(first).Concat(Shown(second)));
        (await node.Get($"/v1/history?segment=pages&order=oldest&cursor={first.Json.GetProperty("nextCursor").GetString()}")).IsProblem(400, "invalid-cursor");
    }

    [Fact]
    public async Task Can_be_had_as_CSV_that_no_spreadsheet_runs()
    {
        var service = await UsageOf.Service(node);
        await node.Post("/v1/usage", new { source = "csv", id = "=id", userId = "=cmd|'/c calc'!A1", serviceId = service, occurredAt = "2026-11-01T00:00:00Z" });

        var lines = (await node.Get(Of("=cmd|'/c calc'!A1", "&kind=call-recorded"), ("Accept", "text/csv"))).Is(HttpStatusCode.OK).Text.Split("\r\n");

        Assert.Equal("position,at,recordedAt,kind,user,segment,service,actor,detail", lines[0]);
        Assert.StartsWith(
            string.Create(CultureInfo.InvariantCulture, $"{node.Position},2026-11-01T00:00:00Z,{Rfc3339.Format(node.Clock.Now)},call-recorded,'=cmd|'/c calc'!A1,,{service},anonymous,\"{{"),
            lines[1], StringComparison.Ordinal);
        Assert.Equal("", lines[2]);
    }

    [Theory]
    [InlineData("user=%20a", "user")]
    [InlineData("segment=-", "segment")]
    [InlineData("service=%2F", "service")]
    [InlineData("kind=user_joined_segment", "kind")]
    [InlineData("kind=user-rolled-in", "kind")]
    [InlineData("actor=", "actor")]
    [InlineData("from=2026-11-20T12:00:00Z&to=2026-11-20T11:59:59Z", "from")]
    [InlineData("from=yesterday", "from")]
    [InlineData("order=desc", "order")]
    [InlineData("limit=1001", "limit")]
    public async Task Names_what_is_wrong_with_a_question(string query, string field) =>
        Assert.Equal([field], (await node.Get($"/v1/history?{query}")).IsProblem(400, "invalid-request").Fields);

    [Fact]
    public async Task Has_an_entry_of_every_kind_of_event()
    {
        var kinds = node.Services.GetRequiredService<HistoryKinds>();
        Assert.All(node.Services.GetRequiredService<EventTypes>().All, t => Assert.True(kinds.IsOfEvent(HistoryKinds.Of(t.Name))));
        Assert.Equal("user-joined-segment", HistoryKinds.Of("user_joined_segment"));
        (await node.Get("/v1/history", ("Accept", "application/xml"))).IsProblem(406, "not-acceptable");
    }

    [Fact]
    public void Has_the_kinds_that_are_documented() => Assert.Equal(
        node.Services.GetRequiredService<HistoryKinds>().All.Select(k => $"`{k}`"),
        Documents.Repository.Rows(Documents.Repository.Read("docs/http.md"), "kind", "told of").Select(row => row[0]));

    private static string Query(string name, string? value) => value is null ? "" : $"&{name}={Uri.EscapeDataString(value)}";

    private static string Line(HistoryModel.Entry e) =>
        $"{e.Position} {Rfc3339.Format(e.At)} {Rfc3339.Format(e.RecordedAt)} {e.Kind} {e.User} {e.Segment} {e.Service} {e.Actor}";

    private static string Line(JsonElement e) => string.Join(
        ' ', ((string[])["position", "at", "recordedAt", "kind", "user", "segment", "service", "actor"]).Select(f => e.GetProperty(f).ToString()));
}
