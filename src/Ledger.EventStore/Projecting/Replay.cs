using System.Text.RegularExpressions;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Folds the log from its start into tables of a schema of its own, as far as one likes, and touches nothing else: the live views
/// are not even on its search path. The schema goes when it is disposed of; what a crash leaves behind is swept later.
/// </summary>
public sealed partial class Replay : IAsyncDisposable
{
    private readonly EventReader _reader;
    private readonly NpgsqlDataSource _database;
    private readonly EventStoreOptions _options;
    private readonly NpgsqlConnection _connection;
    private readonly Dictionary<string, long> _positions = [];

    private Replay(NpgsqlDataSource database, EventReader reader, EventStoreOptions options, NpgsqlConnection connection, string schema) =>
        (_database, _reader, _options, _connection, Schema) = (database, reader, options, connection, schema);

    /// <summary>Where its tables are.</summary>
    public string Schema { get; }

    /// <summary>
    /// Makes empty tables for the views. Its connection holds a lock as long as it lives, by which others see that the schema is
    /// in use.
    /// </summary>
    public static async Task<Replay> Begin(
        NpgsqlDataSource database, EventReader reader, Migrations migrations, EventStoreOptions options, IEnumerable<IProjection> views,
        CancellationToken cancellation = default)
    {
        await Sweep(database, options, cancellation);
        var connection = await database.OpenConnectionAsync(cancellation);
        var replay = new Replay(database, reader, options, connection, $"{Prefix(options)}{Guid.NewGuid().ToString("N")[..12]}");
        try
        {
            await Execute(connection, $"select pg_advisory_lock({LockKey(replay.Schema)})", cancellation);
            await Execute(connection, $"create schema \"{replay.Schema}\"", cancellation);
            await using var transaction = await connection.BeginTransactionAsync(cancellation);
            await Execute(connection, $"set local search_path = \"{replay.Schema}\"", cancellation);
            foreach (var view in views)
            {
                replay._positions[view.Name] = 0;
                foreach (var table in view.Tables)
                {
                    await Execute(connection, CreateTable().Replace(migrations.Creating(table).Without(view.ReaderIndexes).Sql, "create unlogged table"), cancellation);
                }
            }

            await transaction.CommitAsync(cancellation);
            return replay;
        }
        catch
        {
            await replay.DisposeAsync();
            throw;
        }
    }

    /// <summary>Removes what replays that ended without cleaning up have left. Those under way are not touched.</summary>
    public static async Task Sweep(NpgsqlDataSource database, EventStoreOptions options, CancellationToken cancellation = default)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        var schemas = new List<string>();
        await using (var command = new NpgsqlCommand("select nspname::text from pg_namespace where starts_with(nspname::text, $1)", connection)
        {
            Parameters = { new NpgsqlParameter<string> { TypedValue = Prefix(options) } },
        })
        {
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                schemas.Add(reader.GetString(0));
            }
        }

        foreach (var schema in schemas)
        {
            await using var ask = new NpgsqlCommand($"select pg_try_advisory_lock({LockKey(schema)})", connection);
            if ((bool)(await ask.ExecuteScalarAsync(cancellation))!)
            {
                await Execute(connection, $"drop schema if exists \"{schema}\" cascade", cancellation);
                await Execute(connection, $"select pg_advisory_unlock({LockKey(schema)})", cancellation);
            }
        }
    }

    /// <summary>
    /// Folds views that stand at one position on, up to and including another, which the log has reached. <paramref name="progress"/>
    /// hears of each batch.
    /// </summary>
    /// <exception cref="ReplayFailedException">A view could not fold an event.</exception>
    public async Task FoldTo(long position, IReadOnlyList<IProjection> views, Action<long>? progress = null, CancellationToken cancellation = default)
    {
        var from = views.Select(v => _positions[v.Name]).Distinct().Single();
        await using var reading = await _database.OpenConnectionAsync(cancellation);
        await foreach (var (at, events) in _reader.ReadKinds(reading, from, position, _options.MaxRebuildBatch, views.SelectMany(v => v.Events).Distinct(), cancellation))
        {
            await Fold(views, events, cancellation);
            progress?.Invoke(at);
        }

        foreach (var view in views)
        {
            _positions[view.Name] = Math.Max(from, position);
        }
    }

    /// <summary>A transaction in which the folded tables are read as <see cref="ViewRows"/> wants it; nothing can be folded meanwhile.</summary>
    public async Task<(NpgsqlConnection Connection, NpgsqlTransaction Transaction)> BeginReading(CancellationToken cancellation = default)
    {
        var transaction = await _connection.BeginTransactionAsync(cancellation);
        await Execute(_connection, $"set local idle_in_transaction_session_timeout = 0; {ViewRows.Settings}", cancellation);
        return (_connection, transaction);
    }

    /// <summary>Drops its tables.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            // Whatever was under way on the connection, its session ends and with it the lock; then this is a left-over like any.
            await Execute(_connection, $"select pg_advisory_unlock({LockKey(Schema)})", CancellationToken.None);
        }
        catch (Exception exception) when (exception is NpgsqlException or InvalidOperationException)
        {
            NpgsqlConnection.ClearPool(_connection);
        }

        await _connection.DisposeAsync();
        try
        {
            await Sweep(_database, _options);
        }
        catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
        {
            // The next start sweeps it.
        }
    }

    private async Task Fold(IReadOnlyList<IProjection> views, IReadOnlyList<RecordedEvent> events, CancellationToken cancellation)
    {
        if (events.Count == 0)
        {
            return;
        }

        await using var transaction = await _connection.BeginTransactionAsync(cancellation);
        await Execute(_connection, $"set local search_path = \"{Schema}\"; set local synchronous_commit = off; set local idle_in_transaction_session_timeout = 0", cancellation);
        foreach (var view in views)
        {
            try
            {
                await ProjectionBatch.Fold(view, events, new ViewTransaction(_connection), apart: true, cancellation);
            }
            catch (ProjectionFailedException failure)
            {
                throw new ReplayFailedException(view.Name, events[0].Position, events[^1].Position, failure.InnerException!);
            }
        }

        await transaction.CommitAsync(cancellation);
    }

    private static string Prefix(EventStoreOptions options) => $"{options.Schema}_replay_";

    private static long LockKey(string schema) => Appender.AppendLockKey(schema);

    private static async Task Execute(NpgsqlConnection connection, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync(cancellation);
    }

    [GeneratedRegex(@"^create table\b", RegexOptions.Multiline)]
    private static partial Regex CreateTable();
}

/// <summary>A view could not be folded anew; the inner exception says why.</summary>
public sealed class ReplayFailedException(string view, long from, long to, Exception inner)
    : Exception($"{view} can't fold an event between positions {from} and {to}: {inner.Message}", inner);
