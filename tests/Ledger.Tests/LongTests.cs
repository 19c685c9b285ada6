using System.Globalization;

namespace Ledger.Tests;

/// <summary>The long forms of tests, with LEDGER_TEST_LONG=1, and the seed of random ones, LEDGER_TEST_SEED.</summary>
public static class LongTests
{
    public static bool Wanted { get; } = Environment.GetEnvironmentVariable("LEDGER_TEST_LONG") == "1";

    /// <summary>The seed asked for, or another each time; a failure must show it.</summary>
    public static int Seed { get; } =
        int.TryParse(Environment.GetEnvironmentVariable("LEDGER_TEST_SEED"), CultureInfo.InvariantCulture, out var seed) ? seed : Random.Shared.Next();
}
