using System.Diagnostics;
using System.Text;
using System.Text.RegularExpressions;
using Ledger.Campaigns;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Running;
using Microsoft.Extensions.Logging;

namespace Ledger.Tests.Documents;

/// <summary>
/// Runs the sessions of the documents: every block marked console that uses curl or verifies, all blocks of a document against one node on
/// an empty database. With LEDGER_WRITE_DOCUMENTS=1 what was really answered is written into the document instead.
/// </summary>
public sealed partial class Sessions(PostgresFixture postgres)
{
    private const string ShownAddress = "localhost:8080";
    private const string ShownGateway = "localhost:8090";

    public static TheoryData<string> DocumentsWithSessions { get; } = new(Repository.Documents.Where(d => SessionsOf(Repository.Read(d)).Any()));

    [Theory]
    [MemberData(nameof(DocumentsWithSessions))]
    public async Task show_what_really_happens(string document)
    {
        var gateway = $"127.0.0.1:{OwnPostgres.FreePort()}";
        var settings = new LedgerSettings
        {
            Urls = "http://127.0.0.1:0", MessageGateway = new GatewaySettings(new Uri($"http://{gateway}"), "secret") { Concurrency = 128, Timeout = TimeSpan.FromSeconds(1) },
        };
        var database = await postgres.CreateDatabase();
        await using var node = LedgerHost.Build(settings, database, configure: b => b.Logging.SetMinimumLevel(LogLevel.Critical));
        await node.StartAsync(TestContext.Current.CancellationToken);
        var address = new Uri(node.Urls.Single()).Authority;
        var folder = Directory.CreateTempSubdirectory("ledger-documents-").FullName;
        Directory.CreateSymbolicLink(Path.Combine(folder, "docs"), Path.Combine(Repository.Root, "docs"));
        await WriteScript(Path.Combine(folder, "ledger"), database, settings);
        try
        {
            var text = Repository.Read(document);
            foreach (var shown in SessionsOf(text))
            {
                var answered = await Run(Script(shown).Replace(ShownAddress, address, StringComparison.Ordinal).Replace(ShownGateway, gateway, StringComparison.Ordinal), folder);
                var real = Progress().Replace(answered.Replace(address, ShownAddress, StringComparison.Ordinal).Replace(gateway, ShownGateway, StringComparison.Ordinal), "");
                if (Environment.GetEnvironmentVariable("LEDGER_WRITE_DOCUMENTS") is null)
                {
                    Assert.Equal(Mask(shown), Mask(real));
                }
                else if (Mask(shown) != Mask(real))
                {
                    text = text.Replace($"```console\n{shown}```", $"```console\n{real}```", StringComparison.Ordinal);
                    await File.WriteAllTextAsync(Path.Combine(Repository.Root, document), text, TestContext.Current.CancellationToken);
                }
            }
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
            await node.StopAsync(CancellationToken.None);
        }
    }

    private static IEnumerable<string> SessionsOf(string text) =>
        Repository.Blocks(text, "console").Where(block => block.Contains("$ curl", StringComparison.Ordinal) || block.Contains("$ ./ledger verify", StringComparison.Ordinal));

    /// <summary>A script that prints each command as it is shown, then runs it; between two it waits for the views, as a person does by typing.</summary>
    private static string Script(string shown)
    {
        var script = new StringBuilder(
            $$"""
            chmod +x ledger
            trap 'kill $(jobs -p) 2>/dev/null' EXIT
            dotnet() { while [ "$1" != -- ]; do shift; done; shift; exec dotnet '{{Path.Combine(AppContext.BaseDirectory, "Ledger.Gateway.dll")}}' "$@"; } # built already
            curl() { command curl --silent "$@"; } # in a terminal it shows no progress either
            views_are_behind() { curl {{ShownAddress}}/v1/projections | grep -q '"lagEvents":[1-9]'; }
            finish() { tr -d '\r' <.output; [ -z "$(tail -c 1 .output)" ] || echo; while views_are_behind; do sleep 0.02; done; }

            """);
        foreach (Match command in Command().Matches(shown))
        {
            script.Append($"cat <<'=END='\n{command.Value}=END=\n{{ {command.Value[2..].TrimEnd('\n')}\n}} >.output 2>&1\nfinish\n");
        }

        return script.ToString();
    }

    /// <summary>The repository's script without its build: the program on the node's database and with the node's keys.</summary>
    private static Task WriteScript(string path, string database, LedgerSettings settings) =>
        File.WriteAllTextAsync(
            path,
            $"""
            #!/bin/sh
            export LEDGER_DB='{database}' LEDGER_HOME='{Path.GetFullPath(settings.Home)}'
            exec dotnet '{Path.Combine(AppContext.BaseDirectory, "Ledger.dll")}' "$@"

            """, TestContext.Current.CancellationToken);

    private static async Task<string> Run(string script, string folder)
    {
        using var bash = new Process
        {
            StartInfo = new("bash") { WorkingDirectory = folder, RedirectStandardInput = true, RedirectStandardOutput = true },
        };
        bash.Start();
        await bash.StandardInput.WriteAsync(script);
        bash.StandardInput.Close();
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(TimeSpan.FromMinutes(10));
        try
        {
            return await bash.StandardOutput.ReadToEndAsync(patience.Token);
        }
        finally
        {
            bash.Kill(entireProcessTree: true); // of one that took too long, what it had started would stay
        }
    }

    /// <summary>What differs from run to run, made alike.</summary>
    private static string Mask(string text) => Changing().Replace(text, match => match.Groups.Keys.First(k => k.Length > 1 && match.Groups[k].Success));

    [GeneratedRegex(@"^\$ (.*\\\n)*.*\n", RegexOptions.Multiline)]
    private static partial Regex Command();

    /// <summary>How far a command that takes longer than usual has come.</summary>
    [GeneratedRegex(@"^\d+ events verified\n", RegexOptions.Multiline)]
    private static partial Regex Progress();

    [GeneratedRegex("""(?<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z)|(?<trace>"traceId":"[^"]+")|(?<event>"id":"[\da-f]{8}-[\da-f-]{27}")|(?<correlation>"correlationId":"[^"]+")|(?<signature>— ledger\.local/\S+ \S+)|(?<origin>ledger\.local/[\da-f]{12}(\+[\da-f]{8}\+\S+)?)|(?<root>(?<=\n)[A-Za-z\d+/]{43}=(?=\n))|(?<seconds>\d+\.\d s\n)|(?<bytes>\d+ bytes(, and not \d+)?)|(?<key>(ldg_|(?<="keyId":"))[\da-f]{16})|(?<date>Date: .+)|(?<lag>"lagSeconds":[\d.]+)|(?<totals>"state":"running" "totals":\{[^}]+\})|(?<paused>"state":"paused" "totals":\{[^}]+\})""")]
    private static partial Regex Changing();
}
