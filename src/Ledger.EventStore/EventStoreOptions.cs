namespace Ledger.EventStore;

/// <summary>The limits and intervals of the event store. Every default is a named constant.</summary>
public sealed record EventStoreOptions
{
    /// <summary>The PostgreSQL schema that holds every table, when nothing else is said.</summary>
    public const string DefaultSchema = "ledger";

    /// <summary>Events in one transaction of the appender. Past 5000 the latency of a batch grows faster than its rate.</summary>
    public const int DefaultMaxBatchEvents = 2_000;

    /// <summary>Bytes of event data in one transaction of the appender.</summary>
    public const int DefaultMaxBatchBytes = 4 * 1024 * 1024;

    /// <summary>Requests that may wait for the appender; one more is refused with <see cref="AppendQueueFullException"/>.</summary>
    public const int DefaultQueueCapacity = 20_000;

    /// <summary>Bytes of one event's data.</summary>
    public const int MaxEventBytes = 64 * 1024;

    /// <summary>Events of one request: they are stored in one transaction, whole or not at all.</summary>
    public const int MaxRequestEvents = 10_000;

    /// <summary>Events the daemon folds in one transaction; with twice as many, views are a tenth faster and a node takes a quarter more memory.</summary>
    public const int DefaultMaxProjectionBatch = 2_500;

    /// <summary>Events a rebuild folds in one transaction.</summary>
    public const int DefaultMaxRebuildBatch = 5_000;

    /// <summary>The schema of all tables.</summary>
    public string Schema { get; init; } = DefaultSchema;

    /// <summary>What the names of the roles begin with; the schema's name unless set. Roles are the server's, not the database's.</summary>
    public string? RolePrefix { get; init; }

    /// <summary>Whether to work without roles and row-level security, as the account itself.</summary>
    public bool AcceptOneWall { get; init; }

    /// <summary>The role of what answers requests; null without roles.</summary>
    public string? ReaderRole => AcceptOneWall ? null : $"{RolePrefix ?? Schema}_reader";

    /// <summary>The role of what stores events and keeps views; null without roles.</summary>
    public string? WriterRole => AcceptOneWall ? null : $"{RolePrefix ?? Schema}_writer";

    /// <summary>See <see cref="DefaultMaxBatchEvents"/>.</summary>
    public int MaxBatchEvents { get; init; } = DefaultMaxBatchEvents;

    /// <summary>See <see cref="DefaultMaxBatchBytes"/>.</summary>
    public int MaxBatchBytes { get; init; } = DefaultMaxBatchBytes;

    /// <summary>See <see cref="DefaultQueueCapacity"/>.</summary>
    public int QueueCapacity { get; init; } = DefaultQueueCapacity;

    /// <summary>See <see cref="DefaultMaxProjectionBatch"/>.</summary>
    public int MaxProjectionBatch { get; init; } = DefaultMaxProjectionBatch;

    /// <summary>See <see cref="DefaultMaxRebuildBatch"/>.</summary>
    public int MaxRebuildBatch { get; init; } = DefaultMaxRebuildBatch;

    /// <summary>How long the appender tries to reach the database again and learn a batch's outcome before it answers "unavailable".</summary>
    public TimeSpan AppendRetryWindow { get; init; } = TimeSpan.FromSeconds(5);

    /// <summary>How long the daemon's lease lasts without renewal.</summary>
    public TimeSpan LeaseDuration { get; init; } = TimeSpan.FromSeconds(3);

    /// <summary>How often the lease is renewed or asked for; the same statement is the fallback for lost notifications.</summary>
    public TimeSpan HeartbeatInterval { get; init; } = TimeSpan.FromSeconds(1);
}
