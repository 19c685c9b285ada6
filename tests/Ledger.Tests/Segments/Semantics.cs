using System.Net;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Testing;
using Ledger.Users;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Segments;

public sealed class An_expiry(PostgresFixture postgres, TestNode node) : IClassFixture<TestNode>
{
    private async Task<bool[]> IsIn(string user, string slug, string query = "")
    {
        var question = query.Length == 0 ? "?" : $"{query}&";
        return
        [
            (await node.Get($"/v1/users/{user}/segments{query}")).Each("segment", "segments").Contains(slug),
            (await node.Get($"/v1/segments/{slug}/members{question}limit=1000")).Each("userId").Contains(user),
            (await node.Get($"/v1/segments/counts{query}")).Items.Single(i => i.GetProperty("segment").GetString() == slug).GetProperty("members").GetInt64() == 1,
            (await node.Get($"/v1/users/{user}/segments/{slug}{query}")).Json.GetProperty("member").GetBoolean(),
        ];
    }

    [Theory]
    [InlineData("""{"ttl":"PT1H"}""")]
    [InlineData("""{"expiresAt":"AT"}""")]
    public async Task is_exact_to_the_microsecond_whether_or_not_it_was_recorded(string term)
    {
        var slug = term.Contains("ttl", StringComparison.Ordinal) ? "exact-ttl" : "exact-at";
        await node.Post("/v1/segments", new { slug });
        var expiresAt = node.Clock.Now.AddHours(1);
        await node.Put($"/v1/users/u/segments/{slug}", term.Replace("AT", Rfc3339.Format(expiresAt), StringComparison.Ordinal));
        var joined = node.Position;
        bool[] all = [true, true, true, true], none = [false, false, false, false];

        node.Clock.SetTo(expiresAt.AddMicroseconds(-1));
        Assert.Equal(all, await IsIn("u", slug));
        Assert.Equal(0, await node.Sweep());
        node.Clock.SetTo(expiresAt);
        Assert.Equal(none, await IsIn("u", slug));
        Assert.Equal("0", (await node.Get($"/v1/segments/{slug}")).Json.GetProperty("members").ToString());
        Assert.Equal(1, await node.Sweep());
        Assert.Equal(0, await node.Sweep());
        await node.CatchUp();
        Assert.Equal(none, await IsIn("u", slug));

        node.Clock.Advance(TimeSpan.FromDays(1));
        Assert.Equal(all, await IsIn("u", slug, $"?at={Rfc3339.Format(expiresAt.AddMicroseconds(-1))}"));
        Assert.Equal(none, await IsIn("u", slug, $"?at={Rfc3339.Format(expiresAt)}"));
        Assert.Equal(all, await IsIn("u", slug, $"?at={Rfc3339.Format(expiresAt.AddMicroseconds(-1))}&position={joined}"));
        Assert.Equal(none, await IsIn("u", slug, $"?at={Rfc3339.Format(expiresAt)}&position={joined}"));
    }

    [Fact]
    public async Task in_the_future_can_be_asked_for()
    {
        await node.Post("/v1/segments", new { slug = "future" });
        await node.Put("/v1/users/u/segments/future", """{"ttl":"P10D"}""");

        Assert.All(await IsIn("u", "future", $"?at={Rfc3339.Format(node.Clock.Now.AddDays(10).AddMicroseconds(-1))}"), Assert.True);
        Assert.All(await IsIn("u", "future", $"?at={Rfc3339.Format(node.Clock.Now.AddDays(10))}"), Assert.False);
    }

