using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Transparency;

/// <summary>Whatever is changed in the files of an export, verifying them finds it, with no database.</summary>
public sealed class Verifying_an_export(PostgresFixture postgres)
{
    private const int Events = SealedStore.Events;
    private const string Segment = "events/00000000000000000001.ndjson";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task accepts_what_it_accepts_of_the_database()
    {
        await using var log = await SealedStore.Make(postgres);
        var kept = await log.Store.Value<byte[]>("select note from log_checkpoint");
        var entry = (await new TransparencyLog(log.Store.Database).ReadEntry(7, Ct))!.Entry;
        await log.Store.Execute(
            $$"""
            insert into log_erasures (position, commitments) values (7, '\x{{Convert.ToHexString(entry.AsSpan(^64..))}}');
            update log_salts set salts = overlay(salts placing decode(repeat('00', 16), 'hex') from 6 * 16 + 1) where bundle = 0;
            update mt_events set data = '{}' where seq_id = 7;
            """);
        await log.Store.StartAppender().Append(Request("late", new Noted("not sealed")), Ct);
        using var export = await Export.Of(log);

        Assert.Equal(new LogVerdict(null, Events, Events, 1), await log.Verify(kept));
        Assert.Equal(new LogVerdict(null, Events, Events, 1), await export.Verify(kept));
    }

    [Fact]
    public async Task finds_every_flipped_byte_of_every_file()
    {
        var chance = Runs.Chance();
        await using var log = await SealedStore.Make(postgres);
        using var export = await Export.Of(log);
        Assert.Null((await export.Verify()).Finding);
        var files = export.Files.Where(f => export.Read(f).Length > 0).ToList();
        Assert.Equal(8, files.Count); // all but the erasures have something in them
        foreach (var file in files)
        {
            var whole = export.Read(file);
            for (var round = 0; round < Runs.Size(60, 3_000); round++)
            {
                var (at, bit) = (chance.Next(whole.Length), chance.Next(8));
                var changed = whole.ToArray();
                changed[at] ^= (byte)(1 << bit);
                export.Write(file, changed);

                var finding = (await export.Verify()).Finding;

                Assert.True(finding is not null, $"{file}, byte {at}, bit {bit}");
                if (file == Segment && finding.Position is { } position)
                {
                    Assert.True(whole.AsSpan(0, at).Count((byte)'\n') + 1 == position, $"byte {at}, bit {bit}: {finding}");
                }
            }

            export.Write(file, whole);
        }

        Assert.Null((await export.Verify()).Finding);
    }

