using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.Tests.Tenants;

/// <summary>Row-level security and the rights of the roles, tried with raw SQL.</summary>
public sealed class The_wall_in_the_database(PostgresFixture postgres)
{
    private static readonly Migrations s_migrations = new(typeof(LedgerHost).Assembly);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task stands_in_every_table()
    {
        await using var wall = new Wall(await postgres.CreateDatabase());

        Assert.Empty(await wall.Holes());
    }

    [Theory]
    [InlineData("drop policy tenant on users", "users: the reader sees 0 rows of 'wall-one'")]
    [InlineData("alter table users disable row level security", "users: the reader sees 1 rows of 'wall-one' and 1 of others")]
    [InlineData("alter table users no force row level security", "users: row-level security is not forced")]
    [InlineData("create policy more on users to ledger_reader using (true)", "users: the reader sees 1 rows of 'wall-one' and 1 of others")]
    [InlineData("create policy more on users using (true)", "users: the reader sees 1 rows of 'wall-one' and 1 of others")]
    [InlineData("drop policy tenant on users; create policy tenant on users to ledger_reader using (tenant_id = 'wall-one')", "users: the reader sees 0 rows of 'wall-other' and 1 of others")]
    [InlineData("grant delete on calls to ledger_reader", "reader: delete from calls")]
    [InlineData("grant all on schema ledger to ledger_writer", "writer: create table more")]
    [InlineData("grant update on mt_events to ledger_writer", "writer: update mt_events")]
    [InlineData("grant delete on mt_events to ledger_writer", "writer: delete from mt_events")]
    [InlineData("grant truncate on mt_events to ledger_writer", "writer: truncate mt_events")]
    [InlineData("grant select on log_salts to ledger_reader", "reader: select * from log_salts")]
    [InlineData("create table more (tenant_id varchar); grant select on more to ledger_reader", "more: row-level security is not forced")]
    [InlineData("create function more() returns bigint language sql security definer as 'select count(*) from mt_events'", "functions of the owner: log_head, log_recorded_at, more")]
    public async Task shows_its_holes_to_these_tests(string damage, string hole)
    {
        await using var wall = new Wall(await postgres.CreateDatabase());
        await wall.Do(damage);

        Assert.Contains(await wall.Holes(), h => h.StartsWith(hole, StringComparison.Ordinal));
    }

    [Fact]
    public async Task is_mended_by_the_next_start()
    {
        var database = await postgres.CreateDatabase();
        await using var wall = new Wall(database);
        await wall.Do(
            """
            drop policy tenant on users;
            alter policy tenant on services using (true);
            alter table calls disable row level security;
            alter table services no force row level security;
            create policy more on segments to ledger_reader using (true);
            create policy others on segments to pg_monitor using (true);
            grant update, delete, truncate on mt_events to ledger_writer;
            grant delete on calls to ledger_reader;
            revoke select on users from ledger_reader;
            create table more (tenant_id varchar not null primary key);
            """);

        await Migrate(database);

        Assert.Empty(await wall.Holes());
        await using var source = EventStoreDatabase.Connect(database, new EventStoreOptions(), "tests", 1);
        await using var connection = await source.OpenConnectionAsync(Ct);
        Assert.Empty(await DatabaseRoles.Missing(connection, new EventStoreOptions(), cancellation: Ct));
        await using var kept = new NpgsqlCommand("select count(*) from pg_policy where polname = 'others'", connection);
        Assert.Equal(1L, await kept.ExecuteScalarAsync(Ct));
    }

