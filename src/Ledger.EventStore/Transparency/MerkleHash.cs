using System.Runtime.Intrinsics;

namespace Ledger.EventStore;

/// <summary>A SHA-256 of a leaf or a node of the log's tree; compared by value, shown in base64.</summary>
public readonly record struct MerkleHash
{
    /// <summary>How many bytes it has.</summary>
    internal const int Bytes = 32;

    private readonly Vector256<byte> _bytes;

    /// <summary>The hash with these bytes.</summary>
    /// <exception cref="ArgumentException">There are not 32 of them.</exception>
    public MerkleHash(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length != Bytes)
        {
            throw new ArgumentException($"A hash has {Bytes} bytes, not {bytes.Length}.", nameof(bytes));
        }

        _bytes = Vector256.Create(bytes);
    }

    /// <summary>The hash at <paramref name="index"/> of a tile.</summary>
    internal static MerkleHash At(ReadOnlySpan<byte> hashes, int index) => new(hashes.Slice(index * Bytes, Bytes));

    /// <summary>Writes the bytes.</summary>
    public void CopyTo(Span<byte> destination) => _bytes.CopyTo(destination);

    /// <summary>The bytes.</summary>
    public byte[] ToArray()
    {
        var bytes = new byte[Bytes];
        CopyTo(bytes);
        return bytes;
    }

    /// <summary>Base64 with padding, 44 characters.</summary>
    public override string ToString() => Convert.ToBase64String(ToArray());
}