    /// <summary>As whoever edits an export on purpose does it: the manifest fits the files again.</summary>
    [Theory]
    [InlineData("the newest are gone", 691)]
    [InlineData("one is gone", 300)]
    [InlineData("two lines are swapped", 20)]
    [InlineData("two events are swapped", 20)]
    [InlineData("an amount is another", 44)]
    [InlineData("a field is there twice", 44)]
    [InlineData("a field is added", 44)]
    [InlineData("a line is no JSON", 44)]
    [InlineData("a salt is gone", 257)]
    [InlineData("a tile is gone", 513)]
    [InlineData("the upper tile is gone", null)]
    [InlineData("the state is gone", null)]
    [InlineData("the rows of tiles are in another order", 1)]
    [InlineData("a tenant is known by another pseudonym", 1)]
    [InlineData("a tenant more", null)]
    [InlineData("the checkpoint is gone", null)]
    [InlineData("the root is too short", null)]
    [InlineData("the state says fewer than none", null)]
    [InlineData("a file is said to hold more than it can", null)]
    public async Task finds_what_was_changed_on_purpose(string change, int? position)
    {
        await using var log = await SealedStore.Make(postgres);
        using var export = await Export.Of(log);
        switch (change)
        {
            case "the newest are gone": export.Edit(Segment, l => [.. l.SkipLast(10)]); break;
            case "one is gone": export.Edit(Segment, l => [.. l.Take(299), .. l.Skip(300)]); break;
            case "two lines are swapped": export.Edit(Segment, l => [.. l[..19], l[20], l[19], .. l[21..]]); break;
            case "two events are swapped": export.Edit(Segment, l => [.. l[..19], At(l[20], 20), At(l[19], 21), .. l[21..]]); break;
            case "an amount is another": EditLine(44, l => { l["data"]!["amount"] = 1_000; return l.ToJsonString(); }); break;
            case "a field is there twice": EditLine(44, l => l.ToJsonString()[..^1] + ",\"actor\":\"me\",\"actor\":\"you\"}"); break;
            case "a field is added": EditLine(44, l => l.ToJsonString()[..^1] + ",\"approvedBy\":\"me\"}"); break;
            case "a line is no JSON": EditLine(44, l => l.ToJsonString()[..^1]); break;
            case "a salt is gone": export.Edit("log/log_salts.ndjson", l => [l[0], l[2]]); break;
            case "a tile is gone": export.Edit("log/log_tiles.ndjson", l => [.. l.Where(t => !t.StartsWith("{\"level\":0,\"index\":2", StringComparison.Ordinal))]); break;
            case "the upper tile is gone": export.Edit("log/log_tiles.ndjson", l => [.. l.Where(t => t.StartsWith("{\"level\":0", StringComparison.Ordinal))]); break;
            case "the state is gone": export.Edit("log/log_state.ndjson", _ => []); break;
            case "the rows of tiles are in another order": export.Edit("log/log_tiles.ndjson", l => [.. l.Reverse()]); break;
            case "a tenant is known by another pseudonym":
                export.Edit("log/log_tenants.ndjson", l => [.. l.Select(t => { var r = JsonNode.Parse(t)!; r["pseudonym"] = "\\x" + new string('0', 32); return r.ToJsonString(); })]);
                break;
            case "a tenant more": export.EditManifest(m => m["tenants"]!.AsArray().Add("zoe")); break;
            case "the checkpoint is gone": export.Edit("log/log_checkpoint.ndjson", _ => []); break;
            case "the root is too short": EditState(s => s["root"] = "\\x00"); break;
            case "the state says fewer than none":
                EditState(s => s["size"] = -1);
                export.Edit("log/log_checkpoint.ndjson", _ => []);
                break;
            case "a file is said to hold more than it can":
                export.EditManifest(m =>
                {
                    m["position"] = long.MaxValue;
                    m["segments"]![0]!["lastPosition"] = long.MaxValue;
                    m["tenants"] = new JsonArray();
                });
                break;
            default: Assert.Fail(change); break;
        }

        var finding = (await export.Verify()).Finding;

        Assert.NotNull(finding);
        Assert.Equal(position, finding.Position);

        void EditState(Action<JsonNode> edit) => export.Edit("log/log_state.ndjson", l =>
        {
            var state = JsonNode.Parse(l[0])!;
            edit(state);
            return [state.ToJsonString()];
        });

        static string At(string line, int position)
        {
            var swapped = JsonNode.Parse(line)!;
            swapped["position"] = position;
            return swapped.ToJsonString();
        }

        void EditLine(int at, Func<JsonNode, string> edit) => export.Edit(Segment, l => [.. l[..(at - 1)], edit(JsonNode.Parse(l[at - 1])!), .. l[at..]]);
    }

    [Theory]
    [InlineData("newest lines cut off", 691)]
    [InlineData("file of events gone", 1)]
    [InlineData("file of salts gone", 1)]
    [InlineData("file of erasures gone", null)]
    public async Task finds_what_is_missing(string change, int? position)
    {
        await using var log = await SealedStore.Make(postgres);
        using var export = await Export.Of(log);
        switch (change)
        {
            case "newest lines cut off": export.Write(Segment, Export.Text([.. export.Lines(Segment).SkipLast(10)])); break;
            case "file of events gone": File.Delete(export.PathOf(Segment)); break;
            case "file of salts gone": File.Delete(export.PathOf("log/log_salts.ndjson")); break;
            case "file of erasures gone": File.Delete(export.PathOf("log/log_erasures.ndjson")); break;
            default: Assert.Fail(change); break;
        }

        var finding = (await export.Verify()).Finding;

        Assert.NotNull(finding);
        Assert.Equal(position, finding.Position);
    }

