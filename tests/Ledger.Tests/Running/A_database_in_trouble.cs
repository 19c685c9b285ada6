using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json;
using Ledger.Hosting;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>Nodes under load while PostgreSQL is restarted, cuts its connections, or has no room left: they refuse, and recover by themselves.</summary>
public sealed class A_database_in_trouble
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task that_cuts_connections_and_is_restarted_loses_nothing_acknowledged()
    {
        var chance = Patience.Chance(out var seed);
        await using var postgres = await OwnPostgres.Start();
        using var home = new TempFolder();
        (string, string)[] environment = [("LEDGER_DB", postgres.ConnectionString), ("LEDGER_HOME", home.Path), ("LEDGER_SWEEP_SECONDS", "1"), ("LEDGER_POOL_SIZE", "24")];
        var nodes = await Task.WhenAll(UpProcess.Start(postgres.ConnectionString, environment), UpProcess.Start(postgres.ConnectionString, environment));
        try
        {
            using var swarm = await Swarm.Start(() => [.. nodes.Select(n => n.Address)], seed);
            var kept = Path.Combine(home.Path, "kept");
            await Patience.Until(async () => await Several_nodes.Kept(nodes[0].Client, kept), "a checkpoint is signed");

            await CutConnections(postgres, chance, LongTests.Wanted ? 1_000 : 60, swarm);
            for (var round = 0; round < (LongTests.Wanted ? 10 : 1); round++)
            {
                foreach (var mode in (string[])["fast", "immediate"])
                {
                    await swarm.Acknowledges(50);
                    await postgres.Stop(mode);
                    await AssertRefused(nodes[round % 2].Client);
                    await postgres.StartAgain();
                }
            }

            await swarm.Acknowledges(200);
            await swarm.Stop();
            var log = await swarm.ReadLog(postgres.ConnectionString);
            Assert.Empty(swarm.FaultsOf(log));
            Assert.Contains(swarm.Refusals.Keys, r => r == "503 store-unavailable");
            await swarm.AssertAnswers(nodes[1].Client, log.Count);
            await AssertReady(nodes);
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
    public async Task that_is_private_and_killed_is_started_again_with_what_was_acknowledged()
    {
        using var home = new TempFolder();
        await using var node = await UpProcess.Start("", ("LEDGER_HOME", Path.Combine(home.Path, ".ledger")), ("LEDGER_SWEEP_SECONDS", "1"), ("LEDGER_POOL_SIZE", "24"));
        var data = node.Output.Single(l => l.StartsWith("Data lies in ", StringComparison.Ordinal))["Data lies in ".Length..];
        for (var round = 0; round < 2; round++)
        {
            Assert.Equal(HttpStatusCode.Created, await Put($"before-{round}"));
            var killed = await Postmaster();
            PostgresProcesses.Send(PostgresProcesses.Signal.Kill, killed);

            await Patience.Until(() => Task.FromResult(node.Output.Count(l => l.StartsWith("PostgreSQL runs again", StringComparison.Ordinal)) > round), "PostgreSQL is started again");
            await AssertReady([node]);
            Assert.NotEqual(killed, await Postmaster());
            // Connections of before may still be refused.
            await Patience.Until(async () => await Put($"before-{round}") == HttpStatusCode.OK, "what was acknowledged is there");
            await Patience.Until(async () => await Put($"after-{round}") is HttpStatusCode.Created or HttpStatusCode.OK, "commands are taken");
        }

        await node.Stop();
        Assert.Contains("Ledger has stopped", node.Output);
        Assert.False(File.Exists(Path.Combine(data, "postmaster.pid"))); // and PostgreSQL with it

        async Task<HttpStatusCode> Put(string user)
        {
            using var body = new StringContent("""{"attributes":{"a":1}}""", Encoding.UTF8, "application/json");
            using var answer = await node.Client.PutAsync(new Uri($"/v1/users/{user}", UriKind.Relative), body, Ct);
            return answer.StatusCode;
        }

        async Task<int> Postmaster() => int.Parse((await File.ReadAllLinesAsync(Path.Combine(data, "postmaster.pid"), Ct))[0], CultureInfo.InvariantCulture);
    }

    [Fact]
    public async Task that_has_no_room_for_data_refuses_and_answers_queries_until_there_is_room_again()
    {
        _ = Patience.Chance(out var seed);
        await using var disk = await SmallDisk.Mount(megabytes: 96);
        using var home = new TempFolder();
        var postgres = await disk.StartPostgres();
        (string, string)[] environment = [("LEDGER_DB", postgres.ConnectionString), ("LEDGER_HOME", home.Path), ("LEDGER_SWEEP_SECONDS", "1"), ("LEDGER_POOL_SIZE", "24")];
        await using var node = await UpProcess.Start(postgres.ConnectionString, environment);
        using var swarm = await Swarm.Start(() => [node.Address], seed);
        var kept = Path.Combine(home.Path, "kept");
        await Patience.Until(async () => await Several_nodes.Kept(node.Client, kept), "a checkpoint is signed");
        await swarm.Acknowledges(50);

        for (var round = 0; round < (LongTests.Wanted ? 5 : 1); round++)
        {
            await disk.Fill();
            await Patience.Until(() => Task.FromResult(swarm.Refusals.ContainsKey("503 store-unavailable")), "a command is refused");
            await Patience.Until(() => swarm.IsStill(TimeSpan.FromSeconds(1)), "pages that were there have no room either");
            await AssertRefused(node.Client, queriesWork: true);
            Assert.True(await disk.IsFull(), "The disk is not full any more.");
            await disk.MakeRoom();
            await swarm.Acknowledges(100);
        }

        await swarm.Stop();
        var log = await swarm.ReadLog(postgres.ConnectionString);
        Assert.Empty(swarm.FaultsOf(log));
        await swarm.AssertAnswers(node.Client, log.Count);
        await AssertReady([node]);
        await Several_nodes.AssertVerified(environment, node.Client, kept, log.Count);
    }

    [Fact]
    public async Task that_has_no_room_for_its_log_of_changes_is_down_until_there_is_and_has_lost_nothing()
    {
        _ = Patience.Chance(out var seed);
        await using var disk = await SmallDisk.Mount(megabytes: 96);
        using var home = new TempFolder();
        var postgres = await disk.StartPostgres(walOnly: true);
        (string, string)[] environment = [("LEDGER_DB", postgres.ConnectionString), ("LEDGER_HOME", home.Path), ("LEDGER_SWEEP_SECONDS", "1"), ("LEDGER_POOL_SIZE", "24")];
        await using var node = await UpProcess.Start(postgres.ConnectionString, environment);
        using var swarm = await Swarm.Start(() => [node.Address], seed);
        var kept = Path.Combine(home.Path, "kept");
        await Patience.Until(async () => await Several_nodes.Kept(node.Client, kept), "a checkpoint is signed");
        await swarm.Acknowledges(50);

        await disk.Fill();
        await postgres.Try("select pg_switch_wal()"); // what is left of the segment would last for a while
        await Patience.Until(() => Task.FromResult(swarm.Refusals.ContainsKey("503 store-unavailable")), "a command is refused");
        await AssertRefused(node.Client);
        await disk.MakeRoom();
        if (!await postgres.Runs())
        {
            await postgres.StartAgain();
        }

        await swarm.Acknowledges(100);
        await swarm.Stop();
        var log = await swarm.ReadLog(postgres.ConnectionString);
        Assert.Empty(swarm.FaultsOf(log));
        await AssertReady([node]);
        await Several_nodes.AssertVerified(environment, node.Client, kept, log.Count);
    }

    /// <summary>Ends one connection of the nodes after another, at random, while commands are acknowledged.</summary>
    private static async Task CutConnections(OwnPostgres postgres, Random chance, int cuts, Swarm swarm)
    {
        var before = swarm.Commands;
        await using var direct = NpgsqlDataSource.Create(postgres.ConnectionString + ";Application Name=watcher;Maximum Pool Size=1");
        for (var cut = 0; cut < cuts;)
        {
            await using var command = direct.CreateCommand(
                """
                select pg_terminate_backend(pid) from (
                  select pid from pg_stat_activity where application_name like 'ledger%' order by pid offset $1 limit 1) a
                """);
            command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = chance.Next(12) });
            cut += await command.ExecuteScalarAsync(Ct) is true ? 1 : 0;
            await Task.Delay(chance.Next(40), Ct);
        }

        await swarm.Acknowledges(50);
        TestContext.Current.TestOutputHelper?.WriteLine($"{swarm.Commands - before} commands while {cuts} connections were cut");
    }

    /// <summary>A command is answered 503 with a time to come back after, and so is a query, unless the database can still read.</summary>
    private static async Task AssertRefused(HttpClient node, bool queriesWork = false)
    {
        using var body = new StringContent("""{"attributes":{"a":1}}""", Encoding.UTF8, "application/json");
        using var command = await node.PutAsync(new Uri("/v1/users/refused", UriKind.Relative), body, Ct);
        await AssertUnavailable(command);
        using var query = await node.GetAsync(new Uri("/v1/segments/counts", UriKind.Relative), Ct);
        if (queriesWork)
        {
            Assert.Equal(HttpStatusCode.OK, query.StatusCode);
        }
        else
        {
            await AssertUnavailable(query);
            using var ready = await node.GetAsync(new Uri("/health/ready", UriKind.Relative), Ct);
            Assert.Equal(HttpStatusCode.ServiceUnavailable, ready.StatusCode);
        }

        static async Task AssertUnavailable(HttpResponseMessage answer)
        {
            var text = await answer.Content.ReadAsStringAsync(Ct);
            Assert.True(answer.StatusCode == HttpStatusCode.ServiceUnavailable, $"{answer.StatusCode} {text}");
            Assert.Equal("store-unavailable", JsonElement.Parse(text).GetProperty("code").GetString());
            Assert.Equal(5, answer.Headers.RetryAfter?.Delta?.TotalSeconds);
        }
    }

    /// <summary>Every node is ready again, without anybody having done anything, and none has logged a bug.</summary>
    private static async Task AssertReady(IEnumerable<UpProcess> nodes)
    {
        foreach (var node in nodes)
        {
            await Patience.Until(async () => (await node.Client.GetAsync(new Uri("/health/ready", UriKind.Relative), Ct)).IsSuccessStatusCode, "a node is ready");
            Assert.Contains("\nledger_checkpoint_refused 0\n", await node.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Ct), StringComparison.Ordinal);
            node.AssertNoErrors();
        }
    }
}
