using System.Collections.Concurrent;
using Ledger.EventStore.Tests.Support;
using Ledger.Hosting;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class A_crash_of_PostgreSQL
{
    private const int Writers = 24;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task loses_nothing_acknowledged_and_leaves_one_outcome_for_everything_else()
    {
        using var folder = new ClusterFolder();
        var chance = Runs.Chance();
        var acknowledged = new ConcurrentDictionary<string, AppendResult>();
        var unknown = new ConcurrentDictionary<string, AppendRequest>();
        for (var round = 0; round < Runs.Size(3, 10); round++)
        {
            var cluster = await PrivateCluster.StartAsync(new PrivateClusterOptions(folder.Path), _ => { }, Ct);
            try
            {
                await using (var store = await TestStore.Create(cluster.ConnectionString, new EventStoreOptions { AppendRetryWindow = TimeSpan.FromMilliseconds(100) }))
                {
                    await Check(store, acknowledged, unknown);
                    await WriteUntilTheCrash(store, cluster, round, chance, acknowledged, unknown);
                }
            }
            finally
            {
                NpgsqlConnection.ClearAllPools();
                await cluster.DisposeAsync();
            }
        }

        await using var last = await PrivateCluster.StartAsync(new PrivateClusterOptions(folder.Path), _ => { }, Ct);
        await using var final = await TestStore.Create(last.ConnectionString);
        await Check(final, acknowledged, unknown);
        Assert.NotEmpty(acknowledged);
        TestContext.Current.TestOutputHelper?.WriteLine($"{acknowledged.Count} requests");
    }

    private static async Task WriteUntilTheCrash(
        TestStore store, PrivateCluster cluster, int round, Random chance,
        ConcurrentDictionary<string, AppendResult> acknowledged, ConcurrentDictionary<string, AppendRequest> unknown)
    {
        var appenders = new[] { store.StartAppender(), store.StartAppender() };
        var crashed = false;
        var count = 0;
        var writing = Enumerable.Range(0, Writers).Select(writer => Task.Run(async () =>
        {
            for (var i = 0; !Volatile.Read(ref crashed); i++)
            {
                var key = $"{round}-{writer}-{i}";
                var request = Keyed(key, $"s{writer % 5}", null, new Ignored(), new Noted(key));
                try
                {
                    acknowledged[key] = await appenders[writer % 2].Append(request);
                    Interlocked.Increment(ref count);
                }
                catch (EventStoreUnavailableException)
                {
                    unknown[key] = request;
                }
            }
        })).ToArray();

        // Let it run a random while, measured in requests, so that a slow machine crashes as far along as a quick one.
        var enough = chance.Next(200, 2_000);
        await Runs.Until(() => Task.FromResult(Volatile.Read(ref count) > enough), "requests are stored");
        await cluster.StopAsync(PostgresStop.Immediate);
        Volatile.Write(ref crashed, true);
        await Task.WhenAll(writing);
    }

    /// <summary>What was acknowledged is there once, where it was said to be; what was not, repeated twice, is there once too.</summary>
    private static async Task Check(
        TestStore store, ConcurrentDictionary<string, AppendResult> acknowledged, ConcurrentDictionary<string, AppendRequest> unknown)
    {
        await store.AssertSound();
        var appender = store.StartAppender();
        foreach (var (key, request) in unknown.ToArray())
        {
            var first = await appender.Append(request, Ct);
            Assert.True(first.Outcome is AppendOutcome.Appended or AppendOutcome.Duplicate);
            Assert.Equal(first with { Outcome = AppendOutcome.Duplicate }, await appender.Append(request, Ct));
            acknowledged[key] = first;
            unknown.TryRemove(key, out _);
        }

        var stored = (await store.Log()).Where(e => e.Data is Noted).ToDictionary(e => ((Noted)e.Data!).Text, e => e.Position);
        Assert.Equal(acknowledged.Count, stored.Count);
        Assert.All(acknowledged, a => Assert.Equal(a.Value.LastPosition, stored[a.Key]));
    }
}
