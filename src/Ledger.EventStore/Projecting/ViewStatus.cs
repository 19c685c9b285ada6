namespace Ledger.EventStore;

/// <summary>Where a view stands.</summary>
public sealed record ViewStatus
{
    /// <summary>The view.</summary>
    public required string Name { get; init; }

    /// <summary>The position of the last event it has folded.</summary>
    public required long Position { get; init; }

    /// <summary>How many events it has yet to fold.</summary>
    public required long LagEvents { get; init; }

    /// <summary>The age of the oldest event it has yet to fold; 0 when there is none.</summary>
    public required double LagSeconds { get; init; }

    /// <summary><c>running</c>, <c>paused</c> or <c>failed</c>.</summary>
    public required string State { get; init; }

    /// <summary>When the event at its position was recorded.</summary>
    public DateTimeOffset? RecordedAt { get; init; }

    /// <summary>The event it stopped at.</summary>
    public long? FailedPosition { get; init; }

    /// <summary>Why it stopped there.</summary>
    public string? Error { get; init; }

    /// <summary><c>requested</c>, <c>running</c> or <c>failed</c>; null when no rebuild is under way.</summary>
    public string? Rebuild { get; init; }

    /// <summary>How far its rebuild has come.</summary>
    public long? RebuildPosition { get; init; }

    /// <summary>Why its rebuild failed.</summary>
    public string? RebuildError { get; init; }

    /// <summary>When it was last rebuilt.</summary>
    public DateTimeOffset? RebuiltAt { get; init; }
}
