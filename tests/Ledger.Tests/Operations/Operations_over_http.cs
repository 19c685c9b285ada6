using System.Net;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Tests.Running;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Operations;

public sealed class Operating_a_node(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task tells_that_it_lives_and_is_ready()
    {
        Assert.Equal("""{"status":"ok","checks":{}}""", (await node.GetAsIs("/health/live")).Is(HttpStatusCode.OK).Text);
        var ready = (await node.GetAsIs("/health/ready")).Is(HttpStatusCode.OK);
        Assert.Equal("""{"status":"ok","checks":{"schema":"ok","database":"ok","daemon":"ok","log":"ok"}}""", ready.Text);
    }

    [Fact]
    public async Task looks_once_a_second_whether_it_is_ready_and_one_look_at_a_time()
    {
        var clock = new Seconds();
        var (looks, under, most) = (0, 0, 0);
        var going = new TaskCompletionSource();
        using var readiness = new Readiness(
            async _ =>
            {
                most = Math.Max(most, ++under);
                await going.Task;
                under--;
                return new HealthAnswer($"look {++looks}", new Dictionary<string, string>());
            },
            clock);

        var asked = Enumerable.Range(0, 20).Select(_ => readiness.Ask(TestContext.Current.CancellationToken)).ToArray();
        going.SetResult();

        Assert.All(await Task.WhenAll(asked), answer => Assert.Equal("look 1", answer.Status));
        Assert.Equal(1, most);
        Assert.Equal("look 1", (await readiness.Ask(TestContext.Current.CancellationToken)).Status);
        clock.Passed = 1;
        Assert.Equal("look 2", (await readiness.Ask(TestContext.Current.CancellationToken)).Status);
    }

    /// <summary>A clock that stands still until it is told how many seconds have passed.</summary>
    private sealed class Seconds : TimeProvider
    {
        public long Passed { get; set; }

        public override long TimestampFrequency => 1;

        public override long GetTimestamp() => Passed;
    }

    [Fact]
    public async Task lists_every_view_with_its_position()
    {
        await node.Post("/v1/segments", new { slug = "listed" });
        await node.CatchUp();

        var listed = (await node.GetAsIs("/v1/projections")).Is(HttpStatusCode.OK);

        Assert.Equal(["Calls", "Campaigns", "History", "Keys", "Memberships", "Reports", "Segments", "Services", "UsageTotals", "Users"], listed.Each("name"));
        Assert.All(listed.Items, v => Assert.Equal(("running", 0, true), (v.GetProperty("state").GetString(), v.GetProperty("lagEvents").GetInt64(), v.GetProperty("position").GetInt64() >= node.Position)));
        Assert.All(listed.Items, v => Assert.True(v.TryGetProperty("lagSeconds", out _) && v.TryGetProperty("error", out _)));
        Assert.NotNull(listed.Position);
    }

    [Fact]
    public async Task pauses_and_resumes_one_view_while_the_others_go_on()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "before" });
        await own.CatchUp();
        (await own.Post("/v1/projections/Users/pause", null)).Is(HttpStatusCode.Accepted);
        var put = await own.Put("/v1/users/paused", "{}");
        await own.Put("/v1/users/paused/segments/before", null);

        (await own.GetAsIs("/v1/users/paused", ("Ledger-Min-Position", $"{put.Position}"), ("Prefer", "wait=1"))).IsProblem(503, "view-behind");
        Assert.Equal(["before"], (await own.Get("/v1/users/paused/segments")).Each("segment", "segments"));
        var users = (await own.GetAsIs("/v1/projections")).Items.Single(v => v.GetProperty("name").GetString() == "Users");
        Assert.Equal(("paused", 2), (users.GetProperty("state").GetString(), users.GetProperty("lagEvents").GetInt64()));
        (await own.GetAsIs("/health/ready")).Is(HttpStatusCode.OK);

        (await own.Post("/v1/projections/Users/resume", null)).Is(HttpStatusCode.Accepted);
        (await own.Get("/v1/users/paused")).Is(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("rebuild")]
    [InlineData("pause")]
    [InlineData("resume")]
    public async Task answers_404_for_a_view_there_is_not(string verb) =>
        Assert.Contains("'Nope'", (await node.Post($"/v1/projections/Nope/{verb}", null)).IsProblem(404, "projection-not-found").Text, StringComparison.Ordinal);

    [Fact]
    public async Task answers_with_the_head_of_the_log_what_it_was_told_to_do_with_a_view()
    {
        await using var own = await node.StartAnew();
        var head = (await own.Post("/v1/segments", new { slug = "head" })).Is(HttpStatusCode.Created).Position;

        foreach (var verb in (string[])["pause", "resume", "rebuild"])
        {
            Assert.Equal(head, (await own.Post($"/v1/projections/Services/{verb}", null)).Is(HttpStatusCode.Accepted).Position);
        }
    }

    [Fact]
    public async Task rebuilds_every_view_to_the_same_rows()
    {
        await node.Post("/v1/segments", """{"slug":"rebuilt","rolloutPercent":"5","defaultTtl":"P1D"}""");
        await node.Put("/v1/users/r1", """{"attributes":{"a":"ä"}}""");
        await node.Put("/v1/users/r1/segments/rebuilt", null);
        await node.Put("/v1/users/r1/segments/rebuilt", """{"ttl":"P2D"}""");
        await node.Put("/v1/users/r2/segments/rebuilt", null);
        await node.Delete("/v1/users/r2/segments/rebuilt");
        await node.CatchUp();
        foreach (var view in (string[])["Memberships", "Segments", "Users"])
        {
            var live = await node.Rows(view);
            await node.Rebuild(view);
            Assert.Equal(live, await node.Rows(view));
        }
    }

    [Fact]
    public async Task leaves_every_rebuilt_view_all_its_indexes()
    {
        await using var own = await node.StartAnew();
        foreach (var view in own.Services.GetServices<IProjection>())
        {
            var made = await Indexes();
            Assert.Subset(made.Keys.ToHashSet(), view.ReaderIndexes.ToHashSet());

            await own.Rebuild(view.Name);

            Assert.Equal(made, await Indexes());
        }

        async Task<SortedDictionary<string, string>> Indexes()
        {
            var indexes = new SortedDictionary<string, string>(StringComparer.Ordinal);
            await using var command = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand("select indexname::text, indexdef from pg_indexes where schemaname = 'ledger'");
            await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
            while (await reader.ReadAsync(TestContext.Current.CancellationToken))
            {
                indexes[reader.GetString(0)] = reader.GetString(1);
            }

            return indexes;
        }
    }

    [Fact]
    public async Task says_which_view_has_failed_and_goes_on_when_that_is_mended()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "fails" });
        await own.CatchUp();
        await using var database = NpgsqlDataSource.Create(own.Database);
        await Execute("alter table ledger.memberships add constraint broken check (user_id <> 'poison')");
        await own.Put("/v1/users/poison/segments/fails", null);
        await own.Put("/v1/users/later/segments/fails", null);
        (await own.GetAsIs("/v1/users/later/segments", ("Ledger-Min-Position", $"{own.Position}"), ("Prefer", "wait=2"))).IsProblem(503, "view-behind");

        var failed = (await own.GetAsIs("/v1/projections")).Items.Single(v => v.GetProperty("name").GetString() == "Memberships");
        Assert.Equal(("failed", own.Position - 1), (failed.GetProperty("state").GetString(), failed.GetProperty("failedPosition").GetInt64()));
        Assert.Contains("Memberships", (await own.GetAsIs("/health/ready")).Is(HttpStatusCode.ServiceUnavailable).Text, StringComparison.Ordinal);
        (await own.Get("/v1/users/later")).Is(HttpStatusCode.OK);
        // Commands decide on what the view has yet to learn, too.
        (await own.Put("/v1/users/poison/segments/fails", null)).Is(HttpStatusCode.OK);
        Assert.Equal(2, (await own.Log(1)).Count);

        await Execute("alter table ledger.memberships drop constraint broken");
        (await own.Post("/v1/projections/Memberships/resume", null)).Is(HttpStatusCode.Accepted);
        Assert.Equal(["later", "poison"], (await own.Get("/v1/segments/fails/members")).Each("userId"));
        await Patience.Until(async () => (await own.GetAsIs("/health/ready")).Status == HttpStatusCode.OK, "the node is ready"); // what was found is kept for a moment

        async Task Execute(string sql)
        {
            await using var command = database.CreateCommand(sql);
            await command.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }
    }

    [Fact]
    public async Task answers_commands_while_a_view_is_paused()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/projections/Segments/pause", null);
        await own.Post("/v1/projections/Memberships/pause", null);
        (await own.Post("/v1/segments", """{"slug":"unseen","rolloutPercent":"100"}""")).Is(HttpStatusCode.Created);
        (await own.Patch("/v1/segments/unseen", new { description = "x" })).Is(HttpStatusCode.OK);
        (await own.Put("/v1/users/u/segments/unseen", """{"ttl":"P1D"}""")).Is(HttpStatusCode.OK);
        Assert.Equal("unseen", (await own.Put("/v1/users/u/segments/unseen", """{"ttl":"P2D"}""")).Is(HttpStatusCode.OK).Json.GetProperty("segment").GetString());
        Assert.Equal(["unseen"], (await own.Post("/v1/users/u/segments", """{"join":[{"segment":"unseen"}]}""")).Is(HttpStatusCode.OK).Each("segment", "segments"));
        await own.Post("/v1/projections/Memberships/resume", null);
        await own.Services.GetRequiredService<Ledger.EventStore.Views>().WaitFor(["Memberships"], own.Position, TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken);

        Assert.Equal("unseen", (await own.Put("/v1/users/u/segments/unseen", """{"ttl":"P2D"}""")).Is(HttpStatusCode.OK).Json.GetProperty("segment").GetString());
        (await own.Delete("/v1/users/u/segments/unseen")).Is(HttpStatusCode.NoContent);
        Assert.Equal(4 + 2, (await own.Log()).Count);
    }

    [Fact]
    public async Task answers_404_and_405_as_problems()
    {
        (await node.GetAsIs("/v1/nope")).IsProblem(404, "not-found");
        (await node.Delete("/v1/projections")).IsProblem(405, "method-not-allowed");
    }
}
