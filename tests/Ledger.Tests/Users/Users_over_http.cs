using System.Net;
using System.Text;
using Ledger.Users;

namespace Ledger.Tests.Users;

public sealed class Putting_a_user(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task registers_then_replaces_then_does_nothing()
    {
        var registered = (await node.Put("/v1/users/u1", """{"attributes":{"country":"DE","age":31,"beta":true}}""")).Is(HttpStatusCode.Created);
        Assert.Equal("/v1/users/u1", registered.Headers["Location"]);
        Assert.Equal("\"1\"", registered.ETag);
        Assert.Equal("""{"userId":"u1","attributes":{"age":31,"beta":true,"country":"DE"},"registeredAt":"2026-11-20T12:00:00Z"}""", registered.Text);

        var replaced = (await node.Put("/v1/users/u1", """{"attributes":{"country":"AT"}}""")).Is(HttpStatusCode.OK);
        Assert.Equal("\"2\"", replaced.ETag);
        Assert.True(replaced.Position > registered.Position);

        var same = (await node.Put("/v1/users/u1", """{"attributes":{"country":"AT"}}""")).Is(HttpStatusCode.OK);
        Assert.Equal(("\"2\"", true), (same.ETag, same.Position >= replaced.Position));
        Assert.Equal("""{"country":"AT"}""", same.Json.GetProperty("attributes").GetRawText());

        var read = (await node.Get("/v1/users/u1")).Is(HttpStatusCode.OK);
        Assert.Equal((same.Text, "\"2\""), (read.Text, read.ETag));
        Assert.True(read.Position >= replaced.Position);
        Assert.Equal(["user_registered", "user_attributes_set"], (await node.Log()).Where(e => e.StreamId == "user-u1").Select(e => e.Type));
    }

    [Fact]
    public async Task registers_without_attributes()
    {
        Assert.Equal("{}", (await node.Put("/v1/users/bare", "{}")).Is(HttpStatusCode.Created).Json.GetProperty("attributes").GetRawText());
    }

    [Fact]
    public async Task answers_200_for_one_who_is_known_by_a_membership()
    {
        await node.Post("/v1/segments", new { slug = "known" });
        (await node.Put("/v1/users/member/segments/known", null)).Is(HttpStatusCode.OK);

        (await node.Get("/v1/users/member")).Is(HttpStatusCode.OK);
        (await node.Put("/v1/users/member", """{"attributes":{"a":1}}""")).Is(HttpStatusCode.OK);

        Assert.Equal("""{"a":1}""", (await node.Get("/v1/users/member")).Json.GetProperty("attributes").GetRawText());
    }

    [Theory]
    [InlineData("a/b", "a%2Fb")]
    [InlineData("ä", "%C3%A4")]
    [InlineData("a b", "a%20b")]
    [InlineData("%2F", "%252F")]
    [InlineData("a%25", "a%2525")]
    [InlineData("a+b", "a+b")]
    [InlineData("a?b#c", "a%3Fb%23c")]
    [InlineData("\U0001F600", "%F0%9F%98%80")]
    [InlineData("a:b@c;d=e,f", "a:b@c;d=e,f")]
    [InlineData("segments", "segments")]
    [InlineData("...", "...")]
    public async Task takes_any_id_that_can_be_written_in_a_path(string id, string path)
    {
        var put = (await node.Put($"/v1/users/{path}", "{}")).Is(HttpStatusCode.Created);

        Assert.Equal(id, put.Json.GetProperty("userId").GetString());
        Assert.Equal(put.Text, (await node.Get(put.Headers["Location"])).Is(HttpStatusCode.OK).Text);
        Assert.Equal(id, (await node.Get($"/v1/users/{path}/segments")).Is(HttpStatusCode.OK).Json.GetProperty("userId").GetString());
        Assert.Contains((await node.Log()), e => e.StreamId == $"user-{id}");
    }

    [Theory]
    [InlineData("%20a")]
    [InlineData("a%0Ab")]
    [InlineData("a%7F")]
    public async Task refuses_an_id_that_is_none(string path) =>
        Assert.Equal(["userId"], (await node.Put($"/v1/users/{path}", "{}")).IsProblem(400, "invalid-request").Fields);

    [Fact]
    public async Task takes_128_characters_of_id_and_not_129()
    {
        var longest = string.Concat(Enumerable.Repeat("\U0001F600", 128));
        (await node.Put($"/v1/users/{Uri.EscapeDataString(longest)}", "{}")).Is(HttpStatusCode.Created);
        (await node.Put($"/v1/users/{new string('a', 129)}", "{}")).IsProblem(400, "invalid-request");
    }

    [Theory]
    [InlineData("""{"attribute":{}}""", "attribute", "unknown-field")]
    [InlineData("""{"attributes":{"a":{}}}""", "attributes.a", "invalid-request")]
    [InlineData("""{"attributes":{"a":[1]}}""", "attributes.a", "invalid-request")]
    [InlineData("""{"attributes":{"a":null}}""", "attributes.a", "invalid-request")]
    [InlineData("""{"attributes":{"":1}}""", "attributes.", "invalid-request")]
    [InlineData("""{"attributes":{"a":1e200000}}""", "attributes.a", "invalid-request")]
    [InlineData("""{"attributes":{"a":1e131000}}""", "attributes.a", "invalid-request")]
    [InlineData("""{"attributes":{"a":1e-20000}}""", "attributes.a", "invalid-request")]
    [InlineData("""{"attributes":[]}""", "attributes", "invalid-request")]
    [InlineData("""{"attributes":{"a":1,"a":2}}""", "attributes.a", "invalid-request")]
    public async Task refuses_attributes_that_are_none_naming_the_field(string body, string field, string code)
    {
        Assert.Equal([field], (await node.Put("/v1/users/refused", body)).IsProblem(400, code).Fields);
        (await node.Get("/v1/users/refused")).IsProblem(404, "user-not-found");
    }

    [Theory]
    [InlineData("""{"a":0.30000000000000004,"b":-1,"c":1.50,"d":1e3,"e":"\u00e4\ud83d\ude00\"\\","f":false}""")]
    public async Task keeps_attributes_as_they_were(string attributes)
    {
        await node.Put("/v1/users/kept", $"{{\"attributes\":{attributes}}}");
        var kept = (await node.Get("/v1/users/kept")).Json.GetProperty("attributes");

        Assert.True(System.Text.Json.JsonElement.DeepEquals(System.Text.Json.JsonElement.Parse(attributes), kept), kept.GetRawText());
    }

    [Fact]
    public async Task limits_how_many_attributes_there_are_and_how_long()
    {
        const int MaxCountAtFullLength = PutUser.MaxAttributesBytes / (PutUser.MaxNameLength + PutUser.MaxValueLength + 4);
        var many = string.Join(',', Enumerable.Range(0, PutUser.MaxAttributes + 1).Select(i => $"\"a{i}\":1"));
        (await node.Put("/v1/users/limited", $"{{\"attributes\":{{{many}}}}}")).IsProblem(400, "invalid-request");
        (await node.Put("/v1/users/limited", $"{{\"attributes\":{{\"{new string('n', PutUser.MaxNameLength + 1)}\":1}}}}")).IsProblem(400, "invalid-request");
        (await node.Put("/v1/users/limited", $"{{\"attributes\":{{\"a\":\"{new string('x', PutUser.MaxValueLength)}\"}}}}")).IsProblem(400, "invalid-request");
        var most = Full(MaxCountAtFullLength);
        Assert.Equal(["attributes"], (await node.Put("/v1/users/most", $"{{\"attributes\":{{{Full(MaxCountAtFullLength + 1)}}}}}")).IsProblem(400, "invalid-request").Fields);
        (await node.Put("/v1/users/most", $"{{\"attributes\":{{{most}}}}}")).Is(HttpStatusCode.Created);

        static string Full(int count) => string.Join(',', Enumerable.Range(0, count).Select(i => $"\"{new string('n', PutUser.MaxNameLength - 2)}{i:00}\":\"{new string('x', PutUser.MaxValueLength - 2)}\""));
    }

    [Fact]
    public async Task honours_If_Match()
    {
        (await node.Put("/v1/users/matched", "{}", ("If-Match", "*"))).IsProblem(412, "precondition-failed");
        (await node.Put("/v1/users/matched", "{}")).Is(HttpStatusCode.Created);
        (await node.Put("/v1/users/matched", """{"attributes":{"a":1}}""", ("If-Match", "\"2\""))).IsProblem(412, "precondition-failed");
        (await node.Put("/v1/users/matched", """{"attributes":{"a":1}}""", ("If-Match", "W/\"1\""))).IsProblem(412, "precondition-failed");
        (await node.Put("/v1/users/matched", """{"attributes":{"a":1}}""", ("If-Match", "nonsense"))).IsProblem(400, "invalid-request");
        Assert.Equal("\"2\"", (await node.Put("/v1/users/matched", """{"attributes":{"a":1}}""", ("If-Match", "\"1\", \"7\""))).Is(HttpStatusCode.OK).ETag);
        (await node.Put("/v1/users/matched", """{"attributes":{"a":2}}""", ("If-Match", "*"))).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task replays_the_first_outcome_under_the_same_key()
    {
        var first = (await node.Put("/v1/users/replayed", """{"attributes":{"a":1,"b":2}}""", ("Idempotency-Key", "put-1"))).Is(HttpStatusCode.Created);
        await node.Put("/v1/users/replayed", """{"attributes":{"a":3}}""");

        var again = (await node.Put("/v1/users/replayed", """{ "attributes": {"b":2.0,"a":1} }""", ("Idempotency-Key", "put-1"))).Is(HttpStatusCode.Created);

        Assert.False(first.Replayed);
        Assert.True(again.Replayed);
        Assert.Equal((first.Text, first.Position, first.ETag), (again.Text, again.Position, again.ETag));
        (await node.Put("/v1/users/replayed", """{"attributes":{"a":9}}""", ("Idempotency-Key", "put-1"))).IsProblem(422, "idempotency-key-reused");
        (await node.Put("/v1/users/other", """{"attributes":{"a":1,"b":2}}""", ("Idempotency-Key", "put-1"))).IsProblem(422, "idempotency-key-reused");
        Assert.Equal("""{"a":3}""", (await node.Get("/v1/users/replayed")).Json.GetProperty("attributes").GetRawText());
    }

    [Fact]
    public async Task at_the_same_time_from_many_callers_stores_each_change_once()
    {
        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => node.Put("/v1/users/crowd", """{"attributes":{"a":1}}""")));

        Assert.All(answers, a => Assert.True(a.Status is HttpStatusCode.OK or HttpStatusCode.Created, a.Text));
        Assert.Single(await node.Log(), e => e.StreamId == "user-crowd");
        Assert.Single(answers, a => a.Status == HttpStatusCode.Created);
    }

    [Fact]
    public async Task refuses_other_media_types_and_methods()
    {
        using var text = new HttpRequestMessage(HttpMethod.Put, "/v1/users/u1") { Content = new StringContent("{}") };
        (await node.Send(text)).IsProblem(415, "unsupported-media-type");
        var post = (await node.Post("/v1/users/u1", "{}")).IsProblem(405, "method-not-allowed");
        Assert.Contains("PUT", post.Headers["Allow"], StringComparison.Ordinal);
        (await node.Put("/v1/users/u1", null)).IsProblem(400, "invalid-request");
        (await node.Put("/v1/users/u1", "{")).IsProblem(400, "malformed-json");
        using var large = new HttpRequestMessage(HttpMethod.Put, "/v1/users/u1")
        {
            Content = new StringContent($"{{\"attributes\":{{\"a\":\"{new string('x', 1_100_000)}\"}}}}", Encoding.UTF8, "application/json"),
            Headers = { ExpectContinue = true }, // or the answer may come while the body is still being sent
        };
        (await node.Send(large)).IsProblem(413, "body-too-large");
    }
}

