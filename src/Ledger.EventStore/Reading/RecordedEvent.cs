namespace Ledger.EventStore;

/// <summary>An event as it stands in the log: the fact, and what the store knows of it.</summary>
public sealed record RecordedEvent
{
    /// <summary>Its place in the log, from 1, without gaps, in order of commit.</summary>
    public required long Position { get; init; }

    /// <summary>Its id; unique in the database.</summary>
    public required Guid Id { get; init; }

    /// <summary>The tenant it belongs to.</summary>
    public required string TenantId { get; init; }

    /// <summary>The stream it belongs to.</summary>
    public required string StreamId { get; init; }

    /// <summary>Its place in the stream, from 1, without gaps.</summary>
    public required long Version { get; init; }

    /// <summary>The stored name of its kind.</summary>
    public required string Type { get; init; }

    /// <summary>When it was recorded, UTC, microseconds; never earlier than the event before it.</summary>
    public required DateTimeOffset RecordedAt { get; init; }

    /// <summary>The JSON of the fact, UTF-8, as PostgreSQL gives jsonb back.</summary>
    public required ReadOnlyMemory<byte> Json { get; init; }

    /// <summary>Who caused it.</summary>
    public string? Actor { get; init; }

    /// <summary>The request or conversation it belongs to.</summary>
    public string? CorrelationId { get; init; }

    /// <summary>What it follows from.</summary>
    public string? CausationId { get; init; }

    /// <summary>The W3C trace context of the command, when it was traced.</summary>
    public string? TraceParent { get; init; }

    /// <summary>The fact itself; null when this program does not know the event's kind.</summary>
    /// <exception cref="UnreadableEventException">The JSON is not one of that kind; every other event can still be read.</exception>
    public object? Data
    {
        get => Unreadable is null ? field : throw Unreadable;
        init;
    }

    /// <summary>The CLR type of <see cref="Data"/>, even where that can't be read.</summary>
    internal Type? DataType => Unreadable is null ? Data?.GetType() : Unreadable.DataType;

    internal UnreadableEventException? Unreadable { get; init; }
}
