using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace Ledger.EventStore;

/// <summary>
/// Event ids. A fresh one is a UUIDv7 (RFC 9562, ordered by time). One derived from a client's key is a UUIDv8 made of
/// SHA-256, so that the unique index on the id makes deduplication exact and for ever.
/// </summary>
public static class EventId
{
    private const int FreshIdsAtOnce = 64;

    [ThreadStatic]
    private static byte[]? t_random;

    [ThreadStatic]
    private static int t_used;

    /// <summary>A fresh id: milliseconds since 1970, then 74 random bits.</summary>
    /// <remarks>
    /// Random bytes are drawn for <see cref="FreshIdsAtOnce"/> ids at once. <see cref="Guid.CreateVersion7()"/> asks the kernel for each,
    /// which was a thirtieth of the CPU of an import.
    /// </remarks>
    public static Guid New()
    {
        const int size = 16;
        t_random ??= new byte[FreshIdsAtOnce * size];
        if (t_used == 0)
        {
            RandomNumberGenerator.Fill(t_random);
        }

        var bytes = t_random.AsSpan(t_used * size, size);
        t_used = (t_used + 1) % FreshIdsAtOnce;
        var milliseconds = TimeProvider.System.GetUtcNow().ToUnixTimeMilliseconds();
        BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)(milliseconds >> 16));
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)milliseconds);
        bytes[6] = (byte)((bytes[6] & 0x0F) | 0x70);
        bytes[8] = (byte)((bytes[8] & 0x3F) | 0x80);
        return new Guid(bytes, bigEndian: true);
    }

    /// <summary>The id that belongs to a key: the same parts always give the same id, and no two lists of parts run together.</summary>
    public static Guid From(string tenantId, params ReadOnlySpan<string> keyParts)
    {
        var length = sizeof(int) + Encoding.UTF8.GetMaxByteCount(tenantId.Length);
        foreach (var part in keyParts)
        {
            length += sizeof(int) + Encoding.UTF8.GetMaxByteCount(part.Length);
        }

        var buffer = length <= 1_024 ? stackalloc byte[1_024] : new byte[length];
        var written = Write(buffer, tenantId);
        foreach (var part in keyParts)
        {
            written += Write(buffer[written..], part);
        }

        Span<byte> digest = stackalloc byte[Sha256.Bytes];
        Sha256.Hash(buffer[..written], digest);
        return ToGuid(digest);
    }

    /// <summary>The id of the event at <paramref name="index"/> of a request whose first event has <paramref name="first"/>.</summary>
    public static Guid Next(Guid first, int index)
    {
        if (index == 0)
        {
            return first;
        }

        Span<byte> input = stackalloc byte[20];
        first.TryWriteBytes(input, bigEndian: true, out _);
        BinaryPrimitives.WriteInt32BigEndian(input[16..], index);
        Span<byte> digest = stackalloc byte[Sha256.Bytes];
        Sha256.Hash(input, digest);
        return ToGuid(digest);
    }

    /// <summary>Writes the length before the text, so that no two lists of parts run together.</summary>
    private static int Write(Span<byte> buffer, string part)
    {
        var length = Encoding.UTF8.GetBytes(part, buffer[sizeof(int)..]);
        BinaryPrimitives.WriteInt32BigEndian(buffer, length);
        return sizeof(int) + length;
    }

    private static Guid ToGuid(ReadOnlySpan<byte> digest)
    {
        Span<byte> bytes = stackalloc byte[16];
        digest[..16].CopyTo(bytes);
        bytes[6] = (byte)((bytes[6] & 0x0F) | 0x80);
        bytes[8] = (byte)((bytes[8] & 0x3F) | 0x80);
        return new Guid(bytes, bigEndian: true);
    }
}
