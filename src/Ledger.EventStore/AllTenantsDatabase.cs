using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// The connections of what is of no tenant or of all of them, and of what requests write beside the log: looking for memberships
/// that ran out, reading the log for all followers at once, entries of the transparency log, files of reports, counting, steering
/// the views, rebuilding them. They have the writer's role. Whatever answers a tenant from its rows does not belong here:
/// docs/security.md lists what does.
/// </summary>
public sealed record AllTenantsDatabase(NpgsqlDataSource Source) : IAsyncDisposable
{
    /// <summary>Connections of a node to it.</summary>
    public const int PoolSize = 6;

    /// <summary>Rebuilds whose bulk is folded at once; each holds two of them.</summary>
    public const int MaxRebuildsAtOnce = 2;

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => Source.DisposeAsync();
}
