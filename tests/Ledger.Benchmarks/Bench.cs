using System.Globalization;
using Ledger.EventStore;
using Ledger.Hosting;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>What was asked for on the command line.</summary>
internal sealed record BenchOptions(int Runs, int Seconds, int? Events, bool Large, string OutFolder)
{
    /// <summary>Cancelled when the program is told to end.</summary>
    public CancellationToken Stopping { get; init; }

    public TimeSpan Duration => TimeSpan.FromSeconds(Seconds);

    /// <summary>The size that was asked for, or one of the scenario's two.</summary>
    public int Size(int normal, int large) => Events ?? (Large ? large : normal);
}

/// <summary>Something that must hold does not; the figures would be worth nothing.</summary>
internal sealed class BenchFailedException(string message) : Exception(message);

/// <summary>The private PostgreSQL of a benchmark, the databases and nodes on it, and the samples taken.</summary>
internal sealed class Bench : IAsyncDisposable
{
    /// <summary>What differs from a private cluster's defaults. Durability is PostgreSQL's default: fsync and synchronous_commit on.</summary>
    public static readonly Dictionary<string, string> Settings = new() { ["shared_buffers"] = "1GB", ["max_connections"] = "400" };

    private const string Template = "template_ledger";
    private const int MaxDeletions = 20;
    private readonly string _folder;
    private readonly List<Sample> _samples = [];
    private readonly List<IAsyncDisposable> _tracked = [];
    private int _databases;
    private bool _ended;
    private string _machine = "";

    private Bench(BenchOptions options, string folder, PrivateCluster cluster, string programs)
    {
        Options = options;
        _folder = folder;
        Cluster = cluster;
        Programs = programs;
    }

    public BenchOptions Options { get; }

    public PrivateCluster Cluster { get; }

    /// <summary>PostgreSQL's programs.</summary>
    public string Programs { get; }

    /// <summary>A folder that goes away at the end.</summary>
    public string Folder => _folder;

    public static async Task<Bench> Start(BenchOptions options)
    {
        var binaries = await PostgresBinaries.FindOrInstallAsync(Console.Error.WriteLine, options.Stopping);
        // LEDGER_BENCH_SETTINGS (name=value;…) is for looking closer, e.g. with pg_stat_statements; the table names what is set.
        foreach (var setting in (Environment.GetEnvironmentVariable("LEDGER_BENCH_SETTINGS") ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries))
        {
            Settings[setting.Split('=', 2)[0]] = setting.Split('=', 2)[1];
        }

        var folder = TempFolder();
        Bench? bench = null;
        try
        {
            var cluster = await PrivateCluster.StartAsync(
                new PrivateClusterOptions(folder) { Settings = Settings, Binaries = binaries }, Console.Error.WriteLine, options.Stopping);
            bench = new Bench(options, folder, cluster, binaries.Directory);
            Machine.ExpectDisk(cluster.DataDirectory);
            bench._machine = Machine.Describe(bench);
            await bench.Execute($"create database {Template}");
            await using var database = bench.Connect(Template);
            await new SchemaMigrator(database, new Migrations(typeof(LedgerHost).Assembly), new EventStoreOptions(), NullLogger<SchemaMigrator>.Instance)
                .Migrate(options.Stopping);
            return bench;
        }
        catch
        {
            if (bench is null)
            {
                Directory.Delete(folder, recursive: true);
            }
            else
            {
                await bench.DisposeAsync();
            }

            throw;
        }
    }

    /// <summary>A folder that PostgreSQL's account may enter when this process is root.</summary>
    public static string TempFolder()
    {
        var folder = Directory.CreateTempSubdirectory("ledger-bench-").FullName;
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(folder, (UnixFileMode)0b111_101_101);
        }

        return folder;
    }

    /// <summary>An empty database with all tables.</summary>
    public async Task<string> CreateDatabase(string purpose)
    {
        var name = $"{purpose}_{++_databases}";
        NpgsqlConnection.ClearAllPools();
        await Execute($"create database {name} template {Template}");
        return name;
    }

    /// <summary>Drops databases that nobody uses any more.</summary>
    public async Task Drop(IEnumerable<string> databases)
    {
        NpgsqlConnection.ClearAllPools();
        foreach (var name in databases)
        {
            await Execute($"drop database {name} with (force)");
        }
    }

    /// <summary>Connections to a database, as Ledger itself makes them.</summary>
    public NpgsqlDataSource Connect(string database, int poolSize = 8) =>
        EventStoreDatabase.Connect(ConnectionTo(database), new EventStoreOptions(), "bench", poolSize);

    /// <summary>A node as a process of its own, on an empty database.</summary>
    public async Task<Node> StartNode(string purpose, IReadOnlyDictionary<string, string>? environment = null)
    {
        var database = await CreateDatabase(purpose);
        var process = Track(() => LedgerProcess.Launch(
            new Dictionary<string, string>(environment ?? new Dictionary<string, string>()) { ["LEDGER_DB"] = ConnectionTo(database) }));
        await process.UntilItListens(Options.Stopping);
        return new Node(database, process, Connect(database), Cluster.ProcessId);
    }

    /// <summary>Starts a process that ends with the benchmark at the latest, however that comes about.</summary>
    public T Track<T>(Func<T> start) where T : IAsyncDisposable
    {
        lock (_tracked)
        {
            ObjectDisposedException.ThrowIf(_ended, this); // an interrupted scenario may still be at work
            var started = start();
            _tracked.Add(started);
            return started;
        }
    }

    public void Add(Sample sample)
    {
        lock (_samples)
        {
            _samples.Add(sample);
        }

        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"  {sample.Figure}, run {sample.Run}: {sample.Rate:#,0.##}/s{(sample.YardstickRate is { } y ? $", yardstick {y:N0}/s" : "")}"
            + $"{(sample.P50Ms is { } p50 ? $", p50 {p50:0.00} ms, p99 {sample.P99Ms:0.00} ms" : "")}, CPU {sample.Cpu}"));
    }

    /// <summary>Writes what there is so far, so that a killed run is not lost; at the end, also that of a failure, prints it, too.</summary>
    public void Report(bool final)
    {
        Sample[] samples;
        lock (_samples)
        {
            samples = [.. _samples];
        }

        Directory.CreateDirectory(Options.OutFolder);
        var text = $"{Machine.Now(Options)}{_machine}\n{Table.Of(samples)}";
        File.WriteAllText(Path.Combine(Options.OutFolder, "table.md"), text);
        Table.WriteSamples(samples, Options.OutFolder);
        if (final)
        {
            Console.WriteLine(text);
            Console.WriteLine($"Samples: {Path.GetFullPath(Options.OutFolder)}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        IAsyncDisposable[] tracked;
        lock (_tracked)
        {
            _ended = true;
            tracked = [.. _tracked];
        }

        await Task.WhenAll(tracked.Select(process => process.DisposeAsync().AsTask()));
        NpgsqlConnection.ClearAllPools();
        await Cluster.DisposeAsync();
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                Directory.Delete(_folder, recursive: true);
                return;
            }
            catch (IOException) when (attempt < MaxDeletions)
            {
                await Task.Delay(100); // an interrupted scenario was writing a file into it
            }
        }
    }

    public string ConnectionTo(string database) =>
        new NpgsqlConnectionStringBuilder(Cluster.ConnectionString) { Database = database }.ConnectionString;

    private async Task Execute(string sql)
    {
        await using var connection = new NpgsqlConnection(Cluster.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync();
    }
}
