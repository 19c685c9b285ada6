using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Npgsql;

namespace Ledger.Hosting;

/// <summary>A PostgreSQL of Ledger's own: a child process on a free loopback port that keeps its data in one folder.</summary>
public sealed class PrivateCluster : IAsyncDisposable
{
    /// <summary>The database, and the user that owns it.</summary>
    public const string Name = "ledger";

    /// <summary>How long a start may take; recovery after a crash reads up to <c>max_wal_size</c> of log.</summary>
    public static readonly TimeSpan StartTimeout = TimeSpan.FromMinutes(10);

    /// <summary>How long a fast stop may take before disposal goes on to an immediate one.</summary>
    public static readonly TimeSpan FastStopTimeout = TimeSpan.FromSeconds(8);

    /// <summary>How long an immediate stop may take before disposal kills the process.</summary>
    public static readonly TimeSpan ImmediateStopTimeout = TimeSpan.FromSeconds(5);

    /// <summary>How long it is waited at first before PostgreSQL is started again that has ended by itself; each time twice as long.</summary>
    public static readonly TimeSpan MinRestartPause = TimeSpan.FromSeconds(0.5);

    /// <summary>How long it is waited at most; one that has run for longer is waited for as at first.</summary>
    public static readonly TimeSpan MaxRestartPause = TimeSpan.FromSeconds(30);

    private const int MaxPortAttempts = 5;
    private const int MaxReportedLines = 12;
    private const int PasswordBytes = 32;
    private const string WalCompression = "wal_compression";
    private static readonly TimeSpan PollInterval = TimeSpan.FromMilliseconds(10);
    private static readonly TimeSpan WatchInterval = TimeSpan.FromMilliseconds(250);
    private static readonly TimeSpan SlowStart = TimeSpan.FromSeconds(3);

    /// <summary>An eighth of the memory, from 128 MB to 1 GB.</summary>
    private static long SharedBuffersMegabytes => Math.Clamp(GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 8 / 1_048_576, 128, 1_024);

    /// <summary>Durability is PostgreSQL's default (fsync, full_page_writes, synchronous_commit), so it is not repeated here.</summary>
    private static readonly Dictionary<string, string> DefaultSettings = new()
    {
        ["shared_buffers"] = $"{SharedBuffersMegabytes}MB",
        ["max_connections"] = "100",
        ["max_wal_size"] = "4GB",
        ["checkpoint_timeout"] = "15min",
        ["random_page_cost"] = "1.1",
        ["jit"] = "off",
        ["timezone"] = "UTC",
        ["log_timezone"] = "UTC",
        // One file a weekday, each overwritten a week later.
        ["log_filename"] = "postgres-%a.log",
        ["log_rotation_age"] = "1d",
        ["log_truncate_on_rotation"] = "on",
    };

    private readonly FolderLock folderLock;
    private readonly PostgresBinaries binaries;
    private readonly PostgresAccount account;
    private readonly string home;
    private readonly IReadOnlyDictionary<string, string> settings;
    private readonly ConcurrentQueue<string> startOutput = new();
    private readonly CancellationTokenSource stopping = new();
    private string walCompression = "pglz";
    private Process? process;
    private Task keeping = Task.CompletedTask;

    private PrivateCluster(
        FolderLock folderLock, PostgresBinaries binaries, PostgresAccount account, string home, IReadOnlyDictionary<string, string> settings)
    {
        this.folderLock = folderLock;
        this.binaries = binaries;
        this.account = account;
        this.home = home;
        this.settings = settings;
    }

    /// <summary>PostgreSQL's data directory.</summary>
    public string DataDirectory => DataOf(home);

    /// <summary>The TCP port on 127.0.0.1.</summary>
    public int Port { get; private set; }

    /// <summary>The process id of the postmaster.</summary>
    public int ProcessId => process!.Id;

    /// <summary>How Npgsql connects to the database, with the password.</summary>
    public string ConnectionString => ConnectionStringTo(Name);

