using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Ledger.Hosting;
using Ledger.Tests.Hosting;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>A PostgreSQL of one test's own, on one port for as long as it lives, that can be stopped, started and filled up.</summary>
internal sealed class OwnPostgres : IAsyncDisposable
{
    private readonly TempFolder _folder = new();
    private readonly PostgresBinaries _binaries;
    private readonly PostgresAccount _account;

    private OwnPostgres(PostgresBinaries binaries, PostgresAccount account) => (_binaries, _account) = (binaries, account);

    public int Port { get; } = FreePort();

    /// <summary>A folder that PostgreSQL's account owns.</summary>
    public string Folder => Path.Combine(_folder.Path, "own");

    public string Data => Path.Combine(Folder, "data");

    public string Programs => _binaries.Directory;

    /// <summary>The account it runs as, when that is not the test's own.</summary>
    public PostgresAccount Account => _account;

    /// <summary>What it is started with.</summary>
    public string Options { get; private set; } = "";

    public string ConnectionString => ConnectionTo("postgres");

    /// <summary>Makes a cluster and starts it. <paramref name="wal"/> puts its log of changes elsewhere.</summary>
    public static async Task<OwnPostgres> Start(string? wal = null, params (string Name, string Value)[] settings)
    {
        var postgres = await Prepare(settings);
        string[] elsewhere = wal is null ? [] : ["--waldir", wal];
        await postgres.Run([
            "initdb", "--pgdata", postgres.Data, "--username", "ledger", "--auth", "trust", "--encoding", "UTF8", "--no-locale", "--data-checksums", .. elsewhere]);
        // A copy of the data has them, too.
        await postgres.Run(["sh", "-c", $"printf \"%s\\n\" \"listen_addresses = '127.0.0.1'\" \"unix_socket_directories = ''\" >>'{postgres.Data}/postgresql.conf'"]);
        await postgres.StartAgain();
        return postgres;
    }

    /// <summary>A folder and a port for a cluster that somebody else makes.</summary>
    public static async Task<OwnPostgres> Prepare(params (string Name, string Value)[] settings)
    {
        var postgres = new OwnPostgres(
            await PostgresBinaries.FindOrInstallAsync(_ => { }, TestContext.Current.CancellationToken), await PostgresAccount.ChooseAsync([], TestContext.Current.CancellationToken));
        await postgres._account.CreateFolderAsync(postgres.Folder, TestContext.Current.CancellationToken);
        postgres.Options = string.Join(' ', ((string Name, string Value)[])[
            ("port", $"{postgres.Port}"), ("listen_addresses", "127.0.0.1"), ("unix_socket_directories", ""), ("timezone", "UTC"), .. settings]
            is var all ? all.Select(s => $"-c {s.Name}={s.Value}") : []);
        return postgres;
    }

    public string ConnectionTo(string database) => new NpgsqlConnectionStringBuilder
    {
        Host = "127.0.0.1", Port = Port, Database = database, Username = "ledger", SslMode = SslMode.Disable, GssEncryptionMode = GssEncryptionMode.Disable,
    }.ConnectionString;

    public Task StartAgain() => Run(["pg_ctl", "start", "--wait", "--timeout=120", "--pgdata", Data, "--log", Path.Combine(Folder, "log"), "--options", Options]);

    /// <summary>Ends it by a mode of <c>pg_ctl</c>: fast, or immediate, which is as good as a crash.</summary>
    public Task Stop(string mode) => Run(["pg_ctl", "stop", "--wait", "--timeout=120", "--pgdata", Data, "--mode", mode]);

    /// <summary>A value, asked for on a connection of its own.</summary>
    public async Task<T> Value<T>(string sql)
    {
        await using var connection = new NpgsqlConnection(ConnectionString + ";Pooling=false");
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand(sql, connection);
        return (T)(await command.ExecuteScalarAsync(TestContext.Current.CancellationToken))!;
    }

    public async ValueTask DisposeAsync()
    {
        await Tool.RunAsync(_account.Command(_binaries.PathOf("pg_ctl"), "stop", "--pgdata", Data, "--mode", "immediate"), CancellationToken.None);
        _folder.Dispose();
    }

    /// <summary>Runs one of PostgreSQL's programs as its account.</summary>
    public async Task<string> Run(string[] command)
    {
        var (code, output) = await Tool.RunAsync(_account.Command([command[0] == "sh" ? "sh" : _binaries.PathOf(command[0]), .. command[1..]]), TestContext.Current.CancellationToken);
        Assert.True(code == 0, $"{string.Join(' ', command)}: {output}");
        return output;
    }

    internal static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }
}
