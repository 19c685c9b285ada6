using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// The transaction that views write in. What they add goes to the database in one round trip, with the rows of the other views, their
/// progress and the commit; a batch of few events costs little else than its round trips. Who reads or copies asks for the connection.
/// </summary>
public sealed class ViewTransaction
{
    private readonly NpgsqlConnection _connection;
    private readonly List<(NpgsqlBatchCommand Command, IProjection? View)> _added = [];
    private IProjection? _view;

    /// <summary>In a transaction that has begun on a connection.</summary>
    public ViewTransaction(NpgsqlConnection connection) => _connection = connection;

    /// <summary>Adds a statement, which is run after those added before.</summary>
    public void Add(NpgsqlBatchCommand command) => _added.Add((command, _view));

    /// <summary>Adds a statement for so many rows, unless there are none.</summary>
    public void AddFor(int rows, Func<NpgsqlBatchCommand> command)
    {
        if (rows > 0)
        {
            Add(command());
        }
    }

    /// <summary>The connection, for reading and for COPY; the statements added before have been run.</summary>
    public async Task<NpgsqlConnection> Connection(CancellationToken cancellation)
    {
        await Send(cancellation);
        return _connection;
    }

    /// <summary>Whose statements are added from here on; null: the transaction's own.</summary>
    internal void AddsFor(IProjection? view) => _view = view;

    /// <summary>Runs the statements added.</summary>
    /// <exception cref="ProjectionFailedException">A view's statement failed.</exception>
    /// <exception cref="StatementFailedException">One of the transaction's own failed.</exception>
    public async Task Send(CancellationToken cancellation)
    {
        if (_added.Count == 0)
        {
            return;
        }

        await using var batch = new NpgsqlBatch(_connection);
        foreach (var (command, _) in _added)
        {
            batch.BatchCommands.Add(command);
        }

        try
        {
            await batch.ExecuteNonQueryAsync(cancellation);
        }
        catch (PostgresException exception) when (exception.BatchCommand is { } failed && !DatabaseErrors.IsUnavailable(exception))
        {
            throw _added.Find(a => a.Command == failed) is { View: { } view }
                ? new ProjectionFailedException(view, exception)
                : new StatementFailedException(failed, exception);
        }

        _added.Clear();
    }
}

/// <summary>A statement failed that belongs to no view.</summary>
internal sealed class StatementFailedException(NpgsqlBatchCommand statement, PostgresException inner) : Exception(inner.Message, inner)
{
    /// <summary>The statement as it was added.</summary>
    public NpgsqlBatchCommand Statement => statement;

    /// <summary>What the server said of it.</summary>
    public string SqlState => inner.SqlState;
}
