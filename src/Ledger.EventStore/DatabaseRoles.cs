using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Who may do what in the database (docs/adr/0014). The account owns the schema and is used to change it; the <b>writer</b> appends
/// events, which it may neither change nor delete, and writes the views; the <b>reader</b> answers requests: it may only select, and
/// of every table with a <c>tenant_id</c> it sees the rows of the tenant that its transaction has named, and none before.
/// A table gets its rights and its policies from what is in the catalogue, so a new one needs no line of its own.
/// </summary>
public static class DatabaseRoles
{
    /// <summary>The setting by which the owner says that it means the rows of every tenant. It means nothing to anybody else.</summary>
    public const string OwnerSetting = "ledger.all_tenants";

    private const string TenantPolicy = "tenant";
    private const string OwnerPolicy = "owner";
    private const string Named = $"select current_setting('{TenantScope.Setting}', true)";

    /// <summary>
    /// Not just the comparison: no index fits this, so that a plan rests on what its statement says and on the same index as without
    /// (docs/adr/0008). The setting is asked for once a statement, not once a row.
    /// </summary>
    private const string TenantRule = $"coalesce(tenant_id = ({Named}), false)";
    private const string OwnerRule = $"current_setting('{OwnerSetting}', true) = 'on'";

    private const int MaxAttempts = 10;

    /// <summary>What the writer may do, where that is not to select, insert, update and delete.</summary>
    private static readonly Dictionary<string, string[]> s_writes = new()
    {
        ["mt_events"] = ["INSERT", "SELECT"],
        ["mt_streams"] = ["INSERT", "SELECT", "UPDATE"],
        ["schema_migrations"] = ["SELECT"],
    };

    private static readonly string[] s_allWrites = ["DELETE", "INSERT", "SELECT", "UPDATE"];

    /// <summary>What the reader may not even select: what opens the commitments of the transparency log, of whatever tenant.</summary>
    private static readonly string[] s_withheld = ["log_salts", "log_tenants", "log_erasures"];

    /// <summary>What a connection is to set at its start, to have a role.</summary>
    internal static (string Name, string Value)[] SettingsOf(DatabaseRole role, EventStoreOptions options) => role switch
    {
        DatabaseRole.Reader when options.ReaderRole is { } reader => [("role", reader)],
        DatabaseRole.Writer when options.WriterRole is { } writer => [("role", writer)],
        _ => [("role", "none"), (OwnerSetting, "on")], // none, where the account has another one as its default
    };

    /// <summary>The statements that a database administrator runs once, for an account that may not make the roles itself.</summary>
    public static string Script(EventStoreOptions options, string account) =>
        $"""
         create role "{options.ReaderRole}" nologin;
         create role "{options.WriterRole}" nologin bypassrls;
         grant "{options.ReaderRole}", "{options.WriterRole}" to "{account.Replace("\"", "\"\"", StringComparison.Ordinal)}";
         """;

    /// <summary>
    /// Makes the roles and the account a member of them, unless they are there. It never joins a role that it finds: that may be
    /// another Ledger's, with rights in another database.
    /// </summary>
    /// <exception cref="DatabaseRolesException">The account may not; the message says what has to be run.</exception>
    internal static async Task Ensure(NpgsqlConnection connection, EventStoreOptions options, CancellationToken cancellation)
    {
        if (options.ReaderRole is not { } readerRole || options.WriterRole is not { } writerRole)
        {
            return;
        }

        for (var attempt = 1; ; attempt++)
        {
            var account = "";
            try
            {
                (account, var isSuper, var roles) = await Find(connection, [readerRole, writerRole], cancellation);
                foreach (var (name, found) in roles)
                {
                    if (found is null)
                    {
                        await Execute(connection, $"create role \"{name}\" nologin{(name == writerRole ? " bypassrls" : "")}", cancellation);
                        if (!isSuper)
                        {
                            await Execute(connection, $"grant \"{name}\" to session_user", cancellation);
                        }
                    }
                    else if (!found.IsMember || found.BypassesRowSecurity != (name == writerRole))
                    {
                        throw new DatabaseRolesException(
                            !found.IsMember ? $"The role {name} is there, but the account {account} is no member of it: it may be another Ledger's"
                            : name == writerRole ? $"The role {name} has no BYPASSRLS, without which it can't load rows into tables with row-level security"
                            : $"The role {name} must not have BYPASSRLS",
                            options, account);
                    }
                }

                return;
            }
            catch (PostgresException exception) when (exception.SqlState == PostgresErrorCodes.InsufficientPrivilege)
            {
                throw new DatabaseRolesException($"The account {account} may not make the roles that keep tenants apart ({exception.MessageText})", options, account);
            }
            catch (PostgresException exception) when (attempt < MaxAttempts
                && exception.SqlState is PostgresErrorCodes.DuplicateObject or PostgresErrorCodes.UniqueViolation or PostgresErrorCodes.InternalError)
            {
                // Another node, of whatever database on this server, makes them right now.
            }
        }
    }

