using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>Processes on one database, under load, while the one that keeps the views is killed, frozen or stopped.</summary>
public sealed class Several_nodes(PostgresFixture postgres)
{
    private const int Nodes = 3;
    private static readonly TimeSpan s_longestMove = TimeSpan.FromSeconds(5);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private enum Fault
    {
        Freeze,
        Kill,
        Stop,
    }

    [Fact]
    public async Task lose_nothing_and_go_on_within_five_seconds_when_the_one_that_keeps_the_views_is_gone()
    {
        var chance = Patience.Chance(out var seed);
        var database = await postgres.CreateDatabase();
        using var home = new TempFolder();
        (string, string)[] environment = [("LEDGER_DB", database), ("LEDGER_HOME", home.Path), ("LEDGER_SWEEP_SECONDS", "1"), ("LEDGER_POOL_SIZE", "24")];
        var nodes = ImmutableList.CreateRange(await Task.WhenAll(Enumerable.Range(0, Nodes).Select(_ => UpProcess.Start(database, environment))));
        try
        {
            await using var direct = NpgsqlDataSource.Create(database + ";Search Path=ledger;Maximum Pool Size=3");
            using var swarm = await Swarm.Start(() => [.. nodes.Select(n => n.Address)], seed);
            await swarm.Acknowledges(50);
            var kept = Path.Combine(home.Path, "kept");
            await Patience.Until(async () => await Kept(nodes[0].Client, kept), "a checkpoint is signed");

            Fault[] faults = LongTests.Wanted ? [.. Enumerable.Range(0, 20).Select(_ => (Fault)chance.Next(3))] : [Fault.Freeze, Fault.Kill, Fault.Stop];
            foreach (var fault in faults)
            {
                var (pid, epoch) = await Lease(direct);
                var leader = nodes.Single(n => n.ProcessId == pid);
                var moved = await Move(direct, epoch, fault switch { Fault.Freeze => leader.Freeze, Fault.Kill => leader.Kill, _ => leader.Stop });
                TestContext.Current.TestOutputHelper?.WriteLine($"{fault}: the views moved after {moved.TotalSeconds:0.00} s");
                Assert.True(moved < s_longestMove, $"{fault}: the views moved after {moved}.");
                await swarm.Acknowledges(20); // slowly: a client that comes to a frozen node waits before it tries another
                if (fault == Fault.Freeze)
                {
                    await leader.Thaw();
                    await Patience.Until(() => Task.FromResult(leader.Output.Any(l => l.Contains("keeps the views: False", StringComparison.Ordinal))), "the one that was frozen gives up");
                }
                else
                {
                    var another = await UpProcess.Start(database, environment);
                    nodes = nodes.Replace(leader, another);
                    await leader.DisposeAsync();
                }

                await swarm.Acknowledges(100);
            }

            await swarm.Stop();
            var log = await swarm.ReadLog(database);
            Assert.Empty(swarm.FaultsOf(log));
            Assert.All(Swarm.Spoiled(log, chance), spoiled => Assert.True(swarm.FaultsOf(spoiled.Log).Count > 0, $"Nobody sees that {spoiled.How}."));
            await swarm.AssertAnswers(nodes[^1].Client, log.Count);
            foreach (var node in nodes)
            {
                await Patience.Until(async () => (await node.Client.GetAsync(new Uri("/health/ready", UriKind.Relative), Ct)).IsSuccessStatusCode, "a node is ready");
                Assert.Contains("\nledger_checkpoint_refused 0\n", await node.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), StringComparison.Ordinal);
                node.AssertNoErrors();
            }

            await AssertVerified(environment, nodes[0].Client, kept, log.Count);
        }
        finally
        {
            foreach (var node in nodes)
            {
                await node.DisposeAsync();
            }
        }
    }

    [Fact]
    public async Task agree_on_who_keeps_the_views_by_the_databases_clock_and_not_by_their_own()
    {
        await using var ahead = new TestNode(postgres) { WallClock = new ShiftedClock(TimeSpan.FromHours(6)) };
        await ahead.InitializeAsync();
        await using var direct = NpgsqlDataSource.Create(ahead.Database + ";Search Path=ledger;Maximum Pool Size=2");
        await Patience.Until(async () => await Value<long>(direct, "select coalesce(max(epoch), 0) from daemon_lease") == 1, "a node takes the lease");
        await using var behind = await ahead.StartBeside(new ShiftedClock(TimeSpan.FromHours(-6)));

        var expiries = new HashSet<DateTime>();
        await Patience.Until(
            async () =>
            {
                Assert.Equal(1, await Value<long>(direct, "select epoch from daemon_lease"));
                Assert.True(await Value<bool>(direct, $"select expires_at <= clock_timestamp() + interval '{new EventStoreOptions().LeaseDuration.TotalSeconds} s' from daemon_lease"));
                expiries.Add(await Value<DateTime>(direct, "select expires_at from daemon_lease"));
                return expiries.Count > 4;
            },
            "the lease is renewed again and again");

        var moved = await Move(direct, 1, ahead.Stop);
        Assert.True(moved < s_longestMove, $"The views moved after {moved}.");
        (await behind.Put("/v1/users/u1", new { })).Is(HttpStatusCode.Created);
        (await behind.Get("/v1/users/u1")).Is(HttpStatusCode.OK);
        Assert.Empty(ahead.Errors.Concat(behind.Errors));
    }

    /// <summary>Keeps the newest checkpoint, if there is one.</summary>
    internal static async Task<bool> Kept(HttpClient node, string file)
    {
        using var response = await node.GetAsync(new Uri("/v1/log/checkpoint", UriKind.Relative), Ct);
        if (response.IsSuccessStatusCode)
        {
            await File.WriteAllTextAsync(file, await response.Content.ReadAsStringAsync(Ct), Ct);
        }

        return response.IsSuccessStatusCode;
    }

    /// <summary>Keeps the newest checkpoint; whether it is the one of so many events.</summary>
    internal static async Task<bool> Covers(HttpClient node, string file, int events) =>
        await Kept(node, file) && (await File.ReadAllLinesAsync(file, Ct))[1] == events.ToString(CultureInfo.InvariantCulture);

    /// <summary>Lets the program compute log and views anew, and compare.</summary>
    internal static async Task AssertVerified((string, string)[] environment, HttpClient node, string kept, int events)
    {
        var key = (await node.GetStringAsync(new Uri("/v1/log/key", UriKind.Relative), Ct)).Split('\n')[0];
        await Patience.Until(() => Covers(node, $"{kept}.newest", events), "a checkpoint covers everything");
        var (code, output) = await LedgerProgram.Run(environment, "verify", "--key", key, "--since", kept, "--views");
        Assert.True(code == 0, output);
        Assert.Contains($"OK: {events} events", output, StringComparison.Ordinal);
        Assert.Contains("Memberships is what a replay of the log gives", output, StringComparison.Ordinal);
    }

    private static async Task<(int ProcessId, long Epoch)> Lease(NpgsqlDataSource database)
    {
        var lease = "";
        await Patience.Until(async () => (lease = await Value<string>(database, "select coalesce(max(holder || '/' || epoch) filter (where expires_at > clock_timestamp()), '') from daemon_lease")).Length > 0, "a node keeps the views");
        var parts = lease.Split('/');
        return (int.Parse(parts[1], CultureInfo.InvariantCulture), long.Parse(parts[3], CultureInfo.InvariantCulture));
    }

    /// <summary>
    /// How long it takes from before the deed until another node has the lease. When the test itself was kept from looking, the
    /// machine stood still for the nodes as well: that time does not count.
    /// </summary>
    private static async Task<TimeSpan> Move(NpgsqlDataSource database, long epoch, Func<Task> deed)
    {
        var clock = Stopwatch.StartNew();
        var done = deed();
        var (stalled, last) = (TimeSpan.Zero, clock.Elapsed);
        await Patience.Until(
            async () =>
            {
                var moved = await Value<long>(database, "select epoch from daemon_lease") != epoch;
                var pause = clock.Elapsed - last - TimeSpan.FromMilliseconds(200);
                stalled += pause > TimeSpan.Zero ? pause : TimeSpan.Zero;
                last = clock.Elapsed;
                return moved;
            },
            "another node keeps the views");
        var moved = clock.Elapsed - stalled;
        await done;
        return moved;
    }

    private static async Task<T> Value<T>(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(Ct))!;
    }

    private sealed class ShiftedClock(TimeSpan shift) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => System.GetUtcNow() + shift;
    }
}
