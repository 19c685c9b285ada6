namespace Ledger.Benchmarks;

/// <summary>Takes the figures of queries: over HTTP, and by the service's own reader in this process, whence it is one round trip to the database.</summary>
internal sealed class Reads(Bench bench, Node node)
{
    /// <summary>The most that read at the same time.</summary>
    public const int Readers = 4;

    /// <summary>Takes the runs of one query's figures: asked by one alone, and by as many as make each wait for the others.</summary>
    public async Task Figure(string name, Func<string> path, Func<Task> read)
    {
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            foreach (var readers in (int[])[1, Readers])
            {
                await Add("connections", readers, () => Load.Http(node.Process.Port, readers, bench.Options.Duration, () => HttpConnection.Request("GET", path())));
                await Add("readers in the database", readers, () => Load.Run(readers, bench.Options.Duration, _ => Task.FromResult(read)));
            }

            async Task Add(string where, int readers, Func<Task<LoadResult>> load)
            {
                var measurement = await Measurement.Begin(node);
                var result = await load();
                measurement.EndLoad();
                if (run > 0)
                {
                    var figure = $"requests: {name}, {readers} {where}";
                    bench.Add((await measurement.Finish(figure, run, result.Rate, 0)).WithTimes(result));
                }
            }
        }
    }
}
