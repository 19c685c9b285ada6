namespace Ledger.Benchmarks;

/// <summary>Takes the figures of queries: over HTTP, and by the service's own reader in this process, whence it is one round trip to the database.</summary>
internal sealed class Reads(Bench bench, Node node)
{
    /// <summary>How many read at the same time.</summary>
    public const int Readers = 4;

    /// <summary>Takes the runs of one query's two figures.</summary>
    public async Task Figure(string name, Func<string> path, Func<Task> read)
    {
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var measurement = await Measurement.Begin(node);
            var load = await Load.Http(node.Process.Port, Readers, bench.Options.Duration, () => HttpConnection.Request("GET", path()));
            measurement.EndLoad();
            await Add($"requests: {name}, {Readers} connections", load);

            measurement = await Measurement.Begin(node);
            load = await Load.Run(Readers, bench.Options.Duration, _ => Task.FromResult(read));
            measurement.EndLoad();
            await Add($"requests: {name}, in the database", load);

            async Task Add(string figure, LoadResult result)
            {
                if (run > 0)
                {
                    bench.Add(await measurement.Finish(figure, run, result.Rate, 0) with { P50Ms = result.P50Ms, P99Ms = result.P99Ms });
                }
            }
        }
    }
}
