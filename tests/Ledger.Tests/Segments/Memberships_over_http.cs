using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Segments;

public sealed class Joining_a_segment(TestNode node) : IClassFixture<TestNode>
{
    private static int s_number;

    private async Task<string> Segment(object? more = null)
    {
        var slug = $"s{Interlocked.Increment(ref s_number)}";
        var body = JsonSerializer.SerializeToNode(more ?? new { })!.AsObject();
        body["slug"] = slug;
        (await node.Post("/v1/segments", body.ToJsonString())).Is(HttpStatusCode.Created);
        return slug;
    }

    [Fact]
    public async Task answers_with_the_segments_after_it()
    {
        var (a, b) = (await Segment(), await Segment(new { defaultTtl = "P1D" }));

        var joined = (await node.Post("/v1/users/joins/segments", new { join = new object[] { new { segment = b }, new { segment = a, ttl = "PT1H" } } })).Is(HttpStatusCode.OK);

        var now = Rfc3339.Format(node.Clock.Now);
        Assert.Equal("joins", joined.Json.GetProperty("userId").GetString());
        Assert.Equal(now, joined.Json.GetProperty("at").GetString());
        Assert.Equal(
            $$"""[{"segment":"{{a}}","source":"explicit","joinedAt":"{{now}}","expiresAt":"{{Rfc3339.Format(node.Clock.Now.AddHours(1))}}"},{"segment":"{{b}}","source":"explicit","joinedAt":"{{now}}","expiresAt":"{{Rfc3339.Format(node.Clock.Now.AddDays(1))}}"}]""",
            joined.Json.GetProperty("segments").GetRawText());
        Assert.Equal(joined.Text, (await node.Get("/v1/users/joins/segments")).Text);
        Assert.Equal(joined.Position, (await node.Log())[^1].Position);
    }

    [Fact]
    public async Task and_leaving_another_is_one_step()
    {
        var (a, b) = (await Segment(), await Segment());
        await node.Put($"/v1/users/moves/segments/{a}", null);

        var moved = (await node.Post("/v1/users/moves/segments", new { join = new[] { new { segment = b } }, leave = new[] { a } })).Is(HttpStatusCode.OK);

        Assert.Equal([b], moved.Each("segment", "segments"));
        var log = await node.Log(moved.Position!.Value - 2);
        Assert.Equal(["user_joined_segment", "user_left_segment"], log.Select(e => e.Type));
    }

    [Theory]
    [InlineData("""{"join":[{"segment":"A","expiresAt":"2026-11-20T11:59:59Z"}]}""", "join[0].expiresAt")]
    [InlineData("""{"join":[{"segment":"A","expiresAt":"2020-01-01T00:00:00Z"},{"segment":"B"}]}""", "join[0].expiresAt")]
    [InlineData("""{"join":[{"segment":"B"},{"segment":"A","ttl":"PT0S"}]}""", "join[1].ttl")]
    [InlineData("""{"join":[{"segment":"A","ttl":"-PT1S"}]}""", "join[0].ttl")]
    [InlineData("""{"join":[{"segment":"A","ttl":"P36526D"}]}""", "join[0].ttl")]
    [InlineData("""{"join":[{"segment":"A","ttl":"P1D","expiresAt":"2030-01-01T00:00:00Z"}]}""", "join[0].ttl")]
    [InlineData("""{"join":[{"segment":"A"},{"segment":"A"}]}""", "join[1].segment")]
    [InlineData("""{"leave":["A","A"]}""", "leave[1]")]
    [InlineData("""{"join":[{"segment":"A"}],"leave":["A"]}""", "leave[0]")]
    [InlineData("""{"join":[{"segment":"a b"}]}""", "join[0].segment")]
    [InlineData("""{"join":[{"segment":null}]}""", "join[0].segment")]
    [InlineData("""{"join":[null]}""", "join[0]")]
    [InlineData("""{"leave":[null]}""", "leave[0]")]
    [InlineData("""{"leave":[1]}""", "leave[0]")]
    [InlineData("""{"join":[{"segment":"A","until":"x"}]}""", "join[0].until")]
    [InlineData("""{"join":[],"leaves":[]}""", "leaves")]
    public async Task refuses_what_makes_no_sense_naming_the_field_and_stores_nothing(string body, string field)
    {
        await node.Post("/v1/segments", new { slug = "A" });
        await node.Post("/v1/segments", new { slug = "B" });

        var refused = await node.Post("/v1/users/refused/segments", body);

        Assert.Equal((HttpStatusCode.BadRequest, field), (refused.Status, Assert.Single(refused.Fields)));
        Assert.DoesNotContain(await node.Log(), e => e.StreamId == "user-refused");
    }

