using System.Diagnostics;

namespace Ledger.Tests.Running;

/// <summary>Waiting in tests of processes.</summary>
internal static class Patience
{
    /// <summary>Looks until something is so; returns how long that took.</summary>
    public static async Task<TimeSpan> Until(Func<Task<bool>> so, string what, int seconds = 60)
    {
        var clock = Stopwatch.StartNew();
        while (!await so())
        {
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(seconds), $"It never came to this: {what}.");
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        return clock.Elapsed;
    }

    /// <summary>Says the seed of a test, which a failure has to show.</summary>
    public static Random Chance(out int seed)
    {
        seed = LongTests.Seed;
        TestContext.Current.TestOutputHelper?.WriteLine($"LEDGER_TEST_SEED={seed}");
        return new Random(seed);
    }
}
