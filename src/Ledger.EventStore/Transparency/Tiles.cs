namespace Ledger.EventStore;

/// <summary>A tile: up to 256 hashes side by side, level 0 being those of leaves.</summary>
public readonly record struct TileId(int Level, long Index);

/// <summary>Where tiles lie: a database, an export, another log's files.</summary>
public interface ITileSource
{
    /// <summary>The hashes of tiles, each at least as far as a tree of the size it is asked for needs them; what is missing is left out.</summary>
    Task<IReadOnlyDictionary<TileId, byte[]>> ReadTiles(IReadOnlyCollection<TileId> tiles, CancellationToken cancellation = default);
}

/// <summary>Roots and proofs of a tree that is kept as tiles. Each answer reads its tiles at once.</summary>
public sealed class TiledTree(ITileSource source)
{
    /// <summary>The root of the first <paramref name="size"/> leaves.</summary>
    /// <exception cref="MissingTileException">The tiles do not reach that far.</exception>
    public async Task<MerkleHash> Root(long size, CancellationToken cancellation = default) =>
        size == 0 ? MerkleTree.Empty : (await Hashes([new LeafRange(0, size)], cancellation))[0];

    /// <summary>The hash of the leaf at an index.</summary>
    /// <exception cref="MissingTileException">The tiles do not reach that far.</exception>
    public async Task<MerkleHash> Leaf(long index, CancellationToken cancellation = default) =>
        (await Hashes([new LeafRange(index, index + 1)], cancellation))[0];

    /// <summary>What proves the leaf at an index of the tree of a size.</summary>
    /// <exception cref="MissingTileException">The tiles do not reach that far.</exception>
    public async Task<IReadOnlyList<MerkleHash>> Inclusion(long index, long size, CancellationToken cancellation = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(index, size);
        return await Hashes(MerkleTree.InclusionProof(index, size), cancellation);
    }

    /// <summary>What proves that the tree of one size is the beginning of that of another.</summary>
    /// <exception cref="MissingTileException">The tiles do not reach that far.</exception>
    public async Task<IReadOnlyList<MerkleHash>> Consistency(long oldSize, long newSize, CancellationToken cancellation = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(oldSize);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(oldSize, newSize);
        return await Hashes(MerkleTree.ConsistencyProof(oldSize, newSize), cancellation);
    }

    private async Task<MerkleHash[]> Hashes(List<LeafRange> ranges, CancellationToken cancellation)
    {
        var subtrees = ranges.ConvertAll(range => range.Subtrees().ToArray());
        var wanted = subtrees.SelectMany(s => s).Select(s => TileOf(s).Id).ToHashSet();
        var tiles = wanted.Count == 0 ? new Dictionary<TileId, byte[]>() : await source.ReadTiles(wanted, cancellation);
        return [.. subtrees.Select(s => Fold(s, tiles))];
    }

    private static MerkleHash Fold(Subtree[] subtrees, IReadOnlyDictionary<TileId, byte[]> tiles)
    {
        var hash = HashOf(subtrees[^1], tiles);
        for (var i = subtrees.Length - 2; i >= 0; i--)
        {
            hash = MerkleTree.Node(HashOf(subtrees[i], tiles), hash);
        }

        return hash;
    }

    private static MerkleHash HashOf(Subtree subtree, IReadOnlyDictionary<TileId, byte[]> tiles)
    {
        var (id, first, count) = TileOf(subtree);
        return tiles.TryGetValue(id, out var hashes) && hashes.Length >= (first + count) * MerkleHash.Bytes
            ? TileRoot(hashes.AsSpan(first * MerkleHash.Bytes, count * MerkleHash.Bytes))
            : throw new MissingTileException(id);
    }

    private static (TileId Id, int First, int Count) TileOf(Subtree subtree)
    {
        var (level, within) = (subtree.Height / TilePath.Height, subtree.Height % TilePath.Height);
        var first = subtree.Index << within;
        return (new TileId(level, first >> TilePath.Height), (int)(first & (TilePath.Width - 1)), 1 << within);
    }

    /// <summary>The root over a power of two of hashes side by side.</summary>
    internal static MerkleHash TileRoot(ReadOnlySpan<byte> hashes)
    {
        var count = hashes.Length / MerkleHash.Bytes;
        if (count == 1)
        {
            return new MerkleHash(hashes);
        }

        Span<MerkleHash> row = stackalloc MerkleHash[TilePath.Width / 2];
        for (var i = 0; i < count / 2; i++)
        {
            row[i] = MerkleTree.Node(MerkleHash.At(hashes, 2 * i), MerkleHash.At(hashes, (2 * i) + 1));
        }

        for (count /= 2; count > 1; count /= 2)
        {
            for (var i = 0; i < count / 2; i++)
            {
                row[i] = MerkleTree.Node(row[2 * i], row[(2 * i) + 1]);
            }
        }

        return row[0];
    }
}