    [Fact]
    public async Task of_none_is_refused() => (await node.Post("/v1/users/u/segments", "{}")).IsProblem(400, "invalid-request");

    [Fact]
    public async Task of_too_many_is_refused_and_of_as_many_as_allowed_is_not()
    {
        var slugs = await Task.WhenAll(Enumerable.Range(0, ChangeMemberships.MaxSegments).Select(_ => Segment()));

        (await node.Post("/v1/users/many/segments", new { join = slugs.Append("one-more").Select(s => new { segment = s }) })).IsProblem(400, "invalid-request");
        var joined = (await node.Post("/v1/users/many/segments", new { join = slugs.Select(s => new { segment = s, ttl = "PT1S" }) })).Is(HttpStatusCode.OK);
        Assert.Equal(slugs.Length, joined.Json.GetProperty("segments").GetArrayLength());
        node.Clock.Advance(TimeSpan.FromSeconds(2));
        // Each one had run out, so that each takes two events.
        (await node.Post("/v1/users/many/segments", new { join = slugs.Select(s => new { segment = s }) })).Is(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("join")]
    [InlineData("leave")]
    public async Task that_is_not_there_is_refused_naming_it_and_stores_nothing(string verb)
    {
        var a = await Segment();
        var body = verb == "join"
            ? $$"""{"join":[{"segment":"{{a}}"},{"segment":"unknown"}]}"""
            : $$"""{"join":[{"segment":"{{a}}"}],"leave":["unknown"]}""";

        var refused = (await node.Post("/v1/users/all-or-nothing/segments", body)).IsProblem(404, "segment-not-found");

        Assert.Contains("'unknown'", refused.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
        Assert.Empty((await node.Get("/v1/users/all-or-nothing/segments")).Each("segment", "segments"));
    }

    [Fact]
    public async Task is_refused_when_the_segment_was_deleted()
    {
        var (a, b) = (await Segment(), await Segment());
        await node.Put($"/v1/users/late/segments/{a}", null);
        await node.Delete($"/v1/segments/{a}");

        // Members and others, joining and leaving, before and after the views have heard of it.
        for (var i = 0; i < 2; i++)
        {
            foreach (var user in (string[])["late", "never-in"])
            {
                Assert.Contains($"'{a}'", (await node.Post($"/v1/users/{user}/segments", new { join = new[] { new { segment = b }, new { segment = a } } })).IsProblem(404, "segment-not-found").Text, StringComparison.Ordinal);
                (await node.Post($"/v1/users/{user}/segments", new { leave = new[] { a } })).IsProblem(404, "segment-not-found");
                (await node.Put($"/v1/users/{user}/segments/{a}", null)).IsProblem(404, "segment-not-found");
                (await node.Delete($"/v1/users/{user}/segments/{a}")).IsProblem(404, "segment-not-found");
            }

            await node.CatchUp();
        }

        Assert.Empty((await node.Get("/v1/users/late/segments")).Each("segment", "segments"));
    }

    [Fact]
    public async Task is_refused_on_a_node_that_still_remembers_it()
    {
        await using var other = await node.StartBeside();
        var a = await Segment();
        await other.Put($"/v1/users/remembers/segments/{a}", null);
        await node.Delete($"/v1/segments/{a}");

        (await other.Put($"/v1/users/remembers/segments/{a}", null)).IsProblem(404, "segment-not-found");
        (await other.Delete($"/v1/users/nobody/segments/{a}")).IsProblem(404, "segment-not-found");
    }

    [Fact]
    public async Task goes_on_when_a_deleted_segment_has_a_renewal_that_no_view_has_folded()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "deleted" });
        await own.Post("/v1/segments", new { slug = "live" });
        await own.Put("/v1/users/u/segments/deleted", null);
        await own.CatchUp();
        (await own.Post("/v1/projections/Memberships/pause", null)).Is(HttpStatusCode.Accepted);
        (await own.Put("/v1/users/u/segments/deleted", """{"ttl":"P30D"}""")).Is(HttpStatusCode.OK);
        (await own.Delete("/v1/segments/deleted")).Is(HttpStatusCode.NoContent);
        Assert.True(await own.Services.GetRequiredService<Views>().WaitFor(["Segments"], own.Position, TimeSpan.FromSeconds(30), TestContext.Current.CancellationToken));

