using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Connections through a pooler that hands out the server's by the transaction. Nothing of a session can be relied on there: no
/// statement stays prepared, and what <see cref="EventStoreDatabase"/> sets at the start of a session is a setting of the account
/// in this database instead.
/// </summary>
public static class PooledDatabase
{
    /// <summary>A pool of connections to the pooler, known to the server under <paramref name="applicationName"/>.</summary>
    public static NpgsqlDataSource Connect(string connectionString, string applicationName, int maxPoolSize, ILoggerFactory? loggers = null)
    {
        var builder = new NpgsqlDataSourceBuilder(connectionString)
        {
            Name = applicationName,
            ConnectionStringBuilder =
            {
                // The pooler would refuse them, or pass them over.
                SearchPath = null,
                Options = null,
                MaxAutoPrepare = 0,
                ApplicationName = applicationName,
                MaxPoolSize = maxPoolSize,
                KeepAlive = EventStoreDatabase.KeepAliveSeconds,
                NoResetOnClose = true, // it would reset a connection that is somebody else's by then
                Timezone = "UTC",
                IncludeErrorDetail = false,
            },
        };
        return builder.UseLoggerFactory(loggers).NameSpans().Build();
    }

    /// <summary>
    /// Gives the account that the pooler logs in with its settings in this database, the reader's role among them, unless it has
    /// them. Connections that the pooler has open to the server do not get them any more, see <see cref="Check"/>.
    /// </summary>
    /// <exception cref="UnsafeServerException">The account is no member of the reader's role.</exception>
    public static async Task Configure(NpgsqlDataSource pooled, EventStoreOptions options, CancellationToken cancellation = default)
    {
        await using var connection = await pooled.OpenConnectionAsync(cancellation);
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        await Execute("set local role none"); // which it may have already, and which may not change the account's settings
        if (options.ReaderRole is { } role)
        {
            await using var ask = new NpgsqlCommand("select pg_has_role(session_user, $1, 'member'), session_user::text", connection)
            {
                Parameters = { new NpgsqlParameter<string> { TypedValue = role } },
            };
            await using var answer = await ask.ExecuteReaderAsync(cancellation);
            await answer.ReadAsync(cancellation);
            if (!answer.GetBoolean(0))
            {
                throw new UnsafeServerException(
                    $"The pooler logs in as {answer.GetString(1)}, which is no member of {role}. Let an administrator of the database run: "
                    + $"grant \"{role}\" to \"{answer.GetString(1)}\";");
            }
        }

        // Of several nodes that start together one does it; two at once would fail.
        await Execute($"select pg_advisory_xact_lock({Appender.AppendLockKey(options.Schema + ":migrate")})");
        await using (var read = new NpgsqlCommand(
            """
            select coalesce((
              select setconfig from pg_db_role_setting
              where setrole = (select oid from pg_roles where rolname = session_user) and setdatabase = (select oid from pg_database where datname = current_database())),
              '{}')
            """, connection))
        {
            var set = (string[])(await read.ExecuteScalarAsync(cancellation))!;
            foreach (var (name, value) in SettingsOf(options).Where(s => !set.Contains($"{s.Name}={s.Value}")))
            {
                await Execute($"do $$ begin execute format('alter role %I in database %I set {name} = %L', session_user, current_database(), '{value}'); end $$");
            }
        }

        await transaction.CommitAsync(cancellation);
        try
        {
            // Made before the account had them, this connection has none, and the pooler would hand it out again.
            await Execute(
                $"select pg_terminate_backend(pg_backend_pid()) where current_setting('search_path') <> '{options.Schema}' "
                + $"or current_setting('role') <> '{options.ReaderRole ?? "none"}' or current_setting('plan_cache_mode') <> 'force_generic_plan'");
        }
        catch (NpgsqlException)
        {
            // It has ended.
        }

        async Task Execute(string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync(cancellation);
        }
    }

    /// <summary>Refuses a pooler whose connections to the server are not set up as they must be.</summary>
    /// <exception cref="UnsafeServerException">The one that was handed out has another setting; the message says which and what to do.</exception>
    public static async Task Check(NpgsqlDataSource pooled, EventStoreOptions options, CancellationToken cancellation = default)
    {
        var settings = SettingsOf(options);
        await using var command = pooled.CreateCommand("select k.name, current_setting(k.name) from unnest($1) with ordinality k (name, place) order by k.place");
        command.Parameters.Add(new NpgsqlParameter<string[]> { TypedValue = [.. settings.Select(s => s.Name)] });
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        foreach (var (name, value) in settings)
        {
            await reader.ReadAsync(cancellation);
            if (reader.GetString(1).Trim('"') is var found && found != value && found != Shown(value))
            {
                throw new UnsafeServerException(
                    $"The pooler's connection has {name} = '{found}', and not '{value}': it is to another account or database than the direct one, "
                    + "or was made before the account got its settings. Let the pooler connect anew (PgBouncer: RECONNECT), then start again.");
            }
        }

        // current_setting shows a time with its unit.
        static string Shown(string value) => int.TryParse(value, out var milliseconds) && milliseconds % 1_000 == 0 ? $"{milliseconds / 1_000}s" : value;
    }

    private static (string Name, string Value)[] SettingsOf(EventStoreOptions options) =>
    [
        .. EventStoreDatabase.SessionSettings, ("search_path", options.Schema),
        .. options.ReaderRole is { } reader ? [("role", reader)] : Array.Empty<(string, string)>(),
    ];
}
