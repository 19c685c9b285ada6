namespace Ledger.EventStore;

/// <summary>Events for one stream. <paramref name="Type"/> is the stream's kind, as in Marten's <c>mt_streams.type</c>.</summary>
public readonly record struct StreamAppend(string StreamId, string Type, IReadOnlyList<object> Events);

/// <summary>A stream's version that a decision rested on; 0: the stream did not exist.</summary>
public readonly record struct StreamCondition(string StreamId, long ExpectedVersion);

/// <summary>What an event is known by, and a digest of what it was made of: the same id with another digest is a conflict.</summary>
public readonly record struct EventIdentity(Guid Id, string Fingerprint);

/// <summary>What one command wants stored: whole or not at all, side by side in the log.</summary>
public sealed record AppendRequest
{
    /// <summary>The tenant of every stream named.</summary>
    public required string TenantId { get; init; }

    /// <summary>The events, by stream; at least one.</summary>
    public required IReadOnlyList<StreamAppend> Appends { get; init; }

    /// <summary>Versions that must still hold when the events are stored: of streams written, and of streams only read.</summary>
    public IReadOnlyList<StreamCondition> Conditions { get; init; } = [];

    /// <summary>The id of the first event, made of the client's key by <see cref="EventId.From"/>; null when there is no key.</summary>
    public Guid? IdempotencyId { get; init; }

    /// <summary>A digest of what was asked for. The same id with another fingerprint is a conflict.</summary>
    public string? Fingerprint { get; init; }

    /// <summary>
    /// An identity of each event, in their order, instead of one of the request: those that are stored already are left out, and
    /// so, unless <see cref="AllOrNothing"/>, are those whose id was used for something else.
    /// </summary>
    public IReadOnlyList<EventIdentity>? Identities { get; init; }

    /// <summary>With <see cref="Identities"/>: one id that was used for something else refuses the whole request.</summary>
    public bool AllOrNothing { get; init; }

    /// <summary>Ids of events that must not be stored, such as that of an event which would rule these out.</summary>
    public IReadOnlyList<Guid> Absent { get; init; } = [];

    /// <summary>Who causes the events.</summary>
    public string? Actor { get; init; }

    /// <summary>The request or conversation they belong to.</summary>
    public string? CorrelationId { get; init; }

    /// <summary>What they follow from.</summary>
    public string? CausationId { get; init; }
}

/// <summary>What became of a request.</summary>
public enum AppendOutcome
{
    /// <summary>Its events are stored.</summary>
    Appended,

    /// <summary>It had been stored before under the same id; the result is the first one's.</summary>
    Duplicate,

    /// <summary>Something else had been stored under the same id; nothing is stored now.</summary>
    KeyReused,

    /// <summary>A stream has another version than the decision rested on, or an event is there that must not be; nothing is stored.</summary>
    ConditionFailed,
}

/// <summary>The answer to a request. A failed condition names its stream and the version found.</summary>
public sealed record AppendResult(AppendOutcome Outcome)
{
    /// <summary>The position of the request's first event (also of the one a duplicate or a reused key was found at).</summary>
    public long FirstPosition { get; init; }

    /// <summary>The position of the request's last event.</summary>
    public long LastPosition { get; init; }

    /// <summary>When the events were recorded.</summary>
    public DateTimeOffset RecordedAt { get; init; }

    /// <summary>The version of the first stream appended to, after the request.</summary>
    public long Version { get; init; }

    /// <summary>The condition that failed.</summary>
    public StreamCondition? Failed { get; init; }

    /// <summary>The version found where a condition failed.</summary>
    public long ActualVersion { get; init; }

    /// <summary>The event that was found although it was to be absent.</summary>
    public Guid? Found { get; init; }

    /// <summary>What became of each event of a request with <see cref="AppendRequest.Identities"/>, in their order; empty for others.</summary>
    public IReadOnlyList<EventResult> Events { get; init; } = [];
}

/// <summary>
/// What became of one event: stored, found stored, or (with the position of what was found) its id used for something else. When
/// its whole request was refused, those that might have been stored have position 0.
/// </summary>
public readonly record struct EventResult(AppendOutcome Outcome, long Position, DateTimeOffset RecordedAt);
