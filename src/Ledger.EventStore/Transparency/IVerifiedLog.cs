namespace Ledger.EventStore;

/// <summary>What a copy of the log says of itself; nothing of it is believed before it is verified.</summary>
/// <param name="Head">The position of the newest event; 0 when there is none.</param>
/// <param name="Size">Events that are sealed.</param>
/// <param name="Root">Their root.</param>
/// <param name="Shown">The newest checkpoint; null when none was signed yet.</param>
/// <param name="Keys">The verification keys it lists, the current one first.</param>
public sealed record LogClaims(long Head, long Size, MerkleHash Root, PublishedCheckpoint? Shown, IReadOnlyList<string> Keys);

/// <summary>The secrets of events side by side: what opens their leaves.</summary>
/// <param name="Salts">By bundle of 256.</param>
/// <param name="Erasures">The commitments of erased events, by position.</param>
public sealed record LogSecrets(IReadOnlyDictionary<long, byte[]> Salts, IReadOnlyDictionary<long, byte[]> Erasures);

/// <summary>A copy of the log that can be verified: a database, or files.</summary>
public interface IVerifiedLog : ITileSource
{
    /// <summary>What it says of itself.</summary>
    Task<LogClaims> ReadClaims(CancellationToken cancellation = default);

    /// <summary>The events after a position, at most <paramref name="limit"/>, in order, as rows of a binary COPY of <see cref="EventColumns"/>.</summary>
    /// <exception cref="NotAnEventException">Thrown by the stream after the rows before it, where something is no event.</exception>
    Task<Stream> OpenEvents(long after, long limit, CancellationToken cancellation = default);

    /// <summary>The salts and erasures of whole bundles of 256 events.</summary>
    Task<LogSecrets> ReadSecrets(long firstBundle, int bundles, CancellationToken cancellation = default);

    /// <summary>The pseudonym of a tenant; null when there is none.</summary>
    Task<byte[]?> ReadPseudonym(string tenantId, CancellationToken cancellation = default);

    /// <summary>What is wrong beside the leaves, such as a stream whose versions have a hole; null when nothing is. Asked for last, when all else holds.</summary>
    Task<string?> FindFault(CancellationToken cancellation = default);

    /// <summary>The columns of an event, in the order they are read in.</summary>
    public const string EventColumns = StoredRow.Columns;
}

/// <summary>Where the event at a position should be, there is something else.</summary>
public sealed class NotAnEventException(long position, string message) : Exception(message)
{
    /// <summary>The event's position.</summary>
    public long Position => position;
}
