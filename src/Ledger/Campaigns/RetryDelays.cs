using System.Security.Cryptography;

namespace Ledger.Campaigns;

/// <summary>How long a message waits for its next attempt.</summary>
public static class RetryDelays
{
    /// <summary>The longest wait after the first failure; it doubles with each further one.</summary>
    public static readonly TimeSpan First = TimeSpan.FromSeconds(2);

    /// <summary>The longest wait of all.</summary>
    public static readonly TimeSpan Longest = TimeSpan.FromMinutes(10);

    // What is added to a wait that the gateway asked for, so that not all who were told the same come back at once.
    private const double Spread = 0.25;

    /// <summary>
    /// The wait after so many failed attempts, the first being 1: between half and all of the doubled time, by
    /// <paramref name="random"/> in [0, 1). Where the gateway said when to come back, it is that time or a little later, unless
    /// the wait is longer anyway.
    /// </summary>
    public static TimeSpan After(int failures, double random, TimeSpan? retryAfter = null)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(failures, 1);
        var wait = Doubled(First, failures - 1, Longest, random);
        return retryAfter is { } asked && asked > TimeSpan.Zero && asked + (asked * Spread * random) is var told && told > wait ? told : wait;
    }

    /// <summary>A number in [0, 1), another one each time.</summary>
    public static double Jitter() => RandomNumberGenerator.GetInt32(1 << 24) / (double)(1 << 24);

    /// <summary>Between half and all of <paramref name="first"/>, doubled so many times but no longer than <paramref name="longest"/>.</summary>
    internal static TimeSpan Doubled(TimeSpan first, int times, TimeSpan longest, double random)
    {
        var wait = Math.Min(first.Ticks * Math.Pow(2, times), longest.Ticks);
        return TimeSpan.FromTicks((long)(wait * (0.5 + (random / 2))));
    }
}
