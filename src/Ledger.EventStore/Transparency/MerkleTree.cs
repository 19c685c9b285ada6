using System.Buffers;
using System.Numerics;
using System.Security.Cryptography;

namespace Ledger.EventStore;

/// <summary>
/// The tree of RFC 6962 §2.1 over SHA-256: how leaves and nodes are hashed, which hashes a proof is made of, and whether a proof
/// holds. Knows no storage.
/// </summary>
public static class MerkleTree
{
    private const byte LeafPrefix = 0;
    private const byte NodePrefix = 1;

    /// <summary>The root of a tree without leaves.</summary>
    public static MerkleHash Empty { get; } = new(SHA256.HashData([]));

    /// <summary>The hash of a leaf.</summary>
    public static MerkleHash Leaf(ReadOnlySpan<byte> data)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(data.Length + 1);
        data.CopyTo(buffer.AsSpan(1));
        var hash = LeafAfterRoom(buffer.AsSpan(0, data.Length + 1));
        ArrayPool<byte>.Shared.Return(buffer);
        return hash;
    }

    /// <summary>The hash of a leaf whose data begin at the second byte: the first is room for what the tree puts before it.</summary>
    internal static MerkleHash LeafAfterRoom(Span<byte> data)
    {
        data[0] = LeafPrefix;
        Span<byte> hash = stackalloc byte[MerkleHash.Bytes];
        Sha256.Hash(data, hash);
        return new MerkleHash(hash);
    }

    /// <summary>The hash of two hashes.</summary>
    public static MerkleHash Node(MerkleHash left, MerkleHash right)
    {
        Span<byte> input = stackalloc byte[1 + (2 * MerkleHash.Bytes)];
        input[0] = NodePrefix;
        left.CopyTo(input[1..]);
        right.CopyTo(input[(1 + MerkleHash.Bytes)..]);
        Span<byte> hash = stackalloc byte[MerkleHash.Bytes];
        Sha256.Hash(input, hash);
        return new MerkleHash(hash);
    }

    /// <summary>Whether a leaf is the one at an index of the tree with this size and root.</summary>
    public static bool VerifyInclusion(MerkleHash leaf, long index, long size, IReadOnlyList<MerkleHash> proof, MerkleHash root)
    {
        if (index < 0 || index >= size)
        {
            return false;
        }

        var (fn, sn, hash) = (index, size - 1, leaf);
        foreach (var sibling in proof)
        {
            if (sn == 0)
            {
                return false;
            }

            if ((fn & 1) == 1 || fn == sn)
            {
                hash = Node(sibling, hash);
                while ((fn & 1) == 0 && fn != 0)
                {
                    (fn, sn) = (fn >> 1, sn >> 1);
                }
            }
            else
            {
                hash = Node(hash, sibling);
            }

            (fn, sn) = (fn >> 1, sn >> 1);
        }

        return sn == 0 && hash == root;
    }

    /// <summary>Whether a tree is the beginning of a larger one: nothing was changed or taken away, only appended.</summary>
    public static bool VerifyConsistency(long oldSize, MerkleHash oldRoot, long newSize, MerkleHash newRoot, IReadOnlyList<MerkleHash> proof)
    {
        if (oldSize < 0 || oldSize > newSize)
        {
            return false;
        }

        if (oldSize == newSize || oldSize == 0)
        {
            return proof.Count == 0 && (oldSize == newSize ? oldRoot == newRoot : oldRoot == Empty);
        }

        var (fn, sn, next) = (oldSize - 1, newSize - 1, 0);
        while ((fn & 1) == 1)
        {
            (fn, sn) = (fn >> 1, sn >> 1);
        }

        if (proof.Count == 0)
        {
            return false;
        }

        // A size that is a power of two has its root as a node of the larger tree, and the proof leaves it out.
        var first = fn == 0 ? oldRoot : proof[next++];
        var (old, now) = (first, first);
        for (; next < proof.Count; next++)
        {
            if (sn == 0)
            {
                return false;
            }

            if ((fn & 1) == 1 || fn == sn)
            {
                old = Node(proof[next], old);
                now = Node(proof[next], now);
                while ((fn & 1) == 0 && fn != 0)
                {
                    (fn, sn) = (fn >> 1, sn >> 1);
                }
            }
            else
            {
                now = Node(now, proof[next]);
            }

            (fn, sn) = (fn >> 1, sn >> 1);
        }

        return sn == 0 && old == oldRoot && now == newRoot;
    }

    /// <summary>The leaves [from, to) whose hashes prove a leaf's place, its sibling first.</summary>
    internal static List<LeafRange> InclusionProof(long index, long size)
    {
        var ranges = new List<LeafRange>();
        var (from, to) = (0L, size);
        while (to - from > 1)
        {
            var middle = from + Split(to - from);
            if (index < middle)
            {
                ranges.Add(new LeafRange(middle, to));
                to = middle;
            }
            else
            {
                ranges.Add(new LeafRange(from, middle));
                from = middle;
            }
        }

        ranges.Reverse();
        return ranges;
    }

    /// <summary>The leaves [from, to) whose hashes prove that the first <paramref name="oldSize"/> leaves are still the first.</summary>
    internal static List<LeafRange> ConsistencyProof(long oldSize, long newSize)
    {
        var ranges = new List<LeafRange>();
        if (oldSize == 0)
        {
            return ranges;
        }

        var (from, to) = (0L, newSize);
        while (to != oldSize)
        {
            var middle = from + Split(to - from);
            if (oldSize <= middle)
            {
                ranges.Add(new LeafRange(middle, to));
                to = middle;
            }
            else
            {
                ranges.Add(new LeafRange(from, middle));
                from = middle;
            }
        }

        if (from > 0)
        {
            ranges.Add(new LeafRange(from, to));
        }

        ranges.Reverse();
        return ranges;
    }

    /// <summary>The largest power of two that is less than a size of at least 2.</summary>
    private static long Split(long size) => 1L << BitOperations.Log2((ulong)size - 1);
}

/// <summary>The leaves from one index up to another.</summary>
internal readonly record struct LeafRange(long From, long To)
{
    /// <summary>The complete subtrees it is made of, the leftmost and largest first. The range must be one that a proof or a root names.</summary>
    public IEnumerable<Subtree> Subtrees()
    {
        for (var from = From; from < To;)
        {
            var height = BitOperations.Log2((ulong)(To - from));
            yield return new Subtree(height, from >> height);
            from += 1L << height;
        }
    }
}

/// <summary>A subtree of 2^height leaves, the index-th of its kind.</summary>
internal readonly record struct Subtree(int Height, long Index);
