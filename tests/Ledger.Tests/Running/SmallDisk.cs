using System.Diagnostics;
using Ledger.Hosting;

namespace Ledger.Tests.Running;

/// <summary>
/// A disk of a few megabytes, in memory, and the PostgreSQL that works on it. It is mounted in a name space of its own, which a
/// shell holds: so no account needs to be root for it, nobody else sees it, and it is gone with the shell.
/// </summary>
internal sealed class SmallDisk : IAsyncDisposable
{
    private readonly Process _shell;
    private readonly SemaphoreSlim _turn = new(1, 1);
    private readonly OwnPostgres _postgres;

    private SmallDisk(Process shell, OwnPostgres postgres) => (_shell, _postgres) = (shell, postgres);

    private string Disk => Path.Combine(_postgres.Folder, "disk");

    private string Ballast => Path.Combine(Disk, "ballast");

    public static async Task<SmallDisk> Mount(int megabytes)
    {
        var postgres = await OwnPostgres.Prepare();
        // Who is not root mounts as the root of a name space of users.
        string[] space = Environment.IsPrivilegedProcess ? ["unshare", "--mount"] : ["unshare", "--mount", "--map-current-user", "--keep-caps"];
        var shell = Process.Start(Tool.Describe([.. space, "sh"]))!;
        shell.BeginErrorReadLine();
        var disk = new SmallDisk(shell, postgres);
        await postgres.Account.CreateFolderAsync(disk.Disk, TestContext.Current.CancellationToken);
        await disk.Run($"mount -t tmpfs -o size={megabytes}m,mode=0777 none {disk.Disk}");
        return disk;
    }

    /// <summary>A cluster with its data on the disk, and its log of changes elsewhere; or the other way round.</summary>
    public async Task<DiskPostgres> StartPostgres(bool walOnly = false)
    {
        var (data, wal) = walOnly ? (_postgres.Data, Path.Combine(Disk, "wal")) : (Path.Combine(Disk, "data"), Path.Combine(_postgres.Folder, "wal"));
        await Run(_postgres.Account.Command(
            Path.Combine(_postgres.Programs, "initdb"), "--pgdata", data, "--waldir", wal, "--username", "ledger", "--auth", "trust", "--encoding", "UTF8", "--no-locale"));
        var started = new DiskPostgres(this, _postgres, data);
        await started.StartAgain();
        return started;
    }

    /// <summary>Leaves not a byte.</summary>
    public Task Fill() => Run($"dd if=/dev/zero of={Ballast} bs=64k 2>/dev/null; dd if=/dev/zero of={Ballast}.rest bs=1 count=65536 2>/dev/null; true");

    public async Task<bool> IsFull() => (await Run($"df --output=avail {Disk} | tail -1")).Trim() == "0";

    public Task MakeRoom() => Run($"rm {Ballast} {Ballast}.rest");

    public Task<string> Run(IEnumerable<string> command) => Run(string.Join(' ', command.Select(c => $"'{c}'")));

    /// <summary>Runs a command where the disk is; it must succeed.</summary>
    public async Task<string> Run(string command)
    {
        var (code, output) = await Try(command);
        Assert.True(code == "0", $"{command}: {output}");
        return output;
    }

    public async Task<(string Code, string Output)> Try(string command)
    {
        const string End = "=END=";
        await _turn.WaitAsync();
        try
        {
            await _shell.StandardInput.WriteLineAsync($"( {command} ) 2>&1 </dev/null; echo; echo {End} $?");
            await _shell.StandardInput.FlushAsync();
            var output = new List<string>();
            while (await _shell.StandardOutput.ReadLineAsync() is { } line)
            {
                if (line.StartsWith(End, StringComparison.Ordinal))
                {
                    return (line[End.Length..].Trim(), string.Join('\n', output));
                }

                output.Add(line);
            }

            return ("none", $"The shell has ended. {string.Join('\n', output)}");
        }
        finally
        {
            _turn.Release();
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (var data in (string[])[_postgres.Data, Path.Combine(Disk, "data")])
        {
            await Try(string.Join(' ', _postgres.Account.Command(Path.Combine(_postgres.Programs, "pg_ctl"), "stop", "--pgdata", data, "--mode", "immediate")));
        }

        _shell.StandardInput.Close();
        await _shell.WaitForExitAsync();
        _shell.Dispose();
        _turn.Dispose();
        await _postgres.DisposeAsync();
    }

    /// <summary>The cluster on the disk.</summary>
    internal sealed class DiskPostgres(SmallDisk disk, OwnPostgres postgres, string data)
    {
        public string ConnectionString => postgres.ConnectionString;

        public Task StartAgain() => disk.Run(postgres.Account.Command(
            Path.Combine(postgres.Programs, "pg_ctl"), "start", "--wait", "--timeout=120", "--pgdata", data, "--log", Path.Combine(postgres.Folder, "log"), "--options", postgres.Options));

        public async Task<bool> Runs() =>
            (await disk.Try(string.Join(' ', postgres.Account.Command(Path.Combine(postgres.Programs, "pg_ctl"), "status", "--pgdata", data)))).Code == "0"
            && await Answers();

        /// <summary>Runs a statement that may fail.</summary>
        public async Task Try(string sql)
        {
            try
            {
                await postgres.Value<object>(sql);
            }
            catch (Npgsql.NpgsqlException)
            {
                // The server may go down of it.
            }
        }

        private async Task<bool> Answers()
        {
            try
            {
                return await postgres.Value<bool>("select true");
            }
            catch (Npgsql.NpgsqlException)
            {
                return false;
            }
        }
    }
}
