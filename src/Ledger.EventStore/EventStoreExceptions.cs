namespace Ledger.EventStore;

/// <summary>The appender's queue is full: nothing was stored; try again later.</summary>
public sealed class AppendQueueFullException(int capacity)
    : Exception($"{capacity} requests already wait to be stored.");

/// <summary>
/// The database could not be reached. When <see cref="OutcomeUnknown"/>, the events may have been stored all the same:
/// a repeat under the same idempotency key finds out.
/// </summary>
public sealed class EventStoreUnavailableException(string message, bool outcomeUnknown, Exception? inner = null)
    : Exception(message, inner)
{
    /// <summary>Whether the commit was under way when the connection was lost and could not be looked up since.</summary>
    public bool OutcomeUnknown { get; } = outcomeUnknown;
}

/// <summary>The database's schema was made by a newer version of this program, or its migrations were edited.</summary>
public sealed class SchemaMismatchException(string message) : Exception(message);

/// <summary>The server is set up to lose what it has acknowledged.</summary>
public sealed class UnsafeServerException(string message) : Exception(message);

/// <summary>An event's JSON does not fit its kind.</summary>
public sealed class UnreadableEventException(long position, Type dataType, Exception inner)
    : Exception($"The event at position {position} can't be read as {dataType.Name}.", inner)
{
    /// <summary>What it should be.</summary>
    public Type DataType { get; } = dataType;

    /// <summary>Where the event stands in the log.</summary>
    public long Position { get; } = position;
}
