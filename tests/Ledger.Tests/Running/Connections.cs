using System.Net;
using System.Text;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>How many connections nodes take, and that they work through a pooler.</summary>
public sealed class Connections(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task of_a_node_are_never_more_than_it_may_have_and_none_of_those_it_keeps_the_views_with_go_to_requests()
    {
        var database = await postgres.CreateDatabase();
        using var home = new TempFolder();
        await using var node = await UpProcess.Start(
            database, ("LEDGER_HOME", home.Path), ("LEDGER_POOL_SIZE", $"{LedgerSettings.MinPoolSize}"));
        await using var direct = NpgsqlDataSource.Create(database + ";Search Path=ledger;Maximum Pool Size=3;Application Name=watcher");
        await Patience.Until(async () => await Value<bool>(direct, "select exists (select from daemon_lease)"), "the node takes the lease");
        var epoch = await Value<long>(direct, "select epoch from daemon_lease");

        // Queries that wait hold every connection there is for requests.
        const int ForRequests = LedgerSettings.MinPoolSize - BackgroundDatabase.PoolSize - AllTenantsDatabase.PoolSize - OwnerDatabase.PoolSize;
        await using var locking = await direct.OpenConnectionAsync(Ct);
        await using var locked = await locking.BeginTransactionAsync(Ct);
        await using (var command = new NpgsqlCommand("lock table services in access exclusive mode", locking))
        {
            await command.ExecuteNonQueryAsync(Ct);
        }

        var waiting = Enumerable.Range(0, ForRequests).Select(_ => node.Client.GetAsync(new Uri("/v1/services", UriKind.Relative), Ct)).ToArray();
        await Patience.Until(
            async () => await Value<long>(direct, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ledger' and wait_event_type = 'Lock'") == ForRequests,
            "every connection for requests is held");
        // Meanwhile the views follow what somebody else stores, and the lease stays where it is.
        await using (var other = await UpProcess.Start(database, ("LEDGER_HOME", home.Path), ("LEDGER_POOL_SIZE", $"{LedgerSettings.MinPoolSize}")))
        {
            using var put = new HttpRequestMessage(HttpMethod.Put, new Uri(other.Address, "/v1/users/meanwhile")) { Content = Json("{}") };
            using var stored = await other.Client.SendAsync(put, Ct);
            Assert.Equal(HttpStatusCode.Created, stored.StatusCode);
            using var get = new HttpRequestMessage(HttpMethod.Get, new Uri(other.Address, "/v1/users/meanwhile"))
            {
                Headers = { { "Ledger-Min-Position", stored.Headers.GetValues("Ledger-Position").Single() }, { "Prefer", "wait=30" } },
            };
            using var seen = await other.Client.SendAsync(get, Ct);
            Assert.Equal(HttpStatusCode.OK, seen.StatusCode);
            Assert.Equal(epoch, await Value<long>(direct, "select epoch from daemon_lease"));
        }

        await locked.RollbackAsync(Ct);
        foreach (var answer in await Task.WhenAll(waiting))
        {
            Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        }

        var most = 0L;
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(Ct);
        var watching = Task.Run(
            async () =>
            {
                while (!enough.IsCancellationRequested)
                {
                    most = Math.Max(most, await Value<long>(direct, "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'ledger%'"));
                    await Task.Delay(10);
                }
            },
            Ct);
        var requests = Enumerable.Range(0, 40).Select(async client =>
        {
            for (var i = 0; i < 15; i++)
            {
                using var command = await node.Client.PutAsync(new Uri($"/v1/users/load-{client}-{i}", UriKind.Relative), Json("{}"), Ct);
                Assert.Equal(HttpStatusCode.Created, command.StatusCode);
                using var query = await node.Client.GetAsync(new Uri("/v1/segments/counts", UriKind.Relative), Ct);
                Assert.Equal(HttpStatusCode.OK, query.StatusCode);
            }
        });
        await Task.WhenAll(requests);
        await enough.CancelAsync();
        await watching;
        TestContext.Current.TestOutputHelper?.WriteLine($"{most} connections at most");
        Assert.InRange(most, BackgroundDatabase.PoolSize / 2, LedgerSettings.MinPoolSize);
    }

    [Fact]
    public async Task through_a_pooler_by_the_transaction_do_everything_and_are_shared_by_all_nodes()
    {
        var chance = Patience.Chance(out var seed);
        var database = await postgres.CreateDatabase();
        await using var bouncer = await PgBouncer.Start(database);
        using var home = new TempFolder();
        (string, string)[] environment = [("LEDGER_DB", bouncer.Through(database)), ("LEDGER_DB_DIRECT", database), ("LEDGER_HOME", home.Path), ("LEDGER_SWEEP_SECONDS", "1")];
        var nodes = await Task.WhenAll(UpProcess.Start(bouncer.Through(database), environment), UpProcess.Start(bouncer.Through(database), environment));
        try
        {
            await using var direct = NpgsqlDataSource.Create(database + ";Search Path=ledger;Maximum Pool Size=3;Application Name=watcher");
            using var swarm = await Swarm.Start(() => [.. nodes.Select(n => n.Address)], seed, clients: 12);
            var kept = Path.Combine(home.Path, "kept");
            await Patience.Until(async () => await Several_nodes.Kept(nodes[0].Client, kept), "a checkpoint is signed");
            var (pooled, own) = (0L, 0L);
            for (var i = 0; i < 20; i++)
            {
                await swarm.Acknowledges(20);
                pooled = Math.Max(pooled, await Value<long>(direct, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ledger'"));
                own = Math.Max(own, await Value<long>(direct, "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ledger-background'"));
            }

            Assert.InRange(pooled, 1, PgBouncer.ServerConnections);
            Assert.InRange(own, 2, nodes.Length * BackgroundDatabase.PoolSize);

            await AssertEveryServerConnectionIsSetUp(bouncer.Through(database));
            (await nodes[1].Client.PostAsync(new Uri("/v1/projections/Memberships/rebuild", UriKind.Relative), null, Ct)).EnsureSuccessStatusCode();
            await Import(nodes[1], 3_000); // by COPY
            using var report = await nodes[0].Client.PostAsync(new Uri("/v1/reports", UriKind.Relative), Json("""{"kind":"memberships","month":"2026-11"}"""), Ct);
            Assert.Equal(HttpStatusCode.Created, report.StatusCode);
            var link = new Uri(report.Headers.Location + ".csv", UriKind.Relative);
            await Patience.Until(async () => (await nodes[1].Client.GetAsync(link, Ct)).IsSuccessStatusCode, "the report is made");
            await Patience.Until(async () => await Value<bool>(direct, "select rebuild is null and rebuilt_at is not null from projections where name = 'Memberships'"), "the rebuild is done");

            await swarm.Stop();
            var log = await swarm.ReadLog(database);
            // The import's users are none of the swarm's.
            Assert.Equal(3_000, log.Count(e => e.Stream.StartsWith("user-imported-", StringComparison.Ordinal)));
            Assert.DoesNotContain(swarm.FaultsOf(log), f => !f.Contains("user-imported-", StringComparison.Ordinal));
            await swarm.AssertAnswers(nodes[1].Client, log.Count);
            foreach (var node in nodes)
            {
                node.AssertNoErrors();
            }

            await Several_nodes.AssertVerified(environment, nodes[0].Client, kept, log.Count);
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
    public async Task through_a_pooler_are_never_handed_from_a_node_that_starts_to_another_without_their_settings()
    {
        var database = await postgres.CreateDatabase();
        var options = new LedgerSettings { Database = database }.Store;
        for (var i = 0; i < 10; i++)
        {
            await using var bouncer = await PgBouncer.Start(database); // with an account of its own
            await Task.WhenAll(Enumerable.Range(0, 12).Select(async _ =>
            {
                await using var node = PooledDatabase.Connect(bouncer.Through(database), "ledger", 2);
                await PooledDatabase.Configure(node, options, Ct);
                await PooledDatabase.Check(node, options, Ct);
            }));
            await AssertEveryServerConnectionIsSetUp(bouncer.Through(database));
        }
    }

    [Fact]
    public async Task that_a_pooler_made_before_the_account_had_its_settings_are_refused()
    {
        var database = await postgres.CreateDatabase();
        await using var bouncer = await PgBouncer.Start(database);
        await using (var early = NpgsqlDataSource.Create(bouncer.Through(database) + ";No Reset On Close=true"))
        {
            // Two at once: the node puts an end to the one by which it sets them.
            await using var one = await early.OpenConnectionAsync(Ct);
            await using var transaction = await one.BeginTransactionAsync(Ct);
            await using var command = new NpgsqlCommand("select current_setting('plan_cache_mode')", one);
            Assert.Equal("auto", await command.ExecuteScalarAsync(Ct));
            Assert.Equal("auto", await Value<string>(early, "select current_setting('plan_cache_mode')"));
        }

        using var home = new TempFolder();
        var settings = new LedgerSettings { Urls = "http://127.0.0.1:0", Database = bouncer.Through(database), DirectDatabase = database, Home = home.Path };
        await using (var node = LedgerHost.Build(settings, settings.Database, configure: b => b.Logging.SetMinimumLevel(LogLevel.Critical)))
        {
            var refusal = await Assert.ThrowsAsync<UnsafeServerException>(() => node.StartAsync(Ct));
            Assert.StartsWith("The pooler's connection has plan_cache_mode = 'auto', and not 'force_generic_plan'", refusal.Message, StringComparison.Ordinal);
        }

        await using var server = NpgsqlDataSource.Create(database + ";Application Name=watcher");
        await Value<long>(server, "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database() and application_name <> 'watcher'");
        await using var again = LedgerHost.Build(settings, settings.Database, configure: b => b.Logging.SetMinimumLevel(LogLevel.Critical));
        await again.StartAsync(Ct);
        await again.StopAsync(Ct);
    }

    [Fact]
    public async Task through_a_pooler_whose_account_could_see_no_tenant_are_refused()
    {
        var database = await postgres.CreateDatabase();
        await using var bouncer = await PgBouncer.Start(database, member: "pg_monitor");
        using var home = new TempFolder();
        var settings = new LedgerSettings { Urls = "http://127.0.0.1:0", Database = bouncer.Through(database), DirectDatabase = database, Home = home.Path };
        await using var node = LedgerHost.Build(settings, settings.Database, configure: b => b.Logging.SetMinimumLevel(LogLevel.Critical));

        var refusal = await Assert.ThrowsAsync<UnsafeServerException>(() => node.StartAsync(Ct));

        Assert.Matches("^The pooler logs in as pooler_[0-9a-f]+, which is no member of ledger_reader", refusal.Message);
    }

    [Fact]
    public void past_a_pooler_that_is_not_named_are_a_mistake()
    {
        var refusal = Assert.Throws<SettingsException>(() => LedgerSettings.FromEnvironment(name => name == "LEDGER_DB_DIRECT" ? "Host=server" : null));

        Assert.Equal("LEDGER_DB_DIRECT leads past the pooler that LEDGER_DB names, but LEDGER_DB is not set.", refusal.Message);
    }

    [Theory]
    [InlineData(LedgerSettings.MinPoolSize - 1, false)]
    [InlineData(LedgerSettings.MinPoolSize, true)]
    [InlineData(LedgerSettings.MaxPoolSize, true)]
    [InlineData(LedgerSettings.MaxPoolSize + 1, false)]
    public void are_as_many_as_is_set_within_limits(int number, bool fits)
    {
        LedgerSettings Read() => LedgerSettings.FromEnvironment(name => name == "LEDGER_POOL_SIZE" ? $"{number}" : null);

        if (fits)
        {
            Assert.Equal(number, Read().PoolSize);
        }
        else
        {
            Assert.Equal(
                $"LEDGER_POOL_SIZE must be a whole number from {LedgerSettings.MinPoolSize} to {LedgerSettings.MaxPoolSize}; it is '{number}'.",
                Assert.Throws<SettingsException>(Read).Message);
        }
    }

    /// <summary>Holds as many at once as the pooler has, so that each is looked at.</summary>
    private static async Task AssertEveryServerConnectionIsSetUp(string pooled)
    {
        await using var source = NpgsqlDataSource.Create(pooled + ";No Reset On Close=true");
        var held = new List<NpgsqlConnection>();
        for (var i = 0; i < PgBouncer.ServerConnections - 2; i++)
        {
            var connection = await source.OpenConnectionAsync(Ct);
            held.Add(connection);
            await using var command = new NpgsqlCommand(
                "begin; select current_setting('plan_cache_mode') || ' ' || current_setting('enable_seqscan') || ' ' || current_setting('enable_hashjoin') || ' ' || current_setting('search_path') || ' ' || current_setting('idle_in_transaction_session_timeout') || ' ' || current_user || ' ' || (select count(*) from mt_events)", connection);
            Assert.Equal("force_generic_plan off off ledger 5s ledger_reader 0", await command.ExecuteScalarAsync(Ct));
        }

        foreach (var connection in held)
        {
            await using var command = new NpgsqlCommand("rollback", connection);
            await command.ExecuteNonQueryAsync(Ct);
            await connection.DisposeAsync();
        }
    }

    private static async Task Import(UpProcess node, int members)
    {
        (await node.Client.PostAsync(new Uri("/v1/segments", UriKind.Relative), Json("""{"slug":"imported"}"""), Ct)).EnsureSuccessStatusCode();
        using var lines = new StringContent(
            string.Concat(Enumerable.Range(0, members).Select(i => $"imported-{i}-{new string('x', 60)}\n").Prepend("userId\n")), Encoding.UTF8, "text/csv");
        using var receipt = await node.Client.PostAsync(new Uri("/v1/segments/imported/members", UriKind.Relative), lines, Ct);
        Assert.Equal(members, JsonElement.Parse(await receipt.Content.ReadAsStringAsync(Ct)).GetProperty("joined").GetInt32());
    }

    private static StringContent Json(string text) => new(text, Encoding.UTF8, "application/json");

    private static async Task<T> Value<T>(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(Ct))!;
    }
}
