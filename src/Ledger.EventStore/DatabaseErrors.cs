using System.Net.Sockets;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>Which exceptions mean "the database is away", which "this very data is refused". By SqlState, never by text.</summary>
public static class DatabaseErrors
{
    /// <summary>
    /// The connection is lost, the server is starting, stopping, full, read-only or out of resources: nothing is wrong with
    /// what was asked, and asking again later may work.
    /// </summary>
    public static bool IsUnavailable(Exception exception) => exception switch
    {
        PostgresException postgres => postgres.SqlState[..2] is "08" or "53" or "57" or "58"
            || postgres.SqlState is PostgresErrorCodes.ReadOnlySqlTransaction or PostgresErrorCodes.LockNotAvailable
                or PostgresErrorCodes.SerializationFailure or PostgresErrorCodes.DeadlockDetected
                or PostgresErrorCodes.InFailedSqlTransaction or "25P03" or "25P04" or "28P01" or "28000" or "3D000",
        NpgsqlException or SocketException or IOException or TimeoutException => true,
        ObjectDisposedException => true,
        InvalidOperationException { InnerException: { } inner } => IsUnavailable(inner),
        _ => false,
    };

    /// <summary>Another program numbered an event without taking the append lock (Marten's own appender would): look at the head again.</summary>
    internal static bool IsNumberTaken(Exception exception) =>
        exception is PostgresException { SqlState: PostgresErrorCodes.UniqueViolation, ConstraintName: "pkey_mt_events_seq_id" or "pk_mt_events_stream_and_version" };

    /// <summary>A stream that was to be begun is there.</summary>
    internal static bool IsStreamTaken(Exception exception) =>
        exception is PostgresException { SqlState: PostgresErrorCodes.UniqueViolation, ConstraintName: "pkey_mt_streams_tenant_id_id" };

    /// <summary>PostgreSQL refuses the data itself (class 22, 23 or 54), such as a text that jsonb can't hold.</summary>
    public static bool IsRefusedData(Exception exception) =>
        exception is PostgresException { SqlState: var state } && state[..2] is "22" or "23" or "54"
        && !IsNumberTaken(exception);
}
