using System.Text;

namespace Ledger.EventStore.Tests.Support;

/// <summary>A tree whose tiles are kept in memory, grown leaf by leaf or in pieces.</summary>
internal sealed class MemoryTiles : ITileSource
{
    public GrowingTree Tree { get; private set; } = new();

    public Dictionary<TileId, byte[]> Kept { get; } = [];

    public static MemoryTiles Of(IEnumerable<byte[]> leaves)
    {
        var tiles = new MemoryTiles();
        foreach (var leaf in leaves)
        {
            tiles.Tree.Append(MerkleTree.Leaf(leaf));
        }

        tiles.Keep();
        return tiles;
    }

    /// <summary>The leaves "leaf 0", "leaf 1" and so on; with chance, kept now and then and gone on with from what was kept.</summary>
    public static MemoryTiles Numbered(int size, Random? chance = null)
    {
        var tiles = new MemoryTiles();
        var next = chance?.Next(1, 5_000) ?? size;
        for (var i = 0; i < size; i++)
        {
            tiles.Tree.Append(MerkleTree.Leaf(Encoding.ASCII.GetBytes($"leaf {i}")));
            if (i == next)
            {
                tiles.Keep();
                tiles.Tree = GrowingTree.From(i + 1, tiles.Kept);
                next += chance!.Next(1, 5_000);
            }
        }

        tiles.Keep();
        return tiles;
    }

    public Task<IReadOnlyDictionary<TileId, byte[]>> ReadTiles(IReadOnlyCollection<TileId> tiles, CancellationToken cancellation = default) =>
        Task.FromResult<IReadOnlyDictionary<TileId, byte[]>>(Kept.Where(t => tiles.Contains(t.Key)).ToDictionary());

    private void Keep()
    {
        foreach (var (id, hashes) in Tree.Grown())
        {
            // What was kept stays: a tile only grows.
            Assert.True(!Kept.TryGetValue(id, out var before) || hashes.AsSpan().StartsWith(before));
            Kept[id] = hashes;
        }

        Tree.Settle();
    }
}
