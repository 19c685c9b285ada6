using System.Net;
using Ledger.Http;

namespace Ledger.Tests.Services;

public sealed class A_service(TestNode node) : IClassFixture<TestNode>
{
    private static int s_number;

    private string Now => Rfc3339.Format(node.Clock.Now);

    private async Task<string> Registered(string? title = null)
    {
        var id = $"service-{Interlocked.Increment(ref s_number)}";
        (await node.Post("/v1/services", new { serviceId = id, title = title ?? $"Title of {id}" })).Is(HttpStatusCode.Created);
        return id;
    }

    private async Task<string[]> EventsOf(string streamId) => [.. (await node.Log()).Where(e => e.StreamId == streamId).Select(e => e.Type)];

    [Fact]
    public async Task is_registered_read_and_listed()
    {
        var registered = (await node.Post("/v1/services", """{"serviceId":"gpt-4o.mini_1","title":"GPT-4o mini","description":"small"}""")).Is(HttpStatusCode.Created);

        Assert.Equal("/v1/services/gpt-4o.mini_1", registered.Headers["Location"]);
        Assert.Equal(
            $$"""{"serviceId":"gpt-4o.mini_1","title":"GPT-4o mini","description":"small","price":null,"registeredAt":"{{Now}}","retiredAt":null}""",
            registered.Text);
        Assert.Equal("\"1\"", registered.ETag);
        var read = (await node.Get("/v1/services/gpt-4o.mini_1")).Is(HttpStatusCode.OK);
        Assert.Equal((registered.Text, registered.ETag), (read.Text, read.ETag));
        Assert.True(read.Position >= registered.Position);
        Assert.Contains(registered.Text, (await node.Get("/v1/services")).Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task needs_nothing_but_a_title_and_gets_an_id()
    {
        var one = (await node.Post("/v1/services", """{"title":"Nameless one"}""")).Is(HttpStatusCode.Created);
        var two = (await node.Post("/v1/services", """{"title":"Nameless two","serviceId":null}""")).Is(HttpStatusCode.Created);

        var ids = new[] { one, two }.Select(a => a.Json.GetProperty("serviceId").GetString()!).ToArray();
        Assert.Equal(2, ids.Distinct().Count());
        Assert.All(ids, id => Assert.Equal(7, Guid.Parse(id).Version));
        Assert.Equal(one.Headers["Location"], $"/v1/services/{ids[0]}");
        Assert.Equal(one.Text, (await node.Get(one.Headers["Location"])).Text);
    }

    [Theory]
    [InlineData("{}", "title", "invalid-request")]
    [InlineData("""{"title":null}""", "title", "invalid-request")]
    [InlineData("""{"title":""}""", "title", "invalid-request")]
    [InlineData("""{"title":" padded"}""", "title", "invalid-request")]
    [InlineData("""{"title":"two\nlines"}""", "title", "invalid-request")]
    [InlineData("""{"title":"T","serviceId":""}""", "serviceId", "invalid-request")]
    [InlineData("""{"title":"T","serviceId":"-a"}""", "serviceId", "invalid-request")]
    [InlineData("""{"title":"T","serviceId":"a/b"}""", "serviceId", "invalid-request")]
    [InlineData("""{"title":"T","serviceId":7}""", "serviceId", "invalid-request")]
    [InlineData("""{"title":"T","description":7}""", "description", "invalid-request")]
    [InlineData("""{"title":"T","price":"1"}""", "price", "unknown-field")]
    public async Task is_not_registered_from_what_is_not_allowed(string body, string field, string code)
    {
        var head = (await node.Log()).Count;

        Assert.Equal([field], (await node.Post("/v1/services", body)).IsProblem(400, code).Fields);
        Assert.Equal(head, (await node.Log()).Count);
    }

    [Fact]
    public async Task has_an_id_of_128_a_title_of_200_and_a_description_of_1000_characters()
    {
        var (title, description) = (string.Concat(Enumerable.Repeat("😀", 200)), new string('d', 1000));
        Assert.Equal(
            ["description", "serviceId", "title"],
            (await node.Post("/v1/services", new { serviceId = new string('a', 129), title = new string('t', 201), description = new string('d', 1001) }))
                .IsProblem(400, "invalid-request").Fields.Order());

        var longest = (await node.Post("/v1/services", new { serviceId = new string('a', 128), title, description })).Is(HttpStatusCode.Created);

        Assert.Equal(longest.Text, (await node.Get(longest.Headers["Location"])).Text);
        Assert.Equal((title, description), (longest.Json.GetProperty("title").GetString(), longest.Json.GetProperty("description").GetString()));
    }

    [Fact]
    public async Task exists_once()
    {
        var id = await Registered();

        Assert.Contains($"'{id}'", (await node.Post("/v1/services", new { serviceId = id, title = "Another title" })).IsProblem(409, "service-exists").Text, StringComparison.Ordinal);
        await node.Delete($"/v1/services/{id}");
        (await node.Post("/v1/services", new { serviceId = id, title = "Another title" })).IsProblem(409, "service-exists");
        (await node.Post("/v1/services", new { serviceId = id.ToUpperInvariant(), title = "Another title" })).Is(HttpStatusCode.Created);
    }

    [Fact]
    public async Task has_its_title_alone_for_as_long_as_it_is_called_so()
    {
        var id = await Registered("Only one");

        Assert.Contains($"'{id}'", (await node.Post("/v1/services", new { title = "Only one" })).IsProblem(409, "title-taken").Text, StringComparison.Ordinal);
        (await node.Post("/v1/services", new { title = "only one" })).Is(HttpStatusCode.Created);
        (await node.Patch($"/v1/services/{id}", new { title = "Another one" })).Is(HttpStatusCode.OK);
        var heir = await Registered("Only one");
        (await node.Patch($"/v1/services/{id}", new { title = "Only one", description = "x" })).IsProblem(409, "title-taken");
        Assert.Equal("\"2\"", (await node.Get($"/v1/services/{id}")).ETag);
        (await node.Delete($"/v1/services/{heir}")).Is(HttpStatusCode.NoContent);
        (await node.Patch($"/v1/services/{id}", new { title = "Only one" })).IsProblem(409, "title-taken");
        Assert.Equal(
            ["service_title_claimed", "service_title_released", "service_title_claimed"],
            await EventsOf("service_title-Only one"));
    }

    [Fact]
    public async Task may_be_called_like_the_stream_of_a_title()
    {
        (await node.Post("/v1/services", new { serviceId = "title-X", title = "Y" })).Is(HttpStatusCode.Created);
        (await node.Post("/v1/services", new { serviceId = "Y", title = "X" })).Is(HttpStatusCode.Created);
        (await node.Post("/v1/services", new { serviceId = "service_title-X", title = "title-X" })).Is(HttpStatusCode.Created);

        Assert.Equal("Y", (await node.Get("/v1/services/title-X")).Json.GetProperty("title").GetString());
    }

    [Fact]
    public async Task is_changed_field_by_field_and_null_clears()
    {
        var id = await Registered("Before");

        Assert.Equal(("Before", "d", "\"2\""), Fields((await node.Patch($"/v1/services/{id}", new { description = "d" })).Is(HttpStatusCode.OK)));
        Assert.Equal(("After", "d", "\"3\""), Fields((await node.Patch($"/v1/services/{id}", new { title = "After" })).Is(HttpStatusCode.OK)));
        Assert.Equal(("Again", null, "\"5\""), Fields((await node.Patch($"/v1/services/{id}", """{"title":"Again","description":null}""")).Is(HttpStatusCode.OK)));
        Assert.Equal(("Again", null, "\"5\""), Fields((await node.Patch($"/v1/services/{id}", """{"title":"Again"}""")).Is(HttpStatusCode.OK)));
        Assert.Equal(("Again", null, "\"5\""), Fields((await node.Patch($"/v1/services/{id}", "{}")).Is(HttpStatusCode.OK)));
        Assert.Equal(("Before", null, "\"6\""), Fields((await node.Patch($"/v1/services/{id}", new { title = "Before" })).Is(HttpStatusCode.OK)));
        Assert.Equal(("Before", null, "\"6\""), Fields(await node.Get($"/v1/services/{id}")));

        static (string?, string?, string?) Fields(Answer a) =>
            (a.Json.GetProperty("title").GetString(), a.Json.GetProperty("description").GetString(), a.ETag);
    }

    [Theory]
    [InlineData("""{"title":null}""", "title", "invalid-request")]
    [InlineData("""{"title":""}""", "title", "invalid-request")]
    [InlineData("""{"description":1}""", "description", "invalid-request")]
    [InlineData("""{"serviceId":"x"}""", "serviceId", "unknown-field")]
    public async Task is_not_changed_to_what_is_not_allowed(string body, string field, string code)
    {
        var id = await Registered();

        Assert.Equal([field], (await node.Patch($"/v1/services/{id}", body)).IsProblem(400, code).Fields);
        Assert.Equal("\"1\"", (await node.Get($"/v1/services/{id}")).ETag);
    }

    [Fact]
    public async Task takes_a_merge_patch_media_type()
    {
        var id = await Registered();
        using var request = new HttpRequestMessage(HttpMethod.Patch, $"/v1/services/{id}")
        {
            Content = new StringContent("""{"description":"x"}""", new System.Net.Http.Headers.MediaTypeHeaderValue("application/merge-patch+json")),
        };

        Assert.Equal("x", (await node.Send(request)).Is(HttpStatusCode.OK).Json.GetProperty("description").GetString());
    }

    [Fact]
    public async Task honours_If_Match()
    {
        var id = await Registered();
        var price = new { currency = "USD", components = new[] { new { unit = "call", price = "1" } } };

        (await node.Patch($"/v1/services/{id}", new { description = "x" }, ("If-Match", "\"9\""))).IsProblem(412, "precondition-failed");
        (await node.Delete($"/v1/services/{id}", ("If-Match", "\"9\""))).IsProblem(412, "precondition-failed");
        (await node.Post($"/v1/services/{id}/prices", price, ("If-Match", "\"9\""))).IsProblem(412, "precondition-failed");
        Assert.Equal("\"2\"", (await node.Post($"/v1/services/{id}/prices", price, ("If-Match", "\"1\""))).Is(HttpStatusCode.Created).ETag);
        Assert.Equal("\"3\"", (await node.Patch($"/v1/services/{id}", new { description = "x" }, ("If-Match", "\"2\""))).Is(HttpStatusCode.OK).ETag);
        (await node.Delete($"/v1/services/{id}", ("If-Match", "\"3\""))).Is(HttpStatusCode.NoContent);
        (await node.Delete("/v1/services/never-was", ("If-Match", "*"))).IsProblem(412, "precondition-failed");
    }

    [Fact]
    public async Task is_retired_once_and_stays_with_its_prices()
    {
        var id = await Registered("Old hand");
        await node.Post($"/v1/services/{id}/prices", """{"currency":"USD","components":[{"unit":"call","price":"1"}]}""");
        node.Clock.Advance(TimeSpan.FromMinutes(1));

        var retired = (await node.Delete($"/v1/services/{id}")).Is(HttpStatusCode.NoContent);

        var read = (await node.Get($"/v1/services/{id}")).Is(HttpStatusCode.OK);
        Assert.Equal((Now, "1"), (read.Json.GetProperty("retiredAt").GetString(), read.Json.GetProperty("price").GetProperty("components")[0].GetProperty("price").GetString()));
        Assert.Single((await node.Get($"/v1/services/{id}/prices")).Items);
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        Assert.True((await node.Delete($"/v1/services/{id}")).Is(HttpStatusCode.NoContent).Position >= retired.Position);
        Assert.Equal(read.Text, (await node.Get($"/v1/services/{id}")).Text);
        Assert.Contains($"'{id}'", (await node.Patch($"/v1/services/{id}", new { title = "x" })).IsProblem(409, "service-retired").Text, StringComparison.Ordinal);
        (await node.Post($"/v1/services/{id}/prices", """{"currency":"USD","components":[{"unit":"call","price":"1"}]}""")).IsProblem(409, "service-retired");
        Assert.DoesNotContain(id, (await node.Get("/v1/services?limit=1000")).Each("serviceId"));
        Assert.Contains(id, (await node.Get("/v1/services?limit=1000&includeRetired=true")).Each("serviceId"));
        Assert.Equal(["service_registered", "price_set", "service_retired"], await EventsOf($"service-{id}"));
    }

    [Fact]
    public async Task that_never_was_is_not_found()
    {
        Assert.Contains("'never'", (await node.Get("/v1/services/never")).IsProblem(404, "service-not-found").Text, StringComparison.Ordinal);
        (await node.Get("/v1/services/never/prices")).IsProblem(404, "service-not-found");
        (await node.Get("/v1/services/never/prices/1")).IsProblem(404, "service-not-found");
        (await node.Patch("/v1/services/never", "{}")).IsProblem(404, "service-not-found");
        (await node.Patch("/v1/services/never", new { title = "x" })).IsProblem(404, "service-not-found");
        (await node.Delete("/v1/services/never")).IsProblem(404, "service-not-found");
        (await node.Post("/v1/services/never/prices", """{"currency":"USD","components":[{"unit":"call","price":"1"}]}""")).IsProblem(404, "service-not-found");
        (await node.Get("/v1/services/a%20b")).IsProblem(400, "invalid-request");
        (await node.Get("/v1/services/a%20b/prices")).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task is_registered_changed_priced_and_retired_once_under_one_key()
    {
        const string Price = """{"currency":"USD","components":[{"unit":"call","price":"1"}]}""";
        var registered = (await node.Post("/v1/services", new { title = "Keyed" }, ("Idempotency-Key", "s-register"))).Is(HttpStatusCode.Created);
        var path = registered.Headers["Location"];
        var priced = (await node.Post($"{path}/prices", Price, ("Idempotency-Key", "s-price"))).Is(HttpStatusCode.Created);
        var changed = (await node.Patch(path, new { title = "Keyed 2" }, ("Idempotency-Key", "s-change"))).Is(HttpStatusCode.OK);
        node.Clock.Advance(TimeSpan.FromHours(1));
        await node.Post($"{path}/prices", """{"currency":"USD","components":[{"unit":"call","price":"2"}],"effectiveFrom":"2000-01-01T00:00:00Z"}""");
        var retired = (await node.Delete(path, ("Idempotency-Key", "s-retire"))).Is(HttpStatusCode.NoContent);

        var registeredAgain = (await node.Post("/v1/services", """{"description":null,"title":"Keyed"}""", ("Idempotency-Key", "s-register"))).Is(HttpStatusCode.Created);
        var pricedAgain = (await node.Post($"{path}/prices", """{"components":[{"per":"1","unit":"call","price":1.0}],"currency":"USD"}""", ("Idempotency-Key", "s-price"))).Is(HttpStatusCode.Created);
        var changedAgain = (await node.Patch(path, new { title = "Keyed 2" }, ("Idempotency-Key", "s-change"))).Is(HttpStatusCode.OK);
        var retiredAgain = (await node.Delete(path, ("Idempotency-Key", "s-retire"))).Is(HttpStatusCode.NoContent);

        Assert.All(
            [(registered, registeredAgain), (priced, pricedAgain), (changed, changedAgain), (retired, retiredAgain)],
            a => Assert.Equal((a.Item1.Text, a.Item1.Position, a.Item1.ETag, true), (a.Item2.Text, a.Item2.Position, a.Item2.ETag, a.Item2.Replayed)));
        Assert.Equal((registered.Headers["Location"], priced.Headers["Location"]), (registeredAgain.Headers["Location"], pricedAgain.Headers["Location"]));
        (await node.Post("/v1/services", new { title = "Keyed 3" }, ("Idempotency-Key", "s-register"))).IsProblem(422, "idempotency-key-reused");
        (await node.Post("/v1/services", new { title = "x" }, ("Idempotency-Key", "a b"))).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task is_listed_page_by_page_and_exported()
    {
        await using var other = await node.StartAnew();
        string[] ids = ["B", "a", "a-1", "a.2", "b", "z"];
        foreach (var id in ids.Reverse())
        {
            await other.Post("/v1/services", new { serviceId = id, title = id == "a" ? "=1+1" : $"T, {id}" });
        }

        await other.Post("/v1/services/a/prices", """{"currency":"USD","components":[{"unit":"call","price":"0.50"},{"unit":"token","price":"0.15","per":1000000}]}""");
        await other.Delete("/v1/services/z");
        var listed = new List<string>();
        string? cursor = null;
        do
        {
            var page = (await other.Get($"/v1/services?limit=2{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
            listed.AddRange(page.Each("serviceId"));
            cursor = page.Json.GetProperty("nextCursor").GetString();
        }
        while (cursor is not null);

        Assert.Equal(ids[..^1], listed);
        var now = Rfc3339.Format(other.Clock.Now);
        Assert.StartsWith(
            "serviceId,title,description,priceVersion,currency,effectiveFrom,components,registeredAt,retiredAt\r\n"
            + $"B,\"T, B\",,,,,,{now},\r\n"
            + $"a,'=1+1,,1,USD,{now},\"[{{\"\"unit\"\":\"\"call\"\",\"\"price\"\":\"\"0.5\"\",\"\"per\"\":1}},{{\"\"unit\"\":\"\"token\"\",\"\"price\"\":\"\"0.15\"\",\"\"per\"\":1000000}}]\",{now},\r\n",
            (await other.Get("/v1/services", ("Accept", "text/csv"))).Text, StringComparison.Ordinal);
        Assert.Equal(6, (await other.Get("/v1/services?includeRetired=true", ("Accept", "application/x-ndjson"))).Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        var cursorOfAll = (await other.Get("/v1/services?limit=1&includeRetired=true")).Json.GetProperty("nextCursor").GetString();
        (await other.Get($"/v1/services?cursor={cursorOfAll}")).IsProblem(400, "invalid-cursor");
        (await other.Get("/v1/services?limit=1001")).IsProblem(400, "invalid-request");
        (await other.Get("/v1/services", ("Accept", "image/png"))).IsProblem(406, "not-acceptable");
    }

    [Fact]
    public async Task refuses_other_methods_and_media_types()
    {
        var id = await Registered();
        Assert.Contains("PATCH", (await node.Put($"/v1/services/{id}", "{}")).IsProblem(405, "method-not-allowed").Headers["Allow"], StringComparison.Ordinal);
        using var text = new HttpRequestMessage(HttpMethod.Post, "/v1/services") { Content = new StringContent("{}") };
        Assert.Contains("application/json", (await node.Send(text)).IsProblem(415, "unsupported-media-type").Headers["Accept-Post"], StringComparison.Ordinal);
        (await node.Post("/v1/services", $$"""{"title":"s","description":"{{new string('x', 1_100_000)}}"}""")).IsProblem(413, "body-too-large");
    }
}

public sealed class Services_of_two_nodes(TestNode node) : IClassFixture<TestNode>
{
    private static readonly object Price = new { currency = "USD", components = new[] { new { unit = "call", price = "1" } } };

    [Fact]
    public async Task get_a_title_once_when_many_register_it()
    {
        await using var other = await node.StartBeside();

        var answers = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => (i % 2 == 0 ? node : other).Post("/v1/services", new { serviceId = $"race-{i}", title = "Race" })));

        Assert.Single(answers, a => a.Status == HttpStatusCode.Created);
        Assert.All(answers.Where(a => a.Status != HttpStatusCode.Created), a => a.IsProblem(409, "title-taken"));
        var log = await node.Log();
        Assert.Single(log, e => e.StreamId.StartsWith("service-race-", StringComparison.Ordinal));
        Assert.Single(log, e => e.StreamId == "service_title-Race");
    }

    [Fact]
    public async Task get_an_id_once_when_many_register_it_and_the_titles_of_the_others_stay_free()
    {
        await using var other = await node.StartBeside();

        var answers = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => (i % 2 == 0 ? node : other).Post("/v1/services", new { serviceId = "crowd", title = $"Crowd {i}" })));

        Assert.Single(answers, a => a.Status == HttpStatusCode.Created);
        Assert.All(answers.Where(a => a.Status != HttpStatusCode.Created), a => a.IsProblem(409, "service-exists"));
        var again = await Task.WhenAll(Enumerable.Range(0, 16).Select(i => node.Post("/v1/services", new { title = $"Crowd {i}" })));
        Assert.Equal(15, again.Count(a => a.Status == HttpStatusCode.Created));
    }

    [Fact]
    public async Task get_a_title_once_when_many_are_renamed_to_it_and_one_registers_it()
    {
        await using var other = await node.StartBeside();
        for (var i = 0; i < 8; i++)
        {
            (await node.Post("/v1/services", new { serviceId = $"rename-{i}", title = $"Rename {i}" })).Is(HttpStatusCode.Created);
        }

        var answers = await Task.WhenAll(
            [
                .. Enumerable.Range(0, 8).Select(i => (i % 2 == 0 ? node : other).Patch($"/v1/services/rename-{i}", new { title = "Wanted" })),
                other.Post("/v1/services", new { serviceId = "rename-new", title = "Wanted" }),
            ]);

        Assert.Single(answers, a => a.Status is HttpStatusCode.OK or HttpStatusCode.Created);
        Assert.All(answers.Where(a => a.Status is not (HttpStatusCode.OK or HttpStatusCode.Created)), a => a.IsProblem(409, "title-taken"));
        await node.CatchUp();
        Assert.Single((await node.Get("/v1/services?limit=1000")).Each("title"), t => t == "Wanted");
    }

    [Fact]
    public async Task give_a_request_with_a_key_that_comes_twice_at_once_one_id()
    {
        await using var other = await node.StartBeside();

        for (var round = 0; round < 5; round++)
        {
            var answers = await Task.WhenAll(Enumerable.Range(0, 8).Select(i =>
                (i % 2 == 0 ? node : other).Post("/v1/services", new { title = $"Twice {round}" }, ("Idempotency-Key", $"twice-{round}"))));

            Assert.All(answers, a => a.Is(HttpStatusCode.Created));
            Assert.Single(answers.Select(a => (a.Text, a.Headers["Location"], a.Position)).Distinct());
            Assert.Equal(7, answers.Count(a => a.Replayed));
        }
    }

    [Fact]
    public async Task number_prices_that_are_set_at_once_without_gap_or_repetition()
    {
        await using var other = await node.StartBeside();
        await node.Post("/v1/services", new { serviceId = "busy", title = "Busy" });

        var answers = await Task.WhenAll(Enumerable.Range(0, 10).Select(i => (i % 2 == 0 ? node : other).Post("/v1/services/busy/prices", Price)));

        Assert.All(answers, a => a.Is(HttpStatusCode.Created));
        Assert.Equal(Enumerable.Range(1, 10), answers.Select(a => a.Json.GetProperty("priceVersion").GetInt32()).Order());
        Assert.All(answers, a => Assert.EndsWith($"/prices/{a.Json.GetProperty("priceVersion")}", a.Headers["Location"], StringComparison.Ordinal));
    }

    [Fact]
    public async Task know_what_the_other_one_did()
    {
        await using var other = await node.StartBeside();
        await node.Post("/v1/services", new { serviceId = "shared", title = "Shared", description = "a" });
        await other.Patch("/v1/services/shared", new { description = "b" });
        await node.Patch("/v1/services/shared", new { description = "a" });
        var back = await other.Patch("/v1/services/shared", new { description = "b" });
        await node.Delete("/v1/services/shared");

        Assert.Equal(("b", "\"4\""), (back.Json.GetProperty("description").GetString(), back.ETag));
        (await other.Post("/v1/services/shared/prices", Price)).IsProblem(409, "service-retired");
    }
}
