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

    /// <summary>How often processes are read anew because one began or ended in between.</summary>
    private const int MaxReadings = 100;

    public static CpuTimes Read(int? ledger, int postmaster)
    {
        if (!OperatingSystem.IsLinux())
        {
            return new CpuTimes(0, 0, 0, 0, Stopwatch.GetTimestamp());
        }

        var postgres = WithChildren(postmaster);
        var machine = File.ReadLines("/proc/stat").First().Split(' ', StringSplitOptions.RemoveEmptyEntries).Skip(1).Select(Seconds).ToArray();
        return new CpuTimes(
            Process(Environment.ProcessId).Time, ledger is { } id ? Process(id).Time : 0, postgres,
            machine[0] + machine[1] + machine[2] + machine[5] + machine[6], Stopwatch.GetTimestamp());
    }

    public CpuShares Since(CpuTimes before)
    {
        var all = Stopwatch.GetElapsedTime(before.Timestamp, Timestamp).TotalSeconds * Environment.ProcessorCount;
        var (client, ledger, postgres) = (Client - before.Client, Ledger - before.Ledger, Postgres - before.Postgres);
        // The kernel counts the machine's time by another clock than that of a process, so what is left may come out a little below nothing.
        return new CpuShares(client / all, ledger / all, postgres / all, Math.Max(0, Machine - before.Machine - client - ledger - postgres) / all);
    }

    /// <summary>The processes that a process has started.</summary>
    public static IEnumerable<int> ProcessesUnder(int parent) => ChildrenOf(parent).Select(child => child.Pid);

    /// <summary>
    /// What a process and its children, ended ones too, have taken. Once a child has ended, its time is its parent's: if that happens
    /// between the two readings, the child counts twice or not at all, so they are taken again until the children before and after
    /// are the same. One that begins and ends in between is in one of two successive readings of the parent.
    /// </summary>
    private static double WithChildren(int parent)
    {
        var before = ChildrenOf(parent);
        for (var reading = 0; reading < MaxReadings; reading++)
        {
            var time = Process(parent, withEndedChildren: true).Time + before.Sum(child => Process(child.Pid).Time);
            var after = ChildrenOf(parent);
            if (after.SetEquals(before))
            {
                return time;
            }

            before = after;
        }

        throw new BenchFailedException($"The processes under {parent} change faster than their CPU time can be read.");
    }

    /// <summary>The children of a process, each with the time at which it began: a number may be given again.</summary>
    private static HashSet<(int Pid, long Began)> ChildrenOf(int parent) => Directory.EnumerateDirectories("/proc")
        .Select(folder => int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0)
        .Where(pid => pid > 0)
        .Select(pid => (Pid: pid, Process: Process(pid)))
        .Where(p => p.Process.Parent == parent)
        .Select(p => (p.Pid, p.Process.Began))
        .ToHashSet();

    private static (double Time, int Parent, long Began) Process(int pid, bool withEndedChildren = false)
    {
        try
        {
            var text = File.ReadAllText($"/proc/{pid}/stat");
            var fields = text[(text.LastIndexOf(')') + 2)..].Split(' '); // from the third on, see proc(5)
            var time = Seconds(fields[11]) + Seconds(fields[12]) + (withEndedChildren ? Seconds(fields[13]) + Seconds(fields[14]) : 0);
            return (time, int.Parse(fields[1], CultureInfo.InvariantCulture), long.Parse(fields[19], CultureInfo.InvariantCulture));
        }
        catch (IOException)
        {
            return (0, 0, 0); // it has ended
        }
    }

    private static double Seconds(string ticks) => double.Parse(ticks, CultureInfo.InvariantCulture) / TicksPerSecond;
}
