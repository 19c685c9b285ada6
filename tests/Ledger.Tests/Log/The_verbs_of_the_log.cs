using System.Net;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Tests.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Log;

public sealed class The_verbs_of_the_log(TestNode node) : IClassFixture<TestNode>
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task verify_names_the_event_that_was_changed_and_those_that_are_missing()
    {
        await using var other = await node.StartAnew();
        await Task.WhenAll(Enumerable.Range(0, 30).Select(i => other.Put($"/v1/users/u{i}", new { attributes = new { age = i } })));
        var kept = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(kept, (await other.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK).Text, Ct);
            var key = (await other.GetAsIs("/v1/log/key")).Text.TrimEnd('\n');
            var (code, output, errors) = await Verify(other, key, kept);
            Assert.True(code == 0, output + errors);
            Assert.StartsWith("OK: 30 events, 30 of them under a signed checkpoint, 0 erased, 2 earlier checkpoints", output, StringComparison.Ordinal);
            Assert.Empty(errors);

            await Execute(other, "create table before as select data from mt_events where seq_id = 17; update mt_events set data = jsonb_set(data, '{attributes,age}', '99') where seq_id = 17");
            (code, output, _) = await Verify(other, key, kept);
            Assert.Equal(1, code);
            Assert.StartsWith("WRONG at position 17: ", output, StringComparison.Ordinal);

            await Execute(other, "delete from mt_events where seq_id > 20; update mt_events set data = (select data from before) where seq_id = 17");
            (code, output, _) = await Verify(other, key, null);
            Assert.Equal(1, code);
            Assert.StartsWith("WRONG at position 21: The log ends at position 20", output, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(kept);
        }
    }

    [Fact]
    public async Task verify_takes_a_key_a_file_of_keys_or_the_databases_own_and_says_what_it_can_not_use()
    {
        await node.Put("/v1/users/u1", new { });
        await node.Get("/v1/log/checkpoint");
        var key = (await node.GetAsIs("/v1/log/key")).Text;
        var file = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(file, key, Ct);
            Assert.Equal(0, (await Verify(node, file, null)).Code);
            var (code, _, errors) = await Verify(node, null, null);
            Assert.Equal(0, code);
            Assert.Contains("the database itself lists", errors, StringComparison.Ordinal);
            (code, _, errors) = await Verify(node, "no key", null);
            Assert.Equal((1, "'no key' is neither a verification key nor a file of them.\n"), (code, errors.ReplaceLineEndings("\n")));
            (code, _, errors) = await Verify(node, file, "no file");
            Assert.Equal(1, code);
            Assert.Contains("'no file' can't be read", errors, StringComparison.Ordinal);
            (code, var output, _) = await Verify(node, file, file);
            Assert.Equal(1, code);
            Assert.Contains("can't be trusted", output, StringComparison.Ordinal);
            (code, output, _) = await Verify(node, "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8", null);
            Assert.Equal(1, code);
            Assert.Contains("No signature is by a key that is known", output, StringComparison.Ordinal);
        }
        finally
        {
            File.Delete(file);
        }
    }

    [Fact]
    public async Task verify_needs_nothing_but_an_export_and_a_key()
    {
        await using var other = await node.StartAnew();
        await Task.WhenAll(Enumerable.Range(0, 30).Select(i => other.Put($"/v1/users/u{i}", new { attributes = new { age = i } })));
        await other.Get("/v1/log/checkpoint");
        var key = (await other.GetAsIs("/v1/log/key")).Text.TrimEnd('\n');
        using var folder = new TempFolder();
        var export = Path.Combine(folder.Path, "export");
        Assert.Equal(0, await ExportVerb.Export(other.Services, export, TextWriter.Null, TextWriter.Null, Ct));
        await other.Stop();
        Assert.Equal((0, ""), await Root($"verify --export {export} --key {key}"));
        var (code, output, errors) = await VerifyExport(export, null);
        Assert.Equal(0, code);
        Assert.StartsWith("OK: 30 events, 30 of them under a signed checkpoint", output, StringComparison.Ordinal);
        Assert.Contains("the keys that the export itself lists. That proves less", errors, StringComparison.Ordinal);

        var events = Path.Combine(export, "events/00000000000000000001.ndjson");
        var lines = await File.ReadAllLinesAsync(events, Ct);
        lines[16] = lines[16].Replace("\"age\": ", "\"age\": 1", StringComparison.Ordinal);
        await File.WriteAllTextAsync(events, string.Concat(lines.Select(l => $"{l}\n")), Ct);
        (code, output, _) = await VerifyExport(export, key);
        Assert.Equal(1, code);
        Assert.StartsWith("WRONG at position 17: The event of type", output, StringComparison.Ordinal);
        Assert.Contains("\nAlso: events/00000000000000000001.ndjson ", output.ReplaceLineEndings("\n"), StringComparison.Ordinal);

        File.Delete(Path.Combine(export, "manifest.json"));
        (code, output, _) = await VerifyExport(export, key);
        Assert.Equal(1, code);
        Assert.Contains("is no export: it has no manifest.json", output, StringComparison.Ordinal);
        (code, errors) = await Root($"verify --export {export} --views");
        Assert.Equal((1, "An export holds no views: leave out --views or --export.\n"), (code, errors.ReplaceLineEndings("\n")));
    }

    [Fact]
    public async Task verify_compares_the_views_when_asked_to()
    {
        await using var other = await node.StartAnew();
        await other.Put("/v1/users/u1", new { });
        await other.Put("/v1/users/u2", new { });
        await other.CatchUp();
        await other.Get("/v1/log/checkpoint");
        var (code, output, errors) = await VerifyViews(other);
        Assert.True(code == 0, output + errors);
        Assert.StartsWith("OK: 2 events", output, StringComparison.Ordinal);
        Assert.All(
            other.Services.GetRequiredService<IReadOnlyList<IProjection>>(),
            view => Assert.Contains($"{view.Name} is what a replay of the log gives, at position 2.", output, StringComparison.Ordinal));

        await Execute(other, "delete from users where user_id = 'u2'");
        (code, output, errors) = await VerifyViews(other);
        Assert.Equal(1, code);
        Assert.StartsWith("OK: 2 events", output, StringComparison.Ordinal);
        Assert.Contains("Users is not what a replay of the log gives. The first row of users that differs:", errors, StringComparison.Ordinal);

        await Execute(other, "update mt_events set data = '{\"n\":1}' where seq_id = 2");
        (code, output, errors) = await VerifyViews(other);
        Assert.Equal(1, code);
        Assert.StartsWith("WRONG at position 2: ", output, StringComparison.Ordinal);
        Assert.DoesNotContain("Users is", output + errors, StringComparison.Ordinal);

        static async Task<(int Code, string Output, string Errors)> VerifyViews(TestNode node)
        {
            var (output, errors) = (new StringWriter(), new StringWriter());
            var code = await VerifyVerb.Run(node.Services, new VerifyRequest(null, null, null, Views: true), output, errors, Ct);
            return (code, output.ToString(), errors.ToString());
        }
    }

    [Fact]
    public async Task import_gives_the_same_root_and_whoever_has_the_key_signs_on()
    {
        await using var other = await node.StartAnew();
        await Task.WhenAll(Enumerable.Range(0, 300).Select(i => other.Put($"/v1/users/u{i}", new { })));
        var checkpoint = (await other.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK).Text;
        using var folder = new TempFolder();
        var export = Path.Combine(folder.Path, "export");
        Assert.Equal(0, await ExportVerb.Export(other.Services, export, TextWriter.Null, TextWriter.Null, Ct));
        await other.Stop();

        await using var imported = await node.StartAnew();
        await imported.Stop();
        Assert.Equal(0, await ExportVerb.Import(imported.Services, imported.Services.GetRequiredService<LedgerSettings>(), export, TextWriter.Null, TextWriter.Null, Ct));
        Assert.Equal(0, (await Verify(imported, null, null)).Code);

        await using (var withKey = await imported.StartBeside())
        {
            Assert.Equal(checkpoint, (await withKey.GetAsIs("/v1/log/checkpoint")).Text);
            await withKey.Put("/v1/users/after", new { });
            var note = (await withKey.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK).Text;
            Assert.Equal("301", note.Split('\n')[1]);
            Assert.Equal(checkpoint.Split('\n')[0], note.Split('\n')[0]);
            var kept = Path.Combine(folder.Path, "kept");
            await File.WriteAllTextAsync(kept, checkpoint, Ct);
            Assert.Equal(0, (await Verify(withKey, (await withKey.GetAsIs("/v1/log/key")).Text.TrimEnd('\n'), kept)).Code);
            Assert.Empty(withKey.Errors);
        }
    }

    [Fact]
    public async Task import_where_the_key_is_not_is_refused_to_be_signed_on()
    {
        await using var other = await node.StartAnew();
        await other.Put("/v1/users/u1", new { });
        var checkpoint = (await other.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK).Text;
        using var folder = new TempFolder();
        var export = Path.Combine(folder.Path, "export");
        Assert.Equal(0, await ExportVerb.Export(other.Services, export, TextWriter.Null, TextWriter.Null, Ct));
        await other.Stop();
        await using var elsewhere = await node.StartAnew(s => s.AddSingleton(new TransparencyOptions { Folder = Path.Combine(folder.Path, "keys") }));
        await elsewhere.Stop();
        Assert.Equal(0, await ExportVerb.Import(elsewhere.Services, elsewhere.Services.GetRequiredService<LedgerSettings>(), export, TextWriter.Null, TextWriter.Null, Ct));

        await using var keyless = await elsewhere.StartBeside();
        await keyless.Put("/v1/users/after", new { });
        var sealer = keyless.Services.GetRequiredService<Sealer>();
        for (var patience = 0; sealer.Refusal is null && patience < 300; patience++)
        {
            await Task.Delay(100, Ct);
        }

        Assert.Matches("The signing key '.*' can't be read", sealer.Refusal);
        Assert.Equal(checkpoint, (await keyless.GetAsIs("/v1/log/checkpoint")).Text);
        (await keyless.GetAsIs("/health/ready")).Is(HttpStatusCode.ServiceUnavailable);
    }

    [Fact]
    public async Task key_shows_and_rotates()
    {
        await using var other = await node.StartAnew();
        await other.Put("/v1/users/u1", new { });
        await other.Get("/v1/log/checkpoint");
        var output = new StringWriter();
        Assert.Equal(0, await KeyVerb.Show(other.Services, output, Ct));
        var old = (await other.GetAsIs("/v1/log/key")).Text;
        Assert.Equal(old, output.ToString().ReplaceLineEndings("\n"));

        output = new StringWriter();
        Assert.Equal(0, await KeyVerb.Rotate(other.Services, output, Ct));

        Assert.Equal(output.ToString().ReplaceLineEndings("\n") + old, (await other.GetAsIs("/v1/log/key")).Text);
        await other.Put("/v1/users/u2", new { });
        var note = SignedNote.Parse(System.Text.Encoding.UTF8.GetBytes((await other.Get("/v1/log/checkpoint")).Is(HttpStatusCode.OK).Text));
        Assert.True(NoteKey.TryParse(output.ToString().Trim(), out var rotated));
        Assert.Single(note.Verify(rotated));
        Assert.Equal(0, (await Verify(other, null, null)).Code);
    }

    private static async Task<(int Code, string Output, string Errors)> Verify(TestNode node, string? key, string? since)
    {
        var (output, errors) = (new StringWriter(), new StringWriter());
        var code = await VerifyVerb.Run(node.Services, key, since, output, errors, Ct);
        return (code, output.ToString(), errors.ToString());
    }

    private static async Task<(int Code, string Output, string Errors)> VerifyExport(string export, string? key)
    {
        var (output, errors) = (new StringWriter(), new StringWriter());
        var code = await VerifyVerb.RunExport(export, key, null, output, errors, Ct);
        return (code, output.ToString(), errors.ToString());
    }

    private static async Task<(int Code, string Errors)> Root(string command)
    {
        var errors = new StringWriter();
        return (await Verbs.Root(TextWriter.Null, errors).Parse(command).InvokeAsync(cancellationToken: Ct), errors.ToString());
    }

    private static async Task Execute(TestNode node, string sql)
    {
        await using var command = node.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ct);
    }
}
