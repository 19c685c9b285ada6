using System.Text;
using Ledger.Hosting;

namespace Ledger.Tests.Operations;

/// <summary>Prometheus' own checker, of Debian's package unless there is one.</summary>
internal static class Promtool
{
    // A system that runs services would start a Prometheus.
    private const string Script = """
        command -v promtool && exit
        export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
        install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=60 prometheus; }
        install || { apt-get update && install; }
        """;

    private static readonly Lazy<Task> Installed = new(Install);

    /// <summary>Runs it on a text; it must find nothing.</summary>
    public static async Task FindsNothingIn(string text, params string[] arguments)
    {
        var file = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(file, text, new UTF8Encoding(false));
            var (exitCode, output) = await Run($"promtool {string.Join(' ', arguments)} <'{file}'");
            Assert.True((exitCode, output) == (0, ""), output);
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <summary>Runs a command that may use it.</summary>
    public static async Task<(int ExitCode, string Output)> Run(string command)
    {
        await Installed.Value;
        return await Tool.RunAsync(["sh", "-c", command], TestContext.Current.CancellationToken);
    }

    private static async Task Install()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(5));
        var (exitCode, output) = await Tool.RunAsync(["sh", "-c", Script], patience.Token);
        Assert.True(exitCode == 0, $"promtool can't be installed: {output}");
    }
}
