using Ledger.EventStore.Tests.Support;
using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.EventStore.Tests.Schema;

public sealed class Migrating(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task happens_once_when_many_nodes_start_together()
    {
        var connectionString = await postgres.CreateEmptyDatabase();
        var pools = Enumerable.Range(0, 8).Select(_ => EventStoreDatabase.Connect(connectionString, new EventStoreOptions(), "tests", 2)).ToArray();

        var ran = await Task.WhenAll(pools.Select(pool => Migrator(pool).Migrate(Ct)));

        Assert.Equal(TestStore.Migrations.All.Select(m => m.Name), Assert.Single(ran, names => names.Count > 0));
        Assert.True(await Migrator(pools[0]).IsUpToDate(Ct));
        foreach (var pool in pools)
        {
            await pool.DisposeAsync();
        }
    }

    [Fact]
    public async Task runs_only_what_is_new()
    {
        await using var database = await Connect();
        Assert.False(await Migrator(database).IsUpToDate(Ct));
        await Migrator(database, new Migrations()).Migrate(Ct);
        Assert.False(await Migrator(database).IsUpToDate(Ct));

        var ran = await Migrator(database).Migrate(Ct);

        Assert.Equal(TestStore.Migrations.All.Select(m => m.Name).Except(new Migrations().All.Select(m => m.Name)), ran);
        Assert.Empty(await Migrator(database).Migrate(Ct));
    }

    [Fact]
    public async Task keeps_to_its_own_schema()
    {
        var connectionString = await postgres.CreateEmptyDatabase();
        await using var store = await TestStore.Create(connectionString, new EventStoreOptions { Schema = "other" });
        await using var second = await TestStore.Create(connectionString);

        await store.StartAppender().Append(TestStore.Request("a", new Ignored()), Ct);

        Assert.Equal((1, 0), (await store.Reader.ReadHead(Ct), await second.Reader.ReadHead(Ct)));
        Assert.NotEqual(Appender.AppendLockKey("other"), Appender.AppendLockKey("ledger"));
    }

    [Fact]
    public async Task refuses_a_schema_newer_than_the_program()
    {
        await using var database = await Connect();
        await Migrator(database).Migrate(Ct);

        await Assert.ThrowsAsync<SchemaMismatchException>(() => Migrator(database, new Migrations()).Migrate(Ct));
        await Assert.ThrowsAsync<SchemaMismatchException>(() => Migrator(database, new Migrations()).IsUpToDate(Ct));
    }

    [Fact]
    public async Task refuses_a_file_that_was_edited_after_it_ran()
    {
        await using var database = await Connect();
        await Migrator(database).Migrate(Ct);
        await using var edit = database.CreateCommand("update schema_migrations set checksum = 'of another text' where number = 2");
        await edit.ExecuteNonQueryAsync(Ct);

        var refusal = await Assert.ThrowsAsync<SchemaMismatchException>(() => Migrator(database).Migrate(Ct));

        Assert.Contains("0002-mt_events", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task that_fails_leaves_nothing()
    {
        await using var database = await Connect();
        await Execute(database, "create schema ledger; create table ledger.daemon_lease (name text)"); // in the way of the seventh file

        await Assert.ThrowsAsync<PostgresException>(() => Migrator(database).Migrate(Ct));
        Assert.Equal("daemon_lease", await Value(database, "select string_agg(relname, ',') from pg_class where relnamespace = 'ledger'::regnamespace and relkind = 'r'"));

        await Execute(database, "drop table ledger.daemon_lease");
        Assert.Equal(TestStore.Migrations.All.Count, (await Migrator(database).Migrate(Ct)).Count);
    }

    [Fact]
    public async Task refuses_a_server_that_would_lose_acknowledged_events_unless_that_is_accepted()
    {
        using var folder = new ClusterFolder();
        await using var cluster = await PrivateCluster.StartAsync(
            new PrivateClusterOptions(folder.Path) { Settings = new Dictionary<string, string> { ["fsync"] = "off" } }, _ => { }, Ct);
        await using var database = EventStoreDatabase.Connect(cluster.ConnectionString, new EventStoreOptions(), "tests", 2);

        var refusal = await Assert.ThrowsAsync<UnsafeServerException>(() => Migrator(database).CheckServer(acceptLosingEvents: false, Ct));
        Assert.Contains("fsync", refusal.Message, StringComparison.Ordinal);
        await Migrator(database).CheckServer(acceptLosingEvents: true, Ct);

        await using var hasty = EventStoreDatabase.Connect(
            await postgres.CreateEmptyDatabase() + ";Options=-c synchronous_commit=off", new EventStoreOptions(), "tests", 2);
        await Assert.ThrowsAsync<UnsafeServerException>(() => Migrator(hasty).CheckServer(acceptLosingEvents: false, Ct));
        await using var durable = await Connect();
        await Migrator(durable).CheckServer(acceptLosingEvents: false, Ct);
    }

    [Fact]
    public async Task takes_as_long_as_it_takes()
    {
        var connectionString = await postgres.CreateEmptyDatabase() + ";Command Timeout=1";
        await using var store = await TestStore.Create(connectionString);

        await store.Migrate(TestStore.MigrationsWith("select pg_sleep(2);"));

        await using var waiting = EventStoreDatabase.Connect(connectionString, new EventStoreOptions(), "tests", 2);
        await using (var migrating = await store.Database.OpenConnectionAsync(Ct))
        {
            await new NpgsqlCommand($"begin; select pg_advisory_xact_lock({SchemaMigrator.LockKey(store.Options)})", migrating).ExecuteNonQueryAsync(Ct);
            var second = Migrator(waiting, TestStore.MigrationsWith("select pg_sleep(2);")).Migrate(Ct);
            await Task.Delay(TimeSpan.FromSeconds(2), Ct);
            Assert.False(second.IsCompleted);
            await new NpgsqlCommand("commit", migrating).ExecuteNonQueryAsync(Ct);
            Assert.Empty(await second);
        }
    }

    [Fact]
    public async Task leaves_the_views_to_programs_that_know_what_was_made()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var newer = TestStore.MigrationsWith("create table ledger_test_copies as select * from ledger_test_entries;");
        await using var old = await TestNode.Start(store, TestNode.Patient);
        await old.Leads();
        var (writing, going) = old.Kept[1].StandStill();
        await Deposits.Append(appender, 20);
        await writing;

        var migrated = store.Migrate(newer);
        await Runs.Until(
            async () => await store.Value<long>("select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'") == 1,
            "the migration waits for the batch under way");
        going.SetResult();
        await migrated;
        await Deposits.Append(appender, 20);

        await Runs.Until(() => Task.FromResult(!old.Daemon.IsLeader), "the older node leads no longer");
        await old.Says("A newer program has migrated the schema ledger");
        Assert.False(await store.Value<bool>("select exists (select from daemon_lease where expires_at > clock_timestamp())"));
        Assert.Equal(await store.Lines("select * from ledger_test_entries order by 1"), await store.Lines("select * from ledger_test_copies order by 1"));
        await using var next = await TestNode.Start(store, migrations: newer);
        await next.CatchUp();
        await next.AssertViewsEqualTheLog();
    }

    private static SchemaMigrator Migrator(NpgsqlDataSource database, Migrations? migrations = null) =>
        new(database, migrations ?? TestStore.Migrations, new EventStoreOptions(), NullLogger<SchemaMigrator>.Instance);

    private static async Task Execute(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ct);
    }

    private static async Task<string> Value(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        return (string)(await command.ExecuteScalarAsync(Ct))!;
    }

    private async Task<NpgsqlDataSource> Connect() =>
        EventStoreDatabase.Connect(await postgres.CreateEmptyDatabase(), new EventStoreOptions(), "tests", 4);
}
