using Ledger.EventStore;
using Ledger.Hosting;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

[assembly: AssemblyFixture(typeof(Ledger.Testing.PostgresFixture))]

namespace Ledger.Testing;

/// <summary>One real PostgreSQL for all tests of a project, with durable settings; each test class takes databases of its own.</summary>
public sealed class PostgresFixture : IAsyncLifetime
{
    private readonly string _folder = Directory.CreateTempSubdirectory("ledger-tests-").FullName;
    private readonly SemaphoreSlim _creating = new(1, 1);
    private PrivateCluster? _cluster;
    private int _databases;

    /// <summary>Where nodes of tests keep what they keep outside of their database.</summary>
    public string Home => Path.Combine(_folder, "home");

    /// <summary>Starts PostgreSQL and prepares a template with all tables.</summary>
    public async ValueTask InitializeAsync()
    {
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(_folder, (UnixFileMode)0b111_101_101); // PostgreSQL runs as another user when we are root
        }

        var settings = new Dictionary<string, string> { ["max_connections"] = "300", ["shared_preload_libraries"] = "pg_stat_statements" };
        _cluster = await PrivateCluster.StartAsync(new PrivateClusterOptions(_folder) { Settings = settings }, _ => { }, default);
        await Execute("create database template_ledger");
        await using var database = EventStoreDatabase.Connect(ConnectionTo("template_ledger"), new EventStoreOptions(), "tests", 2);
        await new SchemaMigrator(database, new Migrations(typeof(LedgerHost).Assembly), new EventStoreOptions(), NullLogger<SchemaMigrator>.Instance).Migrate();
        NpgsqlConnection.ClearAllPools();
    }

    /// <summary>A connection string to an empty, migrated database of its own.</summary>
    public async Task<string> CreateDatabase()
    {
        await _creating.WaitAsync();
        try
        {
            var name = $"test_{Interlocked.Increment(ref _databases)}";
            await Execute($"create database {name} template template_ledger");
            return ConnectionTo(name);
        }
        finally
        {
            _creating.Release();
        }
    }

    /// <summary>A connection string to an empty database without any table.</summary>
    public async Task<string> CreateEmptyDatabase()
    {
        var name = $"empty_{Interlocked.Increment(ref _databases)}";
        await Execute($"create database {name}");
        return ConnectionTo(name);
    }

    /// <summary>Stops PostgreSQL and removes its data.</summary>
    public async ValueTask DisposeAsync()
    {
        NpgsqlConnection.ClearAllPools();
        if (_cluster is not null)
        {
            await _cluster.DisposeAsync();
        }

        Directory.Delete(_folder, recursive: true);
        _creating.Dispose();
    }

    private string ConnectionTo(string database) =>
        new NpgsqlConnectionStringBuilder(_cluster!.ConnectionString) { Database = database }.ConnectionString;

    private async Task Execute(string sql)
    {
        await using var connection = new NpgsqlConnection(_cluster!.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }
}
