using System.Diagnostics;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class A_lost_connection(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task between_commit_and_answer_changes_no_outcome()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var appender = store.StartAppender(proxy: proxy);
        var first = await appender.Append(Keyed("old", "a"), Ct);
        CutOnceAfterCommit(proxy);

        var results = await store.AppendTogether(
            appender,
            Keyed("new", "a"), Keyed("new", "a"), Keyed("old", "a"), Keyed("old", "a", "other"), Keyed("new", "a", "other"),
            Request("b", new Ignored()), Request("b", new Ignored()) with { Conditions = [new("b", 9)] });

        Assert.Equal(2, proxy.Cuts); // the request that fails its condition commits too
        Assert.Equal(
            [
                AppendOutcome.Appended, AppendOutcome.Duplicate, AppendOutcome.Duplicate, AppendOutcome.KeyReused, AppendOutcome.KeyReused,
                AppendOutcome.Appended, AppendOutcome.ConditionFailed,
            ],
            results.Select(r => r.Outcome));
        Assert.Equal([2, 2, 1, 1, 2, 3, 0], results.Select(r => r.FirstPosition));
        Assert.Equal(first.RecordedAt, results[2].RecordedAt);
        Assert.Equal(3, await store.Reader.ReadHead(Ct));
        await store.AssertSound();
    }

    [Fact]
    public async Task while_nothing_is_stored_does_not_fail_the_next_request()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var appender = store.StartAppender(proxy: proxy);
        await appender.Append(Request("a", new Ignored()), Ct);

        proxy.CutAll();
        await Task.Delay(TimeSpan.FromSeconds(EventStoreDatabase.KeepAliveSeconds + 2), Ct); // until Npgsql has noticed by itself

        Assert.Equal(AppendOutcome.Appended, (await appender.Append(Request("a", new Ignored()), Ct)).Outcome);
        Assert.Equal(2, await store.Reader.ReadHead(Ct));
    }

    [Fact]
    public async Task before_the_commit_lets_another_node_have_the_key_first()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var appender = store.StartAppender(proxy: proxy);
        var other = store.StartAppender();
        await appender.Append(Request("warm", new Ignored()), Ct);
        var inTransaction = false;
        proxy.ToClient = piece =>
        {
            inTransaction = FaultProxy.SaysInTransaction(piece);
            return Task.FromResult(true);
        };
        proxy.ToServer = async _ =>
        {
            if (!inTransaction)
            {
                return true;
            }

            proxy.ToServer = _ => Task.FromResult(true);
            proxy.Away = true; // its transaction ends with the connection, and the other node goes first
            await other.Append(Keyed("same", "a", "same"), Ct);
            await other.Append(Keyed("reused", "a", "theirs"), Ct);
            proxy.Away = false;
            return false;
        };

        var results = await store.AppendTogether(appender, Keyed("same", "a", "same"), Keyed("reused", "a", "ours"));

        Assert.Equal([AppendOutcome.Duplicate, AppendOutcome.KeyReused], results.Select(r => r.Outcome));
        Assert.Equal(3, await store.Reader.ReadHead(Ct));
        await store.AssertSound();
    }

    [Fact]
    public async Task again_and_again_under_load_stores_everything_once()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var chance = Runs.Chance();
        var appenders = new[] { store.StartAppender(proxy: proxy), store.StartAppender(proxy: proxy), store.StartAppender() };
        var answers = 0;
        proxy.ToClient = piece => Task.FromResult(!(FaultProxy.SaysCommitted(piece) && Interlocked.Increment(ref answers) % 10 == 3));
        var killing = KillBackendsUntil(store, proxy, Runs.Size(12, 200), chance);

        var acknowledged = new List<AppendResult>();
        var round = 0;
        while (!killing.IsCompleted)
        {
            var prefix = round++;
            acknowledged.AddRange(await Task.WhenAll(Enumerable.Range(0, 60).Select(
                i => appenders[i % 3].Append(Keyed($"{prefix}-{i}", $"s{i % 11}", null, new Ignored(), new Noted($"{prefix}-{i}")), Ct))));
        }

        await killing;
        Assert.True(proxy.Cuts > 0);
        Assert.All(acknowledged, r => Assert.Equal(AppendOutcome.Appended, r.Outcome));
        Assert.Equal(acknowledged.Count * 2, await store.Reader.ReadHead(Ct));
        Assert.Equal(
            acknowledged.Select(r => r.LastPosition).Order(),
            (await store.Log()).Where(e => e.Data is Noted).Select(e => e.Position));
        await store.AssertSound();
    }

    [Fact]
    public async Task that_lasts_is_answered_within_the_retry_window_and_heals_by_itself()
    {
        var options = new EventStoreOptions { AppendRetryWindow = TimeSpan.FromMilliseconds(400), MaxBatchEvents = 10 };
        await using var store = await TestStore.Create(postgres, options);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var appender = store.StartAppender(proxy: proxy);
        await appender.Append(Request("a", new Ignored()), Ct);
        proxy.Away = true;
        var clock = Stopwatch.StartNew();

        var refused = Enumerable.Range(0, 200).Select(i => appender.Append(Keyed($"k{i}", "a"), Ct)).ToArray();
        await Task.WhenAny(Task.WhenAll(refused), Task.Delay(Runs.Patience, Ct));

        foreach (var append in refused)
        {
            Assert.False((await Assert.ThrowsAsync<EventStoreUnavailableException>(() => append)).OutcomeUnknown);
        }

        // Twenty batches, but one window: whoever queued up behind is not kept for a window each.
        Assert.True(clock.Elapsed < 10 * options.AppendRetryWindow, $"It took {clock.Elapsed}.");
        proxy.Away = false;
        Assert.Equal((AppendOutcome.Appended, 2), await Outcome(appender.Append(Keyed("k0", "a"), Ct)));
        await store.AssertSound();
    }

    [Fact]
    public async Task in_mid_commit_that_lasts_is_an_unknown_outcome_that_a_repeat_resolves()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { AppendRetryWindow = TimeSpan.FromMilliseconds(200) });
        await using var proxy = new FaultProxy(store.ConnectionString);
        var appender = store.StartAppender(proxy: proxy);
        await appender.Append(Request("warm", new Ignored()), Ct);
        proxy.ToClient = piece =>
        {
            if (!FaultProxy.SaysCommitted(piece))
            {
                return Task.FromResult(true);
            }

            proxy.Away = true;
            return Task.FromResult(false);
        };

        var unknown = await Assert.ThrowsAsync<EventStoreUnavailableException>(() => appender.Append(Keyed("k", "a"), Ct));
        proxy.Away = false;
        proxy.ToClient = _ => Task.FromResult(true);

        Assert.True(unknown.OutcomeUnknown);
        Assert.Equal((AppendOutcome.Duplicate, 2), await Outcome(appender.Append(Keyed("k", "a"), Ct)));
    }

    [Fact]
    public async Task of_a_node_that_froze_with_the_lock_frees_the_others_after_the_retry_window()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { AppendRetryWindow = TimeSpan.FromMilliseconds(500) });
        await using var proxy = new FaultProxy(store.ConnectionString);
        var frozen = store.StartAppender(proxy: proxy);
        await frozen.Append(Request("warm", new Ignored()), Ct);
        var thaw = new TaskCompletionSource<bool>();
        var froze = new TaskCompletionSource();
        var inTransaction = false;
        proxy.ToClient = piece =>
        {
            inTransaction = FaultProxy.SaysInTransaction(piece);
            return Task.FromResult(true);
        };
        proxy.ToServer = _ =>
        {
            if (inTransaction)
            {
                froze.TrySetResult();
            }

            return inTransaction ? thaw.Task : Task.FromResult(true);
        };
        var late = frozen.Append(Keyed("late", "a"), Ct);
        await froze.Task.WaitAsync(Runs.Patience, Ct);

        Assert.Equal((AppendOutcome.Appended, 2), await Outcome(store.StartAppender().Append(Keyed("other", "a"), Ct)));
        proxy.ToServer = _ => Task.FromResult(true);
        thaw.SetResult(true);

        Assert.Equal((AppendOutcome.Appended, 3), await Outcome(late));
        await store.AssertSound();
    }

    private static async Task<(AppendOutcome Outcome, long Position)> Outcome(Task<AppendResult> append) =>
        ((await append).Outcome, (await append).FirstPosition);

    /// <summary>Cuts each connection's next commit, once a connection that stores and once the one before it.</summary>
    internal static void CutOnceAfterCommit(FaultProxy proxy)
    {
        var left = 2;
        proxy.ToClient = piece => Task.FromResult(!(FaultProxy.SaysCommitted(piece) && Interlocked.Decrement(ref left) >= 0));
    }

    /// <summary>Ends a connection at work, whatever it is doing, each time something was stored since the last one.</summary>
    private static async Task KillBackendsUntil(TestStore store, FaultProxy proxy, int kills, Random chance)
    {
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        for (var killed = 0; killed < kills || proxy.Cuts < kills / 4;)
        {
            var head = await store.Reader.ReadHead(Ct);
            await Runs.Until(async () => await store.Reader.ReadHead(Ct) > head, "something is stored");
            await Task.Delay(chance.Next(1, 10), Ct);
            await using var command = new Npgsql.NpgsqlCommand(
                """
                select count(pg_terminate_backend(pid)) from (
                  select pid from pg_stat_activity
                  where datname = current_database() and state <> 'idle' and query not like '%pg_stat_activity%' and query not like '%max(seq_id)%'
                  order by random() limit 1) a
                """, connection);
            killed += (int)(long)(await command.ExecuteScalarAsync(Ct))!;
        }
    }
}
