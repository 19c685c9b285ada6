using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>Says what the figures were measured on.</summary>
internal static class Machine
{
    private const string Unknown = "unknown";

    private static readonly string[] Named =
        ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "wal_compression", "checkpoint_timeout", "autovacuum"];

    /// <summary>File systems in memory, on which fsync costs nothing.</summary>
    private static readonly string[] InMemory = ["tmpfs", "ramfs"];

    /// <summary>What stays as it is while the benchmark runs.</summary>
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
             Ledger: commit {Commit()}.
             Machine: {Environment.ProcessorCount} cores, {Field("/proc/cpuinfo", "model name")}, {Field("/proc/meminfo", "MemTotal")} of memory; PostgreSQL's data on {FileSystemOf(bench.Cluster.DataDirectory)}.
             System: {RuntimeInformation.OSDescription.Trim()}, kernel {Line("/proc/sys/kernel/osrelease")}; PostgreSQL {connection.PostgreSqlVersion}; .NET {Environment.Version}.
             Settings: {string.Join(", ", settings)}.

             """);
    }

    /// <summary>When and how it was measured, and what else the machine does.</summary>
    public static string Now(BenchOptions options) => string.Create(CultureInfo.InvariantCulture,
        $"""
         Measured {DateTime.UtcNow:yyyy-MM-dd HH:mm} UTC; median of {options.Runs} runs of {options.Seconds} s each after one that warmed up; client, Ledger and PostgreSQL on the same machine, load {Line("/proc/loadavg").Split(' ')[0]} at the end.

         """);

    /// <summary>Fails when a folder lies in memory.</summary>
    public static void ExpectDisk(string folder)
    {
        if (InMemory.Contains(FileSystemOf(folder)))
        {
            throw new BenchFailedException($"{folder} lies in memory, where fsync costs nothing: name a folder on a disk in TMPDIR.");
        }
    }

    /// <summary>The commit that this program lies in the working tree of.</summary>
    private static string Commit() => Git("rev-parse", "--short", "HEAD") is { Length: > 0 } commit
        ? $"{commit}{(Git("status", "--porcelain") is "" ? "" : " and changes that are in none")}"
        : Unknown;

    /// <summary>What git says; null when it fails, or there is none.</summary>
    private static string? Git(params string[] arguments)
    {
        try
        {
            using var git = Process.Start(new ProcessStartInfo("git", ["-C", AppContext.BaseDirectory, .. arguments])
            {
                RedirectStandardOutput = true, RedirectStandardError = true,
            })!;
            var output = git.StandardOutput.ReadToEnd().Trim();
            git.WaitForExit();
            return git.ExitCode == 0 ? output : null;
        }
        catch (Win32Exception)
        {
            return null;
        }
    }

    /// <summary>The type of the file system that a folder lies on: of the mount points above it the nearest, and of several at one place the last.</summary>
    private static string FileSystemOf(string folder)
    {
        const string Mounts = "/proc/mounts";
        return File.Exists(Mounts)
            ? File.ReadLines(Mounts).Select(line => line.Split(' ')).Where(mount => IsUnder(mount[1])).OrderBy(mount => mount[1].Length).LastOrDefault()?[2] ?? Unknown
            : Unknown;

        bool IsUnder(string mountPoint) => $"{folder}/".StartsWith($"{mountPoint.TrimEnd('/')}/", StringComparison.Ordinal);
    }

    private static string Field(string file, string name) =>
        File.Exists(file) && File.ReadLines(file).FirstOrDefault(l => l.StartsWith(name, StringComparison.Ordinal)) is { } line
            ? line[(line.IndexOf(':') + 1)..].Trim()
            : Unknown;

    private static string Line(string file) => File.Exists(file) ? File.ReadLines(file).First() : Unknown;
}
