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
    /// <summary>A fresh id.</summary>
    public static Guid New() => Guid.CreateVersion7();

    /// <summary>The id that belongs to a key: the same parts always give the same id, and no two lists of parts run together.</summary>
    public static Guid From(string tenantId, params ReadOnlySpan<string> keyParts)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Append(hash, tenantId);
        foreach (var part in keyParts)
        {
            Append(hash, part);
        }

        return ToGuid(hash.GetHashAndReset());
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
        return ToGuid(SHA256.HashData(input));
    }

    private static void Append(IncrementalHash hash, string part)
    {
        var bytes = Encoding.UTF8.GetBytes(part);
        Span<byte> length = stackalloc byte[4];
        BinaryPrimitives.WriteInt32BigEndian(length, bytes.Length);
        hash.AppendData(length);
        hash.AppendData(bytes);
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
