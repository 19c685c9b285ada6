using System.Globalization;
using System.Runtime.InteropServices;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>Says what the figures were measured on.</summary>
internal static class Machine
{
    private static readonly string[] Named =
        ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_compression", "checkpoint_timeout", "autovacuum"];

    public static string Describe(Bench bench)
    {
        using var connection = new NpgsqlConnection(bench.Cluster.ConnectionString);
        connection.Open();
        var settings = Named.Concat(Bench.Settings.Keys).Distinct().Select(name =>
        {
            using var show = new NpgsqlCommand($"show {name}", connection);
            return $"{name}={show.ExecuteScalar()}";
        });
        return string.Create(CultureInfo.InvariantCulture,
            $"""
             Measured {DateTime.UtcNow:yyyy-MM-dd HH:mm} UTC; median of {bench.Options.Runs} runs of {bench.Options.Seconds} s each after one that warmed up; client, Ledger and PostgreSQL on the same machine.
             Machine: {Environment.ProcessorCount} cores, {Field("/proc/cpuinfo", "model name")}, {Field("/proc/meminfo", "MemTotal")} of memory, load {Load()} at the end.
             System: {RuntimeInformation.OSDescription.Trim()}; PostgreSQL {connection.PostgreSqlVersion}; .NET {Environment.Version}.
             Settings: {string.Join(", ", settings)}.

             """);
    }

    private static string Field(string file, string name) =>
        File.Exists(file) && File.ReadLines(file).FirstOrDefault(l => l.StartsWith(name, StringComparison.Ordinal)) is { } line
            ? line[(line.IndexOf(':') + 1)..].Trim()
            : "unknown";

    private static string Load() => File.Exists("/proc/loadavg") ? File.ReadAllText("/proc/loadavg").Split(' ')[0] : "unknown";
}
