using System.Net;
using Ledger.Hosting;
using Ledger.Tests.Documents;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;

namespace Ledger.Tests.Running;

/// <summary>The drill of docs/operations.md: its own lines, run by a shell, on a cluster of the test's own.</summary>
public sealed class Restoring_a_backup
{
    private static readonly string[] s_lines = [.. Repository.Blocks(Repository.Read("docs/operations.md"), "bash")];

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private static string Archive => Line("archive_command");

    private static string BaseBackup => Line("pg_basebackup");

    private static string Restore => Line("recovery.signal");

    private static string Verify => Line("./ledger verify");

    private static string NewName => Line("truncate");

    [Fact]
    public async Task brings_back_every_acknowledged_command_or_those_up_to_an_instant()
    {
        _ = Patience.Chance(out var seed);
        await using var postgres = await OwnPostgres.Start();
        using var home = new TempFolder();
        var shell = new Shell(postgres, home.Path);
        await shell.Run(Archive);
        (string, string)[] environment = [("LEDGER_DB", postgres.ConnectionString), ("LEDGER_HOME", home.Path), ("LEDGER_SWEEP_SECONDS", "1")];
        await using var node = await UpProcess.Start(postgres.ConnectionString, environment);
        shell["LEDGER"] = node.Address.GetLeftPart(UriPartial.Authority);
        using var swarm = await Swarm.Start(() => [node.Address], seed);
        await swarm.Acknowledges(100);
        await Patience.Until(async () => (await node.Client.GetAsync(new Uri("/v1/log/checkpoint", UriKind.Relative), Ct)).IsSuccessStatusCode, "a checkpoint is signed");
        await shell.Run(BaseBackup); // while commands are stored
        await swarm.Acknowledges(200);
        await swarm.Stop();
        var events = (await swarm.ReadLog(postgres.ConnectionString)).Count;
        await Patience.Until(() => Several_nodes.Covers(node.Client, Path.Combine(home.Path, "then"), events), "a checkpoint covers what is there");
        var instant = await postgres.Value<string>("select clock_timestamp()::text");

        // What comes after the instant, and is covered by a checkpoint that was signed.
        await Put(node, "late");
        var kept = Path.Combine(home.Path, "late");
        await Patience.Until(() => Several_nodes.Covers(node.Client, kept, events + 1), "a checkpoint covers it");
        await node.Stop();
        await postgres.Stop("fast"); // as it ends, it archives what is left

        await BringsBackEverything(shell, environment, swarm, events + 1);
        await BringsBackWhatWasAtAnInstant(shell, environment, swarm, instant, events, kept);
    }

    private static async Task BringsBackEverything(Shell shell, (string, string)[] environment, Swarm swarm, int events)
    {
        await using var restored = await OwnPostgres.Prepare();
        shell.RestoreTo(restored);
        await shell.Run(Restore);
        var log = await swarm.ReadLog(restored.ConnectionString);
        Assert.Equal(events, log.Count);
        Assert.Equal($"user-late should be [] and is [user_registered].", Assert.Single(swarm.FaultsOf(log)));
        Assert.StartsWith($"OK: {events} events, {events} of them under a signed checkpoint", await shell.Run(Verify), StringComparison.Ordinal);

        await using var node = await UpProcess.Start(restored.ConnectionString, [.. environment, ("LEDGER_DB", restored.ConnectionString)]);
        await swarm.AssertAnswers(node.Client, events);
        await Put(node, "after");
        await Patience.Until(() => Several_nodes.Covers(node.Client, Path.Combine(shell["HOME"], "next"), events + 1), "the log is signed on");
        await Patience.Until(async () => (await node.Client.GetAsync(new Uri("/health/ready", UriKind.Relative), Ct)).IsSuccessStatusCode, "the node is ready");
    }

