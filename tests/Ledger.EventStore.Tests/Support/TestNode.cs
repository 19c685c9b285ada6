using System.Collections.Concurrent;
using Ledger.EventStore;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.EventStore.Tests.Support;

/// <summary>A node that keeps views, with a pool of its own, perhaps behind a proxy.</summary>
internal sealed class TestNode : IAsyncDisposable
{
    private readonly TestStore _store;

    private TestNode(TestStore store, EventStoreOptions options, FaultProxy? proxy, Migrations migrations, TestView[] views)
    {
        _store = store;
        Database = store.Connect(proxy);
        Kept = views;
        var clock = new LedgerClock(TimeProvider.System);
        Views = new Views(Database, new AllTenantsDatabase(Database), views, clock);
        Daemon = new Daemon(
            new OwnerDatabase(Database), new AllTenantsDatabase(Database), new BackgroundDatabase(Database), new EventReader(Database, TestEvents.Types), views, migrations, Views, clock, options, new Notebook<Daemon>(Said));
        Log = new TransparencyLog(Database);
        Keyring = new LogKeyring(Database, new TransparencyOptions { Folder = store.LogFolder });
        Sealer = new Sealer(Database, Log, Keyring, Daemon, options, NullLogger<Sealer>.Instance) { Interval = TimeSpan.FromMilliseconds(20) };
    }

    /// <summary>Quick to take over, so that tests need not wait.</summary>
    public static EventStoreOptions Quick { get; } = new()
    {
        LeaseDuration = TimeSpan.FromSeconds(1), HeartbeatInterval = TimeSpan.FromMilliseconds(100), MaxProjectionBatch = 50, MaxRebuildBatch = 50,
    };

    /// <summary>Holds its lease for longer than a test, whatever stands still meanwhile.</summary>
    public static EventStoreOptions Patient { get; } = Quick with { LeaseDuration = TimeSpan.FromMinutes(10) };

    /// <summary>Its heartbeat comes too late for whoever waits for it.</summary>
    public static EventStoreOptions Slow { get; } = Quick with { HeartbeatInterval = TimeSpan.FromMinutes(5), LeaseDuration = TimeSpan.FromMinutes(15) };

    public NpgsqlDataSource Database { get; }

    public Views Views { get; }

    public Daemon Daemon { get; }

    public TransparencyLog Log { get; }

    public LogKeyring Keyring { get; }

    public Sealer Sealer { get; }

    public TestView[] Kept { get; }

    /// <summary>What its daemon has logged.</summary>
    public ConcurrentQueue<string> Said { get; } = [];

    public static async Task<TestNode> Start(
        TestStore store, EventStoreOptions? options = null, FaultProxy? proxy = null, Migrations? migrations = null, TestView[]? views = null)
    {
        var node = new TestNode(store, options ?? Quick, proxy, migrations ?? TestStore.Migrations, views ?? [new Totals(), new Entries()]);
        await node.Views.Register();
        node.Sealer.Start();
        node.Daemon.Start();
        return node;
    }

    public Task Leads() => Runs.Until(() => Task.FromResult(Daemon.IsLeader), "the node leads");

    public Task Says(string what) => Runs.Until(() => Task.FromResult(Said.Any(line => line.StartsWith(what, StringComparison.Ordinal))), $"the node says '{what}'");

    /// <summary>From here on, so many nodes of the store miss no notification.</summary>
    public static Task Listen(TestStore store, int nodes) => Runs.Until(
        async () => await store.Value<long>("select count(*) from pg_stat_activity where datname = current_database() and query like 'listen %' and state = 'idle'") == nodes,
        "all nodes listen");

    /// <summary>
    /// Leads as soon as the first leader of the store, which is frozen, no longer holds the lease. What that one had sent before
    /// it froze may still reach the server and renew its lease, so it is taken until this node has it.
    /// </summary>
    public Task TakesOver() => Runs.Until(
        async () =>
        {
            await _store.Execute("update daemon_lease set expires_at = '-infinity' where epoch = 1");
            return Daemon.IsLeader;
        },
        "the node takes over");

    /// <summary>Returns when all its views have folded the log as it is now.</summary>
    public async Task CatchUp()
    {
        var head = await _store.Reader.ReadHead();
        Assert.True(await Views.WaitFor(Views.Names, head, Runs.Patience), $"views stand at {string.Join(", ", (await Views.Refresh()).Select(s => $"{s.Name} {s.Position} {s.State} {s.Error}"))}, not at {head}");
    }

    public async Task<ViewStatus> Status(string view) => (await Views.Refresh()).Single(s => s.Name == view);

    public Task Becomes(string view, Func<ViewStatus, bool> so, string what) => Runs.Until(async () => so(await Status(view)), what);

    /// <summary>Every view holds what a fold over the whole log gives, row for row.</summary>
    public async Task AssertViewsEqualTheLog()
    {
        foreach (var view in Kept)
        {
            Assert.Equal(await _store.Lines(view.Truth), await _store.Lines($"select * from {view.Tables[0]} order by 1"));
        }
    }

    /// <summary>Returns when a checkpoint covers the log as it is now.</summary>
    public async Task<PublishedCheckpoint> Covered()
    {
        var head = await _store.Reader.ReadHead();
        PublishedCheckpoint? shown = null;
        await Runs.Until(
            async () => (shown = await Log.ReadCheckpoint()) is { } c && c.Size >= head,
            $"a checkpoint covers position {head}; it is {Sealer.Refusal ?? "not refused"}");
        return shown!;
    }

    public async ValueTask DisposeAsync()
    {
        await Sealer.DisposeAsync();
        await Daemon.DisposeAsync();
    }

    private sealed class Notebook<T>(ConcurrentQueue<string> lines) : ILogger<T>
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, Microsoft.Extensions.Logging.EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            lines.Enqueue(formatter(state, exception));
    }
}

/// <summary>Deposits to a few accounts, and events no view folds among them.</summary>
internal static class Deposits
{
    public static async Task Append(Appender appender, int requests, Random? chance = null)
    {
        chance ??= new Random(1);
        await Task.WhenAll(Enumerable.Range(0, requests).Select(i => appender.Append(TestStore.Request(
            $"s{i % 7}",
            [.. Enumerable.Range(0, chance.Next(1, 4)).Select(_ => chance.Next(5) == 0 ? (object)new Ignored() : new Deposited($"a{chance.Next(9)}", chance.Next(100)))]))));
    }
}
