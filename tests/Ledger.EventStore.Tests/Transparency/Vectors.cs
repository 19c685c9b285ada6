using System.Globalization;
using System.Text;
using Ledger.EventStore.Tests.Support;

namespace Ledger.EventStore.Tests.Transparency;

/// <summary>Hashes, roots and proofs that others have computed.</summary>
public sealed class The_tree
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private static readonly string[] Certificates = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];

    private static readonly string[] RootsOfCertificates =
    [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];

    [Fact]
    public void hashes_leaves_and_nodes_as_others_do()
    {
        Assert.Equal("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d", Hex(MerkleTree.Leaf([])));
        Assert.Equal("395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56", Hex(MerkleTree.Leaf("L123456"u8)));
        Assert.Equal("TszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=", MerkleTree.Leaf("hello world"u8).ToString());
        Assert.Equal("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Hex(MerkleTree.Empty));
        Assert.Equal("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125", Hex(MerkleTree.Node(MerkleTree.Leaf([]), MerkleTree.Leaf([0]))));
    }

    [Fact]
    public async Task has_the_roots_of_the_certificates()
    {
        for (var size = 0; size <= Certificates.Length; size++)
        {
            var tree = MemoryTiles.Of(Certificates.Take(size).Select(Convert.FromHexString));

            Assert.Equal(RootsOfCertificates[size], Hex(tree.Tree.Root()));
            Assert.Equal(RootsOfCertificates[size], Hex(await new TiledTree(tree).Root(size, Ct)));
        }
    }

    [Fact]
    public async Task gives_the_proofs_of_the_certificates()
    {
        var tree = new TiledTree(MemoryTiles.Of(Certificates.Select(Convert.FromHexString)));

        Assert.Equal(["bc1a0643...599e6b", "ca854ea1...5a0ae0", "d37ee418...9614b7"], (await tree.Inclusion(5, 8, Ct)).Select(Short));
        Assert.Equal(["0ebc5d34...58ef6a", "ca854ea1...5a0ae0", "d37ee418...9614b7"], (await tree.Consistency(6, 8, Ct)).Select(Short));
        Assert.Equal(["6b47aaf2...9bf6e4"], (await tree.Consistency(4, 8, Ct)).Select(Short));
        Assert.Equal(["0298d122...7a7fe7", "07506a85...4487e7", "fac54203...e3c125", "837dbb15...f22d0e"], (await tree.Consistency(3, 7, Ct)).Select(Short));
    }

    [Theory]
    [InlineData(1, "1bb97dcc21635d47e2663efdfd0a174686d98dd701352dd2cd06e8b43fd3d305")]
    [InlineData(100, "13f88915c560dc911a1da0fb209d84a20971051f294ebeb428fb3fc293af2743")]
    [InlineData(255, "d71592a219d4067663eede247f9b54c3f9e0290682d55de09b495b07f1de41c9")]
    [InlineData(256, "cf5effdb11d0927a2edf53b0e73c7837f659414e00537da5d90eb5c4c49ff274")]
    [InlineData(257, "855b936aa00cb98b5114484249ad39d78a6be93623e26c01e8e487dc02184a5a")]
    [InlineData(65_536, "e100ba54d69a91012fc13b7890feac78d6996a097268b6f735d17311c7402a60")]
    [InlineData(70_000, "da0532ff7b2ee56f4067110fc964e9f27b5959f9527bfff3fa501aa7584deaf3")]
    public async Task has_the_roots_of_numbered_leaves(int size, string root)
    {
        var tiles = MemoryTiles.Numbered(size);

        Assert.Equal(root, Hex(tiles.Tree.Root()));
        Assert.Equal(root, Hex(await new TiledTree(tiles).Root(size, Ct)));
    }

    [Fact]
    public void keeps_the_tiles_that_its_size_implies()
    {
        var tiles = MemoryTiles.Numbered(70_000);

        Assert.Equal(273 + 1 + 1 + 1 + 1, tiles.Kept.Count);
        Assert.Equal(
            [(new TileId(0, 273), 112), (new TileId(1, 1), 17), (new TileId(2, 0), 1)],
            tiles.Kept.Where(t => t.Value.Length < 8_192).Select(t => (t.Key, t.Value.Length / 32)).OrderBy(t => t.Key.Level));
        Assert.Equal([(new TileId(0, 0), 256), (new TileId(1, 0), 1)], MemoryTiles.Numbered(256).Kept.Select(t => (t.Key, t.Value.Length / 32)).OrderBy(t => t.Key.Level));
    }

    [Fact]
    public async Task proves_every_leaf_at_every_size_and_nothing_else()
    {
        const int Most = 130;
        var leaves = Enumerable.Range(0, Most).Select(i => MerkleTree.Leaf(Encoding.ASCII.GetBytes($"leaf {i}"))).ToArray();
        var tree = new TiledTree(MemoryTiles.Numbered(Most));
        for (var size = 1; size <= Most; size++)
        {
            var root = await tree.Root(size, Ct);
            Assert.Equal(Recursive(leaves.AsSpan(0, size)), root);
            for (var index = 0; index < size; index++)
            {
                var proof = await tree.Inclusion(index, size, Ct);
                Assert.True(MerkleTree.VerifyInclusion(leaves[index], index, size, proof, root));
                Assert.False(MerkleTree.VerifyInclusion(leaves[index], index, size, [.. proof, root], root));
                Assert.False(proof.Count > 0 && MerkleTree.VerifyInclusion(leaves[index], index, size, [.. proof.SkipLast(1)], root));
                Assert.False(MerkleTree.VerifyInclusion(leaves[(index + 1) % Most], index, size, proof, root));
            }

            for (var old = 0; old <= size; old++)
            {
                var proof = await tree.Consistency(old, size, Ct);
                var oldRoot = await tree.Root(old, Ct);
                Assert.True(MerkleTree.VerifyConsistency(old, oldRoot, size, root, proof), $"{old} to {size}");
                Assert.False(MerkleTree.VerifyConsistency(old, leaves[0], size, root, proof) && old != 1);
                Assert.False(MerkleTree.VerifyConsistency(old, oldRoot, size, root, [.. proof, root]));
                Assert.False(proof.Count > 0 && MerkleTree.VerifyConsistency(old, oldRoot, size, root, [.. proof.SkipLast(1)]));
            }
        }
    }

    [Fact]
    public async Task proves_whatever_its_size_and_however_it_grew()
    {
        var chance = Runs.Chance();
        for (var round = 0; round < Runs.Size(20, 400); round++)
        {
            var size = chance.Next(1, 140_000);
            var tiles = MemoryTiles.Numbered(size, chance);
            var tree = new TiledTree(tiles);
            var root = await tree.Root(size, Ct);
            Assert.Equal(tiles.Tree.Root(), root);
            for (var i = 0; i < 20; i++)
            {
                var to = chance.Next(1, size + 1);
                var (index, from, toRoot) = (chance.Next(to), chance.Next(to + 1), await tree.Root(to, Ct));
                var inclusion = await tree.Inclusion(index, to, Ct);
                Assert.True(MerkleTree.VerifyInclusion(MerkleTree.Leaf(Encoding.ASCII.GetBytes($"leaf {index}")), index, to, inclusion, toRoot));
                var consistency = await tree.Consistency(from, to, Ct);
                var fromRoot = await tree.Root(from, Ct);
                Assert.True(MerkleTree.VerifyConsistency(from, fromRoot, to, toRoot, consistency));
                if (inclusion.Count > 0)
                {
                    var damaged = inclusion.ToArray();
                    damaged[chance.Next(damaged.Length)] = MerkleTree.Leaf([(byte)chance.Next(256)]);
                    Assert.False(MerkleTree.VerifyInclusion(MerkleTree.Leaf(Encoding.ASCII.GetBytes($"leaf {index}")), index, to, damaged, toRoot));
                }
            }
        }
    }

    [Fact]
    public async Task says_which_tile_is_missing()
    {
        var tiles = MemoryTiles.Numbered(600);
        tiles.Kept[new TileId(0, 1)] = tiles.Kept[new TileId(0, 1)][..320];

        var missing = await Assert.ThrowsAsync<MissingTileException>(() => new TiledTree(tiles).Inclusion(257, 600, Ct));

        Assert.Equal(new TileId(0, 1), missing.Tile);
    }

    private static MerkleHash Recursive(ReadOnlySpan<MerkleHash> leaves)
    {
        if (leaves.Length == 1)
        {
            return leaves[0];
        }

        var split = 1;
        while (split * 2 < leaves.Length)
        {
            split *= 2;
        }

        return MerkleTree.Node(Recursive(leaves[..split]), Recursive(leaves[split..]));
    }

    private static string Hex(MerkleHash hash) => Convert.ToHexStringLower(hash.ToArray());

    private static string Short(MerkleHash hash) => $"{Hex(hash)[..8]}...{Hex(hash)[^6..]}";
}

