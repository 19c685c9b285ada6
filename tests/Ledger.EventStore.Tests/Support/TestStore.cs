using Ledger.Testing;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.EventStore.Tests.Support;

/// <summary>A database with the store's tables and those of the tests' views, and the parts of the store on it.</summary>
internal sealed class TestStore : IAsyncDisposable
{
    public const string Tenant = "t1";

    private readonly List<Appender> _appenders = [];
    private readonly List<NpgsqlDataSource> _pools = [];

    private TestStore(string connectionString, EventStoreOptions options)
    {
        ConnectionString = connectionString;
        Options = options;
        Database = Connect();
        Reader = new EventReader(Database, TestEvents.Types);
    }

    public static Migrations Migrations { get; } = new(typeof(TestStore).Assembly);

    public string ConnectionString { get; }

    public EventStoreOptions Options { get; }

    public NpgsqlDataSource Database { get; }

    public EventReader Reader { get; }

    /// <summary>Where the signing key of the store's log lies, of all nodes on it.</summary>
    public string LogFolder { get; set; } = Directory.CreateTempSubdirectory("ledger-log-").FullName;

    public SteppingClock Wall { get; } = new();

    public static async Task<TestStore> Create(PostgresFixture postgres, EventStoreOptions? options = null) =>
        await Create(await postgres.CreateEmptyDatabase(), options);

    public static async Task<TestStore> Create(string connectionString, EventStoreOptions? options = null)
    {
        var store = new TestStore(connectionString, options ?? new EventStoreOptions());
        await store.Migrate(Migrations);
        return store;
    }

    /// <summary>The migrations of a newer program: one more changes what is there for Entries.</summary>
    public static Migrations MigrationsWith(string sql) => new([.. Migrations.All, new Migration(9999, "ledger_test_entries", sql)]);

    /// <summary>Migrates it, as a newer program that starts does.</summary>
    public Task Migrate(Migrations migrations) => new SchemaMigrator(Database, migrations, Options, NullLogger<SchemaMigrator>.Instance).Migrate();

    /// <summary>A pool of its own, as another process has; perhaps through a proxy.</summary>
    public NpgsqlDataSource Connect(FaultProxy? proxy = null)
    {
        var target = new NpgsqlConnectionStringBuilder(ConnectionString);
        if (proxy is not null)
        {
            target.Port = proxy.Port;
        }

        var pool = EventStoreDatabase.Connect(target.ConnectionString, Options, "tests", 40);
        _pools.Add(pool);
        return pool;
    }

    /// <summary>An appender with a pool of its own.</summary>
    public Appender StartAppender(EventStoreOptions? options = null, FaultProxy? proxy = null)
    {
        var appender = new Appender(
            Connect(proxy), TestEvents.Types, options ?? Options, new LedgerClock(Wall), NullLogger<Appender>.Instance);
        _appenders.Add(appender);
        return appender;
    }

    /// <summary>Takes the append lock, as a node in the midst of a batch has it, until disposal.</summary>
    public async Task<NpgsqlConnection> HoldAppendLock()
    {
        var connection = await Database.OpenConnectionAsync();
        await using var command = new NpgsqlCommand($"select pg_advisory_lock({Appender.AppendLockKey(Options.Schema)})", connection);
        await command.ExecuteNonQueryAsync();
        return connection;
    }

    /// <summary>Returns when as many appenders wait for the lock.</summary>
    public Task AppendersWait(int count = 1) => Runs.Until(
        async () => await Value<long>(
            "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())") == count,
        "an appender waits for the append lock");

    /// <summary>Sends requests so that they share a transaction, behind one that stores nothing.</summary>
    public async Task<AppendResult[]> AppendTogether(Appender appender, params AppendRequest[] requests)
    {
        Task<AppendResult>[] appends;
        await using (var held = await HoldAppendLock())
        {
            var plug = appender.Append(Request("plug", new Ignored()) with { Conditions = [new StreamCondition("plug", -1)] });
            await AppendersWait();
            appends = Array.ConvertAll(requests, request => appender.Append(request));
            await Release(held);
            await plug;
        }

        return await Task.WhenAll(appends);
    }

    public static async Task Release(NpgsqlConnection held)
    {
        await using var command = new NpgsqlCommand("select pg_advisory_unlock_all()", held);
        await command.ExecuteNonQueryAsync();
    }

    public static AppendRequest Request(string stream, params object[] events) => new()
    {
        TenantId = Tenant,
        Appends = [new StreamAppend(stream, "account", events)],
    };

    /// <summary>A request under an idempotency key, its fingerprint made of the key unless given.</summary>
    public static AppendRequest Keyed(string key, string stream, string? fingerprint = null, params object[] events) =>
        Request(stream, events.Length > 0 ? events : [new Noted(key)]) with
        {
            IdempotencyId = EventId.From(Tenant, key),
            Fingerprint = fingerprint ?? key,
        };

    public async Task<T> Value<T>(string sql)
    {
        await using var command = Database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync())!;
    }

    public async Task Execute(string sql)
    {
        await using var command = Database.CreateCommand(sql);
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>The rows as text, one line each.</summary>
    public async Task<string[]> Lines(string sql)
    {
        await using var command = Database.CreateCommand($"select r::text from ({sql}) r");
        await using var reader = await command.ExecuteReaderAsync();
        var lines = new List<string>();
        while (await reader.ReadAsync())
        {
            lines.Add(reader.GetString(0));
        }

        return [.. lines];
    }

    public async Task<List<RecordedEvent>> Log()
    {
        var log = new List<RecordedEvent>();
        await foreach (var recorded in Reader.ReadLog())
        {
            log.Add(recorded);
        }

        return log;
    }

    /// <summary>What must hold of every log: dense positions, dense versions, streams and sequence in step, time that never goes back.</summary>
    public async Task AssertSound()
    {
        Assert.Equal(0, await Value<long>("select coalesce(max(seq_id), 0) - count(*) from mt_events"));
        Assert.Equal(1, await Value<long>("select coalesce(min(seq_id), 1) from mt_events"));
        Assert.Equal(0, await Value<long>(
            """
            select count(*) from mt_streams s full join
              (select tenant_id, stream_id, max(version) as version, count(*) as events, min(version) as first from mt_events group by 1, 2) e
              on e.tenant_id = s.tenant_id and e.stream_id = s.id
            where s.version is distinct from e.version or e.version <> e.events or e.first <> 1
            """));
        Assert.Equal(0, await Value<long>(
            "select count(*) from (select version - lag(version, 1, 0::bigint) over (partition by tenant_id, stream_id order by seq_id) as step from mt_events) v where step <> 1"));
        Assert.Equal(0, await Value<long>(
            "select count(*) from (select timestamp - lag(timestamp) over (order by seq_id) as step from mt_events) t where step < interval '0'"));
        Assert.True(await Value<bool>("select last_value >= (select coalesce(max(seq_id), 0) from mt_events) from mt_events_sequence"), "the sequence is behind the log");
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var appender in _appenders)
        {
            await appender.DisposeAsync();
        }

        foreach (var pool in _pools)
        {
            await pool.DisposeAsync();
        }

        Directory.Delete(LogFolder, recursive: true);
    }
}

/// <summary>A wall clock that can be set.</summary>
internal sealed class SteppingClock : TimeProvider
{
    private long _offsetTicks;

    public TimeSpan Offset
    {
        get => TimeSpan.FromTicks(Volatile.Read(ref _offsetTicks));
        set => Volatile.Write(ref _offsetTicks, value.Ticks);
    }

    public override DateTimeOffset GetUtcNow() => System.GetUtcNow() + Offset;
}