    [Fact]
    public async Task is_built_around_a_schema_from_before_it()
    {
        var database = await postgres.CreateDatabase();
        await using (var wall = new Wall(database))
        {
            // As it was: no function, no policy, no right of anybody but the owner.
            await wall.Do(
                """
                do $$ declare t record; begin
                  for t in select c.oid::regclass as name from pg_class c where c.relnamespace = 'ledger'::regnamespace and c.relkind = 'r' loop
                    execute format('alter table %s disable row level security, no force row level security', t.name);
                    execute format('revoke all on %s from ledger_reader, ledger_writer', t.name);
                  end loop;
                  for t in select polname as policy, polrelid::regclass as name from pg_policy loop
                    execute format('drop policy %I on %s', t.policy, t.name);
                  end loop;
                end $$;
                drop function log_head; drop function log_recorded_at;
                revoke all on schema ledger from ledger_reader, ledger_writer;
                delete from schema_migrations where number in (17, 18);
                insert into users (tenant_id, user_id, registered_at, version) values ('before', 'u', now(), 1);
                """);
        }

        Assert.Equal(["log_head", "log_recorded_at"], await Migrate(database));

        await using var built = new Wall(database);
        Assert.Empty(await built.Holes());
        await using var reader = EventStoreDatabase.Connect(database, new EventStoreOptions(), "tests", 1, role: DatabaseRole.Reader);
        await using var batch = TenantScope.Batch(reader, "before", new NpgsqlBatchCommand("select count(*) from users"));
        await using var result = await batch.Read(Ct);
        await result.ReadAsync(Ct);
        Assert.Equal(1, result.GetInt64(0));
    }

    [Fact]
    public async Task stands_after_every_view_was_rebuilt_and_keeps_what_others_were_granted()
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        await using var wall = new Wall(node.Database);
        await wall.Do($"do $$ begin create role auditor; exception when duplicate_object then null; end $$; grant select on users to auditor; grant select on memberships to public");
        await node.Post("/v1/segments", new { slug = "s" });
        await node.Put("/v1/users/u/segments/s", new { });
        foreach (var view in node.Services.GetRequiredService<Views>().Names)
        {
            await node.Rebuild(view);
        }

        Assert.Equal("u", (await node.Get("/v1/segments/s/members")).Each("userId").Single());
        Assert.Empty(node.Errors);
        await node.Stop(); // what is made up below is none of its views'
        Assert.Empty(await wall.Holes());
        await using var command = node.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(
            "select has_table_privilege('auditor', 'users', 'select') and has_table_privilege('auditor', 'memberships', 'select') and not has_table_privilege('auditor', 'calls', 'select')");
        Assert.True((bool)(await command.ExecuteScalarAsync(Ct))!);
    }

    [Fact]
    public async Task is_forgotten_by_a_connection_between_two_transactions()
    {
        await using var wall = new Wall(await postgres.CreateDatabase());
        Assert.Empty(await wall.Holes());
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        await node.Put("/v1/users/u", new { });
        await node.Get("/v1/users/u");
        var requests = node.Services.GetRequiredService<NpgsqlDataSource>();
        var held = new List<NpgsqlConnection>();
        for (var i = 0; i < node.Services.GetRequiredService<LedgerSettings>().RequestPoolSize; i++)
        {
            var connection = await requests.OpenConnectionAsync(Ct);
            held.Add(connection);
            await using var command = new NpgsqlCommand("select count(*), coalesce(current_setting('ledger.tenant', true), ''), current_user::text from users", connection);
            await using var reader = await command.ExecuteReaderAsync(Ct);
            await reader.ReadAsync(Ct);
            Assert.Equal((0L, "", "ledger_reader"), (reader.GetInt64(0), reader.GetString(1), reader.GetString(2)));
        }

        foreach (var connection in held)
        {
            await connection.DisposeAsync();
        }
    }

    [Fact]
    public async Task is_nothing_that_requests_can_be_answered_without()
    {
        var database = await postgres.CreateDatabase();
        await using var owner = EventStoreDatabase.Connect(database, new EventStoreOptions(), "tests", 1);

        var refusal = await Assert.ThrowsAsync<UnsafeServerException>(() => DatabaseRoles.Check(owner, new EventStoreOptions(), Ct));

        Assert.StartsWith("Requests would be answered as ", refusal.Message, StringComparison.Ordinal);
        await DatabaseRoles.Check(owner, new EventStoreOptions { AcceptOneWall = true }, Ct);
    }

    private static async Task<IReadOnlyList<string>> Migrate(string database, EventStoreOptions? options = null)
    {
        await using var owner = EventStoreDatabase.Connect(database, options ?? new EventStoreOptions(), "tests", 2);
        return await new SchemaMigrator(owner, s_migrations, options ?? new EventStoreOptions(), NullLogger<SchemaMigrator>.Instance).Migrate(Ct);
    }
}
