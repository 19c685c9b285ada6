using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Ledger.EventStore;

/// <summary>
/// What a leaf of the log says of an event, byte by byte in docs/transparency-log.md: where it stands, who did it when, and two
/// salted commitments, one to its payload and one to all else that is stored of it. So the leaf tells nothing of the payload, and
/// stays as it is when payload and salt are erased.
/// </summary>
public static class LeafEnvelope
{
    /// <summary>The largest entry that C2SP's tlog-tiles allows; ours stay below by <see cref="MaxFieldBytes"/>.</summary>
    public const int MaxBytes = 65_535;

    /// <summary>Bytes of a text in an entry; of a longer one, which only another program can have written, the entry holds the SHA-256.</summary>
    public const int MaxFieldBytes = 4_096;

    internal const int SaltBytes = 16;
    internal const int PseudonymBytes = 16;
    internal const int CommitmentBytes = SHA256.HashSizeInBytes;

    /// <summary>Both commitments of an event, as they stand at the end of its entry.</summary>
    internal const int CommitmentsBytes = 2 * CommitmentBytes;

    private const byte Version = 1;
    private const byte MetadataTag = 1;
    private const ushort Absent = 0xFFFF;
    private const ushort Hashed = 0xFFFE;
    private const uint AbsentLong = 0xFFFF_FFFF;
    private const long MicrosecondsTo2000 = 946_684_800_000_000;

    /// <summary>Appends the entry of an event to a buffer.</summary>
    internal static void Write(StoredRow row, ReadOnlySpan<byte> pseudonym, ReadOnlySpan<byte> commitments, ByteBuffer output)
    {
        output.Write(Version);
        output.Write(pseudonym);
        output.Write(row.Position);
        output.Write(row.Version);
        output.Write(row.Id);
        output.WriteInt64(BinaryPrimitives.ReadInt64BigEndian(row.RecordedAt) + MicrosecondsTo2000);
        Field(row.HasStreamId, row.StreamId, output);
        Field(true, row.Type, output);
        Field(row.HasActor, row.Actor, output);
        output.Write(commitments);
    }

    /// <summary>
    /// Commits to an event's payload, SHA-256(salt || canonical JSON), and to the rest, SHA-256(salt || 1 || fields). No JSON
    /// begins with the byte 1, so neither can be taken for the other.
    /// </summary>
    internal static void Commit(StoredRow row, ReadOnlySpan<byte> salt, ByteBuffer scratch, Span<byte> commitments)
    {
        scratch.Clear();
        scratch.Write(salt);
        CanonicalJson.Write(row.Data, scratch);
        Sha256.Hash(scratch.Written, commitments);

        scratch.Clear();
        scratch.Write(salt);
        scratch.Write(MetadataTag);
        LongField(row.HasDotnetType, row.DotnetType, scratch);
        LongField(row.HasCorrelationId, row.CorrelationId, scratch);
        LongField(row.HasCausationId, row.CausationId, scratch);
        if (row.HasHeaders)
        {
            var start = scratch.Length;
            scratch.WriteUInt32(0);
            CanonicalJson.Write(row.Headers, scratch);
            BinaryPrimitives.WriteUInt32BigEndian(scratch.Written[start..], (uint)(scratch.Length - start - sizeof(uint)));
        }
        else
        {
            scratch.WriteUInt32(AbsentLong);
        }

        LongField(row.HasBinary, row.Binary, scratch);
        Sha256.Hash(scratch.Written, commitments[CommitmentBytes..]);
    }

    private static void Field(bool present, ReadOnlySpan<byte> text, ByteBuffer output)
    {
        if (!present)
        {
            output.WriteUInt16(Absent);
        }
        else if (text.Length <= MaxFieldBytes)
        {
            output.WriteUInt16((ushort)text.Length);
            output.Write(text);
        }
        else
        {
            output.WriteUInt16(Hashed);
            Sha256.Hash(text, output.Room(Sha256.Bytes));
        }
    }

    private static void LongField(bool present, ReadOnlySpan<byte> text, ByteBuffer output)
    {
        output.WriteUInt32(present ? (uint)text.Length : AbsentLong);
        if (present)
        {
            output.Write(text);
        }
    }
}
