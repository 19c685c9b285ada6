using System.Globalization;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>One run of one figure.</summary>
internal sealed record Sample
{
    public required string Figure { get; init; }

    public required int Run { get; init; }

    /// <summary>Events (or requests, where the figure says so) a second.</summary>
    public required double Rate { get; init; }

    public double? P50Ms { get; init; }

    public double? P99Ms { get; init; }

    /// <summary>How many times the two are of.</summary>
    public long? Timed { get; init; }

    public string? Yardstick { get; init; }

    public double? YardstickRate { get; init; }

    public CpuShares Cpu { get; init; }

    /// <summary>The most that the node's process held in memory during the run, in MB.</summary>
    public double? LedgerMemory { get; init; }

    /// <summary>Bytes that an event takes in the log: rows and indexes of mt_events and mt_streams.</summary>
    public double? LogBytes { get; init; }

    /// <summary>Bytes that an event takes in the views, with their indexes.</summary>
    public double? ViewBytes { get; init; }

    /// <summary>Bytes of write-ahead log an event, log and views together.</summary>
    public double? WalBytes { get; init; }

    /// <summary>The same run as another figure, which went on until the views had caught up: bytes are told of the first one only.</summary>
    public Sample UntilVisible(string figure, double rate, CpuShares cpu) =>
        this with { Figure = figure, Rate = rate, Cpu = cpu, LogBytes = null, ViewBytes = null, WalBytes = null };

    /// <summary>With the times that a load took.</summary>
    public Sample WithTimes(LoadResult load) => this with { P50Ms = load.P50Ms, P99Ms = load.P99Ms, Timed = load.Done };
}

/// <summary>Counters of processes and database at the start of a run, to be compared with those at its end.</summary>
internal sealed class Measurement
{
    private readonly NpgsqlDataSource _database;
    private readonly Func<CpuTimes> _cpu;
    private readonly (long Wal, long Log, long All) _before;
    private readonly CpuTimes _cpuBefore;
    private readonly PeakMemory? _memory;
    private CpuShares _shares;

    private Measurement(NpgsqlDataSource database, Func<CpuTimes> cpu, (long, long, long) before, CpuTimes cpuBefore, PeakMemory? memory)
    {
        (_database, _cpu, _before, _cpuBefore, _memory) = (database, cpu, before, cpuBefore, memory);
    }

    /// <summary>Of a node that runs as a process of its own.</summary>
    public static Task<Measurement> Begin(Node node) =>
        Begin(node.Database, () => CpuTimes.Read(node.Process.Id, node.Postmaster), PeakMemory.Begin(node.Process.Id));

    /// <summary>Of what runs in this process: its CPU is the client's.</summary>
    public static Task<Measurement> Begin(Bench bench, NpgsqlDataSource database) => Begin(database, () => CpuTimes.Read(null, bench.Cluster.ProcessId), null);

    /// <summary>Ends the time that the CPU shares of what the run came to are of.</summary>
    public void EndLoad() => _shares = CpuSoFar();

    /// <summary>The shares since the beginning, for a figure that ends at another time than the load.</summary>
    public CpuShares CpuSoFar() => _cpu().Since(_cpuBefore);

    /// <summary>What the run came to; sizes are those of now, when the views have caught up.</summary>
    public async Task<Sample> Finish(string figure, int run, double rate, long storedEvents)
    {
        var (wal, log, all) = await Sizes(_database);
        var events = Math.Max(1.0, storedEvents);
        return new Sample
        {
            Figure = figure, Run = run, Rate = rate, Cpu = _shares, LedgerMemory = _memory?.Megabytes,
            LogBytes = storedEvents == 0 ? null : (log - _before.Log) / events,
            ViewBytes = storedEvents == 0 ? null : (all - _before.All - (log - _before.Log)) / events,
            WalBytes = storedEvents == 0 ? null : (wal - _before.Wal) / events,
        };
    }

    private static async Task<Measurement> Begin(NpgsqlDataSource database, Func<CpuTimes> cpu, PeakMemory? memory) =>
        new(database, cpu, await Sizes(database), cpu(), memory);

    private static async Task<(long Wal, long Log, long All)> Sizes(NpgsqlDataSource database)
    {
        await using var command = database.CreateCommand(
            """
            select (pg_current_wal_insert_lsn() - '0/0')::bigint,
                   sum(pg_total_relation_size(c.oid)) filter (where c.relname in ('mt_events', 'mt_streams'))::bigint,
                   sum(pg_total_relation_size(c.oid))::bigint
            from pg_class c where c.relnamespace = 'ledger'::regnamespace and c.relkind = 'r'
            """);
        await using var reader = await command.ExecuteReaderAsync();
        await reader.ReadAsync();
        return (reader.GetInt64(0), reader.GetInt64(1), reader.GetInt64(2));
    }
}

/// <summary>The most that a process has held in memory since an instant, as Linux counts it (proc(5): clear_refs, VmHWM).</summary>
internal sealed class PeakMemory
{
    private readonly int _process;

    private PeakMemory(int process) => _process = process;

    /// <summary>Null where there is no /proc.</summary>
    public static PeakMemory? Begin(int process)
    {
        if (!OperatingSystem.IsLinux())
        {
            return null;
        }

        File.WriteAllText($"/proc/{process}/clear_refs", "5");
        return new PeakMemory(process);
    }

    public double Megabytes
    {
        get
        {
            const string Field = "VmHWM:";
            var line = File.ReadLines($"/proc/{_process}/status").First(l => l.StartsWith(Field, StringComparison.Ordinal));
            return double.Parse(line.AsSpan(Field.Length).Trim().TrimEnd(" kB"), CultureInfo.InvariantCulture) / 1024;
        }
    }
}