    /// <summary>
    /// Gives every table of the schema, or those named, the rights and policies that it should have; what it has already is left
    /// alone, and with it the table's lock.
    /// </summary>
    /// <exception cref="DatabaseRolesException">The account does not own them.</exception>
    public static async Task Apply(
        NpgsqlConnection connection, EventStoreOptions options, IReadOnlyCollection<string>? tables = null, CancellationToken cancellation = default)
    {
        try
        {
            foreach (var statement in await Missing(connection, options, tables, cancellation))
            {
                await Execute(connection, statement, cancellation);
            }
        }
        catch (PostgresException exception) when (exception.SqlState == PostgresErrorCodes.InsufficientPrivilege)
        {
            throw new DatabaseRolesException($"The rights on the tables can't be set ({exception.MessageText}): the account must own the schema", options, connection.UserName ?? "");
        }
    }

    /// <summary>The statements that <see cref="Apply"/> would run; none where everything is as it should be.</summary>
    public static async Task<IReadOnlyList<string>> Missing(
        NpgsqlConnection connection, EventStoreOptions options, IReadOnlyCollection<string>? tables = null, CancellationToken cancellation = default)
    {
        var statements = new List<string>();
        foreach (var table in await Tables(connection, options, tables, cancellation))
        {
            var on = $"\"{options.Schema}\".\"{table.Name}\"";
            if (options.ReaderRole is not { } readerRole || options.WriterRole is not { } writerRole)
            {
                if (table.IsSecured || table.IsForced)
                {
                    statements.Add($"alter table {on} disable row level security, no force row level security");
                }

                continue;
            }

            Grant(readerRole, table.Reads, s_withheld.Contains(table.Name) ? [] : ["SELECT"]);
            Grant(writerRole, table.Writes, s_writes.GetValueOrDefault(table.Name, s_allWrites));
            if (!table.IsOfTenants)
            {
                continue;
            }

            if (!table.IsSecured || !table.IsForced)
            {
                statements.Add($"alter table {on} enable row level security, force row level security");
            }

            foreach (var other in table.Policies.Where(p => p.Split(' ') is [not (TenantPolicy or OwnerPolicy), _, var roles, ..]
                && roles.Split(',').Intersect([readerRole, "public"]).Any()))
            {
                statements.Add($"drop policy \"{other.Split(' ')[0]}\" on {on}"); // it would let the reader see more
            }

            Policy(TenantPolicy, "select", readerRole, TenantRule);
            Policy(OwnerPolicy, "all", table.Owner, OwnerRule);

            void Grant(string role, string[] has, string[] wanted)
            {
                if (has.SequenceEqual(wanted))
                {
                    return;
                }

                if (has.Length > 0)
                {
                    statements.Add($"revoke all on {on} from \"{role}\"");
                }

                if (wanted.Length > 0)
                {
                    statements.Add($"grant {string.Join(", ", wanted)} on {on} to \"{role}\"");
                }
            }

            void Policy(string name, string command, string role, string rule)
            {
                var found = table.Policies.FirstOrDefault(p => p.StartsWith($"{name} ", StringComparison.Ordinal));
                var mark = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(rule)))[..16];
                if (found == $"{name} {command} {role} {mark}")
                {
                    return;
                }

                if (found is not null)
                {
                    statements.Add($"drop policy {name} on {on}");
                }

                statements.Add($"create policy {name} on {on} for {command} to \"{role.Replace("\"", "\"\"", StringComparison.Ordinal)}\" using ({rule})");
                // What it was made of, and what that has become in the catalogue: to read a rule takes a lock on its table.
                statements.Add(
                    $"do $$ begin execute format('comment on policy {name} on {on} is %L', '{mark} ' || "
                    + $"(select md5(polqual::text) from pg_policy where polrelid = '{on}'::regclass and polname = '{name}')); end $$");
            }
        }

        if (tables is null && options is { ReaderRole: { } reader, WriterRole: { } writer })
        {
            statements.AddRange(await MissingBesideTables(connection, options, reader, writer, cancellation));
        }

        return statements;
    }

    /// <summary>What others were granted on a table, as statements that grant it on the one that takes its place.</summary>
    internal static async Task<IReadOnlyList<string>> GrantsOf(
        NpgsqlConnection connection, EventStoreOptions options, string table, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select format('grant %s on %I.%I to %s', string_agg(x.privilege_type, ', '), $1, $2, case x.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(x.grantee)) end)
            from pg_class c cross join lateral aclexplode(c.relacl) x
            where c.relnamespace = to_regnamespace(quote_ident($1)) and c.relname = $2 and x.grantee <> c.relowner
            group by x.grantee
            """, connection)
        {
            Parameters = { new NpgsqlParameter<string> { TypedValue = options.Schema }, new NpgsqlParameter<string> { TypedValue = table } },
        };
        return await Texts(command, cancellation);
    }

    /// <summary>Refuses connections of requests that row-level security would not hold.</summary>
    /// <exception cref="UnsafeServerException">They have another role than the reader's, or one that it does not bind.</exception>
    public static async Task Check(NpgsqlDataSource requests, EventStoreOptions options, CancellationToken cancellation = default)
    {
        if (options.ReaderRole is not { } wanted)
        {
            return;
        }

        await using var command = requests.CreateCommand(
            "select r.rolname::text, r.rolsuper or r.rolbypassrls, session_user::text from pg_roles r where r.rolname = current_user");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        if (reader.GetString(0) != wanted || reader.GetBoolean(1))
        {
            throw new UnsafeServerException(
                $"Requests would be answered as {reader.GetString(0)}, which sees every tenant's rows, and not as {wanted}. "
                + $"Let the account {reader.GetString(2)} be a member of {wanted}: grant \"{wanted}\" to \"{reader.GetString(2)}\".");
        }
    }

    private static async Task<(string Account, bool IsSuper, List<(string Name, Role? Found)> Roles)> Find(
        NpgsqlConnection connection, string[] names, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select session_user::text, (select a.rolsuper from pg_roles a where a.rolname = session_user), n.name, r.rolbypassrls, pg_has_role(session_user, r.oid, 'member')
            from unnest($1) with ordinality n (name, place) left join pg_roles r on r.rolname = n.name order by n.place
            """, connection)
        {
            Parameters = { new NpgsqlParameter<string[]> { TypedValue = names } },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var (account, isSuper, roles) = ("", false, new List<(string, Role?)>());
        while (await reader.ReadAsync(cancellation))
        {
            (account, isSuper) = (reader.GetString(0), reader.GetBoolean(1));
            roles.Add((reader.GetString(2), reader.IsDBNull(3) ? null : new Role(reader.GetBoolean(4), reader.GetBoolean(3))));
        }

        return (account, isSuper, roles);
    }

    private static async Task<List<Table>> Tables(
        NpgsqlConnection connection, EventStoreOptions options, IReadOnlyCollection<string>? only, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select c.relname::text, pg_get_userbyid(c.relowner)::text,
              exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped),
              c.relrowsecurity, c.relforcerowsecurity,
              array(select x.privilege_type::text collate "C" from aclexplode(c.relacl) x where x.grantee = to_regrole($2) order by 1),
              array(select x.privilege_type::text collate "C" from aclexplode(c.relacl) x where x.grantee = to_regrole($3) order by 1),
              array(
                select format('%s %s %s %s', p.polname, case p.polcmd when 'r' then 'select' when '*' then 'all' else p.polcmd::text end,
                  (select string_agg(case o when 0 then 'public' else pg_get_userbyid(o)::text end, ',') from unnest(p.polroles) o),
                  case when split_part(obj_description(p.oid, 'pg_policy'), ' ', 2) = md5(p.polqual::text) then split_part(obj_description(p.oid, 'pg_policy'), ' ', 1) end)
                from pg_policy p where p.polrelid = c.oid)
            from pg_class c
            where c.relnamespace = to_regnamespace(quote_ident($1)) and c.relkind in ('r', 'p') and ($4 is null or c.relname = any($4))
            order by c.relname
            """, connection)
        {
            Parameters =
            {
                new NpgsqlParameter<string> { TypedValue = options.Schema },
                new() { Value = (object?)options.ReaderRole ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text },
                new() { Value = (object?)options.WriterRole ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Text },
                new() { Value = (object?)only?.ToArray() ?? DBNull.Value, NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Text },
            },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var tables = new List<Table>();
        while (await reader.ReadAsync(cancellation))
        {
            tables.Add(new Table(
                reader.GetString(0), reader.GetString(1), reader.GetBoolean(2), reader.GetBoolean(3), reader.GetBoolean(4),
                reader.GetFieldValue<string[]>(5), reader.GetFieldValue<string[]>(6), reader.GetFieldValue<string[]>(7)));
        }

        return tables;
    }

    /// <summary>The schema itself, the sequence that the appender moves, and the functions that look across tenants.</summary>
    private static async Task<IReadOnlyList<string>> MissingBesideTables(
        NpgsqlConnection connection, EventStoreOptions options, string readerRole, string writerRole, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select format('grant usage on schema %I to %I', $1, r.name)
            from unnest(array[$2, $3]) r (name) where not has_schema_privilege(r.name, $1, 'usage')
            union all
            select format('grant select, update on sequence %I.%I to %I', $1, c.relname, $3)
            from pg_class c
            where c.relnamespace = to_regnamespace(quote_ident($1)) and c.relkind = 'S' and not has_sequence_privilege($3, c.oid, 'select, update')
            union all
            select format('revoke all on function %s from public', p.oid::regprocedure)
            from pg_proc p
            where p.pronamespace = to_regnamespace(quote_ident($1)) and p.prosecdef
              and (p.proacl is null or exists (select from aclexplode(p.proacl) x where x.grantee = 0))
            union all
            select format('grant execute on function %s to %I, %I', p.oid::regprocedure, $2, $3)
            from pg_proc p
            where p.pronamespace = to_regnamespace(quote_ident($1)) and p.prosecdef
              and (select count(*) from aclexplode(p.proacl) x where x.grantee in (to_regrole($2), to_regrole($3))) < 2
            """, connection)
        {
            Parameters =
            {
                new NpgsqlParameter<string> { TypedValue = options.Schema },
                new NpgsqlParameter<string> { TypedValue = readerRole },
                new NpgsqlParameter<string> { TypedValue = writerRole },
            },
        };
        return await Texts(command, cancellation);
    }

    private static async Task<List<string>> Texts(NpgsqlCommand command, CancellationToken cancellation)
    {
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var texts = new List<string>();
        while (await reader.ReadAsync(cancellation))
        {
            texts.Add(reader.GetString(0));
        }

        return texts;
    }

    private static async Task Execute(NpgsqlConnection connection, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(cancellation);
    }

    private sealed record Role(bool IsMember, bool BypassesRowSecurity);

    private sealed record Table(
        string Name, string Owner, bool IsOfTenants, bool IsSecured, bool IsForced, string[] Reads, string[] Writes, string[] Policies);
}

/// <summary>The roles that keep tenants apart are not there and can't be made; the message says what to run.</summary>
public sealed class DatabaseRolesException(string reason, EventStoreOptions options, string account) : Exception(
    $"""
     {reason}. Let an administrator of the database run
     {DatabaseRoles.Script(options, account)}
     or name others with LEDGER_ROLES, or set LEDGER_I_ACCEPT_ONE_WALL_BETWEEN_TENANTS=yes to work without them.
     """);
