using System.Text.RegularExpressions;
using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.Logging;

namespace Ledger.Tests.Documents;

/// <summary>What the documents show of the command line.</summary>
public sealed partial class The_command_line(PostgresFixture postgres)
{
    private const string Document = "docs/operations.md";

    [Fact]
    public async Task help_says_what_is_shown()
    {
        var output = new StringWriter();
        var root = Verbs.Root(output, output);

        await root.Parse("--help").InvokeAsync(new() { Output = output }, TestContext.Current.CancellationToken);

        await Compare("./ledger --help", output.ToString().Replace(root.Name, "Ledger", StringComparison.Ordinal), Lines);
    }

    [Fact]
    public async Task status_says_what_is_shown()
    {
        await using var node = LedgerHost.Build(
            new LedgerSettings { Urls = "http://127.0.0.1:0" }, await postgres.CreateDatabase(), configure: b => b.Logging.SetMinimumLevel(LogLevel.Critical));
        await node.StartAsync(TestContext.Current.CancellationToken);
        var output = new StringWriter();

        await StatusVerb.Run(node.Services, output, TestContext.Current.CancellationToken);

        // Sizes differ from run to run, and with them the order of the tables; the daemon may not have begun yet.
        await Compare("./ledger status", output.ToString(), text => Lines(Changing().Replace(text, " # ")).Order());
        await node.StopAsync(CancellationToken.None);
    }

    private static async Task Compare(string command, string real, Func<string, IEnumerable<string>> comparable)
    {
        var text = Repository.Read(Document);
        var shown = Repository.Blocks(text, "console").Single(block => block.StartsWith($"$ {command}\n", StringComparison.Ordinal));
        var block = $"$ {command}\n{real.TrimEnd()}\n";
        if (Environment.GetEnvironmentVariable("LEDGER_WRITE_DOCUMENTS") is null)
        {
            Assert.Equal(comparable(shown), comparable(block));
        }
        else if (!comparable(shown).SequenceEqual(comparable(block)))
        {
            await File.WriteAllTextAsync(Path.Combine(Repository.Root, Document), text.Replace(shown, block, StringComparison.Ordinal));
        }
    }

    private static IEnumerable<string> Lines(string text) => text.Split('\n').Select(line => line.TrimEnd());

    [GeneratedRegex(@"\s+\d[\d.]*(\s(bytes|kB|MB))?\s*|(not )?running$", RegexOptions.Multiline)]
    private static partial Regex Changing();
}
