using System.Globalization;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Log;

public sealed class The_log_over_http(TestNode node) : IClassFixture<TestNode>
{
    private const string Zero = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task shows_a_checkpoint_that_covers_what_was_written()
    {
        await Users(3);

        var answer = (await node.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK);

        Assert.Equal("text/plain; charset=utf-8", answer.Headers["Content-Type"]);
        Assert.Equal("max-age=1, private", answer.Headers["Cache-Control"]);
        var note = SignedNote.Parse(Encoding.UTF8.GetBytes(answer.Text));
        note.Verify(await Key());
        var checkpoint = Checkpoint.Parse(note.Text);
        Assert.Equal(answer.Position, checkpoint.Size);
        Assert.True(checkpoint.Size >= node.Position);
        Assert.Equal((await Key()).Name, checkpoint.Origin);
        Assert.Equal(HttpStatusCode.NotModified, (await node.Get("/v1/log/checkpoint", ("If-None-Match", answer.ETag!))).Status);
    }

    [Fact]
    public async Task lists_its_key()
    {
        var answer = (await node.GetAsIs("/v1/log/key")).Is(HttpStatusCode.OK);

        Assert.Equal("text/plain; charset=utf-8", answer.Headers["Content-Type"]);
        Assert.True(NoteKey.TryParse(answer.Text.TrimEnd('\n'), out var key));
        Assert.StartsWith("ledger.local/", key.Name, StringComparison.Ordinal);
    }

    [Fact]
    public async Task gives_the_tiles_of_its_checkpoint_and_no_others()
    {
        await Users(300);
        var size = (await node.Get("/v1/log/checkpoint")).Position!.Value;

        var full = await Bytes("/v1/log/tile/0/000");
        Assert.Equal(8_192, full.Length);
        Assert.Equal(full[..(7 * 32)], await Bytes("/v1/log/tile/0/000.p/7"));
        Assert.Equal(32, (await Bytes("/v1/log/tile/1/000.p/1")).Length);
        var entries = await Bytes("/v1/log/tile/entries/000");
        var first = (entries[0] << 8) | entries[1];
        Assert.Equal(full[..32], MerkleTree.Leaf(entries.AsSpan(2, first)).ToArray());
        var answer = (await node.GetAsIs("/v1/log/tile/0/000")).Is(HttpStatusCode.OK);
        Assert.Equal("max-age=31536000, private, immutable", answer.Headers["Cache-Control"]);
        Assert.Equal("application/octet-stream", answer.Headers["Content-Type"]);

        var more = string.Create(CultureInfo.InvariantCulture, $"{size / 256:000}.p/{(size % 256) + 1}");
        (await node.GetAsIs($"/v1/log/tile/0/{more}")).IsProblem(404, "tile-not-found");
        (await node.GetAsIs($"/v1/log/tile/entries/{more}")).IsProblem(404, "tile-not-found");
        (await node.GetAsIs("/v1/log/tile/0/x001/000")).IsProblem(404, "tile-not-found");
        (await node.GetAsIs("/v1/log/tile/1/000.p/255")).IsProblem(404, "tile-not-found");
        (await node.GetAsIs("/v1/log/tile/63/000.p/1")).IsProblem(404, "tile-not-found");
        (await node.GetAsIs("/v1/log/tile/0/x999/x999/x999/x999/x999/999")).IsProblem(404, "tile-not-found");
    }

    [Theory]
    [InlineData("0/5")]
    [InlineData("00/005")]
    [InlineData("64/000")]
    [InlineData("data/000")]
    [InlineData("0/000.p/0")]
    [InlineData("0/000.p/256")]
    [InlineData("0/x000/001")]
    [InlineData("0/000/")]
    [InlineData("entries/000.p/x")]
    public async Task refuses_paths_that_are_none(string path)
    {
        var problem = (await node.GetAsIs($"/v1/log/tile/{path}")).IsProblem(400, "invalid-request");

        Assert.Equal(["tile"], problem.Fields);
    }

