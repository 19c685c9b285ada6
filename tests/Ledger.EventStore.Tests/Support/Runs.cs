using System.Diagnostics;
using System.Globalization;

namespace Ledger.EventStore.Tests.Support;

/// <summary>How large the tests are, and what their chance is made of.</summary>
internal static class Runs
{
    /// <summary>Longer than anything a test waits for; what takes this long has failed.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    /// <summary>Whether the sizes are those that prove, not those that watch.</summary>
    public static bool Long { get; } = Environment.GetEnvironmentVariable("LEDGER_TEST_LONG") == "1";

    public static int Size(int short_, int long_) => Long ? long_ : short_;

    /// <summary>Chance that can be had again: the seed is printed, and taken from LEDGER_TEST_SEED where that is set.</summary>
    public static Random Chance()
    {
        var seed = int.TryParse(Environment.GetEnvironmentVariable("LEDGER_TEST_SEED"), CultureInfo.InvariantCulture, out var given)
            ? given
            : Random.Shared.Next();
        TestContext.Current.SendDiagnosticMessage($"{TestContext.Current.Test?.TestDisplayName}: LEDGER_TEST_SEED={seed}");
        TestContext.Current.TestOutputHelper?.WriteLine($"LEDGER_TEST_SEED={seed}");
        return new Random(seed);
    }

    /// <summary>Looks until something is so. No step in between waits longer than it takes to look again.</summary>
    public static async Task Until(Func<Task<bool>> so, string what)
    {
        var clock = Stopwatch.StartNew();
        while (!await so())
        {
            Assert.True(clock.Elapsed < Patience, $"It never came to this: {what}.");
            await Task.Delay(5, TestContext.Current.CancellationToken);
        }
    }
}
