using System.Net;
using Ledger.EventStore;
using Ledger.Hosting;
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

    private static async Task Execute(TestNode node, string sql)
    {
        await using var command = node.Services.GetRequiredService<NpgsqlDataSource>().CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ct);
    }
}
