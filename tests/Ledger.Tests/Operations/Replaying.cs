using System.Net;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Http;
using Ledger.Tests.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Operations;

public sealed class Replaying(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static IReadOnlyList<IProjection> Views(TestNode own) => own.Services.GetRequiredService<IReadOnlyList<IProjection>>();

    private static async Task<(int Code, string Output, string Errors)> Run(
        TestNode own, string? view = null, string? to = null, string? path = null, bool compare = false, CancellationToken? cancellation = null)
    {
        var (written, errors) = (new StringWriter(), new StringWriter());
        var code = await ReplayVerb.Run(own.Services, new ReplayRequest(view, to, path, compare), written, errors, cancellation ?? Cancellation);
        return (code, written.ToString(), errors.ToString());
    }

    /// <summary>The rows of the live views as a replay writes them.</summary>
    private static async Task<Dictionary<string, string>> Live(TestNode own)
    {
        var live = new Dictionary<string, string>();
        await using var connection = await own.Services.GetRequiredService<OwnerDatabase>().Source.OpenConnectionAsync(Cancellation);
        await using var transaction = await connection.BeginTransactionAsync(Cancellation);
        // As a replay does: reading may pause for longer than a transaction may otherwise stand still.
        await using (var settings = new NpgsqlCommand($"set local idle_in_transaction_session_timeout = 0; {ViewRows.Settings}", connection))
        {
            await settings.ExecuteNonQueryAsync(Cancellation);
        }

        foreach (var view in Views(own))
        {
            live[view.Name] = "";
            foreach (var table in view.Tables)
            {
                await foreach (var row in ViewRows.ReadJson(connection, "ledger", table, Cancellation))
                {
                    live[view.Name] += $$"""{"table":"{{table}}",{{row[1..]}}{{'\n'}}""";
                }
            }
        }

        return live;
    }

    private static async Task<string[]> Scratch(TestNode own)
    {
        await using var command = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(
            "select coalesce(array_agg(nspname::text), '{}') from pg_namespace where nspname like '%replay%'");
        return (string[])(await command.ExecuteScalarAsync(Cancellation))!;
    }

    [Fact]
    public async Task gives_every_view_as_it_is_and_as_it_was()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var use = new RandomUse(new Random(LongTests.Seed));
        await using var own = await node.StartAnew();
        var was = new List<(long Position, DateTimeOffset At, Dictionary<string, string> Rows)>();
        using var folder = new TempFolder();
        for (var round = 0; round < 4; round++)
        {
            await use.Round(own, commands: 40, calls: 30);
            await own.Post("/v1/keys", new { name = $"round {round}", scopes = ScopeNames.All });
            was.Add((await own.CatchUp(), own.Clock.Now, await Live(own)));
            own.Clock.Advance(TimeSpan.FromMinutes(1));
        }

        Assert.All(was[^1].Rows, view => Assert.NotEmpty(view.Value));
        foreach (var (position, at, rows) in was)
        {
            foreach (var to in (string[])[$"{position}", Rfc3339.Format(at)])
            {
                var path = Path.Combine(folder.Path, to.Replace(':', '-'));
                Assert.Equal(0, (await Run(own, to: to, path: path)).Code);
                foreach (var (view, expected) in rows)
                {
                    Assert.Equal(expected, await File.ReadAllTextAsync(Path.Combine(path, $"{view}.ndjson"), Cancellation));
                }
            }
        }

        var compared = await Run(own, compare: true);
        Assert.Equal((0, ""), (compared.Code, compared.Errors));
        Assert.All(Views(own), v => Assert.Contains($"{v.Name} is what a replay of the log gives, at position {was[^1].Position}.", compared.Output, StringComparison.Ordinal));
        Assert.Equal(was[^1].Rows, await Live(own));
        Assert.Empty(await Scratch(own));
    }

    [Fact]
    public async Task of_one_view_writes_a_file_of_the_kind_its_name_ends_with()
    {
        await using var own = await node.StartAnew();
        (await own.Post("/v1/segments", """{"slug":"csv","description":"=a, \"b\"","defaultTtl":"P14D"}""")).Is(HttpStatusCode.Created);
        await own.Put("/v1/users/u1/segments/csv", null);
        own.Clock.Advance(TimeSpan.FromHours(1));
        await own.Delete("/v1/users/u1/segments/csv");
        using var folder = new TempFolder();
        var (csv, ndjson) = (Path.Combine(folder.Path, "s.csv"), Path.Combine(folder.Path, "s.ndjson"));

        Assert.Equal(0, (await Run(own, view: "Segments", path: csv)).Code);
        Assert.Equal(0, (await Run(own, view: "Segments", path: ndjson)).Code);
        Assert.Equal(0, (await Run(own, view: "Memberships", path: Path.Combine(folder.Path, "m.csv"))).Code);

        Assert.Equal(
            "table,tenant_id,segment_id,slug,description,rollout_percent,salt,default_ttl,created_at,deleted_at,deleted_position,version\r\n"
            + "segments,*DEFAULT*,1,csv,\"'=a, \"\"b\"\"\",0.00,csv,P14D,2026-11-20T12:00:00.000000Z,,,1\r\n"
            + "table,tenant_id,segment_id,position,since,percent\r\n"
            + "rollouts,*DEFAULT*,1,1,2026-11-20T12:00:00.000000Z,0.00\r\n",
            await File.ReadAllTextAsync(csv, Cancellation));
        Assert.Equal(
            """{"table":"segments","tenant_id":"*DEFAULT*","segment_id":1,"slug":"csv","description":"=a, \"b\"","rollout_percent":"0.00","salt":"csv","default_ttl":"P14D","created_at":"2026-11-20T12:00:00.000000Z","deleted_at":null,"deleted_position":null,"version":1}""",
            (await File.ReadAllLinesAsync(ndjson, Cancellation))[0]);
        Assert.Contains(",-1\r\n", await File.ReadAllTextAsync(Path.Combine(folder.Path, "m.csv"), Cancellation), StringComparison.Ordinal);
    }

    [Fact]
    public async Task names_the_first_row_of_a_view_that_is_not_as_it_should_be()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "edited" });
        await own.Put("/v1/users/kept/segments/edited", null);
        await own.Put("/v1/users/gone/segments/edited", null);
        await own.CatchUp();
        await using (var edit = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand("delete from memberships where user_id = 'gone'"))
        {
            await edit.ExecuteNonQueryAsync(Cancellation);
        }

        var (code, written, errors) = await Run(own, compare: true);

        Assert.Equal(1, code);
        Assert.Contains("Memberships is not what a replay of the log gives. The first row of memberships that differs:", errors, StringComparison.Ordinal);
        Assert.Matches("live: .*kept.*\n.*replay:.*gone", errors);
        Assert.Contains("Segments is what a replay of the log gives", written, StringComparison.Ordinal);
    }

    [Fact]
    public async Task compares_a_view_that_stands_still_where_it_stands()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/before", "{}");
        await own.CatchUp();
        await own.Post("/v1/projections/Users/pause", null);
        var (users, segments) = (1L, 1L);
        while (users == segments) // a batch that was under way may still be folded
        {
            await own.Put($"/v1/users/after{segments}", "{}");
            segments++;
            Assert.True(await own.Services.GetRequiredService<Views>().WaitFor(["Segments"], segments, TimeSpan.FromSeconds(30), Cancellation));
            users = (await own.Get("/v1/projections")).Items.Single(v => v.GetProperty("name").GetString() == "Users").GetProperty("position").GetInt64();
        }

        var (code, written, _) = await Run(own, compare: true);

        Assert.Equal(0, code);
        Assert.Contains($"Users is what a replay of the log gives, at position {users}.", written, StringComparison.Ordinal);
        Assert.Contains($"Segments is what a replay of the log gives, at position {segments}.", written, StringComparison.Ordinal);
    }

    [Fact]
    public async Task compares_while_commands_go_on()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "busy" });
        await own.CatchUp();
        using var done = new CancellationTokenSource();
        var writing = Task.Run(async () =>
        {
            for (var i = 0; !done.IsCancellationRequested; i++)
            {
                await own.Put($"/v1/users/b{i % 50}/segments/busy", """{"ttl":"PT1H"}""");
            }
        }, Cancellation);

        for (var round = 0; round < 5; round++)
        {
            var (code, _, errors) = await Run(own, compare: true);
            Assert.Equal((0, ""), (code, errors));
        }

        await done.CancelAsync();
        await writing;
        Assert.Empty(own.Errors);
    }

    [Fact]
    public async Task leaves_nothing_behind_when_it_is_interrupted()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/u", "{}");
        using var folder = new TempFolder();
        using var interrupted = new CancellationTokenSource();
        await using var locked = await own.Services.GetRequiredService<OwnerDatabase>().Source.OpenConnectionAsync(Cancellation);
        await using var transaction = await locked.BeginTransactionAsync(Cancellation);
        await using (var command = new NpgsqlCommand("lock table mt_events in access exclusive mode", locked))
        {
            await command.ExecuteNonQueryAsync(Cancellation);
        }

        await using var replay = await Replay.Begin(
            own.Services.GetRequiredService<OwnerDatabase>().Source, own.Services.GetRequiredService<EventReader>(), own.Services.GetRequiredService<Migrations>(),
            own.Services.GetRequiredService<EventStoreOptions>(), Views(own), Cancellation);
        var folding = replay.FoldTo(1, Views(own), cancellation: interrupted.Token); // can't read the log
        Assert.Single(await Scratch(own));
        await interrupted.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => folding);
        await replay.DisposeAsync();

        Assert.Empty(await Scratch(own));
    }

    [Fact]
    public async Task sweeps_what_a_crash_has_left_and_nothing_that_is_in_use()
    {
        await using var own = await node.StartAnew();
        var (database, options) = (own.Services.GetRequiredService<OwnerDatabase>().Source, own.Services.GetRequiredService<EventStoreOptions>());
        await using (var left = database.CreateCommand("create schema ledger_replay_0123456789ab; create table ledger_replay_0123456789ab.users (); create schema other_replay_1"))
        {
            await left.ExecuteNonQueryAsync(Cancellation);
        }

        await using (var replay = await Replay.Begin(
            database, own.Services.GetRequiredService<EventReader>(), own.Services.GetRequiredService<Migrations>(), options, Views(own), Cancellation))
        {
            await using var beside = await own.StartBeside();
            Assert.Equal([replay.Schema, "other_replay_1"], (await Scratch(own)).Order(StringComparer.Ordinal));
        }

        Assert.Equal(["other_replay_1"], await Scratch(own));
    }

    [Fact]
    public async Task says_which_events_can_not_be_folded()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/u", "{}");
        await own.CatchUp();
        await using (var edit = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand("""update mt_events set data = '{"attributes": 1}'"""))
        {
            await edit.ExecuteNonQueryAsync(Cancellation);
        }

        var (code, _, errors) = await Run(own, compare: true);

        Assert.Equal(1, code);
        Assert.StartsWith("Users can't fold an event between positions 1 and 1:", errors, StringComparison.Ordinal);
        Assert.Empty(await Scratch(own));
    }

    [Theory]
    [InlineData("Nope", null, "x.csv", false, "There is no view 'Nope'. There are: Users,")]
    [InlineData(null, null, null, false, "Say where to write with --out, or --compare")]
    [InlineData(null, "1", null, true, "leave out --to")]
    [InlineData("Users", null, "x.txt", false, "'x.txt' must end with .ndjson or .csv.")]
    [InlineData("Users", "x", "x.csv", false, "--to must be a position from 0 to ")]
    [InlineData("Users", "99999999", "x.csv", false, "--to must be a position from 0 to ")]
    [InlineData("Users", "-1", "x.csv", false, "--to must be a position from 0 to ")]
    public async Task refuses_what_can_not_be_done(string? view, string? to, string? path, bool compare, string why)
    {
        var (code, _, errors) = await Run(node, view, to, path, compare);

        Assert.Equal(1, code);
        Assert.Contains(why, errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task finds_the_last_event_of_an_instant()
    {
        await using var own = await node.StartAnew();
        var log = own.Services.GetRequiredService<EventReader>();
        Assert.Equal(0, await log.PositionAt(own.Clock.Now, Cancellation));
        foreach (var i in Enumerable.Range(1, 12))
        {
            await own.Put($"/v1/users/at{i}", "{}");
            own.Clock.Advance(TimeSpan.FromSeconds(i % 3));
        }

        var events = await own.Log();
        foreach (var at in events.SelectMany(e => new[] { -1, 0, 1 }.Select(us => e.RecordedAt.AddMicroseconds(us))))
        {
            Assert.Equal(events.LastOrDefault(e => e.RecordedAt <= at)?.Position ?? 0, await log.PositionAt(at, Cancellation));
        }
    }
}