public sealed class A_tile_path
{
    [Theory]
    [InlineData("tile/0/005", 0, 5, 256)]
    [InlineData("tile/0/999", 0, 999, 256)]
    [InlineData("tile/63/x001/000", 63, 1_000, 256)]
    [InlineData("tile/3/x001/x234/067", 3, 1_234_067, 256)]
    [InlineData("tile/3/x001/x234/067.p/1", 3, 1_234_067, 1)]
    [InlineData("tile/0/273.p/112", 0, 273, 112)]
    [InlineData("tile/2/000.p/255", 2, 0, 255)]
    [InlineData("tile/entries/x123/x456/789.p/8", null, 123_456_789, 8)]
    [InlineData("tile/entries/000", null, 0, 256)]
    public void is_read_and_written(string text, int? level, long index, int count)
    {
        Assert.True(TilePath.TryParse(text, out var path));
        Assert.Equal((level, index, count), (path.Level, path.Index, path.Count));
        Assert.Equal(text, path.ToString());
    }

    [Theory]
    [InlineData("tile/00/005")]
    [InlineData("tile/64/005")]
    [InlineData("tile/-1/005")]
    [InlineData("tile/data/005")]
    [InlineData("tile/0/5")]
    [InlineData("tile/0/0005")]
    [InlineData("tile/0/x000/005")]
    [InlineData("tile/0/001/005")]
    [InlineData("tile/0/x001")]
    [InlineData("tile/0/X001/000")]
    [InlineData("tile/0/005.p/0")]
    [InlineData("tile/0/005.p/256")]
    [InlineData("tile/0/005.p/01")]
    [InlineData("tile/0/005.p/")]
    [InlineData("tile/0/005.p")]
    [InlineData("tile/0/005/")]
    [InlineData("tile/0/")]
    [InlineData("tile/0")]
    [InlineData("tile/8/0/005")]
    [InlineData("tile/0/x001/x001/x001/x001/x001/x001/001")]
    [InlineData("/tile/0/005")]
    [InlineData("tile/0/٠٠٥")]
    public void has_one_spelling(string text) => Assert.False(TilePath.TryParse(text, out _));
}

