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

    /// <summary>
    /// Runs loops side by side that take turns at a rate. Each step is due at an instant of its own; none is left out, however late it
    /// is, and by how much it was late is part of its time: who comes at that instant waits for those before. A step made by
    /// <paramref name="make"/> answers the ticks that it took itself.
    /// </summary>
    public static async Task<LoadResult> Paced(int callers, double rate, TimeSpan duration, Func<int, Task<Func<Task<long>>>> make)
    {
        var steps = new Func<Task<long>>[callers];
        for (var i = 0; i < callers; i++)
        {
            steps[i] = await make(i);
        }

        var started = Stopwatch.GetTimestamp();
        var latencies = await Task.WhenAll(steps.Select((step, index) => Task.Run(async () =>
        {
            var ticks = new List<long>();
            for (var turn = index; turn / rate < duration.TotalSeconds; turn += callers)
            {
                var due = started + (long)(turn / rate * Stopwatch.Frequency);
                if (Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), due) is { TotalMilliseconds: > 1 } wait)
                {
                    await Task.Delay(wait);
                }

                var late = Math.Max(0, Stopwatch.GetTimestamp() - due);
                ticks.Add(late + await step());
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
    public static Task<LoadResult> Http(int port, int connections, TimeSpan duration, Func<ReadOnlyMemory<byte>> request) => OverConnections<Func<Task>>(
        port, connection => () => SendOne(connection, request), make => Run(connections, duration, make));

    /// <summary>The same at a rate.</summary>
    public static Task<LoadResult> PacedHttp(int port, int connections, double rate, TimeSpan duration, Func<ReadOnlyMemory<byte>> request) => PacedHttp(
        port, connections, rate, duration, async connection =>
        {
            var before = Stopwatch.GetTimestamp();
            await SendOne(connection, request);
            return Stopwatch.GetTimestamp() - before;
        });

    /// <summary>Steps of several requests over connections of their own at a rate; each answers the ticks that are to count.</summary>
    public static Task<LoadResult> PacedHttp(int port, int connections, double rate, TimeSpan duration, Func<HttpConnection, Task<long>> step) =>
        OverConnections<Func<Task<long>>>(port, connection => () => step(connection), make => Paced(connections, rate, duration, make));

    private static async Task SendOne(HttpConnection connection, Func<ReadOnlyMemory<byte>> request)
    {
        var answer = await connection.Send(request());
        if (answer.Status != 200)
        {
            throw new BenchFailedException($"{answer.Status} {answer.Text}");
        }
    }

    private static async Task<LoadResult> OverConnections<TStep>(int port, Func<HttpConnection, TStep> stepOf, Func<Func<int, Task<TStep>>, Task<LoadResult>> run)
    {
        var open = new List<HttpConnection>();
        try
        {
            return await run(async _ =>
            {
                var connection = await HttpConnection.Connect(port);
                open.Add(connection);
                return stepOf(connection);
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
