using System.Net;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Hosting;
using Ledger.Tests.Running;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Tenants;

/// <summary>A database that somebody else has made, with an account that owns it and may do nothing beyond.</summary>
public sealed class An_account_that_is_no_superuser(PostgresFixture postgres)
{
    private readonly string _name = $"plain_{Guid.NewGuid().ToString("N")[..12]}";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task is_refused_until_an_administrator_has_made_the_roles_and_can_do_everything_then()
    {
        var (super, account) = await MakeDatabase();
        var options = new EventStoreOptions { RolePrefix = _name };
        await using (var early = Node(account))
        {
            var refusal = await Assert.ThrowsAsync<DatabaseRolesException>(async () => await early.InitializeAsync());
            Assert.StartsWith($"The account {_name} may not make the roles that keep tenants apart (", refusal.Message, StringComparison.Ordinal);
            Assert.Contains(DatabaseRoles.Script(options, _name), refusal.Message, StringComparison.Ordinal);
            Assert.Contains("LEDGER_I_ACCEPT_ONE_WALL_BETWEEN_TENANTS=yes", refusal.Message, StringComparison.Ordinal);
        }

        using var home = new TempFolder();
        (string, string)[] environment = [("LEDGER_DB", account), ("LEDGER_HOME", home.Path), ("LEDGER_ROLES", _name)];
        var (code, script) = await LedgerProgram.Run(environment, "migrate", "--roles");
        Assert.Equal((0, DatabaseRoles.Script(options, _name)), (code, script.Trim()));
        await Execute(super, script);

        var head = 0L;
        await using (var node = Node(account))
        {
            await node.InitializeAsync();
            (await node.Post("/v1/segments", new { slug = "s", rolloutPercent = "50" })).Is(HttpStatusCode.Created);
            (await node.Import("s", string.Concat(Enumerable.Range(0, 1_000).Select(i => $"u{i}\n").Prepend("userId\n")))).Is(HttpStatusCode.OK); // by COPY
            (await node.Post("/v1/reports", new { kind = "memberships", month = "2026-11" })).Is(HttpStatusCode.Created);
            await node.CatchUp(); // or it is not found waiting yet
            await node.Services.GetRequiredService<Ledger.Reports.ReportMaker>().MakeAll(Ct);
            head = await node.CatchUp();
            await node.Rebuild("Memberships");
            Assert.Equal(1_000, (await node.Get("/v1/segments/s/members?limit=1000")).Items.Count());
            Assert.Equal(head, (await node.GetAsIs("/v1/users")).Position);
            Assert.Empty(node.Errors);
            await node.Stop(); // what is made up below is none of its views'
            await using var wall = new Wall(super, options, account);
            Assert.Empty(await wall.Holes());
            // The owner itself sees nothing by mistake.
            await using var plain = NpgsqlDataSource.Create(account + ";Search Path=ledger");
            Assert.Equal(0L, await Value<long>(plain, "select count(*) from mt_events"));
        }

        await Execute(
            super,
            """
            do $$
            declare made_up regclass;
            begin
              for made_up in select c.oid from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
                             where c.relkind = 'r' and c.relnamespace = 'ledger'::regnamespace loop
                execute format('delete from %s where tenant_id like ''wall-%%''', made_up);
              end loop;
            end $$
            """);
        foreach (var verb in (string[][])[["status"], ["replay", "--view", "Memberships", "--compare"], ["rebuild", "Users"], ["verify"], ["export", "--out", Path.Combine(home.Path, "export")]])
        {
            (code, var output) = await LedgerProgram.Run(environment, verb);
            Assert.True(code == 0, $"{string.Join(' ', verb)}: {output}");
        }

        var (_, empty) = await MakeDatabase("_2", account: _name);
        (string, string)[] second = [("LEDGER_DB", empty), .. environment[1..]];
        (code, var imported) = await LedgerProgram.Run(second, "import", "--from", Path.Combine(home.Path, "export"));
        Assert.True(code == 0, imported);
        await using var restored = Node(empty);
        await restored.InitializeAsync();
        Assert.Equal(head, await restored.CatchUp());
    }

    [Fact]
    public async Task may_work_without_roles_when_that_is_said()
    {
        var (_, account) = await MakeDatabase();
        await using var node = Node(account, one: true);
        await node.InitializeAsync();
        (await node.Put("/v1/users/u", new { })).Is(HttpStatusCode.Created);
        (await node.Get("/v1/users/u")).Is(HttpStatusCode.OK);
        await node.Rebuild("Users");
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task takes_the_roles_away_again_when_that_is_said_and_brings_them_back()
    {
        var database = await postgres.CreateDatabase();
        await using (var without = new TestNode(postgres) { Database = database, Settings = s => s with { Store = s.Store with { AcceptOneWall = true } } })
        {
            await without.InitializeAsync();
            await without.Put("/v1/users/u", new { });
            await using var wall = new Wall(database);
            Assert.Contains("users: row-level security is not forced", await wall.Holes());
        }

        await using var with = new TestNode(postgres) { Database = database };
        await with.InitializeAsync();
        await using var again = new Wall(database);
        Assert.Empty(await again.Holes());
    }

    [Fact]
    public async Task never_joins_roles_that_it_finds()
    {
        var (super, account) = await MakeDatabase();
        await Execute(super, $"create role {_name}_reader; create role {_name}_writer bypassrls");
        await using var node = Node(account);

        var refusal = await Assert.ThrowsAsync<DatabaseRolesException>(async () => await node.InitializeAsync());

        Assert.StartsWith($"The role {_name}_reader is there, but the account {_name} is no member of it", refusal.Message, StringComparison.Ordinal);
    }

    private TestNode Node(string account, bool one = false) => new(postgres)
    {
        Database = account, Settings = s => s with { Store = s.Store with { RolePrefix = _name, AcceptOneWall = one } },
    };

    /// <summary>A database, as a superuser reaches it and as its owner does.</summary>
    private async Task<(string Super, string Account)> MakeDatabase(string suffix = "", string? account = null)
    {
        var server = await postgres.CreateEmptyDatabase();
        var name = _name + suffix;
        await Execute(server, account is null ? $"create role {_name} login password 'plain'" : "select 1");
        await Execute(server, $"create database {name} owner {_name}");
        var builder = new NpgsqlConnectionStringBuilder(server) { Database = name };
        return (builder.ConnectionString, new NpgsqlConnectionStringBuilder(builder.ConnectionString) { Username = _name, Password = "plain" }.ConnectionString);
    }

    private static async Task Execute(string database, string sql)
    {
        await using var source = NpgsqlDataSource.Create(database + ";Search Path=ledger;Pooling=false");
        await using var command = source.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ct);
    }

    private static async Task<T> Value<T>(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        return (T)(await command.ExecuteScalarAsync(Ct))!;
    }
}
