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
    /// them. Connections that the pooler has open to the server do not get them any more, see <see cref="Check"/>; the one by which
    /// this is done ends with it.
    /// </summary>
    /// <exception cref="UnsafeServerException">The account is no member of the reader's role.</exception>
    public static async Task Configure(NpgsqlDataSource pooled, EventStoreOptions options, CancellationToken cancellation = default)
    {
        // All in one statement, because between two the pooler may hand this connection, which has no settings yet, to another node.
        // The lock is for nodes that start together: two changes to an account at once would fail.
        const string NotMember = "LE001"; // a class of our own, as PostgreSQL leaves them to users
        var member = options.ReaderRole is not { } role ? ""
            : $"""
               if not pg_has_role(session_user, '{role}', 'member') then
                 raise exception using errcode = '{NotMember}', message = format(
                   'The pooler logs in as %1$s, which is no member of %2$s. Let an administrator of the database run: grant "%2$s" to "%1$s";', session_user, '{role}');
               end if;
               """;
        await using var command = pooled.CreateCommand(
            $"""
             do $do$
             declare
               is_stale boolean := current_setting('search_path') <> '{options.Schema}' or current_setting('role') <> '{options.ReaderRole ?? "none"}'
                 or current_setting('plan_cache_mode') <> 'force_generic_plan';
               setting text[];
             begin
               {member}
               set local role none; -- the reader's may not change the account's settings
               perform pg_advisory_xact_lock({SchemaMigrator.LockKey(options)});
               foreach setting slice 1 in array array[{string.Join(", ", SettingsOf(options).Select(s => $"['{s.Name}', '{s.Value}']"))}] loop
                 if not exists (
                   select from pg_db_role_setting
                   where setrole = session_user::regrole and setdatabase = (select oid from pg_database where datname = current_database())
                     and setting[1] || '=' || setting[2] = any(setconfig))
                 then
                   execute format('alter role %I in database %I set %I = %L', session_user, current_database(), setting[1], setting[2]);
                 end if;
               end loop;
               commit;
               if is_stale then
                 perform pg_terminate_backend(pg_backend_pid());
               end if;
             end
             $do$
             """);
        try
        {
            await command.ExecuteNonQueryAsync(cancellation);
        }
        catch (PostgresException exception) when (exception.SqlState == NotMember)
        {
            throw new UnsafeServerException(exception.MessageText);
        }
        catch (NpgsqlException exception) when (exception is not PostgresException { SqlState: not (PostgresErrorCodes.AdminShutdown or PostgresErrorCodes.ProtocolViolation) })
        {
            // It has ended.
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
