using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace Ledger.Hosting;

/// <summary>The PostgreSQL processes that work in a data directory, whoever started them.</summary>
internal static class PostgresProcesses
{
    /// <summary>Signals to a postmaster, gentlest first, and how long each may take.</summary>
    private static readonly (Signal Signal, TimeSpan Patience)[] Escalation =
    [
        (Signal.FastStop, TimeSpan.FromSeconds(8)),
        (Signal.ImmediateStop, TimeSpan.FromSeconds(5)),
        (Signal.Kill, TimeSpan.FromSeconds(5)),
    ];

    private static readonly TimeSpan PollInterval = TimeSpan.FromMilliseconds(10);

    /// <summary>What PostgreSQL takes the Unix signals for.</summary>
    internal enum Signal
    {
        FastStop = 2,
        ImmediateStop = 3,
        Kill = 9,
    }

    /// <summary>Stops what an owner that died left running in the data directory, and removes the pid file it left.</summary>
    public static async Task StopLeftoversAsync(string dataDirectory, Action<string> say, CancellationToken ct)
    {
        foreach (var (signal, patience) in Escalation)
        {
            var running = await RunningInAsync(dataDirectory, ct);
            if (running.Count == 0)
                break;

            if (signal == Signal.FastStop)
                say($"Stopping PostgreSQL (process {running[0]}), which an earlier Ledger left behind in '{dataDirectory}'.");
            foreach (var pid in signal == Signal.Kill ? running : [running[0]])
                Send(signal, pid);
            await WaitUntilEmptyAsync(dataDirectory, patience, ct);
        }

        if (await RunningInAsync(dataDirectory, ct) is [var survivor, ..])
            throw new PrivateClusterException($"PostgreSQL (process {survivor}) still runs in '{dataDirectory}' and does not stop: stop it by hand.");

        // With nobody working there the file is stale, even when its pid now belongs to another program, which PostgreSQL would mistake for itself.
        File.Delete(PidFile(dataDirectory));
    }

    /// <summary>Whether the postmaster <paramref name="pid"/> has written to its pid file that it takes connections.</summary>
    public static bool IsReady(string dataDirectory, int pid)
    {
        const int StatusLine = 7;
        var lines = ReadPidFile(dataDirectory);
        return lines.Length > StatusLine && PidOf(lines) == pid && lines[StatusLine].Trim() == "ready";
    }

    /// <summary>Sends a signal; a process that is gone is no error.</summary>
    public static void Send(Signal signal, int pid) => _ = Kill(pid, (int)signal);

    private static async Task WaitUntilEmptyAsync(string dataDirectory, TimeSpan patience, CancellationToken ct)
    {
        var clock = Stopwatch.StartNew();
        while (clock.Elapsed < patience && (await RunningInAsync(dataDirectory, ct)).Count > 0)
            await Task.Delay(PollInterval, ct);
    }

    /// <summary>The processes in the data directory; the postmaster, where it lives, is first.</summary>
    private static async Task<List<int>> RunningInAsync(string dataDirectory, CancellationToken ct)
    {
        var postmaster = PidOf(ReadPidFile(dataDirectory));
        if (OperatingSystem.IsLinux())
            return [.. Directory.EnumerateDirectories("/proc")
                .Select(folder => int.TryParse(Path.GetFileName(folder), NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : 0)
                .Where(pid => pid > 0 && WorksIn(pid, dataDirectory))
                .OrderByDescending(pid => pid == postmaster)];

        return postmaster is { } pid
            && await Tool.RunAsync(["ps", "-ww", "-o", "command=", "-p", $"{pid}"], ct) is (0, var command)
            && command.Contains(dataDirectory, StringComparison.Ordinal)
                ? [pid]
                : [];
    }

    // Every PostgreSQL process enters its data directory, whatever its title says.
    private static bool WorksIn(int pid, string dataDirectory)
    {
        try
        {
            return File.ReadAllText($"/proc/{pid}/comm").Trim() is "postgres" or "postmaster"
                && new FileInfo($"/proc/{pid}/cwd").LinkTarget == dataDirectory;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    private static string PidFile(string dataDirectory) => Path.Combine(dataDirectory, "postmaster.pid");

    private static string[] ReadPidFile(string dataDirectory)
    {
        try
        {
            return File.ReadAllLines(PidFile(dataDirectory));
        }
        catch (FileNotFoundException)
        {
            return [];
        }
    }

    private static int? PidOf(string[] lines) =>
        lines.Length > 0 && int.TryParse(lines[0], NumberStyles.None, CultureInfo.InvariantCulture, out var pid) ? pid : null;

    [DllImport("libc", EntryPoint = "kill")]
    private static extern int Kill(int pid, int signal);
}
