using System.Diagnostics;
using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Events;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Events;

public sealed class Following_the_log(TestNode node) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static List<long> Positions(IEnumerable<JsonElement> events) => [.. events.Select(e => e.GetProperty("position").GetInt64())];

    private static long[] Dense(long from, long to) => [.. Enumerable.Range(0, (int)(to - from + 1)).Select(i => from + i)];

    private static Action<IServiceCollection> With(FollowLimits limits) => services => services.AddSingleton(limits);

    [Fact]
    public async Task shows_what_there_is_and_then_what_comes()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/before", "{}");
        await using var following = await Following.Start(own);
        Assert.Equal("text/event-stream", following.Response.Content.Headers.ContentType!.ToString());
        Assert.Equal($"{FollowLimits.RetryMilliseconds}", (await following.Next())!.Retry);

        Assert.Equal([1], Positions(await following.Events(1)));
        foreach (var i in Enumerable.Range(2, 20))
        {
            await own.Put($"/v1/users/u{i}", "{}");
            Assert.Equal([i], Positions(await following.Events(1)));
        }
    }

    [Fact]
    public async Task shows_the_same_as_the_list()
    {
        await using var own = await node.StartAnew();
        await own.Post("/v1/segments", new { slug = "same" });
        await own.Put("/v1/users/ä/segments/same", """{"ttl":"PT1H"}""");

        await using var following = await Following.Start(own, "?limit=2");
        var data = new List<string>();
        while (await following.Next() is { } received)
        {
            data.AddRange(received.Data is { } some ? [some] : []);
        }

        Assert.Equal((await own.GetAsIs("/v1/events")).Text, string.Concat(data.Select(d => d + "\n")));
    }

    [Fact]
    public async Task goes_on_where_it_was_on_another_node_and_after_a_restart()
    {
        await using var first = await node.StartAnew();
        var second = await first.StartBeside();
        var seen = new List<long>();
        var writing = Task.Run(async () =>
        {
            foreach (var i in Enumerable.Range(1, 300))
            {
                await first.Put($"/v1/users/r{i}", "{}");
            }
        }, Cancellation);
        var last = 0L;
        for (var turn = 0; seen.Count < 300; turn++)
        {
            if (turn == 2)
            {
                await second.DisposeAsync();
                second = await first.StartBeside();
            }

            await using var following = await Following.Start(turn % 2 == 0 ? first : second, "?after=0", lastEventId: turn == 0 ? null : last);
            seen.AddRange(Positions(await following.Events(Math.Min(37, 300 - seen.Count))));
            last = following.LastId;
        }

        await writing;
        await second.DisposeAsync();
        Assert.Equal(Dense(1, 300), seen);
        Assert.Empty(first.Errors);
    }

    [Fact]
    public async Task sees_everything_once_while_many_write_on_two_nodes()
    {
        await using var first = await node.StartAnew();
        await using var second = await first.StartBeside();
        const int Writers = 8, Each = 60;
        var followers = await Task.WhenAll(Enumerable.Range(0, 10).Select(i => Following.Start(i % 2 == 0 ? first : second)));
        var reading = followers.Select(f => f.Events(Writers * Each)).ToArray();

        await Task.WhenAll(Enumerable.Range(0, Writers).Select(w => Task.Run(async () =>
        {
            foreach (var i in Enumerable.Range(0, Each))
            {
                (await (w % 2 == 0 ? first : second).Put($"/v1/users/w{w}-{i}", "{}")).Is(HttpStatusCode.Created);
            }
        }, Cancellation)));

        Assert.All(await Task.WhenAll(reading), seen => Assert.Equal(Dense(1, Writers * Each), Positions(seen)));
        foreach (var follower in followers)
        {
            await follower.DisposeAsync();
        }
    }

    [Fact]
    public async Task by_ndjson_gives_lines()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/n1", "{}");
        await using var following = await Following.Start(own, "?follow=true&limit=3", accept: "*/*");
        Assert.Equal("application/x-ndjson", following.Response.Content.Headers.ContentType!.ToString());

        Assert.Equal(1, JsonElement.Parse((await following.Line())!).GetProperty("position").GetInt64());
        await own.Put("/v1/users/n2", "{}");
        await own.Put("/v1/users/n3", "{}");
        await own.Put("/v1/users/n4", "{}");
        Assert.Equal(2, JsonElement.Parse((await following.Line())!).GetProperty("position").GetInt64());
        Assert.Equal(3, JsonElement.Parse((await following.Line())!).GetProperty("position").GetInt64());
        Assert.Null(await following.Line());
    }

    [Fact]
    public async Task with_a_filter_that_nothing_matches_still_gets_further()
    {
        await using var own = await node.StartAnew(With(new FollowLimits { Heartbeat = TimeSpan.FromMilliseconds(100) }));
        await own.Put("/v1/users/other", "{}");
        await using var following = await Following.Start(own, "?stream=user-rare");
        while (following.LastId < 1)
        {
            Assert.Null((await following.Next())!.Data);
        }

        await own.Put("/v1/users/other2", "{}");
        await own.Put("/v1/users/other3", "{}");
        while (following.LastId < 3)
        {
            Assert.Null((await following.Next())!.Data);
        }

        var quiet = (await following.Next())!;
        Assert.Equal((null, "at 3"), (quiet.Id, quiet.Comment)); // nothing new to remember
        await own.Put("/v1/users/rare", "{}");
        Assert.Equal([4], Positions(await following.Events(1)));
    }

    [Fact]
    public async Task by_ndjson_without_anything_to_send_gets_empty_lines()
    {
        await using var own = await node.StartAnew(With(new FollowLimits { Heartbeat = TimeSpan.FromMilliseconds(100) }));
        await using var following = await Following.Start(own, "?follow=true", accept: "application/x-ndjson");

        Assert.Equal("", await following.Line());
        Assert.Equal("", await following.Line());
    }

    [Fact]
    public async Task costs_the_database_nothing_while_nothing_happens_and_one_reading_for_all_when_something_does()
    {
        await using var own = await node.StartAnew(With(new FollowLimits { Heartbeat = TimeSpan.FromMilliseconds(100) }));
        await own.Put("/v1/users/first", "{}");
        await own.CatchUp();
        var followers = await Task.WhenAll(Enumerable.Range(0, 50).Select(_ => Following.Start(own, "?after=1")));
        await Task.WhenAll(followers.Select(async f =>
        {
            for (var beats = 0; beats < 2;)
            {
                beats += (await f.Next())!.Comment is null ? 0 : 1;
            }
        }));
        // The node's own heartbeat may just have seen the first event, which is a reason to look once.
        var whileNothingHappens = -1;
        for (var round = 0; round < 20 && whileNothingHappens != 0; round++)
        {
            using var none = new Reads(own);
            await Task.WhenAll(followers.Select(async f => Assert.Null((await f.Next())!.Data)));
            whileNothingHappens = none.Count;
        }

        Assert.Equal(0, whileNothingHappens);

        using var reads = new Reads(own);
        await own.Put("/v1/users/second", "{}");
        await Task.WhenAll(followers.Select(async f => Assert.Equal([2], Positions(await f.Events(1)))));
        Assert.InRange(reads.Count, 1, 5);
        foreach (var follower in followers)
        {
            await follower.DisposeAsync();
        }
    }

    [Fact]
    public async Task by_who_does_not_read_waits_for_that_one_and_loses_nothing()
    {
        await using var own = await node.StartAnew();
        const int Events = 4_000, Bytes = 8_000; // 32 MB, more than all buffers on the way together
        await Fill(own, Events, Bytes);
        using var reads = new Reads(own);
        await using var following = await Following.Start(own);
        var before = -1;
        while (before != reads.Count)
        {
            before = reads.Count;
            await Task.Delay(500, Cancellation);
        }

        Assert.InRange(reads.Count, 1, Events * Bytes / LogPages.MaxPageBytes / 2);
        Assert.Equal(Dense(1, Events), Positions(await following.Events(Events)));
    }

    [Fact]
    public async Task is_refused_when_too_many_do()
    {
        await using var own = await node.StartAnew(With(new FollowLimits { MaxFollowers = 2 }));
        await using var one = await Following.Start(own);
        await using (await Following.Start(own))
        {
            var refused = (await own.GetAsIs("/v1/events", ("Accept", "text/event-stream"))).IsProblem(503, "too-many-followers");
            Assert.Equal("5", refused.Headers["Retry-After"]);
        }

        // The one that has left makes room as soon as the node has noticed.
        await own.Put("/v1/users/ends-the-next-one", "{}");
        for (var patience = Stopwatch.StartNew(); (await own.GetAsIs("/v1/events?follow=true&limit=1")).Status != HttpStatusCode.OK;)
        {
            Assert.True(patience.Elapsed < TimeSpan.FromSeconds(10), "There is still no room.");
        }
    }

    [Fact]
    public async Task ends_when_the_node_stops_however_it_is_read()
    {
        await using var own = await node.StartAnew();
        await Fill(own, events: 4_000, bytes: 8_000);
        await using var read = await Following.Start(own, "?after=3999");
        await using var notRead = await Following.Start(own);
        Assert.Equal([4_000], Positions(await read.Events(1)));
        var stopping = Stopwatch.StartNew();

        await own.Stop();

        Assert.Null(await read.Next());
        Assert.True(stopping.Elapsed < TimeSpan.FromSeconds(4), $"It took {stopping.Elapsed}.");
        Assert.Empty(own.Errors);
    }

    private static async Task Fill(TestNode own, int events, int bytes)
    {
        await using var command = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(
            $"""
             insert into mt_events (seq_id, id, stream_id, version, data, type)
             select i, gen_random_uuid(), 'filled', i, jsonb_build_object('x', repeat('a', {bytes})), 'from_elsewhere' from generate_series(1, {events}) i
             """);
        await command.ExecuteNonQueryAsync(Cancellation);
    }

    /// <summary>Counts the statements that read the log for followers.</summary>
    private sealed class Reads : IDisposable
    {
        private readonly ActivityListener _listener;
        private int _count;

        public Reads(TestNode node)
        {
            var database = new NpgsqlConnectionStringBuilder(node.Database).Database;
            _listener = new ActivityListener
            {
                ShouldListenTo = source => source.Name == "Npgsql",
                Sample = (ref _) => ActivitySamplingResult.AllData,
                ActivityStopped = activity =>
                {
                    if (activity.GetTagItem("db.namespace") as string == database || activity.GetTagItem("db.name") as string == database)
                    {
                        if ((activity.GetTagItem("db.query.text") ?? activity.GetTagItem("db.statement")) is string text && text.Contains("starts_with", StringComparison.Ordinal))
                        {
                            Interlocked.Increment(ref _count);
                        }
                    }
                },
            };
            ActivitySource.AddActivityListener(_listener);
        }

        public int Count => Volatile.Read(ref _count);

        public void Dispose() => _listener.Dispose();
    }
}
