using System.Diagnostics;
using System.Net;
using System.Net.NetworkInformation;
using Ledger.Hosting;
using Ledger.Tests.Running;
using Npgsql;

namespace Ledger.Tests.Hosting;

public sealed class Starting_a_private_cluster : IDisposable
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    private readonly TempFolder temp = new();
    private readonly List<string> said = [];

    private string Folder => Path.Combine(temp.Path, "a checkout", ".ledger");

    public void Dispose() => temp.Dispose();

    [Fact]
    public async Task makes_a_durable_database_that_only_loopback_and_the_password_reach()
    {
        await using var cluster = await PrivateCluster.StartAsync(new(Folder), said.Add, Ct);

        Assert.Equal("ledger|ledger|on|on|on|UTF8", await QueryAsync(cluster, """
            select concat_ws('|', current_database(), current_user, current_setting('fsync'), current_setting('full_page_writes'),
                current_setting('synchronous_commit'), current_setting('server_encoding'))
            """));
        var listeners = IPGlobalProperties.GetIPGlobalProperties().GetActiveTcpListeners().Where(end => end.Port == cluster.Port);
        Assert.Equal([IPAddress.Loopback], listeners.Select(end => end.Address));
        Assert.Equal("", await QueryAsync(cluster, "show unix_socket_directories"));

        if (!OperatingSystem.IsWindows())
            Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(cluster.PasswordFile));
        var wrong = new NpgsqlConnectionStringBuilder(cluster.ConnectionString) { Password = "guessed", Pooling = false };
        await using var connection = new NpgsqlConnection(wrong.ConnectionString);
        var refusal = await Assert.ThrowsAsync<PostgresException>(() => connection.OpenAsync(Ct));
        Assert.Equal(PostgresErrorCodes.InvalidPassword, refusal.SqlState);
    }

    [Fact]
    public async Task packs_whole_pages_as_fast_as_its_PostgreSQL_can()
    {
        await using var cluster = await StartAsync();

        Assert.Equal("as it can", await QueryAsync(cluster, """
            select case when setting = case when 'lz4' = any(enumvals) then 'lz4' else 'pglz' end then 'as it can' else setting end
            from pg_settings where name = 'wal_compression'
            """));
    }

    [Fact]
    public async Task never_runs_postgres_as_root_and_gives_it_a_session_of_its_own()
    {
        await using var cluster = await StartAsync();

        Assert.NotEqual("0", (await RunAsync("ps", "-o", "uid=", "-p", $"{cluster.ProcessId}")).Trim());
        Assert.Equal($"{cluster.ProcessId}", (await RunAsync("ps", "-o", "sid=", "-p", $"{cluster.ProcessId}")).Trim());
        Assert.Equal($"{Environment.ProcessId}", (await RunAsync("ps", "-o", "ppid=", "-p", $"{cluster.ProcessId}")).Trim());
    }

    [Fact]
    public async Task keeps_the_data_of_the_last_time_and_takes_settings()
    {
        await using (var first = await StartAsync())
            await WriteAsync(first);

        var clock = Stopwatch.StartNew();
        await using var second = await PrivateCluster.StartAsync(
            Quick(Folder, [new("jit", "on"), new("listen_addresses", "*")]), said.Add, Ct);

        Assert.InRange(clock.ElapsedMilliseconds, 0, 2_000);
        await AssertKeptAsync(second);
        Assert.Equal("on", await QueryAsync(second, "show jit"));
        Assert.Equal("127.0.0.1", await QueryAsync(second, "show listen_addresses"));
    }

    [Fact]
    public async Task recovers_when_postgres_was_killed()
    {
        await using (var first = await StartAsync())
        {
            await WriteAsync(first);
            PostgresProcesses.Send(PostgresProcesses.Signal.Kill, first.ProcessId);
        }

        await using var second = await StartAsync();

        await AssertKeptAsync(second);
    }

    [Fact]
    public async Task starts_again_on_its_port_when_postgres_is_killed_while_it_is_kept()
    {
        await using var cluster = await StartAsync();
        cluster.Keep(said.Add);
        await WriteAsync(cluster);
        var (killed, port) = (cluster.ProcessId, cluster.Port);

        PostgresProcesses.Send(PostgresProcesses.Signal.Kill, killed);

        await Patience.Until(() => Task.FromResult(cluster.ProcessId != killed && PostgresProcesses.IsReady(cluster.DataDirectory, cluster.ProcessId)), "PostgreSQL runs again");
        Assert.Equal(port, cluster.Port);
        await AssertKeptAsync(cluster);
        await cluster.StopAsync(PostgresStop.Fast);
        Assert.False(PostgresProcesses.IsReady(cluster.DataDirectory, cluster.ProcessId));
    }

    [Fact]
    public async Task recovers_when_postgres_was_orphaned()
    {
        var first = await StartAsync();
        await WriteAsync(first);
        var orphan = first.ProcessId;
        await using var busy = new NpgsqlConnection(first.ConnectionString + ";Pooling=false");
        await busy.OpenAsync(Ct);
        first.Abandon();

        await using var second = await StartAsync();

        await AssertKeptAsync(second);
        Assert.NotEqual(orphan, second.ProcessId);
        Assert.Contains(said, line => line.Contains($"process {orphan}", StringComparison.Ordinal));
    }

    [Fact]
    public async Task recovers_when_the_pid_file_names_a_program_that_is_not_postgres()
    {
        string data;
        await using (var first = await StartAsync())
        {
            await WriteAsync(first);
            data = first.DataDirectory;
            File.Copy(Path.Combine(data, "postmaster.pid"), Path.Combine(data, "kept"));
            await first.StopAsync(PostgresStop.Immediate);
        }

        // PostgreSQL itself refuses to start when the pid lives under its own account.
        using var bystander = Process.Start(Tool.Describe((await PostgresAccount.ChooseAsync([data], Ct)).Command("sleep", "60")))!;
        var lines = await File.ReadAllLinesAsync(Path.Combine(data, "kept"), Ct);
        await File.WriteAllLinesAsync(Path.Combine(data, "postmaster.pid"), [$"{bystander.Id}", .. lines[1..]], Ct);

        await using var second = await StartAsync();

        await AssertKeptAsync(second);
        Assert.False(bystander.HasExited);
        bystander.Kill();
    }

    [Fact]
    public async Task repairs_an_interrupted_initdb()
    {
        var half = Directory.CreateDirectory(Path.Combine(Folder, "postgres", "new-half"));
        await File.WriteAllTextAsync(Path.Combine(half.FullName, "PG_VERSION"), "15", Ct);

        await using var cluster = await StartAsync();

        Assert.Equal("1", await QueryAsync(cluster, "select 1"));
        Assert.False(half.Exists && Directory.Exists(half.FullName));
    }

    [Fact]
    public async Task is_refused_while_another_owner_holds_the_folder()
    {
        await using var first = await StartAsync();

        var refusal = await Assert.ThrowsAsync<PrivateClusterException>(StartAsync);

        Assert.Equal($"'{Folder}' is already in use by process {Environment.ProcessId}.", refusal.Message);
        Assert.Equal("1", await QueryAsync(first, "select 1"));
    }

    [Fact]
    public async Task moves_the_data_when_the_account_of_postgres_may_not_reach_the_folder()
    {
        if (!Environment.IsPrivilegedProcess)
        {
            return; // Only root hands PostgreSQL to another account.
        }

        var closed = Directory.CreateTempSubdirectory("ledger-tests-");
        try
        {
            var options = Quick(Path.Combine(closed.FullName, ".ledger")) with { FallbackRoot = Path.Combine(temp.Path, "fallback") };
            await using (var first = await PrivateCluster.StartAsync(options, said.Add, Ct))
            {
                Assert.StartsWith(Path.Combine(options.FallbackRoot, closed.Name + "-"), first.DataDirectory, StringComparison.Ordinal);
                Assert.Contains(said, line => line.Contains("may not reach", StringComparison.Ordinal));
                await WriteAsync(first);
            }

            await using var second = await PrivateCluster.StartAsync(options, said.Add, Ct);
            await AssertKeptAsync(second);
        }
        finally
        {
            closed.Delete(recursive: true);
        }
    }

    [Fact]
    public async Task says_what_postgres_said_when_it_does_not_start()
    {
        var options = Quick(Folder, [new("max_connections", "many")]);

        var early = await Assert.ThrowsAsync<PrivateClusterException>(() => PrivateCluster.StartAsync(options, said.Add, Ct));
        Assert.Contains("\"max_connections\": \"many\"", early.Message, StringComparison.Ordinal);

        await File.WriteAllTextAsync(Path.Combine(Folder, "postgres", "data", "pg_hba.conf"), "everybody welcome\n", Ct);
        var late = await Assert.ThrowsAsync<PrivateClusterException>(StartAsync);
        Assert.Contains("pg_hba.conf", late.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task is_refused_on_data_of_another_major_version()
    {
        string data;
        await using (var first = await StartAsync())
            data = first.DataDirectory;
        await File.WriteAllTextAsync(Path.Combine(data, "PG_VERSION"), "12\n", Ct);

        var refusal = await Assert.ThrowsAsync<PrivateClusterException>(StartAsync);

        Assert.Contains("belongs to PostgreSQL 12", refusal.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task works_for_several_folders_at_once()
    {
        var starts = Enumerable.Range(0, 2).Select(n => PrivateCluster.StartAsync(Quick($"{Folder}{n}"), _ => { }, Ct)).ToList();

        await using var one = await starts[0];
        await using var two = await starts[1];

        Assert.NotEqual(one.Port, two.Port);
        Assert.NotEqual(await QueryAsync(one, "show data_directory"), await QueryAsync(two, "show data_directory"));
    }

    private Task<PrivateCluster> StartAsync() => PrivateCluster.StartAsync(Quick(Folder), said.Add, Ct);

    /// <summary>Survives a crash of PostgreSQL, but not of the machine, which no test provokes.</summary>
    private static PrivateClusterOptions Quick(string folder, params IEnumerable<KeyValuePair<string, string>> settings) =>
        new(folder) { Settings = new Dictionary<string, string>(settings) { ["fsync"] = "off", ["shared_buffers"] = "16MB" } };

    private static async Task WriteAsync(PrivateCluster cluster) => await QueryAsync(cluster, "create table kept (n int); insert into kept values (42)");

    private static async Task AssertKeptAsync(PrivateCluster cluster) => Assert.Equal("42", await QueryAsync(cluster, "select n from kept"));

    private static async Task<string?> QueryAsync(PrivateCluster cluster, string sql)
    {
        await using var connection = new NpgsqlConnection(cluster.ConnectionString + ";Pooling=false");
        await connection.OpenAsync(Ct);
        await using var command = new NpgsqlCommand(sql, connection);
        return (await command.ExecuteScalarAsync(Ct))?.ToString();
    }

    private static async Task<string> RunAsync(params string[] command) => (await Tool.RunAsync(command, Ct)).Output;
}