    [Fact]
    public async Task finds_a_hole_in_the_versions_of_events_that_are_not_sealed_yet()
    {
        await using var log = await SealedStore.Make(postgres);
        await log.Store.StartAppender().Append(Request("late", new Noted("not sealed")), Ct);
        using var export = await Export.Of(log);
        export.Edit(Segment, l => [.. l.SkipLast(1), l[^1].Replace("\"version\":1", "\"version\":2", StringComparison.Ordinal)]);

        Assert.Equal(
            new LogFinding(null, "The stream 'late' of the tenant 't1' has version 2 at position 701, after version 0."), (await export.Verify()).Finding);
    }

    [Fact]
    public async Task finds_an_older_export_under_a_newer_checkpoint_and_one_that_another_key_has_signed()
    {
        await using var log = await SealedStore.Make(postgres);
        using var export = await Export.Of(log);
        await log.Append(20);
        var newer = await log.Store.Value<byte[]>("select note from log_checkpoint");

        var verdict = await export.Verify(newer);

        Assert.Equal(Events + 1, verdict.Finding?.Position);
        Assert.Contains("covers 720 events", verdict.Finding!.What, StringComparison.Ordinal);
        Assert.Contains("can't be trusted", (await export.VerifyBy([])).Finding!.What, StringComparison.Ordinal);
    }

    /// <summary>The folder of an export of a sealed store.</summary>
    private sealed class Export : IDisposable
    {
        private readonly string _folder = Directory.CreateTempSubdirectory("ledger-export-").FullName;

        private Export(IReadOnlyList<NoteKey> keys) => Keys = keys;

        public IReadOnlyList<NoteKey> Keys { get; }

        public IEnumerable<string> Files =>
            Directory.EnumerateFiles(_folder, "*", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(_folder, f)).Order(StringComparer.Ordinal);

        public static async Task<Export> Of(SealedStore log)
        {
            var export = new Export(log.Keys);
            await new LogExport(log.Store.Database, log.Store.Options, [TransparencyLog.Tables]).Write(export._folder, cancellation: Ct);
            return export;
        }

        public static byte[] Text(string[] lines) => Encoding.UTF8.GetBytes(string.Concat(lines.Select(l => l + "\n")));

        public string PathOf(string file) => Path.Combine(_folder, file);

        public byte[] Read(string file) => File.ReadAllBytes(PathOf(file));

        public string[] Lines(string file) => File.ReadAllLines(PathOf(file));

        public void Write(string file, byte[] bytes) => File.WriteAllBytes(PathOf(file), bytes);

        public void Edit(string file, Func<string[], string[]> edit)
        {
            var lines = edit(Lines(file));
            Write(file, Text(lines));
            EditManifest(m =>
            {
                var entry = m["segments"]!.AsArray().Concat(m["sections"]!["log"]!.AsArray()).Single(e => (string?)e!["file"] == file)!;
                entry["bytes"] = Read(file).Length;
                entry["sha256"] = Convert.ToHexStringLower(SHA256.HashData(Read(file)));
                if (file == Segment)
                {
                    entry["lastPosition"] = lines.Length;
                    m["position"] = lines.Length;
                }
                else
                {
                    entry["rows"] = lines.Length;
                }

                m["bytes"] = Files.Where(f => f != ExportManifest.FileName).Sum(f => Read(f).Length);
            });
        }

        public void EditManifest(Action<JsonNode> edit)
        {
            var manifest = JsonNode.Parse(Read(ExportManifest.FileName))!;
            edit(manifest);
            Write(ExportManifest.FileName, Encoding.UTF8.GetBytes(manifest.ToJsonString()));
        }

        public Task<LogVerdict> Verify(params byte[][] earlier) => VerifyBy(Keys, earlier);

        public async Task<LogVerdict> VerifyBy(IReadOnlyList<NoteKey> keys, params byte[][] earlier)
        {
            try
            {
                using var log = await ExportedLog.Open(_folder, Ct);
                return await new LogVerifier(log, keys).Verify([.. earlier.Select(note => ("the kept checkpoint", note))], Ct);
            }
            catch (ExportException exception)
            {
                return new LogVerdict(new LogFinding(null, exception.Message), 0, 0, 0); // the verb says the same
            }
        }

        public void Dispose() => Directory.Delete(_folder, recursive: true);
    }
}