    [Fact]
    public async Task never_takes_away_a_membership_that_was_renewed()
    {
        await node.Post("/v1/segments", new { slug = "races" });
        var users = Enumerable.Range(0, 30).Select(i => $"race{i}").ToArray();
        for (var round = 0; round < (LongTests.Wanted ? 50 : 6); round++)
        {
            await Task.WhenAll(users.Select(u => node.Put($"/v1/users/{u}/segments/races", """{"ttl":"PT1S"}""")));
            await node.CatchUp();
            node.Clock.Advance(TimeSpan.FromSeconds(1).Subtract(TimeSpan.FromMicroseconds(1)));
            // What has a microsecond left is renewed while the clock steps over its end and the sweeper runs.
            var renewals = users.Select(u => node.Put($"/v1/users/{u}/segments/races", """{"ttl":"PT1H"}""")).ToArray();
            node.Clock.Advance(TimeSpan.FromMicroseconds(1));
            var sweeps = Enumerable.Range(0, 3).Select(_ => node.Services.GetRequiredService<ExpireMemberships>().Sweep(TestContext.Current.CancellationToken)).ToArray();
            Assert.All(await Task.WhenAll(renewals), r => r.Is(HttpStatusCode.OK));
            await Task.WhenAll(sweeps);

            Assert.Equal(users.Order(StringComparer.Ordinal), (await node.Get("/v1/segments/races/members")).Each("userId"));
            var log = await node.Log();
            foreach (var user in users)
            {
                // An expiry is only ever of the term in force, and nothing holds that has expired.
                var state = UserMemberships.None;
                foreach (var recorded in log.Where(e => e.StreamId == $"user-{user}"))
                {
                    if (recorded.Data is MembershipExpired expired)
                    {
                        Assert.Equal(expired.ExpiresAt, state.Open[expired.SegmentId].ExpiresAt);
                        Assert.True(expired.ExpiresAt <= recorded.RecordedAt);
                    }

                    Assert.False(recorded.Data is UserJoinedSegment j && state.Open.ContainsKey(j.SegmentId), "Joined while open.");
                    state = UserMemberships.Evolve(state, recorded);
                }
            }

            await Task.WhenAll(users.Select(u => node.Delete($"/v1/users/{u}/segments/races")));
        }

        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task of_thousands_is_recorded_in_one_sweep_batch_by_batch()
    {
        await node.Post("/v1/segments", new { slug = "batches" });
        await node.Import("batches", string.Concat(Enumerable.Range(0, (2 * ExpireMemberships.BatchSize) + 500).Select(i => $"b{i},PT1S\n")));
        node.Clock.Advance(TimeSpan.FromSeconds(1));

        var swept = await node.Sweep();

        Assert.Equal((2 * ExpireMemberships.BatchSize) + 500, swept);
        Assert.Equal(swept, (await node.Log()).Count(e => e.Data is MembershipExpired { Segment: "batches" }));
        Assert.All((await node.Log()).Where(e => e.Data is MembershipExpired { Segment: "batches" }), e => Assert.Equal(ExpireMemberships.Actor, e.Actor));
    }

    [Fact]
    public async Task recorded_late_leaves_sizes_and_memberships_of_one_mind()
    {
        // What a clock does between decision and commit: a renewal and a leave recorded after the term had run out.
        await using var other = new TestNode(postgres);
        await other.InitializeAsync();
        await other.Post("/v1/segments", new { slug = "late" });
        foreach (var user in (string[])["renews", "leaves", "never-held"])
        {
            await other.Put($"/v1/users/{user}/segments/late", """{"ttl":"PT1S"}""");
        }

        var id = (await other.Log())[0].Position;
        var ranOut = other.Clock.Now.AddSeconds(1);
        other.Clock.Advance(TimeSpan.FromSeconds(3));
        await Append("renews", 1, new MembershipRenewed("late", id, TimeSpan.FromSeconds(5), null));
        await Append("leaves", 1, new UserLeftSegment("late", id));
        await Append("joins-late", 0, new UserJoinedSegment("late", id, null, ranOut, "explicit"));
        await other.CatchUp();

        foreach (var at in Enumerable.Range(-2, 12).SelectMany(s => new[] { -1, 0, 1 }.Select(us => ranOut.AddSeconds(s).AddMicroseconds(us))))
        {
            var query = $"?at={Rfc3339.Format(at)}";
            if ((await other.Get($"/v1/segments/counts{query}")).Items.ToArray() is not [var count])
            {
                continue;
            }

            var members = (await other.Get($"/v1/segments/late/members{query}")).Each("userId");
            Assert.Equal(members.Length, count.GetProperty("members").GetInt64());
            foreach (var user in (string[])["renews", "leaves", "joins-late", "never-held"])
            {
                Assert.Equal(members.Contains(user), (await other.Get($"/v1/users/{user}/segments{query}")).Each("segment", "segments").Contains("late"));
                Assert.Equal(members.Contains(user), (await other.Get($"/v1/users/{user}/segments/late{query}")).Json.GetProperty("member").GetBoolean());
            }
        }

        async Task Append(string user, long version, object data) => Assert.Equal(
            AppendOutcome.Appended,
            (await other.Services.GetRequiredService<Appender>().Append(
                new AppendRequest
                {
                    TenantId = Requests.DefaultTenant, Appends = [new StreamAppend(User.StreamOf(user), User.StreamType, [data])],
                    Conditions = [new StreamCondition(User.StreamOf(user), version)],
                },
                TestContext.Current.CancellationToken)).Outcome);
    }
}

public sealed class Deleting_a_segment(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task comes_after_a_join_or_refuses_it()
    {
        await using var other = await node.StartBeside();
        for (var round = 0; round < (LongTests.Wanted ? 200 : 20); round++)
        {
            var slug = $"race-{round}";
            await node.Post("/v1/segments", new { slug });
            await other.Put($"/v1/users/before/segments/{slug}", null);
            var joins = Enumerable.Range(0, 10).Select(i => (i % 2 == 0 ? node : other).Put($"/v1/users/joiner-{i}/segments/{slug}", null)).ToList();
            var deletion = node.Delete($"/v1/segments/{slug}");
            joins.AddRange(Enumerable.Range(10, 10).Select(i => (i % 2 == 0 ? node : other).Put($"/v1/users/joiner-{i}/segments/{slug}", null)));

            (await deletion).Is(HttpStatusCode.NoContent);
            var answers = await Task.WhenAll(joins);
            (await other.Put($"/v1/users/after/segments/{slug}", null)).IsProblem(404, "segment-not-found");

            var log = await node.Log();
            var deletedAt = log.Single(e => e.StreamId == $"segment-{slug}" && e.Data is SegmentDeleted).Position;
            var stored = log.Where(e => e.Data is UserJoinedSegment j && j.Segment == slug).ToArray();
            Assert.All(stored, e => Assert.True(e.Position < deletedAt));
            Assert.All(answers, a => Assert.Contains(a.Status, (HttpStatusCode[])[HttpStatusCode.OK, HttpStatusCode.NotFound]));
            Assert.Equal(1 + answers.Count(a => a.Status == HttpStatusCode.OK), stored.Length);
        }

        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task of_many_members_is_one_event_and_shows_at_once()
    {
        var count = LongTests.Wanted ? 100_000 : 20_000;
        await node.Post("/v1/segments", new { slug = "large" });
        await node.Post("/v1/segments", new { slug = "stays" });
        await node.Import("large", string.Concat(Enumerable.Range(0, count).Select(i => i % 2 == 0 ? $"m{i}\n" : $"m{i},P9D\n")));
        await node.Import("stays", "m1\n");
        Assert.Equal($"{count}", (await node.Get("/v1/segments/large")).Json.GetProperty("members").ToString());
        node.Clock.Advance(TimeSpan.FromMinutes(1));
        var (before, deletedAt) = (await node.CatchUp(), node.Clock.Now);

        var deleted = (await node.Delete("/v1/segments/large")).Is(HttpStatusCode.NoContent);

        Assert.Equal(before + 1, deleted.Position);
        Assert.Equal(["stays"], (await node.Get("/v1/users/m1/segments")).Each("segment", "segments"));
        Assert.DoesNotContain("large", (await node.Get("/v1/segments/counts")).Each("segment"));
        (await node.Get("/v1/segments/large/members")).IsProblem(404, "segment-not-found");
        Assert.Equal("segment-deleted", (await node.Get($"/v1/users/m{count - 1}/segments/large")).Json.GetProperty("reason").GetString());
        var then = $"?at={Rfc3339.Format(deletedAt.AddMicroseconds(-1))}";
        Assert.Contains("large", (await node.Get($"/v1/users/m1/segments{then}")).Each("segment", "segments"));
        Assert.Equal($"{count}", (await node.Get($"/v1/segments/counts{then}")).Items.Single(i => i.GetProperty("segment").GetString() == "large").GetProperty("members").ToString());
        node.Clock.Advance(TimeSpan.FromDays(10));
        Assert.Equal(0, await node.Sweep());

        (await node.Post("/v1/segments", new { slug = "large" })).Is(HttpStatusCode.Created);
        Assert.Equal("0", (await node.Get("/v1/segments/counts")).Items.Single(i => i.GetProperty("segment").GetString() == "large").GetProperty("members").ToString());
        Assert.Empty((await node.Get("/v1/segments/large/members")).Each("userId"));
        await node.Put("/v1/users/m1/segments/large", null);
        Assert.Equal(["m1"], (await node.Get("/v1/segments/large/members")).Each("userId"));
        Assert.Equal("0", (await node.Get($"/v1/users/m2/segments/large")).Json.GetProperty("joinedAt").ToString() is "" ? "0" : "1");
    }

    [Fact]
    public async Task ends_the_roll_out_too()
    {
        await node.Post("/v1/segments", """{"slug":"rolled","rolloutPercent":"100"}""");
        Assert.Contains("rolled", (await node.Get("/v1/users/x/segments")).Each("segment", "segments"));
        await node.Delete("/v1/segments/rolled");
        Assert.DoesNotContain("rolled", (await node.Get("/v1/users/x/segments")).Each("segment", "segments"));
        await node.Post("/v1/segments", new { slug = "rolled" });
        Assert.DoesNotContain("rolled", (await node.Get("/v1/users/x/segments")).Each("segment", "segments"));
    }
}

public sealed class Rebuilding_a_view(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task never_shows_or_uses_half_of_it()
    {
        await node.Post("/v1/segments", new { slug = "steady" });
        await node.Import("steady", string.Concat(Enumerable.Range(0, 3_000).Select(i => $"s{i:0000}\n")));
        await node.CatchUp();
        using var done = new CancellationTokenSource();

        var readers = Enumerable.Range(0, 3).Select(async _ =>
        {
            while (!done.IsCancellationRequested)
            {
                Assert.Equal(["steady"], (await node.Get("/v1/users/s0001/segments")).Is(HttpStatusCode.OK).Each("segment", "segments"));
                Assert.Equal(1_000, (await node.Get("/v1/segments/steady/members?limit=1000")).Is(HttpStatusCode.OK).Items.Count());
                Assert.Equal("3000", (await node.Get("/v1/segments/counts")).Is(HttpStatusCode.OK).Each("members").Single());
                Assert.Equal("{}", (await node.Get("/v1/users/s0002")).Is(HttpStatusCode.OK).Json.GetProperty("attributes").GetRawText());
            }
        });
        var joiners = Enumerable.Range(0, 3).Select(async i =>
        {
            while (!done.IsCancellationRequested)
            {
                (await node.Put($"/v1/users/s000{i + 3}/segments/steady", null)).Is(HttpStatusCode.OK);
            }
        });
        var running = Task.WhenAll([.. readers, .. joiners]);
        for (var round = 0; round < (LongTests.Wanted ? 60 : 8) && !running.IsCompleted; round++)
        {
            foreach (var view in (string[])["Memberships", "Segments", "Users"])
            {
                await node.Rebuild(view);
            }
        }

        await done.CancelAsync();
        await running;
        Assert.Equal(3_000, (await node.Log()).Count(e => e.Data is UserJoinedSegment));
        Assert.Empty(node.Errors);
    }
}