    internal string PasswordFile => PasswordFileOf(DataDirectory);

    private string LogDirectory => Path.Combine(home, "log");

    /// <summary>Starts the cluster in its folder: makes it the first time, and recovers whatever an earlier owner left.</summary>
    /// <exception cref="PrivateClusterException">Another process owns the folder, or PostgreSQL does not start on it.</exception>
    /// <exception cref="PostgresNotFoundException">There is no PostgreSQL to run.</exception>
    public static async Task<PrivateCluster> StartAsync(PrivateClusterOptions options, Action<string> say, CancellationToken ct)
    {
        var folderLock = FolderLock.Take(Path.GetFullPath(options.Directory));
        PrivateCluster? cluster = null;
        try
        {
            var binaries = options.Binaries ?? await PostgresBinaries.FindOrInstallAsync(say, ct);
            var (account, home) = await SettleAsync(options, say, ct);
            cluster = new PrivateCluster(folderLock, binaries, account, home, options.Settings);
            if (!Directory.Exists(cluster.DataDirectory))
                await cluster.InitializeAsync(durable: options.Settings.GetValueOrDefault("fsync") != "off", say, ct);
            await cluster.CheckAsync(ct);
            await PostgresProcesses.StopLeftoversAsync(cluster.DataDirectory, say, ct);
            await cluster.ChooseCompressionAsync(ct);
            await cluster.LaunchAsync(say, ct);
            await cluster.EnsureDatabaseAsync(ct);
            return cluster;
        }
        catch
        {
            if (cluster is not null)
                await cluster.DisposeAsync();
            folderLock.Dispose();
            throw;
        }
    }

    /// <summary>How to connect to the cluster that another process runs in a folder; null when none does.</summary>
    public static async Task<string?> FindRunningAsync(PrivateClusterOptions options, CancellationToken ct)
    {
        if (!FolderLock.IsTaken(Path.GetFullPath(options.Directory)))
            return null;

        var (inside, aside) = await HomesOfAsync(options, ct);
        foreach (var data in new[] { DataOf(aside), DataOf(inside) })
        {
            var pidFile = Path.Combine(data, "postmaster.pid");
            if (File.Exists(pidFile) && (await File.ReadAllLinesAsync(pidFile, ct)).ElementAtOrDefault(3) is { } port)
                return ConnectionStringTo(Name, int.Parse(port, CultureInfo.InvariantCulture), await File.ReadAllTextAsync(PasswordFileOf(data), ct));
        }

        return null;
    }

    /// <summary>From now on, starts PostgreSQL again, on the same port, when it has ended by itself, until it is stopped.</summary>
    public void Keep(Action<string> say) => keeping = KeepAsync(say, stopping.Token);

    /// <summary>Stops PostgreSQL and waits until it is gone; the folder stays this process's until disposal.</summary>
    public async Task StopAsync(PostgresStop mode)
    {
        await stopping.CancelAsync();
        await keeping;
        if (process is not { HasExited: false })
            return;
        PostgresProcesses.Send(
            mode == PostgresStop.Fast ? PostgresProcesses.Signal.FastStop : PostgresProcesses.Signal.ImmediateStop,
            process.Id);
        await process.WaitForExitAsync();
    }

