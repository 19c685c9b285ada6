using System.Diagnostics;

namespace Ledger.Tests.Running;

/// <summary>The built program with a verb that ends by itself.</summary>
internal static class LedgerProgram
{
    public static string Path => System.IO.Path.Combine(AppContext.BaseDirectory, "Ledger.dll");

    public static async Task<(int ExitCode, string Output)> Run((string Name, string Value)[] environment, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [Path, .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }

        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync(TestContext.Current.CancellationToken);
        var output = await process.StandardOutput.ReadToEndAsync(TestContext.Current.CancellationToken);
        await process.WaitForExitAsync(TestContext.Current.CancellationToken);
        return (process.ExitCode, output + await errors);
    }
}
