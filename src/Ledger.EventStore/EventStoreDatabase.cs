using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>What a connection may do; see <see cref="DatabaseRoles"/>.</summary>
public enum DatabaseRole
{
    /// <summary>What the account may, which owns the schema, and with every tenant's rows.</summary>
    Owner,

    /// <summary>Append events and write views, of all tenants.</summary>
    Writer,

    /// <summary>Read the rows of one tenant at a time.</summary>
    Reader,
}

/// <summary>Connections as the event store needs them.</summary>
public static class EventStoreDatabase
{
    /// <summary>How often a connection that nobody uses is asked whether it is still there.</summary>
    internal const int KeepAliveSeconds = 10;

    /// <summary>Statements each connection keeps prepared.</summary>
    public const int MaxPreparedStatements = 200;

    /// <summary>
    /// How long a transaction may stand still before PostgreSQL ends it: a node that was stopped within one must not hold its
    /// locks against the others for ever.
    /// </summary>
    public static readonly TimeSpan MaxIdleInTransaction = TimeSpan.FromSeconds(5);

    /// <summary>How long a statement may take, unless it says otherwise, as those that read the whole log do. Then it is cancelled. A connection string may ask for less.</summary>
    public static readonly TimeSpan MaxStatementTime = TimeSpan.FromSeconds(30);

    /// <summary>
    /// Every statement is made to go through an index, however large the tables become. A plan that was made while a table was
    /// still small, and is kept prepared, would read all of it: so the planner is not offered the plans that do. For the same
    /// reason rows are looked up by a list of keys through a lateral subquery with a limit: a join might begin at the table. Nor
    /// is a statement planned anew for its parameters at each use, which takes longer than running it.
    /// </summary>
    private static readonly (string Name, string Value)[] s_indexPlansOnly =
    [
        ("plan_cache_mode", "force_generic_plan"), ("enable_seqscan", "off"), ("enable_bitmapscan", "off"), ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"), ("enable_material", "off"), ("max_parallel_workers_per_gather", "0"), ("jit", "off"),
    ];

    /// <summary>What every session is set to, beside its search path.</summary>
    internal static IReadOnlyList<(string Name, string Value)> SessionSettings { get; } =
        [.. s_indexPlansOnly, ("idle_in_transaction_session_timeout", $"{(int)MaxIdleInTransaction.TotalMilliseconds}")];

    /// <summary>
    /// A pool on the given connection string whose connections look into the store's schema, keep their statements prepared,
    /// are known to the server under <paramref name="applicationName"/>, and have <paramref name="role"/> from the start.
    /// </summary>
    public static NpgsqlDataSource Connect(
        string connectionString, EventStoreOptions options, string applicationName, int maxPoolSize, ILoggerFactory? loggers = null,
        DatabaseRole role = DatabaseRole.Owner)
    {
        var given = new NpgsqlConnectionStringBuilder(connectionString);
        var statementSeconds = (int)MaxStatementTime.TotalSeconds;
        var builder = new NpgsqlDataSourceBuilder(connectionString)
        {
            Name = applicationName, // in metrics and spans, instead of the connection string
            ConnectionStringBuilder =
            {
                SearchPath = options.Schema,
                Options = $"{given.Options} {string.Join(' ', SessionSettings.Concat(DatabaseRoles.SettingsOf(role, options)).Select(s => $"-c {s.Name}={s.Value}"))}".TrimStart(),
                ApplicationName = applicationName,
                MaxAutoPrepare = MaxPreparedStatements,
                AutoPrepareMinUsages = 2,
                MaxPoolSize = maxPoolSize,
                CommandTimeout = given.CommandTimeout is > 0 and var asked && asked < statementSeconds ? asked : statementSeconds,
                KeepAlive = KeepAliveSeconds,
                NoResetOnClose = true, // nothing here leaves a setting or a lock behind, and resetting is three statements a use
                Timezone = "UTC",
                IncludeErrorDetail = false,
                IncludeFailedBatchedCommand = true, // so that it is known whose statement it was
            },
        };
        return builder.UseLoggerFactory(loggers).NameSpans().Build();
    }
}
