using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// The connections of what a node does whatever is asked of it: storing, keeping the views, sealing. They are kept apart from
/// those of requests, so that requests which hold every other one cost it neither its lease nor its pace. They go to the database
/// itself, also where requests go through a pooler: notifications, prepared statements, and locks and tables of a session need one.
/// They have the writer's role: see <see cref="DatabaseRoles"/>.
/// </summary>
public sealed record BackgroundDatabase(NpgsqlDataSource Source) : IAsyncDisposable
{
    /// <summary>
    /// Connections of a node to it: one listens, one beats, one stores, two project, two seal, one makes reports, and
    /// four work on campaigns: one takes messages, one lets go of them, one begins and ends campaigns, one finds recipients. Rebuilds
    /// use those of <see cref="AllTenantsDatabase"/>.
    /// </summary>
    public const int PoolSize = 12;

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => Source.DisposeAsync();
}
