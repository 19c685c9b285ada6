using System.Diagnostics;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Projecting;

public sealed class The_daemon(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task brings_every_view_to_the_end_of_the_log_in_step()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);

        await Deposits.Append(store.StartAppender(), 200);
        await node.CatchUp();

        await node.AssertViewsEqualTheLog();
        Assert.Equal(1, await store.Value<long>("select count(distinct xmin::text) from mt_event_progression")); // one transaction for both
    }

    [Fact]
    public async Task folds_each_event_once_though_its_node_dies_again_and_again()
    {
        await using var store = await TestStore.Create(postgres);
        var chance = Runs.Chance();
        await using var firstProxy = new FaultProxy(store.ConnectionString);
        await using var secondProxy = new FaultProxy(store.ConnectionString);
        await using var first = await TestNode.Start(store, TestNode.Quick with { LeaseDuration = TimeSpan.FromMilliseconds(300) }, firstProxy);
        await using var second = await TestNode.Start(store, TestNode.Quick with { LeaseDuration = TimeSpan.FromMilliseconds(300) }, secondProxy);
        var appender = store.StartAppender();

        for (var death = 0; death < Runs.Size(6, 40); death++)
        {
            var storing = Deposits.Append(appender, 60, chance);
            await Runs.Until(() => Task.FromResult(first.Daemon.IsLeader || second.Daemon.IsLeader), "a node leads");
            var dying = first.Daemon.IsLeader ? firstProxy : secondProxy;
            var next = dying == firstProxy ? second : first;
            await Task.Delay(chance.Next(30), Ct);
            dying.Away = true;
            await storing;
            await next.Leads();
            await next.CatchUp();
            await next.AssertViewsEqualTheLog();
            dying.Away = false;
        }
    }

    [Fact]
    public async Task hands_over_at_once_when_its_node_stops()
    {
        await using var store = await TestStore.Create(postgres);
        var first = await TestNode.Start(store, TestNode.Patient);
        await first.Leads();
        await using var second = await TestNode.Start(store, TestNode.Patient);
        await Deposits.Append(store.StartAppender(), 50);

        await first.DisposeAsync();

        await second.Leads();
        await second.CatchUp();
        await second.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task that_freezes_in_a_batch_is_fenced_and_holds_nobody_up()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var thaw = new TaskCompletionSource<bool>();
        var froze = new TaskCompletionSource();
        var slow = new Totals
        {
            AfterWriting = async _ =>
            {
                proxy.ToServer = _ => thaw.Task; // nothing of this node gets through, its heartbeat neither
                froze.TrySetResult();
                await thaw.Task;
            },
        };
        await using var frozen = await TestNode.Start(store, TestNode.Quick, proxy, views: [slow, new Entries()]);
        await frozen.Leads();
        await using var next = await TestNode.Start(store);
        await Deposits.Append(store.StartAppender(), 100);
        await froze.Task.WaitAsync(Runs.Patience, Ct);

        await next.CatchUp();

        await next.AssertViewsEqualTheLog();
        Assert.True(next.Daemon.IsLeader);
        slow.AfterWriting = _ => Task.CompletedTask;
        proxy.ToServer = _ => Task.FromResult(true);
        thaw.SetResult(true);
        await Runs.Until(() => Task.FromResult(!frozen.Daemon.IsLeader), "the frozen node learns that it does not lead");
        await Deposits.Append(store.StartAppender(), 100);
        await next.CatchUp();
        await next.AssertViewsEqualTheLog();
        Assert.All(await next.Views.Refresh(Ct), s => Assert.Equal("running", s.State));
    }

    [Fact]
    public async Task does_not_commit_what_the_log_has_lost_meanwhile()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, TestNode.Patient);
        await node.Leads();
        var (writing, going) = node.Kept[0].StandStill();
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Deposited("a", 1), 10)]), Ct);
        await writing;

        await store.Execute("delete from mt_events where seq_id > 7"); // as on a replica that was promoted before it had them
        await store.StartAppender().Append(Request("b", [.. Enumerable.Repeat(new Deposited("b", 100), 5)]), Ct);
        going.SetResult();

        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task says_that_it_no_longer_leads_when_a_batch_is_the_first_to_meet_the_next_one()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, TestNode.Slow);
        await node.Leads();
        await TestNode.Listen(store, 1);

        await store.Execute("update daemon_lease set epoch = epoch + 1, holder = 'another', expires_at = 'infinity'");
        await Deposits.Append(store.StartAppender(), 1);

        await Runs.Until(() => Task.FromResult(node.Said.Contains("This node keeps the views: False (epoch 0)")), "it says so");
        Assert.False(node.Daemon.IsLeader);
    }

    [Fact]
    public async Task that_freezes_in_the_commit_does_not_make_the_next_one_blame_the_view()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var frozen = await TestNode.Start(store, TestNode.Patient, proxy, views: [new Totals(), new Entries()]);
        await frozen.Leads();
        var written = false;
        ((TestView)frozen.Kept[1]).AfterWriting = _ =>
        {
            written = true;
            return Task.CompletedTask;
        };
        var froze = proxy.FreezeFrom(piece => written && piece.Span.IndexOf("commit"u8) >= 0);
        await Deposits.Append(store.StartAppender(), 40);
        await froze.WaitAsync(Runs.Patience, Ct);

        await using var next = await TestNode.Start(store, TestNode.Patient);
        await next.TakesOver();
        await Runs.Until(
            async () => await store.Value<long>("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") > 0,
            "the next node meets the rows of the frozen one");
        proxy.Thaw();

        await next.CatchUp();
        await next.AssertViewsEqualTheLog();
        Assert.All(await next.Views.Refresh(Ct), s => Assert.Equal(("running", null), (s.State, s.Error)));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(37)]
    [InlineData(50)]
    [InlineData(51)]
    [InlineData(120)]
    public async Task stops_only_the_view_that_fails_just_before_the_event_it_fails_at(int poison)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        for (var i = 0; i < 12; i++)
        {
            await appender.Append(Request("s", [.. Enumerable.Range(0, 10).Select(_ => new Deposited("a", 1))]), Ct);
        }

        var poisoned = new Totals { Poison = poison };
        await using var node = await TestNode.Start(store, views: [poisoned, new Entries()]);
        await node.Becomes("Totals", s => s.State == "failed", "the view fails");
        Assert.True(await node.Views.WaitFor(["Entries"], 120, Runs.Patience, Ct));

        var failed = await node.Status("Totals");
        Assert.Equal((poison - 1, poison, 120 - poison + 1), (failed.Position, failed.FailedPosition, failed.LagEvents));
        Assert.Contains($"can't fold the event at {poison}", failed.Error, StringComparison.Ordinal);
        Assert.Equal(poison - 1, await store.Value<long>("select coalesce(sum(events), 0)::bigint from ledger_test_totals"));
        await appender.Append(Request("s", new Deposited("b", 1)), Ct);
        Assert.True(await node.Views.WaitFor(["Entries"], 121, Runs.Patience, Ct));
        Assert.Equal("failed", (await node.Status("Totals")).State);

        poisoned.Poison = null;
        Assert.True(await node.Views.Resume("Totals", Ct));
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
        Assert.Equal(("running", null, null), ((await node.Status("Totals")).State, (await node.Status("Totals")).FailedPosition, (await node.Status("Totals")).Error));
    }

    /// <summary>A statement that goes to the server with those of other views is still known to be the one view's.</summary>
    [Theory]
    [InlineData("refused by the server", 5, 12)]
    [InlineData("refused by the server", 250, 500)]
    [InlineData("can't be sent", 5, 12)]
    [InlineData("can't be sent", 250, 500)]
    public async Task stops_only_the_view_whose_statement_fails(string how, int poison, int events)
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("s", [.. Enumerable.Range(0, events).Select(_ => new Deposited("a", 1))]), Ct);
        var poisoned = new Totals { Adds = true, Poison = poison, Venom = Venom };
        await using var node = await TestNode.Start(store, views: [poisoned, new Entries { Adds = true }]);

        await node.Becomes("Totals", s => s.State == "failed", "the view fails");
        Assert.True(await node.Views.WaitFor(["Entries"], events, Runs.Patience, Ct));

        var failed = await node.Status("Totals");
        Assert.Equal((poison - 1, poison), (failed.Position, failed.FailedPosition));
        Assert.Contains(how == "can't be sent" ? "Offset" : "division by zero", failed.Error, StringComparison.Ordinal);
        Assert.Equal("running", (await node.Status("Entries")).State);
        poisoned.Poison = null;
        Assert.True(await node.Views.Resume("Totals", Ct));
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();

        NpgsqlBatchCommand Venom() => how == "can't be sent"
            ? new NpgsqlBatchCommand("select $1")
            {
                Parameters = { new NpgsqlParameter<DateTimeOffset> { TypedValue = new DateTimeOffset(2026, 11, 27, 0, 0, 0, TimeSpan.FromHours(2)) } },
            }
            : new NpgsqlBatchCommand("select 1 / 0"); // the error by which the daemon's own statements end a batch
    }

    [Fact]
    public async Task reads_and_writes_a_few_events_in_one_round_trip_each()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var node = await TestNode.Start(store, TestNode.Slow, proxy, views: [new Totals { Adds = true }, new Entries { Adds = true }]);
        await TestNode.Listen(store, 1);
        var appender = store.StartAppender();
        const int Rounds = 20;
        await Deposit(1, 5); // until statements are prepared
        var sent = 0;
        proxy.ToServer = _ =>
        {
            Interlocked.Increment(ref sent);
            return Task.FromResult(true);
        };
        await Deposit(6, Rounds);

        // It may read once more when the notification comes, and the sealer has a few; with its statuses and view by view it was 6.7.
        Assert.InRange(sent / (double)Rounds, 2, 5);
        await node.AssertViewsEqualTheLog();

        async Task Deposit(long first, int count)
        {
            for (var position = first; position < first + count; position++)
            {
                await appender.Append(Request("s", new Deposited("a", 1)), Ct);
                Assert.True(await node.Views.WaitFor(node.Views.Names, position, Runs.Patience, Ct));
            }
        }
    }

    [Fact]
    public async Task stops_only_the_views_that_fold_an_event_nobody_can_read()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("s", new Deposited("a", 1), new Noted("n"), new Deposited("a", 1)), Ct);
        await store.Execute("""update mt_events set data = '{"text": {}}' where seq_id = 2""");
        await using var node = await TestNode.Start(store);
        await node.CatchUp(); // no view folds that kind

        await node.Views.Pause("Entries", Ct);
        await node.Becomes("Entries", s => s.State == "paused", "the view is paused");
        await appender.Append(Request("s", new Deposited("a", 1), new Deposited("a", 1)), Ct);
        await node.Becomes("Totals", s => s.Position == 5, "the other view goes on");
        await store.Execute("""update mt_events set data = '{"account": [], "amount": 1}' where seq_id = 5""");
        await node.Views.Resume("Entries", Ct);

        await node.Becomes("Entries", s => s.State == "failed", "the view fails");
        Assert.Equal((4, 5), ((await node.Status("Entries")).Position, (await node.Status("Entries")).FailedPosition));
        Assert.Equal("running", (await node.Status("Totals")).State);
    }

    [Fact]
    public async Task leaves_a_paused_view_where_it_is_until_it_is_resumed()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using var node = await TestNode.Start(store);
        await Deposits.Append(appender, 20);
        await node.CatchUp();
        var position = (await node.Status("Totals")).Position;

        Assert.True(await node.Views.Pause("Totals", Ct));
        Assert.False(await node.Views.Pause("Nobody", Ct));
        await Deposits.Append(appender, 100);
        var head = await store.Reader.ReadHead(Ct);
        Assert.True(await node.Views.WaitFor(["Entries"], head, Runs.Patience, Ct));

        Assert.Equal((position, "paused"), ((await node.Status("Totals")).Position, (await node.Status("Totals")).State));
        Assert.False(await node.Views.WaitFor(["Entries", "Totals"], head, TimeSpan.FromMilliseconds(50), Ct));
        Assert.True(await node.Views.Resume("Totals", Ct));
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task brings_a_new_view_up_to_the_others()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using (var old = await TestNode.Start(store, views: [new Totals()]))
        {
            await Deposits.Append(appender, 300);
            await old.CatchUp();
        }

        await using var node = await TestNode.Start(store);
        await Deposits.Append(appender, 100);
        await node.CatchUp();
        await Runs.Until( // one that comes while they are being brought together may still find them apart
            async () =>
            {
                await Deposits.Append(appender, 1);
                await node.CatchUp();
                return await store.Value<long>("select count(distinct xmin::text) from mt_event_progression") == 1;
            },
            "the views advance together");

        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task does_not_move_a_view_that_is_paused_even_in_the_middle_of_a_batch()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using var node = await TestNode.Start(store);
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var appending = Task.Run(
            async () =>
            {
                while (!enough.IsCancellationRequested)
                {
                    await appender.Append(Request("s", new Deposited("a", 1)), Ct);
                }
            },
            Ct);
        for (var i = 0; i < 20; i++)
        {
            await node.Views.Pause("Totals", Ct);
            var paused = await node.Status("Totals");
            var head = (await node.Status("Entries")).Position;
            await node.Becomes("Entries", s => s.Position > head, "the other view goes on");
            Assert.Equal((paused.Position, "paused"), ((await node.Status("Totals")).Position, (await node.Status("Totals")).State));
            await node.Views.Resume("Totals", Ct);
            await node.Becomes("Totals", s => s.Position > paused.Position, "the view goes on");
        }

        await enough.CancelAsync();
        await appending;
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task says_how_far_a_view_is_behind_and_for_how_long()
    {
        await using var store = await TestStore.Create(postgres);
        store.Wall.Offset = TimeSpan.FromHours(-1);
        var appender = store.StartAppender();
        await using var node = await TestNode.Start(store);
        await appender.Append(Request("s", new Deposited("a", 1)), Ct);
        await node.CatchUp();
        await node.Views.Pause("Totals", Ct);
        await node.Becomes("Totals", s => s.State == "paused", "the view is paused");

        var result = await appender.Append(Request("s", new Deposited("a", 1), new Ignored(), new Ignored()), Ct);
        await node.Becomes("Entries", s => s.Position == 4, "the other view goes on");

        var behind = await node.Status("Totals");
        Assert.Equal((1, 3), (behind.Position, behind.LagEvents));
        Assert.InRange(behind.LagSeconds, 3599, 3599 + Runs.Patience.TotalSeconds);
        var level = await node.Status("Entries");
        Assert.Equal((0, 0.0, result.RecordedAt), (level.LagEvents, level.LagSeconds, level.RecordedAt));
        Assert.Equal([4L, 1L], (await Settled()).Select(s => s.Position));

        // What the node remembers follows within a heartbeat, without being asked.
        async Task<IReadOnlyList<ViewStatus>> Settled()
        {
            await Runs.Until(() => Task.FromResult(node.Views.Latest is [{ Position: 4 }, { Position: 1 }]), "the node hears of it");
            return node.Views.Latest;
        }
    }

    [Fact]
    public async Task hears_of_other_processes_appends_long_before_its_heartbeat_and_tells_the_other_nodes()
    {
        await using var store = await TestStore.Create(postgres);
        await using var leader = await TestNode.Start(store, TestNode.Slow);
        await leader.Leads();
        await using var follower = await TestNode.Start(store, TestNode.Slow);
        await TestNode.Listen(store, 2);

        var clock = Stopwatch.StartNew();
        for (var i = 1; i <= 5; i++)
        {
            await store.StartAppender().Append(Request("s", new Deposited("a", 1)), Ct);
            Assert.True(await follower.Views.WaitFor(follower.Views.Names, i, Runs.Patience, Ct));
            Assert.True(await leader.Views.WaitFor(leader.Views.Names, i, Runs.Patience, Ct));
        }

        Assert.True(await follower.Views.Pause("Totals", Ct));
        Assert.True(await follower.Views.Rebuild("Entries", Ct));
        await follower.Becomes("Entries", s => s.RebuiltAt is not null, "a request reaches the node that keeps the views");
        Assert.True(clock.Elapsed < TimeSpan.FromSeconds(20), $"It took {clock.Elapsed}.");
    }

    [Fact]
    public async Task that_has_nothing_to_do_asks_once_a_heartbeat()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var node = await TestNode.Start(store, null, proxy);
        await Deposits.Append(store.StartAppender(), 10);
        await node.CatchUp();
        var asked = 0;
        await Beats(3); // what the last batch brought about is over
        proxy.ToServer = _ =>
        {
            Interlocked.Increment(ref asked);
            return Task.FromResult(true);
        };

        const int Heartbeats = 10;
        await Beats(Heartbeats);

        Assert.InRange(asked, Heartbeats - 1, Heartbeats * 3 / 2);

        async Task Beats(int count)
        {
            for (var beat = 0; beat < count; beat++)
            {
                var last = await Expiry();
                await Runs.Until(async () => await Expiry() != last, "the lease is renewed");
            }
        }

        Task<DateTime> Expiry() => store.Value<DateTime>("select expires_at from daemon_lease");
    }

    [Fact]
    public async Task lets_those_who_wait_go_on_when_the_connection_that_listens_is_lost()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, TestNode.Patient);
        var waiting = await WaitForPaused(store, node);

        await store.Value<long>("select count(pg_terminate_backend(pid, 5000)) from pg_stat_activity where datname = current_database() and query like 'listen %'");
        await TestNode.Listen(store, 1);
        Assert.False(waiting.IsCompleted);
        Assert.True(await node.Views.Resume("Totals", Ct));

        Assert.True(await waiting);
    }

    [Fact]
    public async Task tells_those_who_wait_that_the_database_is_away()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var node = await TestNode.Start(store, TestNode.Patient, proxy);
        var waiting = await WaitForPaused(store, node);

        proxy.Away = true;

        Assert.True(DatabaseErrors.IsUnavailable(await Assert.ThrowsAnyAsync<Exception>(() => waiting.WaitAsync(Runs.Patience / 2, Ct))));
    }

    /// <summary>Somebody who waits, on the node that keeps the views, for what a paused one does not reach.</summary>
    private static async Task<Task<bool>> WaitForPaused(TestStore store, TestNode node)
    {
        await node.Leads();
        await TestNode.Listen(store, 1);
        await node.Views.Pause("Totals", Ct);
        await node.Becomes("Totals", s => s.State == "paused", "the view is paused");
        await store.StartAppender().Append(Request("s", new Deposited("a", 1)), Ct);
        await node.Becomes("Entries", s => s.Position == 1, "the other view goes on");
        return node.Views.WaitFor(node.Views.Names, 1, Runs.Patience, Ct).AsTask();
    }

    [Fact]
    public async Task comes_back_by_itself_when_the_database_was_away()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var node = await TestNode.Start(store, null, proxy);
        await node.Leads();
        proxy.Away = true;
        await Deposits.Append(store.StartAppender(), 30);
        await Runs.Until(() => Task.FromResult(!node.Daemon.IsLeader), "the node knows that it has lost the lease");
        // What it had sent before may still have renewed it.
        await Runs.Until(() => store.Value<bool>("select expires_at < clock_timestamp() from daemon_lease"), "the lease runs out");

        proxy.Away = false;

        await node.Leads();
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
        Assert.True(await node.Views.IsKept(Ct));
    }
}
