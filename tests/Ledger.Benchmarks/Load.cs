using System.Diagnostics;

namespace Ledger.Benchmarks;

/// <summary>What a load came to: how much was done in what time, and how long each took.</summary>
internal sealed record LoadResult(long Done, TimeSpan Elapsed, double P50Ms, double P99Ms)
{
    public double Rate => Done / Elapsed.TotalSeconds;
}

/// <summary>Callers that each do one thing after another until the time is over; what is under way then is finished and counted.</summary>
internal static class Load
{
    /// <summary>Runs <paramref name="callers"/> loops side by side; each makes its one step with <paramref name="make"/>.</summary>
    public static async Task<LoadResult> Run(int callers, TimeSpan duration, Func<int, Task<Func<Task>>> make)
    {
        var steps = new Func<Task>[callers];
        for (var i = 0; i < callers; i++)
        {
            steps[i] = await make(i);
        }

        var started = Stopwatch.GetTimestamp();
        var latencies = await Task.WhenAll(steps.Select(step => Task.Run(async () =>
        {
            var ticks = new List<long>();
            while (Stopwatch.GetElapsedTime(started) < duration)
            {
                var before = Stopwatch.GetTimestamp();
                await step();
                ticks.Add(Stopwatch.GetTimestamp() - before);
            }

            return ticks;
        })));
        return Result(latencies.SelectMany(l => l), Stopwatch.GetElapsedTime(started));
    }

    public static LoadResult Result(IEnumerable<long> ticks, TimeSpan elapsed)
    {
        var sorted = ticks.Order().ToArray();
        return new LoadResult(sorted.Length, elapsed, At(50), At(99));

        // By nearest rank, rounded up: so many percent of all took at most as long.
        double At(long percent) => sorted.Length == 0 ? 0 : sorted[(((percent * sorted.Length) + 99) / 100) - 1] * 1000.0 / Stopwatch.Frequency;
    }

    /// <summary>Requests over connections of their own; an answer other than 200 fails the run.</summary>
    public static async Task<LoadResult> Http(int port, int connections, TimeSpan duration, Func<ReadOnlyMemory<byte>> request)
    {
        var open = new List<HttpConnection>();
        try
        {
            return await Run(connections, duration, async _ =>
            {
                var connection = await HttpConnection.Connect(port);
                open.Add(connection);
                return async () =>
                {
                    var answer = await connection.Send(request());
                    if (answer.Status != 200)
                    {
                        throw new BenchFailedException($"{answer.Status} {answer.Text}");
                    }
                };
            });
        }
        finally
        {
            open.ForEach(c => c.Dispose());
        }
    }
}

/// <summary>User ids as services have them: of one length, and in no order. The same number always gives the same id.</summary>
internal static class UserIds
{
    private static long _next;

    /// <summary>An id never given before in this process.</summary>
    public static string New() => Of(Interlocked.Increment(ref _next) | (1L << 40));

    /// <summary>The id of a number.</summary>
    public static string Of(long number) => $"{Scatter(number):x16}";

    /// <summary>An id as systems that count their users give them.</summary>
    public static string Numbered(long number) => $"user-{number:0000000}";

    /// <summary>SplitMix64's finisher: looks random, and maps no two numbers to one.</summary>
    public static ulong Scatter(long number)
    {
        var z = ((ulong)number + 1) * 0x9E3779B97F4A7C15UL;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9UL;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBUL;
        return z ^ (z >> 31);
    }
}
