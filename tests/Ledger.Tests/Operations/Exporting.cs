using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Tests.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Operations;

public sealed class Exporting(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static NpgsqlDataSource Database(TestNode own) => own.Services.GetRequiredService<OwnerDatabase>().Source;

    private static async Task<(int Code, string Output, string Errors)> Export(TestNode own, string folder)
    {
        var (written, errors) = (new StringWriter(), new StringWriter());
        return (await ExportVerb.Export(own.Services, folder, written, errors, Cancellation), written.ToString(), errors.ToString());
    }

    private static async Task<(int Code, string Output, string Errors)> Import(TestNode own, string folder)
    {
        var (written, errors) = (new StringWriter(), new StringWriter());
        return (
            await ExportVerb.Import(own.Services, own.Services.GetRequiredService<LedgerSettings>(), folder, written, errors, Cancellation),
            written.ToString(), errors.ToString());
    }

    private static async Task<string> Rows(TestNode own, string sql)
    {
        var rows = new StringBuilder();
        await using var command = Database(own).CreateCommand(sql);
        await using var reader = await command.ExecuteReaderAsync(Cancellation);
        while (await reader.ReadAsync(Cancellation))
        {
            rows.AppendLine(reader.GetString(0));
        }

        return rows.ToString();
    }

    private static async Task<string> Log(TestNode own) =>
        await Rows(own, "select e::text from mt_events e order by seq_id") + await Rows(own, "select s::text from mt_streams s order by tenant_id, id");

    private static async Task Execute(TestNode own, string sql)
    {
        await using var command = Database(own).CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Cancellation);
    }

    /// <summary>Waits until the log's newest checkpoint covers everything.</summary>
    private static async Task Signed(TestNode own)
    {
        const string Size = "select coalesce((select size from log_checkpoint), -1)::text union all select count(*)::text from mt_events";
        for (var waited = 0; (await Rows(own, Size)).Split('\n') is [var signed, var events, ..] && signed != events; waited++)
        {
            Assert.True(waited < 1_500, "No checkpoint covers the log.");
            await Task.Delay(20, Cancellation);
        }
    }

    private static Dictionary<string, byte[]> Files(string folder) =>
        Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).ToDictionary(f => Path.GetRelativePath(folder, f), File.ReadAllBytes);

    [Fact]
    public async Task and_importing_gives_the_same_log_and_the_same_views()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        await using var own = await node.StartAnew();
        var use = new RandomUse(new Random(LongTests.Seed));
        await use.Round(own, commands: 60, calls: 40);
        await use.Round(own, commands: 60, calls: 40);
        var head = await own.CatchUp();
        using var folder = new TempFolder();
        var path = Path.Combine(folder.Path, "export");

        await Signed(own); // what is sealed after the export gets other salts in each of the two
        var exported = await Export(own, path);
        Assert.Equal((0, ""), (exported.Code, exported.Errors));
        await using var empty = await node.StartAnew();
        await empty.Stop(); // a node that runs has founded another log by then
        var imported = await Import(empty, path);
        await using var restored = await empty.StartBeside();
        Assert.Equal((0, ""), (imported.Code, imported.Errors));
        Assert.StartsWith($"Imported {head} events.", imported.Output, StringComparison.Ordinal);

        Assert.Equal(await Log(own), await Log(restored));
        Assert.Equal(head, await restored.CatchUp());
        foreach (var view in restored.Services.GetRequiredService<IReadOnlyList<IProjection>>())
        {
            Assert.Equal(await own.Rows(view.Name), await restored.Rows(view.Name));
        }

        restored.Clock.SetTo(own.Clock.Now);
        Assert.Equal(head + 1, (await restored.Put("/v1/users/after-the-import", "{}")).Is(HttpStatusCode.Created).Position);
        Assert.Equal($"{head + 1}", (await Rows(restored, "select last_value::text from mt_events_sequence")).Trim());
        Assert.True(restored.Errors.Count == 0, string.Join("\n", restored.Errors));
    }

    [Fact]
    public async Task keeps_every_column_whoever_wrote_the_event()
    {
        await using var own = await node.StartAnew();
        await Execute(
            own,
            """
            insert into mt_streams (tenant_id, id, type, version, timestamp, created, is_archived) values
              ('t', 's', null, 2, '2026-01-01 00:00:00.000001+00', '1999-01-01 00:00:00+00', true), ('*DEFAULT*', 'ä"\ ', 'order', 1, '2026-02-01', '2026-02-01', false);
            insert into mt_events (seq_id, id, stream_id, version, data, bdata, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, causation_id, headers, user_name, is_archived) values
              (1, gen_random_uuid(), 's', 1, '{"n": 1234567890123456789012345678901234567890.10, "e": 1e400, "t": "\"\\\n ä😀", "z": null}', '\x00ff0a', 'x', '1999-01-01 00:00:00+00', 't', null, null, null, null, null, true),
              (2, gen_random_uuid(), 'ä"\ ', 1, '"text"', null, 'from_elsewhere', '2026-02-01', '*DEFAULT*', 'A.B, C', 'co', 'ca', '{"traceparent": "00-1", "events": 2}', 'me "', false),
              (3, gen_random_uuid(), 's', 2, '[]', null, 'x', '2026-01-01 00:00:00.000001+00', 't', null, '', null, '{}', '', true);
            """);
        using var folder = new TempFolder();
        var (first, second) = (Path.Combine(folder.Path, "1"), Path.Combine(folder.Path, "2"));
        await Signed(own);
        Assert.Equal(0, (await Export(own, first)).Code);
        await using var restored = await node.StartAnew();
        await restored.Stop();
        var imported = await Import(restored, first);
        Assert.Equal((0, ""), (imported.Code, imported.Errors));

        Assert.Equal(await Log(own), await Log(restored));
        Assert.Equal(0, (await Export(restored, second)).Code);
        Assert.Equal(Files(first), Files(second));
        var manifest = JsonElement.Parse(await File.ReadAllTextAsync(Path.Combine(first, "manifest.json"), Cancellation));
        Assert.Equal("""["*DEFAULT*","t"]""", JsonSerializer.Serialize(manifest.GetProperty("tenants")));
        Assert.Equal(("ledger-export", 1, 3), (manifest.GetProperty("format").GetString(), manifest.GetProperty("formatVersion").GetInt32(), manifest.GetProperty("position").GetInt32()));
    }

    [Theory]
    [InlineData(0, new string[] { })]
    [InlineData(ExportManifest.EventsPerSegment, new[] { "events/00000000000000000001.ndjson" })]
    [InlineData(ExportManifest.EventsPerSegment + 1, new[] { "events/00000000000000000001.ndjson", "events/00000000000000065537.ndjson" })]
    public async Task cuts_the_log_into_files(int events, string[] files)
    {
        await using var own = await node.StartAnew();
        await Fill(own, events);
        using var folder = new TempFolder();
        var path = Path.Combine(folder.Path, "export");
        Assert.Equal(0, (await Export(own, path)).Code);

        Assert.Equal(
            [.. files, .. TransparencyLog.Tables.Tables.Select(t => $"log/{t}.ndjson").Order(StringComparer.Ordinal), "manifest.json"],
            Files(path).Keys.Order(StringComparer.Ordinal));
        Assert.All(files.SkipLast(1), f => Assert.Equal(ExportManifest.EventsPerSegment, File.ReadLines(Path.Combine(path, f)).Count()));
        await using var restored = await node.StartAnew();
        await restored.Stop(); // a node that runs has founded another log by then, or is about to
        var imported = await Import(restored, path);
        Assert.Equal((0, ""), (imported.Code, imported.Errors));
        Assert.Equal(await Log(own), await Log(restored));
    }

    [Fact]
    public async Task is_of_one_position_while_commands_go_on()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/first", "{}");
        using var done = new CancellationTokenSource();
        var writing = Task.Run(async () =>
        {
            for (var i = 0; !done.IsCancellationRequested; i++)
            {
                await own.Put($"/v1/users/e{i}", "{}");
            }
        }, Cancellation);
        using var folder = new TempFolder();
        foreach (var i in Enumerable.Range(0, 5))
        {
            var path = Path.Combine(folder.Path, $"{i}");
            Assert.Equal(0, (await Export(own, path)).Code);
            var manifest = await ExportManifest.Read(path, Cancellation);
            Assert.Equal(manifest.Position, File.ReadLines(Path.Combine(path, "events/00000000000000000001.ndjson")).Count());
        }

        await done.CancelAsync();
        await writing;
    }

    [Fact]
    public async Task brings_along_what_belongs_to_the_log_beside_its_events()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/u", "{}");
        await Execute(own, "insert into mt_high_water_skips values (7, 3, '2026-01-01 00:00:00.000001+00'), (9, 8, null)");
        IReadOnlyList<ExportSection> sections = [new("skips", ["mt_high_water_skips"])];
        using var folder = new TempFolder();
        var path = Path.Combine(folder.Path, "export");
        await new LogExport(Database(own), new EventStoreOptions(), sections).Write(path, cancellation: Cancellation);
        await using var restored = await node.StartAnew();

        var refused = await Import(restored, path);
        Assert.Equal((1, "The export has a section 'skips', which this program does not know: import it with a newer one."), (refused.Code, refused.Errors.Trim()));
        await new LogImport(Database(restored), new EventStoreOptions(), sections).Read(path, cancellation: Cancellation);

        const string Skips = "select s::text from mt_high_water_skips s order by 1";
        Assert.Equal(await Rows(own, Skips), await Rows(restored, Skips));
    }

    [Fact]
    public async Task that_is_broken_off_leaves_nothing_that_looks_whole()
    {
        await using var own = await node.StartAnew();
        await Fill(own, ExportManifest.EventsPerSegment + 1);
        using var folder = new TempFolder();
        var path = Path.Combine(folder.Path, "export");
        using var interrupted = new CancellationTokenSource();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() =>
            own.Services.GetRequiredService<LogExport>().Write(path, _ => interrupted.Cancel(), interrupted.Token));

        Assert.True(File.Exists(Path.Combine(path, "events/00000000000000000001.ndjson")));
        Assert.False(File.Exists(Path.Combine(path, "manifest.json")));
        await using var restored = await node.StartAnew();
        Assert.Contains("is no export: it has no manifest.json.", (await Import(restored, path)).Errors, StringComparison.Ordinal);
        Assert.Contains("is there already", (await Export(own, path)).Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task of_a_log_with_a_gap_is_refused()
    {
        await using var own = await node.StartAnew();
        await Fill(own, 5);
        await Execute(own, "delete from mt_events where seq_id = 3");
        using var folder = new TempFolder();

        var (code, _, errors) = await Export(own, Path.Combine(folder.Path, "export"));

        Assert.Equal((1, "The log has no event at position 3, but goes up to 5 at least."), (code, errors.Trim()));
    }

    [Fact]
    public async Task into_a_database_with_a_log_is_refused()
    {
        await using var own = await node.StartAnew();
        await own.Put("/v1/users/u", "{}");
        using var folder = new TempFolder();
        var path = Path.Combine(folder.Path, "export");
        await Export(own, path);
        var before = await Log(own);

        var (code, _, errors) = await Import(own, path);

        Assert.Equal(1, code);
        Assert.Contains("An export is imported into an empty database only.", errors, StringComparison.Ordinal);
        Assert.Equal(before, await Log(own));
    }

    [Fact]
    public async Task then_importing_finds_whatever_was_changed_and_stores_nothing()
    {
        await using var own = await node.StartAnew();
        foreach (var i in Enumerable.Range(0, 6))
        {
            await own.Put($"/v1/users/u{i % 3}", $$$"""{"attributes":{"a":{{{i}}}}}""");
        }

        using var folder = new TempFolder();
        var whole = Path.Combine(folder.Path, "whole");
        Assert.Equal(0, (await Export(own, whole)).Code);
        await using var restored = await node.StartAnew();
        const string Segment = "events/00000000000000000001.ndjson";
        var lines = await File.ReadAllLinesAsync(Path.Combine(whole, Segment), Cancellation);

        await Refused("its checksum is another one", file => Flipped(file, 200, 0), reseal: false);
        foreach (var at in Enumerable.Range(0, 40))
        {
            await Refused(null, file => Flipped(file, file.Length * at / 40, at % 8), reseal: false);
        }

        await Refused("bytes, and not", file => file[..^1], reseal: false);
        await Refused("but it holds position 3", Text([lines[0], lines[2], lines[1], .. lines[3..]]));
        await Refused("but it holds position 3", Text([lines[0], .. lines[2..]]));
        await Refused("ends at position 5, and not at 6", Text(lines[..^1]));
        await Refused("ends within a line", file => file[..^1]);
        await Refused("it is no JSON", Text([.. lines[..^1], lines[^1][..^1]]));
        await Refused("it has no data", Text([.. lines[..^1], Without(lines[^1], "data")]));
        await Refused("it has a field 'date', which no event has", Text([.. lines[..^1], lines[^1].Replace("\"data\"", "\"date\"", StringComparison.Ordinal)]));
        await Refused("it has type twice", Text([.. lines[..^1], lines[^1][..^1] + ",\"type\":\"another\"}"]));
        await Refused("does not count its events", Text([.. lines[..^1], lines[^1].Replace("\"version\":2", "\"version\":3", StringComparison.Ordinal)]));
        await Refused("PostgreSQL does not take", Text([.. lines[..^1], lines[^1].Replace("\"version\":2", "\"version\":1", StringComparison.Ordinal)]));
        await Refused("PostgreSQL does not take", Text([lines[1].Replace("\"position\":2", "\"position\":1", StringComparison.Ordinal), .. lines[1..]]));

        var manifest = await File.ReadAllTextAsync(Path.Combine(whole, "manifest.json"), Cancellation);
        await RefusedManifest("but the export goes up to 7", manifest.Replace("\"position\": 6", "\"position\": 7", StringComparison.Ordinal));
        await RefusedManifest("where 'events/00000000000000000001.ndjson' is expected", manifest.Replace(Segment, "../" + Segment, StringComparison.Ordinal));
        await RefusedManifest("of another format", manifest.Replace("\"formatVersion\": 1", "\"formatVersion\": 2", StringComparison.Ordinal));
        await RefusedManifest("can't be read", manifest[..^5]);
        await RefusedManifest("can't be read", manifest.Replace("\"segments\"", "\"parts\"", StringComparison.Ordinal));

        var (code, _, errors) = await Import(restored, whole);
        Assert.Equal((0, ""), (code, errors));
        Assert.Equal(await Log(own), await Log(restored));

        static string Without(string line, string field)
        {
            var rest = JsonNode.Parse(line)!.AsObject();
            rest.Remove(field);
            return rest.ToJsonString();
        }

        static Func<byte[], byte[]> Text(string[] lines) => _ => Encoding.UTF8.GetBytes(string.Concat(lines.Select(l => l + "\n")));

        Task RefusedManifest(string why, string text) => RefusedFolder(why, path => File.WriteAllText(Path.Combine(path, "manifest.json"), text));

        static byte[] Flipped(byte[] file, int at, int bit)
        {
            file[at] ^= (byte)(1 << bit);
            return file;
        }

        Task Refused(string? why, Func<byte[], byte[]> edit, bool reseal = true) => RefusedFolder(why, path =>
        {
            var file = Path.Combine(path, Segment);
            var bytes = edit(File.ReadAllBytes(file));
            File.WriteAllBytes(file, bytes);
            if (reseal)
            {
                // As whoever edits an export on purpose would.
                var resealed = JsonNode.Parse(File.ReadAllText(Path.Combine(path, "manifest.json")))!;
                resealed["segments"]![0]!["bytes"] = bytes.Length;
                resealed["segments"]![0]!["sha256"] = Convert.ToHexStringLower(SHA256.HashData(bytes));
                File.WriteAllText(Path.Combine(path, "manifest.json"), resealed.ToJsonString());
            }
        });

        async Task RefusedFolder(string? why, Action<string> change)
        {
            using var copy = new TempFolder();
            foreach (var (name, bytes) in Files(whole))
            {
                Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(copy.Path, name))!);
                await File.WriteAllBytesAsync(Path.Combine(copy.Path, name), bytes, Cancellation);
            }

            change(copy.Path);
            var (code, _, errors) = await Import(restored, copy.Path);
            Assert.Equal(1, code);
            Assert.Contains(why ?? "", errors, StringComparison.Ordinal);
            Assert.NotEmpty(errors);
            Assert.Equal("", await Log(restored));
        }
    }

    private static Task Fill(TestNode own, int events) => events == 0 ? Task.CompletedTask : Execute(
        own,
        string.Create(CultureInfo.InvariantCulture, $"""
        insert into mt_events (seq_id, id, stream_id, version, data, type, timestamp)
        select i, gen_random_uuid(), 'filled', i, '1', 'from_elsewhere', '2026-01-01' from generate_series(1, {events}) i;
        insert into mt_streams (id, version, timestamp, created) values ('filled', {events}, '2026-01-01', '2026-01-01')
        """));
}
