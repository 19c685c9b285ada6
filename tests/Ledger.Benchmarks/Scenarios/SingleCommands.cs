namespace Ledger.Benchmarks;

/// <summary>Commands of one event each over HTTP, beside as many clients of pgbench.</summary>
internal static class SingleCommands
{
    /// <summary>How many connections there are.</summary>
    public static readonly int[] Connections = [1, 16, 64, 256];

    /// <summary>Takes the runs of one figure. <paramref name="verify"/> gets the position before and how many were acknowledged.</summary>
    public static async Task Run(
        Bench bench, Node node, PgBench? pgbench, string what, int connections, Func<ReadOnlyMemory<byte>> request, Func<long, long, Task> verify)
    {
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var head = await node.Head();
            var measurement = await Measurement.Begin(node);
            var load = await Load.Http(node.Process.Port, connections, bench.Options.Duration, request);
            measurement.EndLoad();
            await verify(head, load.Done);
            await node.Settle(head + load.Done);
            var sample = await measurement.Finish($"single {what}, {connections} connections", run, load.Rate, load.Done);
            if (run > 0)
            {
                bench.Add(sample.WithTimes(load) with
                {
                    Yardstick = PgBench.Name, YardstickRate = pgbench is null ? null : await pgbench.Run(connections),
                });
            }
        }
    }
}