    private static async Task BringsBackWhatWasAtAnInstant(
        Shell shell, (string, string)[] environment, Swarm swarm, string instant, int events, string keptLater)
    {
        await using var restored = await OwnPostgres.Prepare();
        shell.RestoreTo(restored);
        shell["UNTIL"] = instant;
        await shell.Run(Restore);
        var log = await swarm.ReadLog(restored.ConnectionString);
        Assert.Equal(events, log.Count);
        Assert.Empty(swarm.FaultsOf(log));
        var (code, output) = await shell.Try(Verify); // a later checkpoint was kept beside the key
        Assert.Equal(1, code);
        Assert.Matches(@"^WRONG at position \d+: The log ends at position \d+, but the checkpoint in '.*' covers ", output);
        shell["LEDGER_HOME"] = Directory.CreateDirectory(Path.Combine(shell["HOME"], "empty")).FullName;
        Assert.StartsWith($"OK: {events} events", await shell.Run(Verify), StringComparison.Ordinal);
        (code, output) = await LedgerProgram.Run([.. environment, ("LEDGER_DB", restored.ConnectionString)], "verify", "--since", keptLater);
        Assert.Equal(1, code);
        Assert.Contains("WRONG", output, StringComparison.Ordinal);

        // A later checkpoint was signed, and is kept beside the key: this copy serves, but is not signed under the old name.
        (string, string)[] older = [.. environment, ("LEDGER_DB", restored.ConnectionString)];
        await using (var node = await UpProcess.Start(restored.ConnectionString, older))
        {
            await swarm.AssertAnswers(node.Client, events);
            await Patience.Until(
                () => Task.FromResult(node.Output.Any(l => l.Contains("the database is an older copy, or events were taken away", StringComparison.Ordinal))), "the node refuses to sign");
            using var ready = await node.Client.GetAsync(new Uri("/health/ready", UriKind.Relative), Ct);
            Assert.Equal(HttpStatusCode.ServiceUnavailable, ready.StatusCode);
            Assert.Contains("\"log\":\"no checkpoint is signed\"", await ready.Content.ReadAsStringAsync(Ct), StringComparison.Ordinal);
        }

        var oldName = (await File.ReadAllLinesAsync(keptLater, Ct))[0];
        await shell.Run(NewName);
        await using var anew = await UpProcess.Start(restored.ConnectionString, older);
        var first = Path.Combine(shell["HOME"], "first");
        await Patience.Until(() => Several_nodes.Covers(anew.Client, first, events), "the log is signed under a new name");
        Assert.NotEqual(oldName, (await File.ReadAllLinesAsync(first, Ct))[0]);
        await Patience.Until(async () => (await anew.Client.GetAsync(new Uri("/health/ready", UriKind.Relative), Ct)).IsSuccessStatusCode, "the node is ready");
        (code, output) = await LedgerProgram.Run(older, "verify", "--since", first, "--views");
        Assert.True(code == 0, output);
    }

    private static async Task Put(UpProcess node, string user)
    {
        using var body = new StringContent("{}", null, "application/json");
        using var answer = await node.Client.PutAsync(new Uri($"/v1/users/{user}", UriKind.Relative), body, Ct);
        Assert.Equal(HttpStatusCode.Created, answer.StatusCode);
    }

    private static string Line(string part) => Assert.Single(s_lines, l => l.Contains(part, StringComparison.Ordinal));

    /// <summary>
    /// Runs the document's lines with its variables: what is PostgreSQL's as PostgreSQL's account, what is Ledger's as the test's
    /// own, in a folder where <c>./ledger</c> is the program.
    /// </summary>
    private sealed class Shell
    {
        private readonly Dictionary<string, string> _variables = [];
        private readonly PostgresAccount _account;

        public Shell(OwnPostgres postgres, string home)
        {
            _account = postgres.Account;
            this["HOME"] = home;
            this["LEDGER_HOME"] = home;
            this["PATH"] = $"{postgres.Programs}:{Environment.GetEnvironmentVariable("PATH")}";
            this["BACKUP"] = Path.Combine(postgres.Folder, "backup");
            this["PGDATA"] = postgres.Data;
            this["PGHOST"] = "127.0.0.1";
            this["PGPORT"] = $"{postgres.Port}";
            this["PGUSER"] = "ledger";
            this["PGDATABASE"] = "postgres";
            var program = Path.Combine(home, "ledger");
            File.WriteAllText(program, $"#!/bin/sh\nexec dotnet '{LedgerProgram.Path}' \"$@\"\n");
            if (!OperatingSystem.IsWindows())
            {
                File.SetUnixFileMode(program, (UnixFileMode)0b111_101_101);
            }
        }

        public string this[string name]
        {
            get => _variables[name];
            set => _variables[name] = value;
        }

        public void RestoreTo(OwnPostgres place)
        {
            this["RESTORED"] = place.Data;
            this["RESTORED_PORT"] = $"{place.Port}";
            this["UNTIL"] = "";
        }

        /// <summary>Runs them; all must succeed. Returns what they print.</summary>
        public async Task<string> Run(string lines)
        {
            var (code, output) = await Try(lines);
            Assert.True(code == 0, $"{lines}{output}");
            return output;
        }

        public async Task<(int ExitCode, string Output)> Try(string lines)
        {
            var settings = string.Concat(_variables.Select(v => $"export {v.Key}='{v.Value.Replace("'", "'\\''", StringComparison.Ordinal)}'\n"));
            var script = $"set -eu\n{settings}{lines}";
            return lines.Contains("./ledger", StringComparison.Ordinal)
                ? await Tool.RunAsync(["bash", "-c", $"cd '{this["HOME"]}'\n{script}"], Ct)
                : await Tool.RunAsync(_account.Command("bash", "-c", script), Ct);
        }
    }
}
