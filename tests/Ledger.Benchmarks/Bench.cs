using System.Globalization;
using Ledger.EventStore;
using Ledger.Hosting;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>What was asked for on the command line.</summary>
internal sealed record BenchOptions(int Runs, int Seconds, int? Events, bool Large, string OutFolder)
{
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
    private readonly string _folder;
    private readonly List<Sample> _samples = [];
    private int _databases;

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

    public static async Task<Bench> Start(BenchOptions options, CancellationToken cancellation)
    {
        var binaries = await PostgresBinaries.FindOrInstallAsync(Console.Error.WriteLine, cancellation);
        var folder = TempFolder();
        // LEDGER_BENCH_SETTINGS (name=value;…) is for looking closer, e.g. with pg_stat_statements; the table names what is set.
        foreach (var setting in (Environment.GetEnvironmentVariable("LEDGER_BENCH_SETTINGS") ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries))
        {
            Settings[setting.Split('=', 2)[0]] = setting.Split('=', 2)[1];
        }

        var cluster = await PrivateCluster.StartAsync(
            new PrivateClusterOptions(folder) { Settings = Settings, Binaries = binaries }, Console.Error.WriteLine, cancellation);
        var bench = new Bench(options, folder, cluster, binaries.Directory);
        await bench.Execute($"create database {Template}");
        await using var database = bench.Connect(Template);
        await new SchemaMigrator(database, new Migrations(typeof(LedgerHost).Assembly), new EventStoreOptions(), NullLogger<SchemaMigrator>.Instance)
            .Migrate(cancellation);
        return bench;
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

    /// <summary>Connections to a database, as Ledger itself makes them.</summary>
    public NpgsqlDataSource Connect(string database, int poolSize = 8) =>
        EventStoreDatabase.Connect(ConnectionTo(database), new EventStoreOptions(), "bench", poolSize);

    /// <summary>A node as a process of its own, on an empty database.</summary>
    public async Task<Node> StartNode(string purpose, IReadOnlyDictionary<string, string>? environment = null)
    {
        var database = await CreateDatabase(purpose);
        var process = await LedgerProcess.Start(new Dictionary<string, string>(environment ?? new Dictionary<string, string>()) { ["LEDGER_DB"] = ConnectionTo(database) });
        return new Node(database, process, Connect(database), Cluster.ProcessId);
    }

    public void Add(Sample sample)
    {
        _samples.Add(sample);
        Console.Error.WriteLine(string.Create(CultureInfo.InvariantCulture,
            $"  {sample.Figure}, run {sample.Run}: {sample.Rate:#,0.##}/s{(sample.YardstickRate is { } y ? $", yardstick {y:N0}/s" : "")}"
            + $"{(sample.P50Ms is { } p50 ? $", p50 {p50:0.00} ms, p99 {sample.P99Ms:0.00} ms" : "")}, CPU {sample.Cpu}"));
    }

    /// <summary>Writes what there is so far, so that an interrupted run is not lost; at the end prints it, too.</summary>
    public void Report(bool final)
    {
        Directory.CreateDirectory(Options.OutFolder);
        var text = $"{Machine.Describe(this)}\n{Table.Of(_samples)}";
        File.WriteAllText(Path.Combine(Options.OutFolder, "table.md"), text);
        Table.WriteSamples(_samples, Options.OutFolder);
        if (final)
        {
            Console.WriteLine(text);
            Console.WriteLine($"Samples: {Path.GetFullPath(Options.OutFolder)}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        NpgsqlConnection.ClearAllPools();
        await Cluster.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    public string ConnectionTo(string database) =>
        new NpgsqlConnectionStringBuilder(Cluster.ConnectionString) { Database = database }.ConnectionString;

    private async Task Execute(string sql)
    {
        await using var connection = new NpgsqlConnection(Cluster.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}
