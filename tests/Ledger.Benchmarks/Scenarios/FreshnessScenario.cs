using System.Diagnostics;

namespace Ledger.Benchmarks;

/// <summary>
/// From the answer of a command to the answer of a query that must show it (Ledger-Min-Position), both over HTTP, while other
/// clients join at half the rate that they reach when nothing holds them back.
/// </summary>
internal static class FreshnessScenario
{
    private const int Connections = 16;
    private const int ProbesPerSecond = 50;

    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("freshness");
        await node.CreateSegment("BENCH");
        await Load.Http(node.Process.Port, Connections, bench.Options.Duration, JoinsScenario.JoinOfNewUser);
        var full = await Load.Http(node.Process.Port, Connections, bench.Options.Duration, JoinsScenario.JoinOfNewUser);
        await node.WaitForViews(await node.Head());
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var head = await node.Head();
            var measurement = await Measurement.Begin(node);
            var probing = Probe(node, bench.Options.Duration);
            var load = await Paced(node, full.Rate / 2, bench.Options.Duration);
            var probes = await probing;
            measurement.EndLoad();
            await node.Verify(head, load + probes.Done);
            if (run > 0)
            {
                var sample = await measurement.Finish($"commit to visible, under half load ({Connections} connections)", run, load / bench.Options.Duration.TotalSeconds, 0);
                bench.Add(sample.WithTimes(probes));
            }
        }
    }

    /// <summary>Joins, and then asks for the user's segments as of the join: the time of the second request is the sample.</summary>
    private static async Task<LoadResult> Probe(Node node, TimeSpan duration)
    {
        using var connection = await HttpConnection.Connect(node.Process.Port);
        using var pace = new PeriodicTimer(TimeSpan.FromSeconds(1.0 / ProbesPerSecond));
        var ticks = new List<long>();
        var started = Stopwatch.GetTimestamp();
        while (Stopwatch.GetElapsedTime(started) < duration)
        {
            var user = UserIds.New();
            var joined = await connection.Send(HttpConnection.Request("PUT", $"/v1/users/{user}/segments/BENCH", "{}"));
            var asked = Stopwatch.GetTimestamp();
            var seen = await connection.Send(HttpConnection.Request("GET", $"/v1/users/{user}/segments", null, ("Ledger-Min-Position", $"{joined.Position}")));
            ticks.Add(Stopwatch.GetTimestamp() - asked);
            if (joined.Status != 200 || seen.Status != 200 || !seen.Text.Contains("\"BENCH\"", StringComparison.Ordinal))
            {
                throw new BenchFailedException($"A join ({joined.Status}) did not show: {seen.Status} {seen.Text}");
            }

            await pace.WaitForNextTickAsync();
        }

        return Load.Result(ticks, Stopwatch.GetElapsedTime(started));
    }

    /// <summary>Joins at a rate, each connection at its share of it; returns how many.</summary>
    private static async Task<long> Paced(Node node, double rate, TimeSpan duration)
    {
        var period = TimeSpan.FromSeconds(Connections / rate);
        var started = Stopwatch.GetTimestamp();
        var counts = await Task.WhenAll(Enumerable.Range(0, Connections).Select(async index =>
        {
            using var connection = await HttpConnection.Connect(node.Process.Port);
            var count = 0L;
            for (var due = period * index / Connections; due < duration; due += period)
            {
                if (due - Stopwatch.GetElapsedTime(started) is { TotalMilliseconds: > 1 } wait)
                {
                    await Task.Delay(wait);
                }

                var answer = await connection.Send(JoinsScenario.JoinOfNewUser());
                count += answer.Status == 200 ? 1 : throw new BenchFailedException(answer.Text);
            }

            return count;
        }));
        return counts.Sum();
    }
}
