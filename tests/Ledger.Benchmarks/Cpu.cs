using System.Diagnostics;
using System.Globalization;

namespace Ledger.Benchmarks;

/// <summary>Shares of all cores' time that the client, Ledger, PostgreSQL and everything else on the machine took.</summary>
internal readonly record struct CpuShares(double Client, double Ledger, double Postgres, double Others)
{
    public override string ToString() => $"{Percent(Client)} / {Percent(Ledger)} / {Percent(Postgres)} / {Percent(Others)}";

    private static string Percent(double share) => (100 * share).ToString(share < 0.02 ? "0.#" : "0", CultureInfo.InvariantCulture);
}

/// <summary>CPU time so far, in seconds, as /proc counts it (in hundredths). Where there is no /proc, all is zero.</summary>
internal readonly record struct CpuTimes(double Client, double Ledger, double Postgres, double Machine, long Timestamp)
{
    private const double TicksPerSecond = 100;

    public static CpuTimes Read(int? ledger, int postmaster)
    {
        if (!OperatingSystem.IsLinux())
        {
            return new CpuTimes(0, 0, 0, 0, Stopwatch.GetTimestamp());
        }

        var (postgres, _) = Process(postmaster, withEndedChildren: true);
        foreach (var pid in ProcessesUnder(postmaster))
        {
            postgres += Process(pid).Time;
        }

        var machine = File.ReadLines("/proc/stat").First().Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(Seconds).ToArray();
        return new CpuTimes(
            Process(Environment.ProcessId).Time, ledger is { } id ? Process(id).Time : 0, postgres,
            machine[0] + machine[1] + machine[2] + machine[5] + machine[6], Stopwatch.GetTimestamp());
    }

    public CpuShares Since(CpuTimes before)
    {
        var all = Stopwatch.GetElapsedTime(before.Timestamp, Timestamp).TotalSeconds * Environment.ProcessorCount;
        var (client, ledger, postgres) = (Client - before.Client, Ledger - before.Ledger, Postgres - before.Postgres);
        return new CpuShares(client / all, ledger / all, postgres / all, Math.Max(0, Machine - before.Machine - client - ledger - postgres) / all);
    }

    /// <summary>The processes that a process has started.</summary>
    public static IEnumerable<int> ProcessesUnder(int parent) => Directory.EnumerateDirectories("/proc")
        .Select(folder => int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0)
        .Where(pid => pid > 0 && Process(pid).Parent == parent);

    private static (double Time, int Parent) Process(int pid, bool withEndedChildren = false)
    {
        try
        {
            var text = File.ReadAllText($"/proc/{pid}/stat");
            var fields = text[(text.LastIndexOf(')') + 2)..].Split(' '); // from the third on, see proc(5)
            var time = Seconds(fields[11]) + Seconds(fields[12]) + (withEndedChildren ? Seconds(fields[13]) + Seconds(fields[14]) : 0);
            return (time, int.Parse(fields[1], CultureInfo.InvariantCulture));
        }
        catch (IOException)
        {
            return (0, 0); // it has ended
        }
    }

    private static double Seconds(string ticks) => double.Parse(ticks, CultureInfo.InvariantCulture) / TicksPerSecond;
}
