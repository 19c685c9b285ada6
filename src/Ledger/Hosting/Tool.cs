using System.ComponentModel;
using System.Diagnostics;

namespace Ledger.Hosting;

/// <summary>Runs a command-line tool to its end.</summary>
internal static class Tool
{
    /// <summary>The exit code of a command that does not exist, as shells have it.</summary>
    public const int NotFound = 127;

    /// <summary>Runs <paramref name="command"/> with no input, and returns its exit code and all it wrote.</summary>
    public static async Task<(int ExitCode, string Output)> RunAsync(IReadOnlyList<string> command, CancellationToken ct)
    {
        using var process = new Process { StartInfo = Describe(command) };
        try
        {
            process.Start();
        }
        catch (Win32Exception e)
        {
            return (NotFound, e.Message);
        }

        try
        {
            process.StandardInput.Close();
            var errors = process.StandardError.ReadToEndAsync(ct);
            var output = await process.StandardOutput.ReadToEndAsync(ct);
            output += await errors;
            await process.WaitForExitAsync(ct);
            return (process.ExitCode, output.Trim());
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
    }

    /// <summary>How to start <paramref name="command"/>: from a folder every account may enter, in English, and free of PostgreSQL's own environment variables.</summary>
    public static ProcessStartInfo Describe(IReadOnlyList<string> command)
    {
        var start = new ProcessStartInfo(command[0], command.Skip(1))
        {
            WorkingDirectory = "/",
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var name in start.Environment.Keys.Where(name => name.StartsWith("PG", StringComparison.Ordinal)).ToList())
            start.Environment.Remove(name);
        start.Environment["LC_ALL"] = "C";
        return start;
    }
}