    /// <summary>Stops PostgreSQL, fast if it can, and gives the folder up.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            await StopAsync(PostgresStop.Fast).WaitAsync(FastStopTimeout);
        }
        catch (TimeoutException)
        {
            try
            {
                await StopAsync(PostgresStop.Immediate).WaitAsync(ImmediateStopTimeout);
            }
            catch (TimeoutException)
            {
                process!.Kill();
            }
        }

        folderLock.Dispose();
    }

    /// <summary>Leaves PostgreSQL running without an owner, as a killed owner does.</summary>
    internal void Abandon()
    {
        process = null;
        folderLock.Dispose();
    }

    /// <summary>Decides which account PostgreSQL runs as, and which folder that account can keep the data in.</summary>
    private static async Task<(PostgresAccount Account, string Home)> SettleAsync(PrivateClusterOptions options, Action<string> say, CancellationToken ct)
    {
        var (inside, aside) = await HomesOfAsync(options, ct);
        var folder = Path.GetDirectoryName(inside)!;

        // Data that exists is never left behind for an empty cluster elsewhere.
        var existing = new[] { aside, inside }.FirstOrDefault(home => Directory.Exists(DataOf(home)));
        var account = await PostgresAccount.ChooseAsync(existing is null ? [] : [DataOf(existing)], ct);
        if (existing is not null)
            return (account, existing);

        await account.CreateFolderAsync(inside, ct);
        if (await account.MayWriteAsync(inside, ct))
            return (account, inside);

        Directory.Delete(inside);
        say($"The account '{account.Name}' may not reach '{folder}', so PostgreSQL's data goes to '{aside}'.");
        if (!Directory.Exists(options.FallbackRoot))
            await Tool.RunAsync(["install", "-d", "-m", "755", options.FallbackRoot], ct);
        await account.CreateFolderAsync(aside, ct);
        return await account.MayWriteAsync(aside, ct)
            ? (account, aside)
            : throw new PrivateClusterException($"The account '{account.Name}' may reach neither '{folder}' nor '{aside}': choose a folder it may reach.");
    }

    private static async Task<(string Inside, string Aside)> HomesOfAsync(PrivateClusterOptions options, CancellationToken ct)
    {
        var folder = await RealPathAsync(Path.GetFullPath(options.Directory), ct);
        var hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(folder)))[..12];
        return (Path.Combine(folder, "postgres"), Path.Combine(options.FallbackRoot, $"{new DirectoryInfo(folder).Parent?.Name ?? Name}-{hash}"));
    }

    // /proc names working directories by their real path.
    private static async Task<string> RealPathAsync(string folder, CancellationToken ct) =>
        await Tool.RunAsync(["realpath", folder], ct) is (0, var real) ? real : folder;

    private static string DataOf(string home) => Path.Combine(home, "data");

    private static string PasswordFileOf(string dataDirectory) => Path.Combine(dataDirectory, "ledger.password");

    /// <summary>Makes the data directory under another name and renames it at the end, so that it exists whole or not at all.</summary>
    private async Task InitializeAsync(bool durable, Action<string> say, CancellationToken ct)
    {
        const string Unfinished = "new-";
        say($"Preparing PostgreSQL {binaries.MajorVersion} in '{home}', once.");
        foreach (var half in Directory.EnumerateFileSystemEntries(home, Unfinished + "*"))
            await Tool.RunAsync(["rm", "-rf", half], ct);

        // A name of its own each time: the initdb of a killed owner may still be at work on the last one.
        var data = Path.Combine(home, Unfinished + Path.GetRandomFileName());
        var password = data + ".password";
        await WriteSecretAsync(password, Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(PasswordBytes)), ct);
        await account.GiveAsync(password, ct);
        string[] sync = durable ? [] : ["--no-sync"];
        var (exitCode, output) = await Tool.RunAsync(
            account.Command([
                binaries.PathOf("initdb"), "--pgdata", data, "--username", Name, "--pwfile", password,
                "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--data-checksums", .. sync]),
            ct);
        if (exitCode != 0)
            throw new PrivateClusterException($"initdb failed: {LastLines(output.Split('\n'))}");

        File.Move(password, PasswordFileOf(data));
        Directory.Move(data, DataDirectory);
    }

    private static async Task WriteSecretAsync(string path, string secret, CancellationToken ct)
    {
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
            options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        await using var file = new FileStream(path, options);
        await file.WriteAsync(Encoding.ASCII.GetBytes(secret), ct);
        file.Flush(flushToDisk: true);
    }

    private async Task CheckAsync(CancellationToken ct)
    {
        var versionFile = Path.Combine(DataDirectory, "PG_VERSION");
        if (!File.Exists(versionFile) || !File.Exists(PasswordFile))
            throw new PrivateClusterException($"'{DataDirectory}' is not a data directory Ledger made: move it away, or bring back what it lacks.");

        var version = (await File.ReadAllTextAsync(versionFile, ct)).Trim();
        if (version != $"{binaries.MajorVersion}")
            throw new PrivateClusterException($"The data in '{DataDirectory}' belongs to PostgreSQL {version} and '{binaries.Directory}' holds version {binaries.MajorVersion}: name the folder of a PostgreSQL {version} in {PostgresBinaries.EnvironmentVariable}, or upgrade the data with pg_upgrade.");
    }

    /// <summary>
    /// After a checkpoint each page goes into the write-ahead log whole, packed: on a large log that is most of what an append in no
    /// order costs, and LZ4 packs in a fraction of the time. Not every PostgreSQL was built with it.
    /// </summary>
    private async Task ChooseCompressionAsync(CancellationToken ct)
    {
        const string Lz4 = "lz4";
        string[] ask = [binaries.PathOf("postgres"), "-D", DataDirectory, "-C", WalCompression, "-c", $"{WalCompression}={Lz4}"];
        if (await Tool.RunAsync(account.Command(ask), ct) is (0, Lz4))
            walCompression = Lz4;
    }

    private async Task LaunchAsync(Action<string> say, CancellationToken ct)
    {
        for (var attempt = 1; ; attempt++)
        {
            var started = DateTime.UtcNow;
            Port = FreePort();
            Spawn();
            if (await BecomesReadyAsync(say, ct))
                return;

            // Only when another program took the port in between is another try worthwhile.
            if (attempt == MaxPortAttempts || IsFree(Port))
                throw new PrivateClusterException($"PostgreSQL did not start: {LastLines(LinesSince(started))}");
        }
    }

    private async Task KeepAsync(Action<string> say, CancellationToken ct)
    {
        try
        {
            for (var pause = MinRestartPause; ;)
            {
                var clock = Stopwatch.StartNew();
                // Waiting for its exit would wait for all that hold its output as well, such as a backend that is still busy.
                while (!process!.HasExited)
                    await Task.Delay(WatchInterval, ct);
                pause = clock.Elapsed > MaxRestartPause ? MinRestartPause : pause;
                say($"PostgreSQL (process {ProcessId}) has ended by itself, and is started again.");
                do
                {
                    await Task.Delay(pause, ct);
                    pause = pause * 2 < MaxRestartPause ? pause * 2 : MaxRestartPause;
                }
                while (!await StartsAgainAsync(say, ct));
                say($"PostgreSQL runs again, as process {ProcessId}.");
            }
        }
        catch (OperationCanceledException) when (ct.IsCancellationRequested)
        {
            // It is being stopped.
        }
    }

    private async Task<bool> StartsAgainAsync(Action<string> say, CancellationToken ct)
    {
        try
        {
            await PostgresProcesses.StopLeftoversAsync(DataDirectory, say, ct);
            var started = DateTime.UtcNow;
            Spawn();
            if (await BecomesReadyAsync(say, ct))
                return true;
            say($"PostgreSQL did not start: {LastLines(LinesSince(started))}");
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            say($"PostgreSQL could not be started: {exception.Message}"); // whatever it is, it may pass
        }

        return false;
    }

    private void Spawn()
    {
        var effective = new Dictionary<string, string>(DefaultSettings) { [WalCompression] = walCompression };
        foreach (var (name, value) in settings)
            effective[name] = value;
        effective["listen_addresses"] = "127.0.0.1";
        effective["port"] = $"{Port}";
        effective["unix_socket_directories"] = "";
        effective["logging_collector"] = "on";
        effective["log_directory"] = LogDirectory;

        // In a session of its own PostgreSQL does not get the terminal's Ctrl-C before Ledger has written what it holds.
        string[] session = OnPath("setsid") ? ["setsid"] : [];
        var spawned = new Process
        {
            StartInfo = Tool.Describe(account.Command([
                .. session, binaries.PathOf("postgres"), "-D", DataDirectory,
                .. effective.SelectMany(setting => new[] { "-c", $"{setting.Key}={setting.Value}" })])),
        };
        startOutput.Clear();
        spawned.OutputDataReceived += Note;
        spawned.ErrorDataReceived += Note;
        spawned.Start();
        process = spawned;
        spawned.StandardInput.Close();
        spawned.BeginOutputReadLine();
        spawned.BeginErrorReadLine();

        void Note(object sender, DataReceivedEventArgs line)
        {
            if (line.Data is null)
                return;
            startOutput.Enqueue(line.Data);
            if (startOutput.Count > MaxReportedLines)
                startOutput.TryDequeue(out _);
        }
    }

    private async Task<bool> BecomesReadyAsync(Action<string> say, CancellationToken ct)
    {
        var clock = Stopwatch.StartNew();
        var said = false;
        while (!PostgresProcesses.IsReady(DataDirectory, ProcessId))
        {
            if (process!.HasExited)
            {
                await process.WaitForExitAsync(ct);
                return false;
            }

            if (clock.Elapsed > StartTimeout)
                throw new PrivateClusterException($"PostgreSQL was not ready after {StartTimeout.TotalMinutes} minutes; its log is in '{LogDirectory}'.");
            if (!said && clock.Elapsed > SlowStart)
            {
                say("PostgreSQL is recovering what was in flight when it was last stopped.");
                said = true;
            }

            await Task.Delay(PollInterval, ct);
        }

        return true;
    }

    private async Task EnsureDatabaseAsync(CancellationToken ct)
    {
        try
        {
            await using var connection = await OpenAsync(Name, ct);
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.InvalidCatalogName)
        {
            await using var connection = await OpenAsync("postgres", ct);
            await using var command = new NpgsqlCommand($"create database {Name}", connection);
            await command.ExecuteNonQueryAsync(ct);
        }
        catch (NpgsqlException e)
        {
            throw new PrivateClusterException($"PostgreSQL started on '{DataDirectory}' but does not let Ledger in: {e.Message}", e);
        }
    }

    // Named, as metrics would show the connection string. Without a pool, the data source holds nothing to be disposed of.
    private async Task<NpgsqlConnection> OpenAsync(string database, CancellationToken ct) =>
        await new NpgsqlDataSourceBuilder(ConnectionStringTo(database) + ";Pooling=false") { Name = "ledger-setup" }.Build().OpenConnectionAsync(ct);

    private string ConnectionStringTo(string database) => ConnectionStringTo(database, Port, File.ReadAllText(PasswordFile));

    private static string ConnectionStringTo(string database, int port, string password) => new NpgsqlConnectionStringBuilder
    {
        Host = "127.0.0.1",
        Port = port,
        Database = database,
        Username = Name,
        Password = password,
        // Nobody listens between two ends of the loopback; asking for encryption costs a round trip each.
        SslMode = SslMode.Disable,
        GssEncryptionMode = GssEncryptionMode.Disable,
    }.ConnectionString;

    private IEnumerable<string> LinesSince(DateTime started)
    {
        var log = Directory.Exists(LogDirectory)
            ? new DirectoryInfo(LogDirectory).EnumerateFiles("*.log").Where(file => file.LastWriteTimeUtc >= started).MaxBy(file => file.LastWriteTimeUtc)
            : null;
        return log is null ? startOutput : File.ReadLines(log.FullName);
    }

    private static string LastLines(IEnumerable<string> lines) => string.Join('\n', lines.TakeLast(MaxReportedLines));

    private static bool OnPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(folder => File.Exists(Path.Combine(folder, program)));

    private static int FreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private static bool IsFree(int port)
    {
        try
        {
            using var listener = new TcpListener(IPAddress.Loopback, port);
            listener.Start();
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
