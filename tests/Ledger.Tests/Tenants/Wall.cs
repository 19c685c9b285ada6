using Ledger.EventStore;
using Npgsql;

namespace Ledger.Tests.Tenants;

/// <summary>
/// Tries the wall between tenants with raw SQL, in the roles that a node has: every table that the catalogue knows, so that a new one
/// is tried as well.
/// </summary>
internal sealed class Wall : IAsyncDisposable
{
    private const string One = "wall-one";
    private const string Other = "wall-other";

    private static readonly string[] s_secrets = ["log_salts", "log_tenants", "log_erasures"];

    private readonly NpgsqlDataSource _super;
    private readonly NpgsqlDataSource _reader;
    private readonly NpgsqlDataSource _writer;
    private readonly EventStoreOptions _options;

    /// <param name="database">The connection of a superuser, whom no policy binds.</param>
    /// <param name="options">Schema and roles.</param>
    /// <param name="account">The connection of the node's account, where that is another.</param>
    public Wall(string database, EventStoreOptions? options = null, string? account = null)
    {
        _options = options ?? new EventStoreOptions();
        _super = EventStoreDatabase.Connect(database, _options, "wall", 2);
        _reader = EventStoreDatabase.Connect(account ?? database, _options, "wall", 2, role: DatabaseRole.Reader);
        _writer = EventStoreDatabase.Connect(account ?? database, _options, "wall", 2, role: DatabaseRole.Writer);
    }

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>Runs a statement that nobody is kept from.</summary>
    public async Task Do(string sql)
    {
        await using var command = _super.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ct);
    }

    /// <summary>Where the wall has a hole; with rows of two tenants in every table that has a <c>tenant_id</c>.</summary>
    public async Task<List<string>> Holes()
    {
        var holes = new List<string>();
        var tables = await Tables();
        foreach (var (table, columns) in tables)
        {
            if (columns.Any(c => c.Name == "tenant_id"))
            {
                await Fill(table, columns);
                await TryReading(table, holes);
            }

            foreach (var write in (string[])[$"insert into {table} default values", $"update {table} set {columns[0].Name} = {columns[0].Name}", $"delete from {table}", $"truncate {table}"])
            {
                await Try(_reader, "reader", write, holes);
            }

            foreach (var change in (string[])[$"truncate {table}", $"drop table {table}", $"alter table {table} disable row level security"])
            {
                await Try(_writer, "writer", change, holes);
            }
        }

        foreach (var change in (string[])["drop policy tenant on mt_events", "update mt_events set data = '{}'", "update mt_events set seq_id = seq_id", "delete from mt_events", "delete from mt_streams", "delete from schema_migrations"])
        {
            await Try(_writer, "writer", change, holes);
        }

        foreach (var (database, role) in new[] { (_reader, "reader"), (_writer, "writer") })
        {
            await Try(database, role, "create table more (x int)", holes);
            await Try(database, role, "create function more() returns int language sql as 'select 1'", holes);
            await Try(database, role, "drop function log_head()", holes);
            await Try(database, role, "create role more", holes);
            await Try(database, role, "create schema more", holes);
        }

        foreach (var secret in s_secrets)
        {
            await Try(_reader, "reader", $"select * from {secret}", holes);
        }

        await using var command = _super.CreateCommand(
            "select array(select proname::text from pg_proc where pronamespace = to_regnamespace($1) and prosecdef order by 1)");
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = _options.Schema });
        var functions = (string[])(await command.ExecuteScalarAsync(Ct))!;
        if (!functions.SequenceEqual(["log_head", "log_recorded_at"]))
        {
            holes.Add($"functions of the owner: {string.Join(", ", functions)}");
        }

        return holes;
    }

    public async ValueTask DisposeAsync()
    {
        await _reader.DisposeAsync();
        await _writer.DisposeAsync();
        await _super.DisposeAsync();
    }

    /// <summary>The tenant's own rows, all of them, and no other's; none without a tenant, whatever else is set.</summary>
    private async Task TryReading(string table, List<string> holes)
    {
        await using (var flags = _super.CreateCommand("select relrowsecurity and relforcerowsecurity from pg_class where oid = to_regclass($1)"))
        {
            flags.Parameters.Add(new NpgsqlParameter<string> { TypedValue = table });
            if (!(bool)(await flags.ExecuteScalarAsync(Ct))!)
            {
                holes.Add($"{table}: row-level security is not forced");
            }
        }

        if (s_secrets.Contains(table))
        {
            return; // not read at all
        }

        foreach (var (tenant, setting, expected) in new[] { (One, "", 1), (Other, "", 1), ("", "", 0), ("nobody", "", 0), ("", "set local ledger.all_tenants = 'on'", 0), ("*", "set local row_security = on", 0) })
        {
            await using var connection = await _reader.OpenConnectionAsync(Ct);
            await using var transaction = await connection.BeginTransactionAsync(Ct);
            if (setting.Length > 0)
            {
                await using var set = new NpgsqlCommand(setting, connection);
                await set.ExecuteNonQueryAsync(Ct);
            }

            if (tenant.Length > 0)
            {
                await using var name = new NpgsqlBatch(connection) { BatchCommands = { TenantScope.Of(tenant) } };
                await name.ExecuteNonQueryAsync(Ct);
            }

            await using var command = new NpgsqlCommand(
                $"select count(*) filter (where tenant_id = $1), count(*) filter (where tenant_id is distinct from $1) from {table}", connection)
            {
                Parameters = { new NpgsqlParameter<string> { TypedValue = tenant } },
            };
            try
            {
                await using var reader = await command.ExecuteReaderAsync(Ct);
                await reader.ReadAsync(Ct);
                if ((reader.GetInt64(0), reader.GetInt64(1)) is var (own, others) && (own, others) != (expected, 0))
                {
                    holes.Add($"{table}: the reader sees {own} rows of '{tenant}' and {others} of others, with '{setting}'");
                }
            }
            catch (PostgresException exception)
            {
                holes.Add($"{table}: {exception.MessageText}");
            }
        }
    }

    private static async Task Try(NpgsqlDataSource database, string role, string sql, List<string> holes)
    {
        await using var connection = await database.OpenConnectionAsync(Ct);
        await using var transaction = await connection.BeginTransactionAsync(Ct);
        await using var command = new NpgsqlCommand(sql, connection);
        try
        {
            await command.ExecuteNonQueryAsync(Ct);
            holes.Add($"{role}: {sql}");
        }
        catch (PostgresException exception) when (exception.SqlState == PostgresErrorCodes.InsufficientPrivilege)
        {
        }
        catch (PostgresException exception)
        {
            holes.Add($"{role}: {sql}: {exception.MessageText}"); // it was not kept from it
        }
    }

    private async Task<List<(string Name, List<(string Name, string Type, bool Needed)> Columns)>> Tables()
    {
        await using var command = _super.CreateCommand(
            """
            select c.relname::text, a.attname::text, format_type(a.atttypid, null), a.attnotnull and not a.atthasdef
            from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p') order by c.relname, a.attnum
            """);
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = _options.Schema });
        await using var reader = await command.ExecuteReaderAsync(Ct);
        var tables = new List<(string Name, List<(string, string, bool)> Columns)>();
        while (await reader.ReadAsync(Ct))
        {
            if (tables.Count == 0 || tables[^1].Name != reader.GetString(0))
            {
                tables.Add((reader.GetString(0), []));
            }

            tables[^1].Columns.Add((reader.GetString(1), reader.GetString(2), reader.GetBoolean(3)));
        }

        return tables;
    }

    /// <summary>Exactly one row of each of two tenants, of made-up values.</summary>
    private async Task Fill(string table, List<(string Name, string Type, bool Needed)> columns)
    {
        var filled = columns.Where(c => c.Needed || c.Name is "tenant_id" or "seq_id").ToList();
        foreach (var (tenant, number) in new[] { (One, 1), (Other, 2) })
        {
            var values = filled.Select(c => c.Name == "tenant_id" ? $"'{tenant}'" : c.Type switch
            {
                "character varying" or "text" => $"'wall{number}'",
                "bigint" => $"{long.MaxValue - 10 + number}",
                "integer" or "smallint" or "numeric" or "double precision" => $"{number}",
                "timestamp with time zone" => "now()",
                "date" => "current_date",
                "interval" => "interval '1 day'",
                "boolean" => "false",
                "jsonb" => "'{}'",
                "bytea" => $"'\\x0{number}'",
                "uuid" => "gen_random_uuid()",
                "numeric[]" or "text[]" or "character varying[]" => "'{}'",
                _ => throw new InvalidOperationException($"{table}.{c.Name} is {c.Type}: what is a value of that?"),
            });
            await Do(
                $"""
                 insert into {table} ({string.Join(", ", filled.Select(c => c.Name))})
                 select {string.Join(", ", values)} where not exists (select from {table} where tenant_id = '{tenant}')
                 """);
        }
    }
}