public sealed class Listing_users(TestNode other) : IClassFixture<TestNode>
{
    [Fact]
    public async Task pages_through_all_by_id_while_others_come_in()
    {
        string[] ids = ["a", "B", "ä", "a b", "a/b", "z", "Z", "10", "9"];
        await using var node = await other.StartAnew();
        foreach (var id in ids)
        {
            await node.Put($"/v1/users/{Uri.EscapeDataString(id)}", "{}");
        }

        var seen = new List<string>();
        string? cursor = null;
        do
        {
            var page = (await node.Get($"/v1/users?limit=2{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
            Assert.NotNull(page.Position);
            seen.AddRange(page.Each("userId"));
            cursor = page.Json.GetProperty("nextCursor").GetString();
            await node.Put("/v1/users/0-comes-before-what-was-seen", "{}");
        }
        while (cursor is not null);

        Assert.Equal(ids.OrderBy(i => i, Comparer<string>.Create((a, b) =>
            System.Text.Encoding.UTF8.GetBytes(a).AsSpan().SequenceCompareTo(System.Text.Encoding.UTF8.GetBytes(b)))), seen);
        Assert.Equal(10, (await node.Get("/v1/users")).Items.Count());
    }

    [Theory]
    [InlineData("limit=0", "limit")]
    [InlineData("limit=1001", "limit")]
    [InlineData("limit=x", "limit")]
    [InlineData("cursor=abc", "cursor")]
    public async Task refuses_a_page_that_is_none(string query, string field)
    {
        var refused = await other.GetAsIs($"/v1/users?{query}");

        Assert.Equal((HttpStatusCode.BadRequest, field), (refused.Status, refused.Fields.Single()));
    }

    [Fact]
    public async Task refuses_the_cursor_of_another_list()
    {
        await other.Put("/v1/users/c1", "{}");
        await other.Put("/v1/users/c2", "{}");
        var cursor = (await other.Get("/v1/users?limit=1")).Json.GetProperty("nextCursor").GetString();

        (await other.Get($"/v1/segments?cursor={cursor}")).IsProblem(400, "invalid-cursor");
    }

    [Fact]
    public async Task answers_404_for_a_user_never_heard_of()
    {
        var refused = (await other.Get("/v1/users/nobody")).IsProblem(404, "user-not-found");

        Assert.Contains("nobody", refused.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Equal("/v1/users/nobody", refused.Json.GetProperty("instance").GetString());
    }
}
