using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// The connections of the account itself, which owns the schema: migrations, the tables of rebuilds and replays, and nothing else.
/// They say that they mean every tenant's rows; the owner's other connections see none.
/// </summary>
public sealed record OwnerDatabase(NpgsqlDataSource Source) : IAsyncDisposable
{
    /// <summary>Connections that a node which serves takes of it at once: one makes or swaps tables, one makes indexes and analyses. A verb may take more.</summary>
    public const int PoolSize = 2;

    /// <summary>The most there are.</summary>
    internal const int MaxPoolSize = 8;

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => Source.DisposeAsync();

    /// <summary>The account's own connections, past any pooler.</summary>
    public static OwnerDatabase Connect(string connectionString, EventStoreOptions options, Microsoft.Extensions.Logging.ILoggerFactory? loggers = null) =>
        new(EventStoreDatabase.Connect(connectionString, options, "ledger-owner", MaxPoolSize, loggers));
}
