using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>Brings the schema up to date, and refuses a server or a schema that can't be worked with.</summary>
public sealed partial class SchemaMigrator(NpgsqlDataSource database, Migrations migrations, EventStoreOptions options, ILogger<SchemaMigrator> logger)
{
    /// <summary>The oldest PostgreSQL that will do.</summary>
    public const int MinServerVersion = 15;

    private const string History = "schema_migrations";

    /// <summary>
    /// Runs what has not run yet, in one transaction under a lock, so that of several nodes the first does it and the others
    /// find it done, and gives every table its rights and policies. Returns the names of what ran.
    /// </summary>
    /// <exception cref="SchemaMismatchException">The schema is newer than the code, or an applied file was edited.</exception>
    /// <exception cref="DatabaseRolesException">The roles are not there, and the account may not make them.</exception>
    public async Task<IReadOnlyList<string>> Migrate(CancellationToken cancellation = default)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await DatabaseRoles.Ensure(connection, options, cancellation); // of the server, so not in the transaction of this database
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        await Execute($"select pg_advisory_xact_lock({LockKey(options)})");
        await Execute($"create schema if not exists \"{options.Schema}\"");
        await Execute($"create table if not exists {History} (number int primary key, name varchar not null, checksum varchar not null, applied_at timestamptz not null default now())");
        var applied = await ReadApplied(connection, cancellation);
        Compare(applied);
        var pending = migrations.All.Where(m => !applied.ContainsKey(m.Number)).ToList();
        if (pending.Count > 0)
        {
            await Execute($"select pg_advisory_xact_lock({ViewsLockKey(options)})");
        }

        foreach (var migration in pending)
        {
            await Execute(migration.Sql);
            await using var note = new NpgsqlCommand($"insert into {History} (number, name, checksum) values ($1, $2, $3)", connection)
            {
                Parameters = { new() { Value = migration.Number }, new() { Value = migration.Name }, new() { Value = migration.Checksum } },
            };
            await note.ExecuteNonQueryAsync(cancellation);
        }

        if (pending.Count > 0)
        {
            // What a program of before still writes would miss from what was made here, so it keeps the views no longer.
            await Execute("update daemon_lease set epoch = epoch + 1, expires_at = '-infinity'");
            await Execute("update projections set rebuild = 'requested', rebuild_position = 0 where rebuild = 'running'");
        }

        await DatabaseRoles.Apply(connection, options, cancellation: cancellation); // so no table is there without its policies
        await transaction.CommitAsync(cancellation);
        if (pending.Count > 0)
        {
            LogMigrated(pending.Count, options.Schema);
        }

        return [.. pending.Select(m => m.Name)];

        async Task Execute(string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 }; // as long as there are rows, or others migrate
            await command.ExecuteNonQueryAsync(cancellation);
        }
    }

    /// <summary>Whether everything has run; changes nothing.</summary>
    /// <exception cref="SchemaMismatchException">The schema is newer than the code, or an applied file was edited.</exception>
    public Task<bool> IsUpToDate(CancellationToken cancellation = default) => IsUpToDate(database, cancellation);

    /// <summary>The same over other connections: those that migrate are few.</summary>
    public async Task<bool> IsUpToDate(NpgsqlDataSource over, CancellationToken cancellation)
    {
        await using var connection = await over.OpenConnectionAsync(cancellation);
        await using var exists = new NpgsqlCommand($"select to_regclass('{History}') is not null", connection);
        if (!(bool)(await exists.ExecuteScalarAsync(cancellation))!)
        {
            return false;
        }

        var applied = await ReadApplied(connection, cancellation);
        Compare(applied);
        return applied.Count == migrations.All.Count;
    }

    /// <summary>Refuses a server that is too old, or set up to lose acknowledged commits.</summary>
    /// <exception cref="UnsafeServerException">Unless <paramref name="acceptLosingEvents"/> is set.</exception>
    public async Task CheckServer(bool acceptLosingEvents, CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand(
            """
            select current_setting('server_version_num')::int / 10000,
                   array(select name from pg_settings where name in ('fsync', 'full_page_writes', 'synchronous_commit') and setting = 'off' order by name)
            """);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        var version = reader.GetInt32(0);
        if (version < MinServerVersion)
        {
            throw new UnsafeServerException($"PostgreSQL {MinServerVersion} or newer is needed; this is {version}.");
        }

        var off = reader.GetFieldValue<string[]>(1);
        if (off.Length > 0 && !acceptLosingEvents)
        {
            throw new UnsafeServerException(
                $"This PostgreSQL server would lose acknowledged events in a crash: {string.Join(", ", off)} is off. "
                + "Turn it on, or set LEDGER_I_ACCEPT_LOSING_ACKNOWLEDGED_EVENTS=yes.");
        }

        if (off.Length > 0)
        {
            LogUnsafe(string.Join(", ", off));
        }
    }

    /// <summary>The lock by which nodes that start look one after the other what there is to migrate.</summary>
    internal static long LockKey(EventStoreOptions options) => Appender.AppendLockKey(options.Schema + ":migrate");

    /// <summary>The lock that migrations share with nobody, and transactions that write views with each other.</summary>
    internal static long ViewsLockKey(EventStoreOptions options) => Appender.AppendLockKey(options.Schema + ":views");

    private static async Task<Dictionary<int, (string Name, string Checksum)>> ReadApplied(NpgsqlConnection connection, CancellationToken cancellation)
    {
        var applied = new Dictionary<int, (string, string)>();
        await using var command = new NpgsqlCommand($"select number, name, checksum from {History}", connection);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            applied[reader.GetInt32(0)] = (reader.GetString(1), reader.GetString(2));
        }

        return applied;
    }

    private void Compare(Dictionary<int, (string Name, string Checksum)> applied)
    {
        var known = migrations.All.ToDictionary(m => m.Number);
        foreach (var (number, (name, checksum)) in applied)
        {
            if (!known.TryGetValue(number, out var migration))
            {
                throw new SchemaMismatchException(
                    $"The schema '{options.Schema}' is newer than this program: it has migration {number:0000}-{name}. Start a newer version.");
            }

            if (migration.Checksum != checksum)
            {
                throw new SchemaMismatchException(
                    $"Migration {number:0000}-{migration.Name} was changed after it had run on schema '{options.Schema}'. Migrations are forward-only.");
            }
        }
    }

    [LoggerMessage(LogLevel.Information, "Ran {Count} migrations on schema {Schema}")]
    private partial void LogMigrated(int count, string schema);

    [LoggerMessage(LogLevel.Critical, "This PostgreSQL server loses acknowledged events in a crash: {Settings} is off")]
    private partial void LogUnsafe(string settings);
}