public sealed class A_signed_note
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private const string Riddle = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";

    [Fact]
    public async Task is_signed_as_others_sign_it()
    {
        var key = SigningKeyFile.Parse("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")!;

        Assert.Equal("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", key.Key.ToString());
        var signature = new NoteSignature(key.Key.Name, key.Key.Id, await key.Sign(Encoding.UTF8.GetBytes(Riddle), Ct));
        Assert.Equal(
            "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=", signature.ToString());
        var note = SignedNote.Parse(new SignedNote(Riddle, [signature]).ToBytes());
        Assert.Equal(Riddle, note.Text);
        Assert.Single(note.Verify(key.Key));
    }

    [Theory]
    [InlineData("EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop")]
    [InlineData("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")]
    [InlineData("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")]
    public void has_keys_that_say_their_id(string text)
    {
        Assert.True(NoteKey.TryParse(text, out var key));
        Assert.Equal(text, key.ToString());
        Assert.False(NoteKey.TryParse(text.Replace('+', '-'), out _));
        Assert.False(NoteKey.TryParse($"x{text}", out _)); // another name, another id
        Assert.False(NoteKey.TryParse($"{text}AAAA", out _));
    }

    [Fact]
    public void has_a_seed_of_zeros_for_Enoch_Root() => Assert.Equal(
        "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop",
        NoteKey.OfEd25519("EnochRoot", Ed25519.PublicKey(new byte[32])).ToString());

    [Fact]
    public void is_accepted_from_others()
    {
        Assert.True(NoteKey.TryParse("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k", out var key));
        var text = "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

        Assert.Single(Parse(text).Verify(key));
        Assert.Throws<InvalidNoteException>(() => Parse(text.Replace("example message", "example massage", StringComparison.Ordinal)).Verify(key));
        Assert.Throws<InvalidNoteException>(() => Parse(text).Verify(NoteKey.OfEd25519("another", new byte[32])));
        Assert.Throws<InvalidNoteException>(() => Parse(text).Verify());
    }

    [Theory]
    [InlineData("")]
    [InlineData("text\n")]
    [InlineData("text\n\n")]
    [InlineData("text\n\n— name AAAAAAA=")]
    [InlineData("text\n\n- name AAAAAAA=\n")]
    [InlineData("text\n\n— name AAAA\n")]
    [InlineData("text\n\n— name  AAAAAAA=\n")]
    [InlineData("text\n\n— na+me AAAAAAA=\n")]
    [InlineData("text\n\n— name AAAAAAA\n")]
    [InlineData("te\txt\n\n— name AAAAAAA=\n")]
    [InlineData("text\r\n\r\n— name AAAAAAA=\r\n")]
    public void is_nothing_else(string text) => Assert.Throws<InvalidNoteException>(() => Parse(text));

    [Fact]
    public void is_as_large_as_it_may_be_and_no_larger()
    {
        var lines = string.Concat(Enumerable.Repeat("— name AAAAAAA=\n", SignedNote.MaxSignatures));
        Assert.Equal(SignedNote.MaxSignatures, Parse($"text\n\n{lines}").Signatures.Count);
        Assert.Throws<InvalidNoteException>(() => Parse($"text\n\n{lines}— name AAAAAAA=\n"));
        var rest = "\n\n— name AAAAAAA=\n";
        var text = new string('x', SignedNote.MaxBytes - Encoding.UTF8.GetByteCount(rest));
        Assert.Single(Parse(text + rest).Signatures);
        Assert.Throws<InvalidNoteException>(() => Parse($"x{text}{rest}"));
        Assert.Throws<InvalidNoteException>(() => SignedNote.Parse([0xFF, (byte)'\n', (byte)'\n']));
    }

    [Theory]
    [InlineData("", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b")]
    [InlineData("72", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00")]
    [InlineData("af82", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a")]
    public void has_the_signatures_of_RFC_8032(string message, string publicKey, string seed, string signature)
    {
        var (text, key, expected) = (Convert.FromHexString(message), Convert.FromHexString(publicKey), Convert.FromHexString(signature));

        Assert.Equal(key, Ed25519.PublicKey(Convert.FromHexString(seed)));
        Assert.Equal(expected, Ed25519.Sign(Convert.FromHexString(seed), text));
        Assert.True(Ed25519.Verify(key, text, expected));
        Assert.False(Ed25519.Verify(key, [.. text, 0], expected));
        for (var i = 0; i < 64; i++)
        {
            var wrong = expected.ToArray();
            wrong[i] ^= 1;
            Assert.False(Ed25519.Verify(key, text, wrong));
        }

        Assert.False(Ed25519.Verify(key, text, expected.AsSpan(0, 63)));
        Assert.False(Ed25519.Verify(key.AsSpan(0, 31), text, expected));
    }

    private static SignedNote Parse(string text) => SignedNote.Parse(Encoding.UTF8.GetBytes(text));
}

public sealed class A_checkpoint
{
    [Fact]
    public void is_three_lines_and_what_others_add()
    {
        const string Text = "ledger.example.com/demo\n600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=\nanother line\n";

        var checkpoint = Checkpoint.Parse(Text);

        Assert.Equal(("ledger.example.com/demo", 600L, "YeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o="), (checkpoint.Origin, checkpoint.Size, checkpoint.Root.ToString()));
        Assert.Equal(["another line"], checkpoint.Extensions);
        Assert.Equal(Text, checkpoint.ToString());
        Assert.Equal("o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n", new Checkpoint("o", 0, MerkleTree.Empty).ToString());
    }

    [Theory]
    [InlineData("o\n600\n")]
    [InlineData("o\n0600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=\n")]
    [InlineData("o\n-1\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=\n")]
    [InlineData("o\n600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o\n")]
    [InlineData("o\n600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAGw==\n")]
    [InlineData("o\n600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=")]
    [InlineData("\n600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=\n")]
    [InlineData("o\n600\nYeW3m0rrRtdF0jKp4Z6FF/MaCPW/wHpHSqW4KrWAG9o=\n\n")]
    public void is_nothing_else(string text) => Assert.Throws<InvalidNoteException>(() => Checkpoint.Parse(text));

    [Fact]
    public void has_an_origin_that_all_can_read()
    {
        Assert.True(Checkpoint.IsOrigin("ledger.example.com/demo"));
        Assert.True(Checkpoint.IsOrigin(new string('x', Checkpoint.MaxOriginChars)));
        Assert.All(["", "https://example.com", "a b", "a+b", "a/", "ä", "a\n", new string('x', Checkpoint.MaxOriginChars + 1)], o => Assert.False(Checkpoint.IsOrigin(o)));
    }
}

/// <summary>A log of 600 leaves that another program has made.</summary>
public sealed class The_golden_log
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private static readonly NoteKey[] s_keys = [.. File.ReadLines(PathOf("vkeys")).Select(line => NoteKey.TryParse(line, out var key) ? key : throw new InvalidDataException(line))];

    [Theory]
    [InlineData("checkpoint.300", 300)]
    [InlineData("checkpoint.600", 600)]
    [InlineData("checkpoint", 600)]
    public void has_checkpoints_signed_by_log_and_witness(string file, int size)
    {
        var note = SignedNote.Parse(File.ReadAllBytes(PathOf(file)));

        Assert.Equal(2, note.Verify(s_keys).Count);
        Assert.Single(note.Verify(s_keys[0]));
        Assert.Single(note.Verify(s_keys[1]));
        var checkpoint = Checkpoint.Parse(note.Text);
        Assert.Equal(("ledger.example.com/demo", (long)size), (checkpoint.Origin, checkpoint.Size));
        Assert.Equal(MemoryTiles.Numbered(size).Tree.Root(), checkpoint.Root);
    }

    [Theory]
    [InlineData("checkpoint.300")]
    [InlineData("checkpoint.600")]
    public async Task is_signed_again_byte_for_byte(string file)
    {
        var seed = Convert.ToBase64String([1, .. Enumerable.Range(0, 32).Select(i => (byte)i)]);
        var key = SigningKeyFile.Parse($"PRIVATE+KEY+ledger.example.com/demo+72f427cd+{seed}")!;
        var note = SignedNote.Parse(await File.ReadAllBytesAsync(PathOf(file), Ct));

        var signature = new NoteSignature(key.Key.Name, key.Key.Id, await key.Sign(Encoding.UTF8.GetBytes(note.Text), Ct));

        Assert.Equal(note.Signatures[0].ToString(), signature.ToString());
    }

    [Fact]
    public async Task has_our_tiles()
    {
        var files = Directory.EnumerateFiles(PathOf("tile"), "*", SearchOption.AllDirectories)
            .Select(f => Path.GetRelativePath(PathOf(""), f).Replace('\\', '/')).ToArray();
        Assert.Equal(10, files.Length);
        foreach (var file in files)
        {
            Assert.True(TilePath.TryParse(file, out var path), file);
            var content = await File.ReadAllBytesAsync(PathOf(file), Ct);
            if (path.Level is { } level)
            {
                Assert.Equal(MemoryTiles.Numbered(600).Kept[new TileId(level, path.Index)][..(path.Count * 32)], content);
            }
            else
            {
                var leaves = Enumerable.Range((int)path.Index * 256, path.Count).Select(i => Encoding.ASCII.GetBytes($"leaf {i}"));
                Assert.Equal(leaves.SelectMany(l => (byte[])[(byte)(l.Length >> 8), (byte)l.Length, .. l]), content);
            }
        }
    }

    [Fact]
    public async Task has_our_proofs()
    {
        var proofs = System.Text.Json.JsonElement.Parse(await File.ReadAllTextAsync(PathOf("proofs.json"), Ct));
        var tree = new TiledTree(MemoryTiles.Numbered(600));

        Assert.Equal(Hashes("incl"), (await tree.Inclusion(257, 600, Ct)).Select(h => h.ToString()));
        Assert.Equal(Hashes("cons"), (await tree.Consistency(300, 600, Ct)).Select(h => h.ToString()));

        string[] Hashes(string name) => [.. proofs.GetProperty(name).GetProperty("proof").EnumerateArray().Select(h => h.GetString()!)];
    }

    private static string PathOf(string file, [System.Runtime.CompilerServices.CallerFilePath] string source = "") =>
        Path.Combine(Path.GetDirectoryName(source)!, "golden-log", file);
}

public sealed class Canonical_json
{
    [Theory]
    [InlineData(
        """{"numbers": [333333333.3333333, 1E30, 4.50, 2e-3, 0.000000000000000000000000001], "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]}""",
        """{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}""")]
    [InlineData(
        """{"\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One", "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"}""",
        "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"ö\":\"Latin Small Letter O With Diaeresis\",\"€\":\"Euro Sign\",\"😀\":\"Emoji: Grinning Face\",\"\uFB33\":\"Hebrew Letter Dalet With Dagesh\"}")]
    [InlineData("""[56, {"d": true, "10": null, "1": []}]""", """[56,{"1":[],"10":null,"d":true}]""")]
    [InlineData("""{"b": {}, "a": {"aa": 1, "b": {"z": [], "y": [{}, {"x": "", "w": [1, 2]}]}}}""", """{"a":{"aa":1,"b":{"y":[{},{"w":[1,2],"x":""}],"z":[]}},"b":{}}""")]
    [InlineData("  \"x\"  ", "\"x\"")]
    [InlineData("{ }", "{}")]
    [InlineData("[ ]", "[]")]
    [InlineData("null", "null")]
    public void is_as_the_RFC_shows(string json, string canonical) => Assert.Equal(canonical, Canonical(json));

    /// <summary>Appendix B of the RFC: what doubles look like.</summary>
    [Theory]
    [InlineData("-0.0", "0")]
    [InlineData("5E-324", "5e-324")]
    [InlineData("-5E-324", "-5e-324")]
    [InlineData("1.7976931348623157e308", "1.7976931348623157e+308")]
    [InlineData("9007199254740992", "9007199254740992")]
    [InlineData("-9007199254740992", "-9007199254740992")]
    [InlineData("295147905179352830000", "295147905179352830000")]
    [InlineData("9.999999999999997e22", "9.999999999999997e+22")]
    [InlineData("1e23", "1e+23")]
    [InlineData("1.0000000000000001e23", "1.0000000000000001e+23")]
    [InlineData("999999999999999700000", "999999999999999700000")]
    [InlineData("1e21", "1e+21")]
    [InlineData("1000000000000000000000", "1e+21")]
    [InlineData("9.999999999999997e-7", "9.999999999999997e-7")]
    [InlineData("0.000001", "0.000001")]
    [InlineData("0.0000001", "1e-7")]
    [InlineData("333333333.3333332", "333333333.3333332")]
    [InlineData("-0.0000033333333333333333", "-0.0000033333333333333333")]
    [InlineData("1424953923781206.2", "1424953923781206.2")]
    [InlineData("100", "100")]
    [InlineData("1e2", "100")]
    [InlineData("0.0", "0")]
    [InlineData("10.10", "10.1")]
    [InlineData("-1.5e+1", "-15")]
    [InlineData("0.1e1", "1")]
    public void has_one_spelling_of_a_number(string json, string canonical) => Assert.Equal(canonical, Canonical(json));

    [Fact]
    public void never_rounds()
    {
        Assert.Equal("333333333.33333329", Canonical("333333333.33333329")); // the RFC would give 333333333.3333333
        Assert.Equal("12345678901234567890.123456789", Canonical("12345678901234567890.1234567890"));
        Assert.Equal("1e+400", Canonical("1" + new string('0', 400)));
        Assert.NotEqual(Canonical("0.1"), Canonical("0.1000000000000000055"));
    }

    [Fact]
    public void spells_doubles_as_ECMAScript_does()
    {
        var chance = Runs.Chance();
        for (var i = 0; i < Runs.Size(20_000, 2_000_000); i++)
        {
            var value = BitConverter.Int64BitsToDouble(chance.NextInt64());
            if (double.IsFinite(value))
            {
                var canonical = Canonical(value.ToString("R", CultureInfo.InvariantCulture));
                Assert.Equal(value, double.Parse(canonical, CultureInfo.InvariantCulture));
                Assert.Equal(canonical, Canonical(canonical));
            }
        }
    }

    [Fact]
    public void reaches_as_deep_as_it_must()
    {
        var json = string.Concat(Enumerable.Repeat("{\"a\":[", 20_000)) + string.Concat(Enumerable.Repeat("]}", 20_000));

        Assert.Equal(json, Canonical(json));
    }

    [Fact]
    public void is_the_same_however_names_were_ordered()
    {
        var chance = Runs.Chance();
        for (var round = 0; round < Runs.Size(200, 5_000); round++)
        {
            var names = Enumerable.Range(0, chance.Next(1, 40)).Select(_ => Name()).Distinct().ToArray();
            var one = $"{{{string.Join(',', names.Select(n => $"{System.Text.Json.JsonSerializer.Serialize(n)}:{names.Length}"))}}}";
            chance.Shuffle(names);
            var other = $"{{{string.Join(" , ", names.Select(n => $"{System.Text.Json.JsonSerializer.Serialize(n)} : {names.Length}"))}}}";

            Assert.Equal(Canonical(one), Canonical(other));
            Assert.Equal(
                names.Order(StringComparer.Ordinal), // by UTF-16 code units
                System.Text.Json.JsonElement.Parse(Canonical(one)).EnumerateObject().Select(p => p.Name));
        }

        string Name() => string.Concat(Enumerable.Range(0, chance.Next(4)).Select(_ => chance.Next(5) switch
        {
            0 => "\uE000", 1 => "\U0001F600", 2 => "é", 3 => "\"", _ => ((char)chance.Next('a', 'd')).ToString(),
        }));
    }

    [Theory]
    [InlineData("""{"a":1,"a":2}""")]
    [InlineData("""{"b":1,"a":2,"b":3}""")]
    [InlineData("""{"a":1,"\u0061":2}""")]
    [InlineData("""{"a":}""")]
    [InlineData("[1,]")]
    [InlineData("")]
    public void is_made_of_json_only(string json) => Assert.ThrowsAny<System.Text.Json.JsonException>(() => Canonical(json));

    private static string Canonical(string json)
    {
        var output = new ByteBuffer();
        CanonicalJson.Write(Encoding.UTF8.GetBytes(json), output);
        return Encoding.UTF8.GetString(output.Written);
    }
}
