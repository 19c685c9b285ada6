using System.Net;
using Ledger.Http;

namespace Ledger.Tests.Segments;

public sealed class A_segment(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task is_created_read_and_listed()
    {
        var created = (await node.Post("/v1/segments", """{"slug":"AVITO_VOICE","description":"d","rolloutPercent":"12.50","defaultTtl":"PT336H"}""")).Is(HttpStatusCode.Created);

        Assert.Equal("/v1/segments/AVITO_VOICE", created.Headers["Location"]);
        Assert.Equal(
            $$"""{"slug":"AVITO_VOICE","description":"d","rolloutPercent":"12.5","defaultTtl":"P14D","members":0,"createdAt":"{{Rfc3339.Format(node.Clock.Now)}}","deletedAt":null}""",
            created.Text);
        var read = (await node.Get("/v1/segments/AVITO_VOICE")).Is(HttpStatusCode.OK);
        Assert.Equal((created.Text, created.ETag), (read.Text, read.ETag));
        Assert.True(read.Position >= created.Position);
        Assert.Contains(created.Text, (await node.Get("/v1/segments")).Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task needs_nothing_but_a_slug()
    {
        var created = (await node.Post("/v1/segments", """{"slug":"bare"}""")).Is(HttpStatusCode.Created);

        Assert.Equal(
            $$"""{"slug":"bare","description":null,"rolloutPercent":"0","defaultTtl":null,"members":0,"createdAt":"{{Rfc3339.Format(node.Clock.Now)}}","deletedAt":null}""",
            created.Text);
    }

    [Theory]
    [InlineData("{}", "slug", "invalid-request")]
    [InlineData("""{"slug":""}""", "slug", "invalid-request")]
    [InlineData("""{"slug":"-a"}""", "slug", "invalid-request")]
    [InlineData("""{"slug":"a b"}""", "slug", "invalid-request")]
    [InlineData("""{"slug":"ä"}""", "slug", "invalid-request")]
    [InlineData("""{"slug":null}""", "slug", "invalid-request")]
    [InlineData("""{"slug":"counts"}""", "slug", "invalid-request")]
    [InlineData("""{"slug":"s","name":"x"}""", "name", "unknown-field")]
    [InlineData("""{"slug":"s","rolloutPercent":"100.01"}""", "rolloutPercent", "invalid-request")]
    [InlineData("""{"slug":"s","rolloutPercent":-1}""", "rolloutPercent", "invalid-request")]
    [InlineData("""{"slug":"s","rolloutPercent":"0.001"}""", "rolloutPercent", "invalid-request")]
    [InlineData("""{"slug":"s","rolloutPercent":"much"}""", "rolloutPercent", "invalid-request")]
    [InlineData("""{"slug":"s","defaultTtl":"PT0S"}""", "defaultTtl", "invalid-request")]
    [InlineData("""{"slug":"s","defaultTtl":"P1M"}""", "defaultTtl", "invalid-request")]
    [InlineData("""{"slug":"s","defaultTtl":"P36526D"}""", "defaultTtl", "invalid-request")]
    public async Task is_refused_naming_the_field(string body, string field, string code) =>
        Assert.Equal([field], (await node.Post("/v1/segments", body)).IsProblem(400, code).Fields);

    [Fact]
    public async Task has_a_slug_of_at_most_128_characters_and_a_description_of_1000()
    {
        (await node.Post("/v1/segments", new { slug = new string('a', 129) })).IsProblem(400, "invalid-request");
        (await node.Post("/v1/segments", new { slug = new string('a', 128), description = new string('d', 1000) })).Is(HttpStatusCode.Created);
        (await node.Get($"/v1/segments/{new string('a', 128)}")).Is(HttpStatusCode.OK);
        (await node.Post("/v1/segments", new { slug = "d1001", description = new string('d', 1001) })).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task is_told_apart_by_case()
    {
        (await node.Post("/v1/segments", new { slug = "case" })).Is(HttpStatusCode.Created);
        (await node.Post("/v1/segments", new { slug = "CASE" })).Is(HttpStatusCode.Created);
    }

    [Fact]
    public async Task exists_once()
    {
        await node.Post("/v1/segments", new { slug = "once" });

        Assert.Contains("'once'", (await node.Post("/v1/segments", new { slug = "once" })).IsProblem(409, "segment-exists").Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task that_many_create_at_once_is_created_once()
    {
        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => node.Post("/v1/segments", new { slug = "crowd" })));

        Assert.Single(answers, a => a.Status == HttpStatusCode.Created);
        Assert.All(answers.Where(a => a.Status != HttpStatusCode.Created), a => a.IsProblem(409, "segment-exists"));
        Assert.Single(await node.Log(), e => e.StreamId == "segment-crowd");
    }

    [Fact]
    public async Task is_changed_field_by_field_and_null_clears()
    {
        await node.Post("/v1/segments", """{"slug":"patched","description":"d","rolloutPercent":"5","defaultTtl":"P1D"}""");

        var changed = (await node.Patch("/v1/segments/patched", """{"rolloutPercent":"7.5"}""")).Is(HttpStatusCode.OK);
        Assert.Equal(("d", "7.5", "P1D", "\"2\""), Fields(changed));
        Assert.Equal((null, "7.5", "P1D", "\"3\""), Fields((await node.Patch("/v1/segments/patched", """{"description":null}""")).Is(HttpStatusCode.OK)));
        Assert.Equal((null, "0", null, "\"5\""), Fields((await node.Patch("/v1/segments/patched", """{"rolloutPercent":null,"defaultTtl":null}""")).Is(HttpStatusCode.OK)));
        Assert.Equal((null, "0", null, "\"5\""), Fields((await node.Patch("/v1/segments/patched", "{}")).Is(HttpStatusCode.OK)));
        Assert.Equal((null, "0", null, "\"5\""), Fields(await node.Get("/v1/segments/patched")));

        static (string?, string?, string?, string?) Fields(Answer a) =>
            (a.Json.GetProperty("description").GetString(), a.Json.GetProperty("rolloutPercent").GetString(), a.Json.GetProperty("defaultTtl").GetString(), a.ETag);
    }

    [Fact]
    public async Task is_changed_back_to_what_it_was()
    {
        await node.Post("/v1/segments", new { slug = "there-and-back", description = "a" });
        await node.Patch("/v1/segments/there-and-back", new { description = "b" });
        await node.Patch("/v1/segments/there-and-back", new { description = "a" });

        var read = await node.Get("/v1/segments/there-and-back");

        Assert.Equal(("a", "\"3\""), (read.Json.GetProperty("description").GetString(), read.ETag));
    }

    [Fact]
    public async Task is_changed_back_by_another_node()
    {
        await using var other = await node.StartBeside();
        await node.Post("/v1/segments", new { slug = "two-nodes", description = "a" });
        await other.Patch("/v1/segments/two-nodes", new { description = "a" });
        await node.Patch("/v1/segments/two-nodes", new { description = "b" });
        await other.Patch("/v1/segments/two-nodes", new { description = "a" });

        Assert.Equal("a", (await other.Get("/v1/segments/two-nodes")).Json.GetProperty("description").GetString());
    }

    [Fact]
    public async Task takes_a_merge_patch_media_type()
    {
        await node.Post("/v1/segments", new { slug = "merged" });
        using var request = new HttpRequestMessage(HttpMethod.Patch, "/v1/segments/merged")
        {
            Content = new StringContent("""{"description":"x"}""", new System.Net.Http.Headers.MediaTypeHeaderValue("application/merge-patch+json")),
        };

        Assert.Equal("x", (await node.Send(request)).Is(HttpStatusCode.OK).Json.GetProperty("description").GetString());
    }

    [Theory]
    [InlineData("""{"slug":"x"}""", "slug", "unknown-field")]
    [InlineData("""{"rolloutPercent":"101"}""", "rolloutPercent", "invalid-request")]
    [InlineData("""{"defaultTtl":"PT0S"}""", "defaultTtl", "invalid-request")]
    [InlineData("""{"description":1}""", "description", "invalid-request")]
    public async Task is_not_changed_to_what_is_not_allowed(string body, string field, string code)
    {
        await node.Post("/v1/segments", new { slug = "strict" });

        Assert.Equal([field], (await node.Patch("/v1/segments/strict", body)).IsProblem(400, code).Fields);
        Assert.Equal("\"1\"", (await node.Get("/v1/segments/strict")).ETag);
    }

    [Fact]
    public async Task honours_If_Match()
    {
        await node.Post("/v1/segments", new { slug = "matched" });
        (await node.Patch("/v1/segments/matched", new { description = "x" }, ("If-Match", "\"9\""))).IsProblem(412, "precondition-failed");
        (await node.Delete("/v1/segments/matched", ("If-Match", "\"9\""))).IsProblem(412, "precondition-failed");
        Assert.Equal("\"2\"", (await node.Patch("/v1/segments/matched", new { description = "x" }, ("If-Match", "\"1\""))).Is(HttpStatusCode.OK).ETag);
        (await node.Delete("/v1/segments/matched", ("If-Match", "\"2\""))).Is(HttpStatusCode.NoContent);
        (await node.Delete("/v1/segments/matched", ("If-Match", "*"))).IsProblem(412, "precondition-failed");
    }

    [Fact]
    public async Task that_two_change_on_the_same_version_is_changed_by_one()
    {
        await node.Post("/v1/segments", new { slug = "contended" });

        var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(i => node.Patch("/v1/segments/contended", new { description = $"{i}" }, ("If-Match", "\"1\""))));

        Assert.Single(answers, a => a.Status == HttpStatusCode.OK);
        Assert.All(answers.Where(a => a.Status != HttpStatusCode.OK), a => a.IsProblem(412, "precondition-failed"));
    }

    [Fact]
    public async Task is_deleted_once_and_stays_to_be_seen()
    {
        await node.Post("/v1/segments", new { slug = "gone" });
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        var deleted = (await node.Delete("/v1/segments/gone")).Is(HttpStatusCode.NoContent);
        Assert.NotNull(deleted.Position);

        Assert.Contains("'gone'", (await node.Delete("/v1/segments/gone")).IsProblem(404, "segment-not-found").Text, StringComparison.Ordinal);
        (await node.Patch("/v1/segments/gone", new { description = "x" })).IsProblem(404, "segment-not-found");
        Assert.NotNull((await node.Get("/v1/segments/gone")).Is(HttpStatusCode.OK).Json.GetProperty("deletedAt").GetString());
        Assert.DoesNotContain("gone", (await node.Get("/v1/segments")).Each("slug"));
        Assert.Contains("gone", (await node.Get("/v1/segments?includeDeleted=true")).Each("slug"));
        Assert.DoesNotContain("gone", (await node.Get("/v1/segments/counts")).Each("segment"));
        (await node.Get("/v1/segments/gone/members")).IsProblem(404, "segment-not-found");
    }

    [Fact]
    public async Task is_created_anew_right_after_it_was_deleted()
    {
        for (var life = 0; life < 3; life++)
        {
            (await node.Post("/v1/segments", new { slug = "phoenix", description = $"{life}" })).Is(HttpStatusCode.Created);
            (await node.Put("/v1/users/u1/segments/phoenix", null)).Is(HttpStatusCode.OK);
            (await node.Delete("/v1/segments/phoenix")).Is(HttpStatusCode.NoContent);
        }

        Assert.Equal("\"6\"", (await node.Get("/v1/segments/phoenix")).ETag);
        Assert.Equal(["0", "1", "2"], (await node.Get("/v1/segments?includeDeleted=true")).Items.Where(s => s.GetProperty("slug").GetString() == "phoenix").Select(s => s.GetProperty("description").GetString()));
    }

    [Fact]
    public async Task that_never_was_is_not_found()
    {
        Assert.Contains("'never'", (await node.Get("/v1/segments/never")).IsProblem(404, "segment-not-found").Text, StringComparison.Ordinal);
        (await node.Get("/v1/segments/never/members")).IsProblem(404, "segment-not-found");
        (await node.Patch("/v1/segments/never", "{}")).IsProblem(404, "segment-not-found");
        (await node.Delete("/v1/segments/never")).IsProblem(404, "segment-not-found");
        (await node.Import("never", "u1\n")).IsProblem(404, "segment-not-found");
        (await node.Get("/v1/segments/a%20b")).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task is_created_changed_and_deleted_once_under_one_key()
    {
        var created = (await node.Post("/v1/segments", new { slug = "keyed", description = "a" }, ("Idempotency-Key", "k-create"))).Is(HttpStatusCode.Created);
        var changed = (await node.Patch("/v1/segments/keyed", new { description = "b" }, ("Idempotency-Key", "k-change"))).Is(HttpStatusCode.OK);
        var deleted = (await node.Delete("/v1/segments/keyed", ("Idempotency-Key", "k-delete"))).Is(HttpStatusCode.NoContent);

        var createdAgain = (await node.Post("/v1/segments", """{"description":"a","slug":"keyed","rolloutPercent":null}""", ("Idempotency-Key", "\"k-create\""))).Is(HttpStatusCode.Created);
        var changedAgain = (await node.Patch("/v1/segments/keyed", new { description = "b" }, ("Idempotency-Key", "k-change"))).Is(HttpStatusCode.OK);
        var deletedAgain = (await node.Delete("/v1/segments/keyed", ("Idempotency-Key", "k-delete"))).Is(HttpStatusCode.NoContent);

        Assert.Equal((created.Text, created.Position, created.ETag, true), (createdAgain.Text, createdAgain.Position, createdAgain.ETag, createdAgain.Replayed));
        Assert.Equal((changed.Text, changed.Position, changed.ETag, true), (changedAgain.Text, changedAgain.Position, changedAgain.ETag, changedAgain.Replayed));
        Assert.Equal((deleted.Position, true), (deletedAgain.Position, deletedAgain.Replayed));
        Assert.Equal(3, (await node.Log()).Count(e => e.StreamId == "segment-keyed"));
        (await node.Post("/v1/segments", new { slug = "keyed", description = "z" }, ("Idempotency-Key", "k-create"))).IsProblem(422, "idempotency-key-reused");
        (await node.Patch("/v1/segments/keyed", """{"description":"b","defaultTtl":null}""", ("Idempotency-Key", "k-change"))).IsProblem(422, "idempotency-key-reused");
        (await node.Post("/v1/segments", new { slug = "x" }, ("Idempotency-Key", "a b"))).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task named_like_a_route_can_be_used_but_not_confused()
    {
        (await node.Post("/v1/segments", new { slug = "members" })).Is(HttpStatusCode.Created);
        Assert.Equal("members", (await node.Get("/v1/segments/members")).Json.GetProperty("slug").GetString());
        (await node.Get("/v1/segments/members/members")).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task refuses_other_methods_and_media_types()
    {
        Assert.Contains("PATCH", (await node.Put("/v1/segments/x", "{}")).IsProblem(405, "method-not-allowed").Headers["Allow"], StringComparison.Ordinal);
        using var text = new HttpRequestMessage(HttpMethod.Post, "/v1/segments") { Content = new StringContent("{}") };
        Assert.Contains("application/json", (await node.Send(text)).IsProblem(415, "unsupported-media-type").Headers["Accept-Post"], StringComparison.Ordinal);
        (await node.Get("/v1/segments", ("Accept", "image/png"))).IsProblem(406, "not-acceptable");
        (await node.Post("/v1/segments", $$"""{"slug":"s","description":"{{new string('x', 1_100_000)}}"}""")).IsProblem(413, "body-too-large");
        var import = await node.Import("x", "u\n", "text/plain");
        Assert.Contains("text/csv", import.IsProblem(415, "unsupported-media-type").Headers["Accept-Post"], StringComparison.Ordinal);
    }
}
