using System.Diagnostics;
using System.Net.Sockets;
using Ledger.Hosting;
using Ledger.Tests.Hosting;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>PgBouncer in transaction mode before a server, of Debian's package unless there is one.</summary>
internal sealed class PgBouncer : IAsyncDisposable
{
    /// <summary>Connections to the server, at most, for one account in one database.</summary>
    public const int ServerConnections = 6;

    // A system that runs services would start one of its own.
    private const string Script = """
        PATH="$PATH:/usr/sbin"
        command -v pgbouncer && exit
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
        install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=60 pgbouncer; }
        install || { apt-get update && install; }
        """;

    private static readonly Lazy<Task> Installed = new(Install);
    private readonly TempFolder _folder = new();
    private readonly int _port = OwnPostgres.FreePort();
    private readonly string _name = $"pooler_{Guid.NewGuid():N}";
    private Process? _process;

    /// <summary>Starts one before the server of a connection string, with an account that may do no more than read as the reader does.</summary>
    public static async Task<PgBouncer> Start(string database, string member = "ledger_reader")
    {
        await Installed.Value;
        var bouncer = new PgBouncer();
        await using (var connection = new NpgsqlConnection(database))
        {
            await connection.OpenAsync(TestContext.Current.CancellationToken);
            await using var make = new NpgsqlCommand($"create role {bouncer._name} login password 'of the pooler' in role {member}", connection);
            await make.ExecuteNonQueryAsync(TestContext.Current.CancellationToken);
        }

        var server = new NpgsqlConnectionStringBuilder(database);
        var account = await PostgresAccount.ChooseAsync([], TestContext.Current.CancellationToken);
        var (users, settings) = (Path.Combine(bouncer._folder.Path, "users"), Path.Combine(bouncer._folder.Path, "pgbouncer.ini"));
        await File.WriteAllTextAsync(users, $"\"{bouncer._name}\" \"of the pooler\"\n", TestContext.Current.CancellationToken);
        await File.WriteAllTextAsync(
            settings,
            $"""
            [databases]
            * = host={server.Host} port={server.Port}

            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {bouncer._port}
            unix_socket_dir =
            auth_type = trust
            auth_file = {users}
            pool_mode = transaction
            default_pool_size = {ServerConnections}
            max_client_conn = 1000

            """,
            TestContext.Current.CancellationToken);
        await account.GiveAsync(users, TestContext.Current.CancellationToken);
        await account.GiveAsync(settings, TestContext.Current.CancellationToken);
        var (_, found) = await Tool.RunAsync(["sh", "-c", "PATH=\"$PATH:/usr/sbin\"; command -v pgbouncer"], TestContext.Current.CancellationToken);
        var start = Tool.Describe(account.Command(found, "--quiet", settings));
        bouncer._process = Process.Start(start)!;
        bouncer._process.BeginErrorReadLine();
        bouncer._process.BeginOutputReadLine();
        await Patience.Until(bouncer.Answers, "PgBouncer listens");
        return bouncer;
    }

    /// <summary>The same database through the pooler.</summary>
    public string Through(string database) => new NpgsqlConnectionStringBuilder(database) { Port = _port, Username = _name, Password = "of the pooler" }.ConnectionString;

    public async ValueTask DisposeAsync()
    {
        _process!.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
        _folder.Dispose();
    }

    private async Task<bool> Answers()
    {
        using var socket = new TcpClient();
        try
        {
            await socket.ConnectAsync("127.0.0.1", _port);
            return true;
        }
        catch (SocketException)
        {
            Assert.False(_process!.HasExited, "PgBouncer has ended.");
            return false;
        }
    }

    private static async Task Install()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(5));
        var (exitCode, output) = await Tool.RunAsync(["sh", "-c", Script], patience.Token);
        Assert.True(exitCode == 0, $"PgBouncer can't be installed: {output}");
    }
}