    [Fact]
    public async Task proves_that_an_event_is_in_it()
    {
        var position = await Users(5);

        var proof = (await node.Get($"/v1/log/proofs/inclusion?position={position}")).Is(HttpStatusCode.OK);

        var hashes = proof.Json.GetProperty("hashes").EnumerateArray().Select(h => new MerkleHash(h.GetBytesFromBase64())).ToArray();
        var size = proof.Json.GetProperty("size").GetInt64();
        var root = new MerkleHash(proof.Json.GetProperty("rootHash").GetBytesFromBase64());
        var leaf = MerkleTree.Leaf(proof.Json.GetProperty("entry").GetBytesFromBase64());
        Assert.Equal(proof.Json.GetProperty("leafHash").GetString(), leaf.ToString());
        Assert.True(MerkleTree.VerifyInclusion(leaf, position - 1, size, hashes, root));
        var note = SignedNote.Parse(Encoding.UTF8.GetBytes(proof.Json.GetProperty("checkpoint").GetString()!));
        note.Verify(await Key());
        Assert.Equal(root, Checkpoint.Parse(note.Text).Root);
        Assert.Equal(16, proof.Json.GetProperty("salt").GetBytesFromBase64().Length);

        var earlier = (await node.Get($"/v1/log/proofs/inclusion?position={position}&size={position}")).Is(HttpStatusCode.OK);
        Assert.Equal(position, earlier.Json.GetProperty("size").GetInt64());
        var file = (await node.Get($"/v1/log/proofs/inclusion?position={position}&format=tlog-proof")).Is(HttpStatusCode.OK);
        Assert.StartsWith($"c2sp.org/tlog-proof@v1\nindex {position - 1}\n", file.Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("inclusion", "position")]
    [InlineData("inclusion?position=0", "position")]
    [InlineData("inclusion?position=99999", "position")]
    [InlineData("inclusion?position=x", "position")]
    [InlineData("inclusion?position=2&size=1", "size")]
    [InlineData("inclusion?position=1&size=99999", "size")]
    [InlineData("inclusion?position=1&format=xml", "format")]
    [InlineData("inclusion?position=1&size=1&format=tlog-proof", "size")]
    [InlineData("consistency", "from")]
    [InlineData("consistency?from=-1", "from")]
    [InlineData("consistency?from=3&to=2", "from")]
    [InlineData("consistency?from=0&to=99999", "to")]
    public async Task refuses_proofs_that_there_are_not(string query, string field)
    {
        await Users(3);
        var problem = (await node.Get($"/v1/log/proofs/{query}")).IsProblem(400, "invalid-request");

        Assert.Equal([field], problem.Fields);
    }

    [Fact]
    public async Task proves_that_it_only_grows()
    {
        await Users(3);
        var old = Checkpoint.Parse(SignedNote.Parse(Encoding.UTF8.GetBytes((await node.Get("/v1/log/checkpoint")).Text)).Text);
        await Users(20);
        await node.Get("/v1/log/checkpoint");

        var proof = (await node.Get($"/v1/log/proofs/consistency?from={old.Size}")).Is(HttpStatusCode.OK);

        var hashes = proof.Json.GetProperty("hashes").EnumerateArray().Select(h => new MerkleHash(h.GetBytesFromBase64())).ToArray();
        Assert.Equal(old.Root.ToString(), proof.Json.GetProperty("fromRootHash").GetString());
        Assert.True(MerkleTree.VerifyConsistency(
            old.Size, old.Root, proof.Json.GetProperty("to").GetInt64(), new MerkleHash(proof.Json.GetProperty("toRootHash").GetBytesFromBase64()), hashes));
        var empty = (await node.Get("/v1/log/proofs/consistency?from=0")).Is(HttpStatusCode.OK);
        Assert.Equal((Zero, 0), (empty.Json.GetProperty("fromRootHash").GetString(), empty.Json.GetProperty("hashes").GetArrayLength()));
    }

    [Fact]
    public async Task waits_for_a_checkpoint_as_long_as_it_is_asked_to()
    {
        var size = (await node.Get("/v1/log/checkpoint")).Position;

        (await node.GetAsIs("/v1/log/checkpoint", ("Ledger-Min-Position", $"{size + 1_000_000}"), ("Prefer", "wait=0"))).IsProblem(503, "view-behind");
    }

    [Fact]
    public async Task is_the_same_on_every_node_and_goes_on_when_one_ends()
    {
        await using var other = await node.StartAnew();
        TestNode? beside = null;
        try
        {
            beside = await other.StartBeside();
            await other.Put("/v1/users/u1", new { });
            var one = (await other.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK);
            Assert.Equal(one.Text, (await beside.GetAsIs("/v1/log/checkpoint")).Text);
            Assert.Equal((await other.GetAsIs("/v1/log/key")).Text, (await beside.GetAsIs("/v1/log/key")).Text);
            await beside.Put("/v1/users/u2", new { });
            (await beside.Get("/v1/log/proofs/inclusion?position=2")).Is(HttpStatusCode.OK);
            Assert.Empty(other.Errors);
            Assert.Empty(beside.Errors);
        }
        finally
        {
            if (beside is not null)
            {
                await beside.DisposeAsync();
            }
        }
    }

    [Fact]
    public async Task says_when_no_checkpoint_is_signed()
    {
        await using var other = await node.StartAnew();
        await other.Put("/v1/users/u1", new { });
        await other.Get("/v1/log/checkpoint");
        var identity = await other.Services.GetRequiredService<LogKeyring>().Open(Ct);
        File.Delete(identity.KeyPath);

        await other.Put("/v1/users/u2", new { });

        while ((await other.GetAsIs("/health/ready")).Status == HttpStatusCode.OK)
        {
            await Task.Delay(20, Ct);
        }

        Assert.Equal("no checkpoint is signed", (await other.GetAsIs("/health/ready")).Json.GetProperty("checks").GetProperty("log").GetString());
        (await other.GetAsIs("/v1/log/proofs/inclusion?position=2")).IsProblem(503, "checkpoint-behind");
        (await other.GetAsIs("/v1/log/proofs/inclusion?position=1")).Is(HttpStatusCode.OK);
        Assert.Contains(other.Errors, e => e.Contains("No checkpoint is signed", StringComparison.Ordinal));
    }

    private async Task<long> Users(int count)
    {
        await Task.WhenAll(Enumerable.Range(0, count).Select(_ => node.Put($"/v1/users/{Guid.NewGuid()}", new { })));
        return node.Position;
    }

    private async Task<NoteKey> Key() =>
        NoteKey.TryParse((await node.GetAsIs("/v1/log/key")).Text.Split('\n')[0], out var key) ? key : throw new InvalidDataException("no key");

    private async Task<byte[]> Bytes(string path)
    {
        using var response = await node.Client.GetAsync(new Uri(path, UriKind.Relative), Ct);
        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        return await response.Content.ReadAsByteArrayAsync(Ct);
    }
}

/// <summary>Go's golang.org/x/mod accepts the log of a node. It is installed as Debian has it when it is not there.</summary>
public sealed class A_verifier_of_others(TestNode node) : IClassFixture<TestNode>
{
    private const string Packages = "golang-go golang-golang-x-mod-dev";