        string[] users = ["u", .. Enumerable.Range(0, 20).Select(i => $"v{i:00}")];
        Assert.All(await Task.WhenAll(users.Select(u => own.Put($"/v1/users/{u}/segments/live", null))), a => a.Is(HttpStatusCode.OK));
        Assert.Equal(["live"], (await own.Post("/v1/users/u/segments", """{"join":[{"segment":"live"}]}""")).Is(HttpStatusCode.OK).Each("segment", "segments"));
        (await own.Delete("/v1/users/v00/segments/live")).Is(HttpStatusCode.NoContent);

        (await own.Post("/v1/projections/Memberships/resume", null)).Is(HttpStatusCode.Accepted);
        Assert.Equal(users.Where(u => u != "v00"), (await own.Get("/v1/segments/live/members")).Each("userId"));
        Assert.Empty(own.Errors);
    }

    [Fact]
    public async Task twice_is_one_membership()
    {
        var a = await Segment();
        var first = (await node.Put($"/v1/users/twice/segments/{a}", null)).Is(HttpStatusCode.OK);
        node.Clock.Advance(TimeSpan.FromMinutes(1));

        var second = (await node.Put($"/v1/users/twice/segments/{a}", null)).Is(HttpStatusCode.OK);

        Assert.Equal(first.Text, second.Text);
        Assert.Single(await node.Log(), e => e.StreamId == "user-twice");
    }

    [Fact]
    public async Task at_once_from_many_callers_on_two_nodes_is_one_membership()
    {
        await using var other = await node.StartBeside();
        var a = await Segment();

        var answers = await Task.WhenAll(Enumerable.Range(0, 12).Select(i => (i % 2 == 0 ? node : other).Put($"/v1/users/crowd/segments/{a}", null)));

        Assert.All(answers, x => x.Is(HttpStatusCode.OK));
        Assert.Single(await node.Log(), e => e.StreamId == "user-crowd");
    }

    [Fact]
    public async Task renews_who_is_in_already_when_a_term_is_given()
    {
        var a = await Segment();
        var joinedAt = Rfc3339.Format(node.Clock.Now);
        await node.Put($"/v1/users/renews/segments/{a}", """{"ttl":"PT1H"}""");
        node.Clock.Advance(TimeSpan.FromMinutes(30));

        var renewed = (await node.Put($"/v1/users/renews/segments/{a}", """{"ttl":"PT1H"}""")).Is(HttpStatusCode.OK);
        Assert.Equal((joinedAt, Rfc3339.Format(node.Clock.Now.AddHours(1))), Term(renewed));
        var until = Rfc3339.Format(node.Clock.Now.AddMicroseconds(1));
        Assert.Equal((joinedAt, until), Term((await node.Put($"/v1/users/renews/segments/{a}", $$"""{"expiresAt":"{{until}}"}""")).Is(HttpStatusCode.OK)));
        Assert.Equal((joinedAt, until), Term((await node.Put($"/v1/users/renews/segments/{a}", "{}")).Is(HttpStatusCode.OK)));
        Assert.Equal((joinedAt, null), Term((await node.Put($"/v1/users/renews/segments/{a}", """{"expiresAt":null}""")).Is(HttpStatusCode.OK)));
        Assert.Equal(4, (await node.Log()).Count(e => e.StreamId == "user-renews"));

        static (string?, string?) Term(Answer a) => (a.Json.GetProperty("joinedAt").GetString(), a.Json.GetProperty("expiresAt").GetString());
    }

    [Theory]
    [InlineData("""{"expiresAt":"2026-11-20T11:59:59Z"}""", "expiresAt")]
    [InlineData("""{"ttl":"PT0S"}""", "ttl")]
    [InlineData("""{"ttl":"P1D","expiresAt":"2030-01-01T00:00:00Z"}""", "ttl")]
    [InlineData("""{"tll":"P1D"}""", "tll")]
    [InlineData("""{"ttl":5}""", "ttl")]
    public async Task by_PUT_refuses_terms_that_make_no_sense(string body, string field)
    {
        var a = await Segment();

        var refused = await node.Put($"/v1/users/put-refused/segments/{a}", body);

        Assert.Equal((HttpStatusCode.BadRequest, field), (refused.Status, Assert.Single(refused.Fields)));
        Assert.StartsWith($"{field} ", refused.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task and_leaving_and_joining_again_are_two_stays()
    {
        var a = await Segment();
        await node.Put($"/v1/users/returns/segments/{a}", null);
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        var between = node.Clock.Now;
        (await node.Delete($"/v1/users/returns/segments/{a}")).Is(HttpStatusCode.NoContent);
        (await node.Delete($"/v1/users/returns/segments/{a}")).Is(HttpStatusCode.NoContent);
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        await node.Put($"/v1/users/returns/segments/{a}", null);

        Assert.Equal(["user_joined_segment", "user_left_segment", "user_joined_segment"], (await node.Log()).Where(e => e.StreamId == "user-returns").Select(e => e.Type));
        foreach (var (at, isIn) in new[] { (between.AddMicroseconds(-1), true), (between, false), (node.Clock.Now.AddMicroseconds(-1), false), (node.Clock.Now, true) })
        {
            Assert.Equal(isIn, (await node.Get($"/v1/users/returns/segments?at={Rfc3339.Format(at)}")).Each("segment", "segments").Contains(a));
            Assert.Equal(isIn, (await node.Get($"/v1/segments/{a}/members?at={Rfc3339.Format(at)}")).Each("userId").Contains("returns"));
            Assert.Equal(isIn ? "1" : "0", (await node.Get($"/v1/segments/counts?at={Rfc3339.Format(at)}")).Items.Single(i => i.GetProperty("segment").GetString() == a).GetProperty("members").ToString());
            Assert.Equal(isIn, (await node.Get($"/v1/users/returns/segments/{a}?at={Rfc3339.Format(at)}")).Json.GetProperty("member").GetBoolean());
        }
    }

    [Fact]
    public async Task replays_the_first_outcome_under_the_same_key()
    {
        var (a, b) = (await Segment(), await Segment());
        var body = new { join = new[] { new { segment = a, ttl = "PT1H" } } };
        var first = (await node.Post("/v1/users/replays/segments", body, ("Idempotency-Key", "join-1"))).Is(HttpStatusCode.OK);
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        await node.Post("/v1/users/replays/segments", new { join = new[] { new { segment = b } }, leave = new[] { a } });

        var again = (await node.Post("/v1/users/replays/segments", body, ("Idempotency-Key", "join-1"))).Is(HttpStatusCode.OK);

        Assert.Equal((first.Text, first.Position, true), (again.Text, again.Position, again.Replayed));
        Assert.Equal([b], (await node.Get("/v1/users/replays/segments")).Each("segment", "segments"));
        (await node.Post("/v1/users/replays/segments", new { join = new[] { new { segment = a } } }, ("Idempotency-Key", "join-1"))).IsProblem(422, "idempotency-key-reused");
    }

    [Fact]
    public async Task replays_at_once_however_far_the_views_are()
    {
        for (var round = 0; round < 20; round++)
        {
            var a = await Segment();
            var first = (await node.Put($"/v1/users/quick/segments/{a}", """{"ttl":"P1D"}""", ("Idempotency-Key", $"quick-{a}"))).Is(HttpStatusCode.OK);
            var again = (await node.Put($"/v1/users/quick/segments/{a}", """{"ttl":"P1D"}""", ("Idempotency-Key", $"quick-{a}"))).Is(HttpStatusCode.OK);
            Assert.Equal((first.Text, true), (again.Text, again.Replayed));
        }
    }

    [Fact]
    public async Task under_one_key_at_once_on_two_nodes_is_one_event()
    {
        await using var other = await node.StartBeside();
        var a = await Segment();
        for (var round = 0; round < 10; round++)
        {
            var (path, key) = ($"/v1/users/keyed-{round}/segments", ("Idempotency-Key", $"both-{a}-{round}"));

            var answers = await Task.WhenAll(Enumerable.Range(0, 6).Select(i => (i % 2 == 0 ? node : other).Post(path, new { join = new[] { new { segment = a, ttl = "P1D" } } }, key)));

            Assert.All(answers, x => x.Is(HttpStatusCode.OK));
            Assert.Single(answers, x => !x.Replayed);
            Assert.Single(answers.Select(x => x.Position).Distinct());
            Assert.Single(answers.Select(x => x.Text).Distinct());
            Assert.Single(await node.Log(), e => e.StreamId == $"user-keyed-{round}");
        }
    }

    [Fact]
    public async Task repeats_under_its_key_what_it_did_though_that_was_nothing()
    {
        var a = await Segment();
        (await node.Delete($"/v1/users/noop/segments/{a}", ("Idempotency-Key", "noop-1"))).Is(HttpStatusCode.NoContent);
        (await node.Delete($"/v1/users/noop/segments/{a}", ("Idempotency-Key", "noop-1"))).Is(HttpStatusCode.NoContent);
    }

    [Fact]
    public async Task needs_no_registration_before_it()
    {
        var a = await Segment();
        await node.Put($"/v1/users/fresh/segments/{a}", null);

        Assert.Equal("{}", (await node.Get("/v1/users/fresh")).Is(HttpStatusCode.OK).Json.GetProperty("attributes").GetRawText());
    }

    [Theory]
    [InlineData("a/b")]
    [InlineData("ä")]
    [InlineData("a b")]
    [InlineData("%2F")]
    [InlineData("'; drop table memberships; --")]
    public async Task works_for_odd_ids(string userId)
    {
        var a = await Segment();
        var path = $"/v1/users/{Uri.EscapeDataString(userId)}/segments";
        (await node.Put($"{path}/{a}", null)).Is(HttpStatusCode.OK);

        Assert.Equal(userId, (await node.Get(path)).Json.GetProperty("userId").GetString());
        Assert.True((await node.Get($"{path}/{a}")).Json.GetProperty("member").GetBoolean());
        Assert.Equal([userId], (await node.Get($"/v1/segments/{a}/members")).Each("userId"));
        (await node.Delete($"{path}/{a}")).Is(HttpStatusCode.NoContent);
        Assert.False((await node.Get($"{path}/{a}")).Json.GetProperty("member").GetBoolean());
    }

    [Fact]
    public async Task refuses_other_methods_and_media_types()
    {
        (await node.Patch("/v1/users/u/segments", "{}")).IsProblem(405, "method-not-allowed");
        using var text = new HttpRequestMessage(HttpMethod.Post, "/v1/users/u/segments") { Content = new StringContent("{}") };
        (await node.Send(text)).IsProblem(415, "unsupported-media-type");
    }
}

public sealed class Asking_why(TestNode node) : IClassFixture<TestNode>
{
    private Task<Answer> Why(string user, string slug, string query = "") => node.Get($"/v1/users/{user}/segments/{slug}{query}");

    private static (bool Member, string? Reason, string? JoinedAt, string? ExpiresAt, string? LeftAt) Told(Answer a) => (
        a.Is(HttpStatusCode.OK).Json.GetProperty("member").GetBoolean(), a.Json.GetProperty("reason").GetString(),
        a.Json.GetProperty("joinedAt").GetString(), a.Json.GetProperty("expiresAt").GetString(), a.Json.GetProperty("leftAt").GetString());

    private string Now => Rfc3339.Format(node.Clock.Now);

    [Fact]
    public async Task tells_who_is_in_who_left_and_who_never_was()
    {
        await node.Post("/v1/segments", new { slug = "why" });
        var joinedAt = Now;
        await node.Put("/v1/users/stays/segments/why", null);
        await node.Put("/v1/users/leaves/segments/why", """{"ttl":"P1D"}""");
        var expiresAt = Rfc3339.Format(node.Clock.Now.AddDays(1));
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        var leftAt = Now;
        await node.Delete("/v1/users/leaves/segments/why");
        await node.Import("why", "imported\n");

        Assert.Equal((true, "explicit", joinedAt, null, null), Told(await Why("stays", "why")));
        Assert.Equal((false, "left", joinedAt, expiresAt, leftAt), Told(await Why("leaves", "why")));
        Assert.Equal((false, "never-joined", null, null, null), Told(await Why("never", "why")));
        Assert.Equal((true, "import", leftAt, null, null), Told(await Why("imported", "why")));
        Assert.Equal((true, "explicit", joinedAt, expiresAt, null), Told(await Why("leaves", "why", $"?at={joinedAt}")));
        (await Why("stays", "no-such")).IsProblem(404, "segment-not-found");
        (await Why("stays", "why", "?at=2026-01-01T00:00:00Z")).IsProblem(404, "segment-not-found");
    }

    [Fact]
    public async Task tells_the_instant_it_ran_out_whether_or_not_that_was_recorded()
    {
        await node.Post("/v1/segments", new { slug = "runs-out" });
        var joinedAt = Now;
        await node.Put("/v1/users/u/segments/runs-out", """{"ttl":"PT1H"}""");
        var expiresAt = Rfc3339.Format(node.Clock.Now.AddHours(1));
        node.Clock.Advance(TimeSpan.FromHours(2));

        var expected = (false, "expired", (string?)joinedAt, (string?)expiresAt, (string?)expiresAt);
        Assert.Equal(expected, Told(await Why("u", "runs-out")));
        await node.Sweep();
        Assert.Equal(expected, Told(await Why("u", "runs-out")));
    }

    [Fact]
    public async Task tells_that_the_segment_was_deleted_and_of_its_new_life()
    {
        await node.Post("/v1/segments", new { slug = "dies" });
        var joinedAt = Now;
        await node.Put("/v1/users/u/segments/dies", null);
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        var deletedAt = Now;
        await node.Delete("/v1/segments/dies");
        node.Clock.Advance(TimeSpan.FromMinutes(1));

        Assert.Equal((false, "segment-deleted", joinedAt, null, deletedAt), Told(await Why("u", "dies")));
        await node.Post("/v1/segments", new { slug = "dies" });
        Assert.Equal((false, "never-joined", null, null, null), Told(await Why("u", "dies")));
        Assert.Equal((false, "segment-deleted", joinedAt, null, deletedAt), Told(await Why("u", "dies", $"?at={deletedAt}")));
    }

    [Fact]
    public async Task tells_the_bucket_and_the_percentage_of_a_roll_out()
    {
        await node.Post("/v1/segments", """{"slug":"rolled","rolloutPercent":"0"}""");
        var bucket = Rollout.BucketOf("rolled", "someone");
        await node.Patch("/v1/segments/rolled", new { rolloutPercent = $"{bucket / 100m}" });
        Assert.Equal((false, "never-joined", null, null, null), Told(await Why("someone", "rolled")));
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        var since = Now;
        await node.Patch("/v1/segments/rolled", new { rolloutPercent = $"{(bucket + 1) / 100m}" });
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        await node.Patch("/v1/segments/rolled", new { rolloutPercent = "100" });

        var why = await Why("someone", "rolled");
        Assert.Equal((true, "rollout", since, null, null), Told(why));
        Assert.Equal((bucket, "100"), (why.Json.GetProperty("bucket").GetInt32(), why.Json.GetProperty("rolloutPercent").GetString()));
        Assert.Equal(("rollout", since), (await node.Get("/v1/users/someone/segments")).Json.GetProperty("segments").EnumerateArray()
            .Select(s => (s.GetProperty("source").GetString(), s.GetProperty("joinedAt").GetString())).Single());
        var explicitly = Now;
        await node.Put("/v1/users/someone/segments/rolled", null);
        Assert.Equal((true, "explicit", explicitly, null, null), Told(await Why("someone", "rolled")));
        Assert.Equal("1", (await node.Get("/v1/segments/rolled")).Json.GetProperty("members").ToString());
        await node.Delete("/v1/users/someone/segments/rolled");
        Assert.Equal((true, "rollout", since, null, null), Told(await Why("someone", "rolled")));
        await node.Patch("/v1/segments/rolled", new { rolloutPercent = "0" });
        Assert.Equal((false, "left"), (Told(await Why("someone", "rolled")).Member, Told(await Why("someone", "rolled")).Reason));
    }
}

public sealed class A_query(TestNode node) : IClassFixture<TestNode>
{
    [Theory]
    [InlineData("/v1/users")]
    [InlineData("/v1/users/u")]
    [InlineData("/v1/users/u/segments")]
    [InlineData("/v1/users/u/segments/s")]
    [InlineData("/v1/segments")]
    [InlineData("/v1/segments/s")]
    [InlineData("/v1/segments/s/members")]
    [InlineData("/v1/segments/counts")]
    public async Task waits_for_a_position_and_says_when_its_view_is_behind(string path)
    {
        await node.Post("/v1/segments", new { slug = "s" });
        await node.Put("/v1/users/u/segments/s", null);
        var there = (await node.Get(path)).Is(HttpStatusCode.OK);
        Assert.True(there.Position >= node.Position);

        var behind = (await node.GetAsIs(path, ("Ledger-Min-Position", $"{node.Position + 1_000_000}"), ("Prefer", "wait=0"))).IsProblem(503, "view-behind");
        Assert.Equal("1", behind.Headers["Retry-After"]);
        Assert.Equal("wait=0", behind.Headers["Preference-Applied"]);
        Assert.Equal(["Ledger-Min-Position"], (await node.GetAsIs(path, ("Ledger-Min-Position", "x"))).IsProblem(400, "invalid-request").Fields);
    }

    [Theory]
    [InlineData("/v1/users/u/segments")]
    [InlineData("/v1/users/u/segments/s")]
    [InlineData("/v1/segments/s/members")]
    [InlineData("/v1/segments/counts")]
    public async Task refuses_an_instant_or_position_that_is_none(string path)
    {
        await node.Post("/v1/segments", new { slug = "s" });
        foreach (var (query, field) in new[] { ("at=yesterday", "at"), ("at=2026-11-20T12:00:00", "at"), ("position=0", "position"), ("position=-1", "position"), ("position=x", "position"), ("position=99999999", "position") })
        {
            var refused = await node.Get($"{path}?{query}");
            Assert.Equal((HttpStatusCode.BadRequest, field), (refused.Status, refused.Fields.SingleOrDefault()));
        }
    }

    [Theory]
    [InlineData("0001-01-01T00:00:00Z")]
    [InlineData("9999-12-31T23:59:59.999999Z")]
    [InlineData("1969-12-31T23:59:59.999999Z")]
    [InlineData("2026-11-20T13:00:00%2B01:00")]
    public async Task takes_any_instant_there_is(string at)
    {
        await node.Post("/v1/segments", new { slug = "s" });
        (await node.Get($"/v1/users/u/segments?at={at}")).Is(HttpStatusCode.OK);
        (await node.Get($"/v1/segments/counts?at={at}")).Is(HttpStatusCode.OK);
        Assert.Contains((await node.Get($"/v1/segments/s/members?at={at}")).Status, (HttpStatusCode[])[HttpStatusCode.OK, HttpStatusCode.NotFound]);
        Assert.Contains((await node.Get($"/v1/users/u/segments/s?at={at}")).Status, (HttpStatusCode[])[HttpStatusCode.OK, HttpStatusCode.NotFound]);
    }

    [Fact]
    public async Task reads_a_users_memberships_off_their_index_alone()
    {
        foreach (var command in (NpgsqlBatchCommand[])[UserSegmentsReader.OpenOf(Requests.DefaultTenant, "u"), MembershipLoader.OpenOf(Requests.DefaultTenant, ["u"], onlySegment: null)])
        {
            Assert.Contains("Index Only Scan using memberships_of_user on memberships", await Plans.Of(node, command), StringComparison.Ordinal);
        }

        Assert.Matches(@"Index Cond: .*user_id.*\bsegment_id\b|Index Cond: .*\bsegment_id\b.*user_id", await Plans.Of(node, MembershipLoader.OpenOf(Requests.DefaultTenant, ["u"], onlySegment: 7)));
    }

    [Fact]
    public async Task of_an_unknown_user_lists_the_roll_outs_its_id_falls_into()
    {
        await node.Post("/v1/segments", """{"slug":"everyone","rolloutPercent":"100"}""");

        var answer = (await node.Get("/v1/users/who-is-that/segments")).Is(HttpStatusCode.OK);

        Assert.Contains("everyone", answer.Each("segment", "segments"));
        (await node.Get("/v1/users/who-is-that")).IsProblem(404, "user-not-found");
    }

    [Fact]
    public async Task pages_through_members_and_counts()
    {
        await node.Post("/v1/segments", new { slug = "paged" });
        await node.Import("paged", string.Concat(Enumerable.Range(0, 25).Select(i => $"p{i:00}\n")));
        foreach (var more in (string[])["", $"&at={Rfc3339.Format(node.Clock.Now)}", $"&position={node.Position}"])
        {
            Assert.Equal(Enumerable.Range(0, 25).Select(i => $"p{i:00}"), await All($"/v1/segments/paged/members?limit=7{more}", "userId"));
            Assert.Contains("paged", await All($"/v1/segments/counts?limit=1{more}", "segment"));
        }

        var cursor = (await node.Get("/v1/segments/paged/members?limit=7")).Json.GetProperty("nextCursor").GetString();
        (await node.Get($"/v1/segments/paged/members?limit=7&cursor={cursor}&at={Rfc3339.Format(node.Clock.Now)}")).IsProblem(400, "invalid-cursor");

        async Task<List<string>> All(string path, string field)
        {
            var (all, cursor) = (new List<string>(), (string?)"");
            while (cursor is not null)
            {
                var page = (await node.Get(cursor.Length == 0 ? path : $"{path}&cursor={cursor}")).Is(HttpStatusCode.OK);
                all.AddRange(page.Each(field));
                cursor = page.Json.GetProperty("nextCursor").GetString();
            }

            Assert.Equal(all.Distinct(), all);
            return all;
        }
    }

    [Theory]
    [InlineData("/v1/users")]
    [InlineData("/v1/segments")]
    [InlineData("/v1/segments/listed/members")]
    [InlineData("/v1/segments/counts")]
    public async Task gives_lists_as_json_ndjson_and_csv(string path)
    {
        await node.Post("/v1/segments", new { slug = "listed" });
        await node.Put("/v1/users/=1+1/segments/listed", null);
        var items = (await node.Get(path)).Items.Count();

        var ndjson = (await node.Get(path, ("Accept", "application/x-ndjson"))).Is(HttpStatusCode.OK);
        var csv = (await node.Get(path, ("Accept", "text/csv"))).Is(HttpStatusCode.OK);

        Assert.StartsWith("application/x-ndjson", ndjson.Headers["Content-Type"], StringComparison.Ordinal);
        Assert.Equal(items, ndjson.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.StartsWith("text/csv", csv.Headers["Content-Type"], StringComparison.Ordinal);
        Assert.Equal(items + 1, csv.Text.Split("\r\n", StringSplitOptions.RemoveEmptyEntries).Length);
        Assert.DoesNotContain("\n=1", csv.Text, StringComparison.Ordinal);
        Assert.NotNull(ndjson.Position);
        Assert.NotNull(csv.Position);
        (await node.Get(path, ("Accept", "image/png"))).IsProblem(406, "not-acceptable");
    }
}
