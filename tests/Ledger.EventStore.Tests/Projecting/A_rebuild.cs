using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Projecting;

public sealed class A_rebuild(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(5)]
    [InlineData(200)]
    public async Task gives_the_live_rows_again(int requests)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using var node = await TestNode.Start(store);
        await Deposits.Append(appender, requests);
        await node.CatchUp();
        await store.Execute("update ledger_test_totals set amount = -1; delete from ledger_test_entries where position % 2 = 0"); // as a bug of an older version left it

        await Rebuild(node, "Totals");
        await Rebuild(node, "Entries");
        await node.AssertViewsEqualTheLog();

        await Deposits.Append(appender, 10);
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
        Assert.Equal(["(ledger_test_entries_account)", "(ledger_test_entries_pkey)"], await IndexesOfEntries(store));
        Assert.Equal(0, await store.Value<long>("select count(*) from pg_namespace where nspname like 'ledger\\_rebuild%'"));
        Assert.False(await node.Views.Rebuild("Nobody", Ct));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(7)]
    public async Task reads_only_what_its_view_folds(int more)
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        var appender = store.StartAppender();
        var size = TestNode.Quick.MaxRebuildBatch;
        await appender.Append(Request("a", new Deposited("a", 1)), Ct);
        await appender.Append(Request("b", [.. Enumerable.Repeat(new Ignored(), (4 * size) - 2 + more)]), Ct); // whole pages of nothing
        await appender.Append(Request("a", new Deposited("a", 2)), Ct);
        await node.CatchUp();
        await store.Execute("create extension pg_stat_statements");

        await Rebuild(node, "Entries");

        await node.AssertViewsEqualTheLog();
        Assert.Equal(
            2,
            await store.Value<long>(
                """
                select sum(rows)::bigint from pg_stat_statements
                where dbid = (select oid from pg_database where datname = current_database()) and query like 'copy (%type in (''deposited'')%'
                """));
    }

    [Fact]
    public async Task shows_now_and_then_how_far_it_is_though_nothing_is_to_fold()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        const int pages = 45;
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Ignored(), pages * TestNode.Quick.MaxRebuildBatch)]), Ct);
        await node.CatchUp();
        await store.Execute("create extension pg_stat_statements");

        await Rebuild(node, "Entries");

        Assert.Equal(
            3, // after 20 pages, after 40, and at the end
            await store.Value<long>(
                """
                select sum(calls)::bigint from pg_stat_statements
                where dbid = (select oid from pg_database where datname = current_database()) and query like 'update projections set rebuild_position = %'
                """));
    }

    [Fact]
    public async Task has_no_index_of_readers_while_it_folds_whole_pages()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await Deposits.Append(store.StartAppender(), 200);
        await node.CatchUp();
        var pages = new List<string[]>();
        node.Kept[1].AfterWriting = async _ => pages.Add(await store.Lines("select indexname from pg_indexes where schemaname = 'ledger_rebuild_entries' order by 1"));

        await Rebuild(node, "Entries");

        Assert.True(pages.Count > 3);
        Assert.All(pages.SkipLast(1), indexes => Assert.Equal(["(ledger_test_entries_pkey)"], indexes)); // the last one is what the daemon folds before the swap
        Assert.Equal(["(ledger_test_entries_account)", "(ledger_test_entries_pkey)"], await IndexesOfEntries(store));
    }

    [Fact]
    public async Task is_swapped_in_at_once_and_does_not_wait_for_the_heartbeat()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, TestNode.Slow);
        await TestNode.Listen(store, 1);
        await Deposits.Append(store.StartAppender(), 200);
        await node.CatchUp();
        node.Daemon.Appended += () => Thread.Sleep(300); // whoever is told of the bulk's end looks while its task still tells others

        await Rebuild(node, "Entries");

        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task is_swapped_in_while_the_views_still_have_much_to_fold()
    {
        await using var store = await TestStore.Create(postgres);
        var slow = new Totals { AfterWriting = _ => Task.Delay(TimeSpan.FromMilliseconds(50), Ct) };
        await Deposits.Append(store.StartAppender(), 5_000);
        await using var node = await TestNode.Start(store, TestNode.Slow, views: [slow, new Entries()]);

        await Rebuild(node, "Entries");

        Assert.True((await node.Status("Totals")).LagEvents > 0, "the rebuild has waited for the views");
        slow.AfterWriting = _ => Task.CompletedTask;
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task taken_over_before_the_indexes_were_made_has_them()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var frozen = await TestNode.Start(store, null, proxy);
        await frozen.Leads();
        await Deposits.Append(store.StartAppender(), 300);
        await frozen.CatchUp();
        var froze = proxy.FreezeFrom(piece => piece.Span.IndexOf("create index"u8) >= 0);
        await frozen.Views.Rebuild("Entries", Ct);
        await froze.WaitAsync(Runs.Patience, Ct);

        await using var next = await TestNode.Start(store);
        await next.Becomes("Entries", s => s.RebuiltAt is not null, "the other node finishes the rebuild");

        Assert.Equal(["(ledger_test_entries_account)", "(ledger_test_entries_pkey)"], await IndexesOfEntries(store));
        await next.CatchUp();
        await next.AssertViewsEqualTheLog();
        proxy.Thaw();
    }

    [Fact]
    public async Task is_seen_by_no_reader_however_often_it_happens()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using var node = await TestNode.Start(store);
        await Deposits.Append(appender, 150);
        await node.CatchUp();
        using var stop = new CancellationTokenSource();
        var reading = Enumerable.Range(0, 3).Select(_ => Task.Run(() => ReadUntil(store, stop.Token), Ct)).ToArray();

        for (var rebuild = 0; rebuild < Runs.Size(12, 100) && !reading.Any(r => r.IsFaulted); rebuild++)
        {
            await Rebuild(node, "Entries");
            await Deposits.Append(appender, 3);
        }

        await stop.CancelAsync();
        Assert.All(await Task.WhenAll(reading), reads => Assert.True(reads > 0));
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task waits_for_a_long_reader_without_making_the_others_wait()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await Deposits.Append(store.StartAppender(), 100);
        await node.CatchUp();
        var head = await store.Reader.ReadHead(Ct);
        await using (var report = await store.Database.OpenConnectionAsync(Ct))
        {
            await new NpgsqlCommand("begin; select count(*) from ledger_test_entries", report).ExecuteNonQueryAsync(Ct);
            await node.Views.Rebuild("Entries", Ct);
            await node.Becomes("Entries", s => s.RebuildPosition == head, "the rebuild is ready to swap");
            for (var i = 0; i < 20; i++)
            {
                await ReadOnce(store); // under the pool's command timeout, and it need not wait for the report
            }

            await Deposits.Append(store.StartAppender(), 10);
            await node.CatchUp();
            Assert.Equal("running", (await node.Status("Entries")).Rebuild);
        }

        await node.Becomes("Entries", s => s.RebuiltAt is not null, "the swap happens after the report");
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task revives_a_failed_view()
    {
        await using var store = await TestStore.Create(postgres);
        await Deposits.Append(store.StartAppender(), 100);
        var poisoned = new Entries { Poison = await store.Value<long>("select seq_id from mt_events where type = 'deposited' and seq_id > 60 limit 1") };
        await using var node = await TestNode.Start(store, views: [new Totals(), poisoned]);
        await node.Becomes("Entries", s => s.State == "failed", "the view fails");

        poisoned.Poison = null;
        await Rebuild(node, "Entries");

        var revived = await node.Status("Entries");
        Assert.Equal(("running", null, null), (revived.State, revived.FailedPosition, revived.Error));
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task of_a_paused_view_leaves_it_paused()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await node.Views.Pause("Entries", Ct);
        await Deposits.Append(store.StartAppender(), 100);

        await Rebuild(node, "Entries");

        Assert.Equal(("paused", 0), ((await node.Status("Entries")).State, (await node.Status("Entries")).LagEvents));
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task that_fails_keeps_the_live_view_and_the_reason()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await using var node = await TestNode.Start(store);
        await Deposits.Append(appender, 100);
        await node.CatchUp();
        node.Kept[1].Poison = await store.Value<long>("select seq_id from mt_events where type = 'deposited' and seq_id > 60 limit 1");

        await node.Views.Rebuild("Entries", Ct);
        await node.Becomes("Entries", s => s.Rebuild == "failed", "the rebuild fails");

        var failed = await node.Status("Entries");
        Assert.Contains("can't fold", failed.RebuildError, StringComparison.Ordinal);
        Assert.Equal(("running", null, null), (failed.State, failed.Error, failed.RebuiltAt));
        await Deposits.Append(appender, 10);
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();

        node.Kept[1].Poison = null;
        await Rebuild(node, "Entries");
        Assert.Null((await node.Status("Entries")).RebuildError);
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task that_cannot_even_begin_stops_no_view()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store, views: [new Totals(), new Homeless()]);

        await node.Views.Rebuild("Homeless", Ct);
        await node.Becomes("Homeless", s => s.Rebuild == "failed", "the rebuild fails");

        await Deposits.Append(store.StartAppender(), 10);
        await node.CatchUp();
    }

    [Fact]
    public async Task goes_on_where_it_was_when_its_node_freezes()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var frozen = await TestNode.Start(store, null, proxy);
        await frozen.Leads();
        await Deposits.Append(store.StartAppender(), 300);
        await frozen.CatchUp();
        var thaw = new TaskCompletionSource<bool>();
        var froze = new TaskCompletionSource();
        var pages = 0;
        frozen.Kept[0].AfterWriting = async _ =>
        {
            if (++pages == 3)
            {
                proxy.ToServer = _ => thaw.Task;
                froze.TrySetResult();
                await thaw.Task;
            }
        };
        await using var next = await TestNode.Start(store);
        await frozen.Views.Rebuild("Totals", Ct);
        await froze.Task.WaitAsync(Runs.Patience, Ct);
        Assert.Equal(100, (await next.Status("Totals")).RebuildPosition);
        var folded = 0L;
        next.Kept[0].AfterWriting = events =>
        {
            folded = folded == 0 ? events[0].Position : folded;
            return Task.CompletedTask;
        };

        await next.Becomes("Totals", s => s.RebuiltAt is not null, "the other node finishes the rebuild");
        Assert.InRange(folded, 101, 150);
        await next.AssertViewsEqualTheLog();
        proxy.ToServer = _ => Task.FromResult(true);
        thaw.SetResult(true);
        await Runs.Until(() => Task.FromResult(!frozen.Daemon.IsLeader), "the frozen node learns that it does not lead");
        await Deposits.Append(store.StartAppender(), 10);
        await next.CatchUp();
        await next.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task folds_a_page_once_though_two_nodes_fold_it()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        await using var frozen = await TestNode.Start(store, TestNode.Patient, proxy);
        await frozen.Leads();
        await Deposits.Append(store.StartAppender(), 300);
        await frozen.CatchUp();
        var pages = 0;
        frozen.Kept[0].AfterWriting = _ =>
        {
            pages++;
            return Task.CompletedTask;
        };
        var froze = proxy.FreezeFrom(piece => pages == 2 && piece.Span.IndexOf("COMMIT"u8) >= 0);
        await frozen.Views.Rebuild("Totals", Ct);
        await froze.WaitAsync(Runs.Patience, Ct);

        await using var next = await TestNode.Start(store, TestNode.Patient);
        await next.TakesOver();
        await Runs.Until(
            async () => await store.Value<long>("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") > 0,
            "the next node meets the rows of the frozen one");
        proxy.Thaw();

        await next.Becomes("Totals", s => s.RebuiltAt is not null, "the other node finishes the rebuild");
        await next.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task begins_anew_after_migrations_with_the_tables_as_they_make_them()
    {
        await using var store = await TestStore.Create(postgres);
        await Deposits.Append(store.StartAppender(), 300);
        var newer = TestStore.MigrationsWith("create index ledger_test_entries_amount on ledger_test_entries (amount);");
        TestNode next;
        await using (var old = await TestNode.Start(store, TestNode.Patient))
        {
            await old.CatchUp();
            var (folding, going) = old.Kept[1].StandStill();
            await old.Views.Rebuild("Entries", Ct);
            await folding;
            var migrated = store.Migrate(newer);
            going.SetResult();

            await migrated;

            Assert.Equal(("requested", 0), ((await old.Status("Entries")).Rebuild, (await old.Status("Entries")).RebuildPosition));
            next = await TestNode.Start(store, migrations: newer);
        }

        await using (next)
        {
            await next.Becomes("Entries", s => s.RebuiltAt is not null, "the newer node rebuilds");
            Assert.Equal(["(ledger_test_entries_account)", "(ledger_test_entries_amount)", "(ledger_test_entries_pkey)"], await IndexesOfEntries(store));
            await next.CatchUp();
            await next.AssertViewsEqualTheLog();
        }
    }

    [Fact]
    public async Task does_not_begin_while_migrations_run()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        await node.Leads();
        await using (var migrating = await store.Database.OpenConnectionAsync(Ct))
        {
            await new NpgsqlCommand($"begin; select pg_advisory_xact_lock({SchemaMigrator.ViewsLockKey(store.Options)})", migrating).ExecuteNonQueryAsync(Ct);
            await node.Views.Rebuild("Entries", Ct);
            await Runs.Until(() => Task.FromResult(!node.Daemon.IsLeader), "the node leads no longer");
            Assert.Equal("requested", (await node.Status("Entries")).Rebuild);
        }

        await node.Becomes("Entries", s => s.RebuiltAt is not null, "the rebuild ends");
        await Deposits.Append(store.StartAppender(), 10);
        await node.CatchUp();
        await node.AssertViewsEqualTheLog();
    }

    [Fact]
    public async Task waits_for_the_indexes_that_the_node_before_is_still_making()
    {
        await using var store = await TestStore.Create(postgres);
        await Deposits.Append(store.StartAppender(), 300);
        await using var old = await TestNode.Start(store, TestNode.Patient);
        await old.CatchUp();
        // The old node has made the index and not committed yet, for as long as this holds a lock that it then needs.
        await store.Execute("create function ledger.linger() returns event_trigger language plpgsql as $$ begin perform pg_advisory_xact_lock(77); end $$");
        await store.Execute("create event trigger linger on ddl_command_end when tag in ('CREATE INDEX') execute function ledger.linger()");
        await using var holding = await store.Database.OpenConnectionAsync(Ct);
        await new NpgsqlCommand("begin; select pg_advisory_xact_lock(77)", holding).ExecuteNonQueryAsync(Ct);
        await old.Views.Rebuild("Entries", Ct);
        await Waiting(1);

        await using var next = await TestNode.Start(store, TestNode.Patient);
        await next.TakesOver();
        await Waiting(2);
        await new NpgsqlCommand("commit", holding).ExecuteNonQueryAsync(Ct);

        await next.Becomes("Entries", s => s.RebuiltAt is not null || s.Rebuild == "failed", "the rebuild ends");
        Assert.Null((await next.Status("Entries")).RebuildError);
        Assert.Equal(["(ledger_test_entries_account)", "(ledger_test_entries_pkey)"], await IndexesOfEntries(store));
        await next.CatchUp();
        await next.AssertViewsEqualTheLog();

        Task Waiting(int sessions) => Runs.Until(
            async () => await store.Value<long>("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") >= sessions,
            $"{sessions} sessions wait for a lock");
    }

    private static Task<string[]> IndexesOfEntries(TestStore store) =>
        store.Lines("select indexname from pg_indexes where schemaname = 'ledger' and tablename = 'ledger_test_entries' order by 1");

    private static async Task Rebuild(TestNode node, string view)
    {
        var last = (await node.Status(view)).RebuiltAt;
        Assert.True(await node.Views.Rebuild(view, Ct));
        await node.Becomes(view, s => s.RebuiltAt != last || s.Rebuild == "failed", "the rebuild ends");
        Assert.Null((await node.Status(view)).RebuildError);
    }

    private static async Task<int> ReadUntil(TestStore store, CancellationToken stop)
    {
        var reads = 0;
        var most = 0L;
        while (!stop.IsCancellationRequested)
        {
            await ReadOnce(store);
            var count = await store.Value<long>("select count(*) from ledger_test_entries");
            Assert.True(count >= most, $"{count} rows after {most}");
            most = count;
            reads++;
        }

        return reads;
    }

    /// <summary>Reads as the service reads: the rows fit the position that the view is said to have, in one snapshot.</summary>
    private static async Task ReadOnce(TestStore store)
    {
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        await using var batch = new NpgsqlBatch(connection);
        EventReader.BeginSnapshotOfAny(batch);
        batch.BatchCommands.Add(new NpgsqlBatchCommand("select last_seq_id from mt_event_progression where name = 'Entries:All'"));
        batch.BatchCommands.Add(new NpgsqlBatchCommand("select count(*) from ledger_test_entries"));
        batch.BatchCommands.Add(new NpgsqlBatchCommand(
            "select count(*) from mt_events where type = 'deposited' and seq_id <= (select last_seq_id from mt_event_progression where name = 'Entries:All')"));
        EventReader.EndSnapshot(batch);
        await using var reader = await batch.ExecuteReaderAsync(Ct);
        await reader.ReadAsync(Ct);
        var position = reader.GetInt64(0);
        await reader.NextResultAsync(Ct);
        await reader.ReadAsync(Ct);
        var rows = reader.GetInt64(0);
        await reader.NextResultAsync(Ct);
        await reader.ReadAsync(Ct);
        Assert.True(rows == reader.GetInt64(0), $"{rows} rows at position {position}, not {reader.GetInt64(0)}");
    }

    /// <summary>A view whose table no migration makes.</summary>
    private sealed class Homeless() : TestView("Homeless", "nowhere")
    {
        public override string Truth => "select";

        protected override string Upsert => "select from unnest($1, $2, $3)";
    }
}