/// <summary>A tile that a root or a proof needs is not there, or is too short.</summary>
public sealed class MissingTileException(TileId tile) : Exception($"The tile {TilePath.OfHashes(tile.Level, tile.Index, TilePath.Width)} does not reach as far as it must.")
{
    /// <summary>Which one.</summary>
    public TileId Tile { get; } = tile;
}

/// <summary>
/// The right edge of a tree while leaves are appended: of each level the tile that is still growing. Tells which tiles have
/// grown since, and the root.
/// </summary>
internal sealed class GrowingTree
{
    /// <summary>More than a tree of 2^63 leaves needs.</summary>
    public const int MaxLevels = 8;

    private readonly byte[][] _partial = [.. Enumerable.Range(0, MaxLevels).Select(_ => new byte[TilePath.Width * MerkleHash.Bytes])];
    private readonly Dictionary<TileId, byte[]> _full = [];
    private long _sizeBefore;

    /// <summary>Leaves so far.</summary>
    public long Size { get; private set; }

    /// <summary>The tile that grows on a level of a tree of a size; null when it has no hash yet.</summary>
    public static (TileId Id, int Width)? EdgeTile(long size, int level)
    {
        var hashes = HashesOn(size, level);
        var width = (int)(hashes & (TilePath.Width - 1));
        return width == 0 ? null : (new TileId(level, hashes >> TilePath.Height), width);
    }

    /// <summary>The tiles that grow at a size.</summary>
    public static IEnumerable<(TileId Id, int Width)> Edge(long size)
    {
        for (var level = 0; level < MaxLevels; level++)
        {
            if (EdgeTile(size, level) is { } tile)
            {
                yield return tile;
            }
        }
    }

    /// <summary>Goes on from tiles that were kept.</summary>
    /// <exception cref="MissingTileException">One is not there, or is too short.</exception>
    public static GrowingTree From(long size, IReadOnlyDictionary<TileId, byte[]> tiles)
    {
        var tree = new GrowingTree { Size = size };
        foreach (var (id, width) in Edge(size))
        {
            if (!tiles.TryGetValue(id, out var hashes) || hashes.Length < width * MerkleHash.Bytes)
            {
                throw new MissingTileException(id);
            }

            hashes.AsSpan(0, width * MerkleHash.Bytes).CopyTo(tree._partial[id.Level]);
        }

        tree.Settle();
        return tree;
    }

    /// <summary>Appends a leaf.</summary>
    public void Append(MerkleHash leaf) => Append(leaf, 0, Size++);

    /// <summary>The root over all leaves.</summary>
    public MerkleHash Root()
    {
        MerkleHash? root = null;
        for (var level = 0; level < MaxLevels; level++)
        {
            var width = (int)(HashesOn(Size, level) & (TilePath.Width - 1));
            for (var piece = 1; piece < TilePath.Width; piece <<= 1) // from the right: the smallest complete subtree comes last
            {
                if ((width & piece) != 0)
                {
                    var first = width & ~((piece << 1) - 1);
                    var hash = TiledTree.TileRoot(_partial[level].AsSpan(first * MerkleHash.Bytes, piece * MerkleHash.Bytes));
                    root = root is { } right ? MerkleTree.Node(hash, right) : hash;
                }
            }
        }

        return root ?? MerkleTree.Empty;
    }

    /// <summary>The tiles that have grown since the last <see cref="Settle"/>, whole, the lowest and leftmost first.</summary>
    public IEnumerable<(TileId Id, byte[] Hashes)> Grown()
    {
        foreach (var (id, hashes) in _full.OrderBy(t => t.Key.Level).ThenBy(t => t.Key.Index))
        {
            yield return (id, hashes);
        }

        foreach (var (id, width) in Edge(Size))
        {
            if (HashesOn(Size, id.Level) != HashesOn(_sizeBefore, id.Level))
            {
                yield return (id, _partial[id.Level].AsSpan(0, width * MerkleHash.Bytes).ToArray());
            }
        }
    }

    /// <summary>What has grown is kept by now.</summary>
    public void Settle()
    {
        _full.Clear();
        _sizeBefore = Size;
    }

    private static long HashesOn(long size, int level) => size >> (TilePath.Height * level);

    private void Append(MerkleHash hash, int level, long index)
    {
        var place = (int)(index & (TilePath.Width - 1));
        hash.CopyTo(_partial[level].AsSpan(place * MerkleHash.Bytes));
        if (place == TilePath.Width - 1)
        {
            _full[new TileId(level, index >> TilePath.Height)] = [.. _partial[level]];
            Append(TiledTree.TileRoot(_partial[level]), level + 1, index >> TilePath.Height);
        }
    }
}
