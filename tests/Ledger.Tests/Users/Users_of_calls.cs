using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Segments;
using Ledger.Testing;
using Ledger.Usage;
using Ledger.Users;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Users;

public sealed class A_user_known_by_a_call(TestNode node, PostgresFixture postgres, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Is_there_without_attributes_and_can_be_put()
    {
        await Record("caller");
        node.Clock.Advance(TimeSpan.FromMinutes(1));

        var read = (await node.Get("/v1/users/caller")).Is(HttpStatusCode.OK);
        Assert.Equal(("\"0\"", "{}"), (read.ETag, read.Json.GetProperty("attributes").GetRawText()));
        var registeredAt = read.Json.GetProperty("registeredAt").GetString();

        (await node.Put("/v1/users/caller", """{"attributes":{"a":1}}""", ("If-Match", "\"7\""))).IsProblem(412, "precondition-failed");
        var put = (await node.Put("/v1/users/caller", """{"attributes":{"a":1}}""", ("If-Match", "\"0\""), ("Idempotency-Key", "k"))).Is(HttpStatusCode.OK);
        Assert.Equal(("\"1\"", registeredAt), (put.ETag, put.Json.GetProperty("registeredAt").GetString()));
        Assert.Equal(put.Text, (await node.Get("/v1/users/caller")).Text);

        var replayed = (await node.Put("/v1/users/caller", """{"attributes":{"a":1}}""", ("If-Match", "\"0\""), ("Idempotency-Key", "k"))).Is(HttpStatusCode.OK);
        Assert.True(replayed.Replayed);
        Assert.Equal(put.Text, replayed.Text);

        (await node.Put("/v1/users/caller", """{"attributes":{"a":2}}""")).Is(HttpStatusCode.OK);
        replayed = (await node.Put("/v1/users/caller", """{"attributes":{"a":1}}""", ("If-Match", "\"0\""), ("Idempotency-Key", "k"))).Is(HttpStatusCode.OK);
        Assert.Equal(put.Text, replayed.Text);
    }

    [Fact]
    public async Task Exists_for_an_If_Match_of_any_version()
    {
        await Record("matched");

        (await node.Put("/v1/users/matched", """{"attributes":{"a":1}}""", ("If-Match", "*"))).Is(HttpStatusCode.OK);
        (await node.Put("/v1/users/nobody", """{"attributes":{"a":1}}""", ("If-Match", "*"))).IsProblem(412, "precondition-failed");
    }

    [Fact]
    public async Task Is_still_answered_201_again_when_it_was_registered_before_its_first_call()
    {
        (await node.Put("/v1/users/first", "{}", ("Idempotency-Key", "first"))).Is(HttpStatusCode.Created);
        await Record("first");

        (await node.Put("/v1/users/first", "{}", ("Idempotency-Key", "first"))).Is(HttpStatusCode.Created);
        Assert.Equal("\"1\"", (await node.Get("/v1/users/first")).ETag);
    }

    [Fact]
    public async Task Is_the_same_however_the_events_are_cut_into_batches()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        for (var round = 0; round < 5; round++)
        {
            var versions = new Dictionary<string, long>();
            var log = Enumerable.Range(1, 60).Select(position =>
            {
                var user = $"u{random.Next(8)}";
                if (random.Next(2) == 0)
                {
                    return Given.Recorded("usage-m-2026-11-20", CallOf(user), position, TestClock.Start.AddSeconds(position), position);
                }

                var version = versions[user] = versions.GetValueOrDefault(user) + 1;
                var attributes = new Dictionary<string, JsonElement> { ["a"] = JsonElement.Parse($"{position}") };
                object data = random.Next(3) switch
                {
                    0 => new UserJoinedSegment("S", 1, null, null, "explicit"),
                    _ when version == 1 => new UserRegistered(attributes),
                    _ => new UserAttributesSet(attributes),
                };
                return Given.Recorded($"user-{user}", data, position, TestClock.Start.AddSeconds(position), version);
            }).ToArray();

            var at_once = await Rows([log]);
            Assert.Equal(at_once, await Rows(log.Chunk(1)));
            Assert.Equal(at_once, await Rows(log.Chunk(random.Next(2, 30))));
            Assert.All(versions.Keys, u => Assert.Contains($"(*DEFAULT*,{u},", at_once, StringComparison.Ordinal));
            foreach (var user in log.GroupBy(UserOf))
            {
                Assert.Contains($"(*DEFAULT*,{user.Key},\"{user.First().RecordedAt:yyyy-MM-dd HH:mm:ss}+00\"", at_once, StringComparison.Ordinal);
            }
        }
    }

    [Theory]
    [InlineData(new int[0])]
    [InlineData(new[] { 0 })] // the first that is looked up before many are copied
    [InlineData(new[] { 150 })] // one that is not
    [InlineData(new[] { 3, 4, CopyRows.MinRows + 99 })]
    public async Task Keeps_its_row_when_many_new_ones_join(int[] callers)
    {
        var calls = callers.Select((user, i) => Given.Recorded("usage-m-2026-11-20", CallOf($"u{user:D4}"), i + 1, TestClock.Start.AddSeconds(i), i + 1)).ToArray();
        var joins = Enumerable.Range(0, CopyRows.MinRows + 100).Select(i => Given.Recorded(
            $"user-u{i:D4}", new UserJoinedSegment("S", 1, null, null, "import"), calls.Length + i + 1, TestClock.Start.AddHours(1), 1)).ToArray();

        var rows = (await Rows([.. calls.Length > 0 ? [calls] : Array.Empty<RecordedEvent[]>(), joins])).Split('\n');

        Assert.Equal(joins.Length, rows.Length);
        for (var i = 0; i < rows.Length; i++)
        {
            var call = Array.IndexOf(callers, i);
            var (at, version) = call >= 0 ? (TestClock.Start.AddSeconds(call), 0) : (TestClock.Start.AddHours(1), 1);
            Assert.Equal($"(*DEFAULT*,u{i:D4},\"{at:yyyy-MM-dd HH:mm:ss}+00\",{{}},{version})", rows[i]);
        }
    }

    private static string UserOf(RecordedEvent recorded) => recorded.Data is CallRecorded call ? call.UserId : User.IdOf(recorded.StreamId);

    private static CallRecorded CallOf(string user) => new(
        "s", Guid.NewGuid().ToString(), user, "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 1 }, null, null, null, null, "no-price");

    private async Task Record(string user)
    {
        await node.Services.GetRequiredService<Appender>().Append(
            new AppendRequest { TenantId = Requests.DefaultTenant, Appends = [new StreamAppend("usage-m-2026-11-20", Call.StreamType, [CallOf(user)])] }, Cancellation);
        await node.CatchUp();
    }

    private async Task<string> Rows(IEnumerable<RecordedEvent[]> batches)
    {
        await using var database = EventStoreDatabase.Connect(await postgres.CreateDatabase(), new EventStoreOptions(), "tests", 2);
        var projection = node.Services.GetServices<IProjection>().Single(p => p.Name == UsersProjection.View);
        await using var connection = await database.OpenConnectionAsync(Cancellation);
        foreach (var batch in batches)
        {
            await using var transaction = await connection.BeginTransactionAsync(Cancellation);
            await projection.Write(batch, connection, Cancellation);
            await transaction.CommitAsync(Cancellation);
        }

        await using var command = new Npgsql.NpgsqlCommand("select string_agg(u::text, E'\\n' order by user_id) from users u", connection);
        return (string)(await command.ExecuteScalarAsync(Cancellation))!;
    }
}