    [Fact]
    public async Task accepts_the_log_at_every_size()
    {
        var address = node.Client.BaseAddress!.ToString().TrimEnd('/');
        var stored = 0;
        foreach (var size in (int[])[1, 255, 256, 257, 700])
        {
            await Task.WhenAll(Enumerable.Range(stored, size - stored).Select(i => node.Put($"/v1/users/{i}", new { attributes = new { number = i } })));
            stored = size;
            await node.Get("/v1/log/checkpoint");
            var key = (await node.GetAsIs("/v1/log/key")).Text.Split('\n')[0];

            Assert.StartsWith($"{size} leaves", await Go(address, key), StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task accepts_it_by_its_key_only()
    {
        await using var other = await node.StartAnew();
        await node.Put("/v1/users/0", new { attributes = new { number = 0 } });
        await node.Get("/v1/log/checkpoint");
        var key = (await other.GetAsIs("/v1/log/key")).Text.Split('\n')[0];

        var refused = await Assert.ThrowsAsync<InvalidOperationException>(() => Go(node.Client.BaseAddress!.ToString().TrimEnd('/'), key));

        Assert.Contains("checkpoint", refused.Message, StringComparison.Ordinal);
    }

    private static async Task<string> Go(string address, string key, [CallerFilePath] string source = "")
    {
        var program = Path.Combine(Path.GetDirectoryName(source)!, "verifier", "main.go");
        var cache = Path.Combine(AppContext.BaseDirectory, "go-cache");
        using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(5));
        string[] installed = ["sh", "-c", "test -d /usr/share/gocode/src/golang.org/x/mod/sumdb && go version"];
        if (await Tool.RunAsync(installed, patience.Token) is not (0, _))
        {
            var (code, said) = await Tool.RunAsync(
                ["sh", "-c", $"export DEBIAN_FRONTEND=noninteractive; apt-get update && apt-get install -y --no-install-recommends {Packages}"], patience.Token);
            Assert.True(code == 0, $"Go can't be installed: {said}");
        }

        var (exitCode, output) = await Tool.RunAsync(
            ["env", "GO111MODULE=off", "GOPATH=/usr/share/gocode", $"GOCACHE={cache}", "go", "run", program, address, key], patience.Token);
        return exitCode == 0 ? output : throw new InvalidOperationException(output);
    }
}
