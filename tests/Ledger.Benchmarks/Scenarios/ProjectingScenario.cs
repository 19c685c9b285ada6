using System.Diagnostics;

namespace Ledger.Benchmarks;

/// <summary>All views are off while the log is filled; then they catch up, together. The yardstick is how fast it was filled.</summary>
internal static class ProjectingScenario
{
    public static async Task Run(Bench bench)
    {
        var lines = bench.Options.Events ?? ImportScenario.DefaultLines;
        await using var node = await bench.StartNode("projecting");
        await node.CreateSegment("BENCH");
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            await node.Settle(await node.Head());
            await node.Database.Execute("update projections set state = 'paused'; notify ledger_views_asked");
            await Task.Delay(1_500); // longer than a heartbeat: the daemon has looked
            var head = await node.Head();
            var body = ImportScenario.Csv(Enumerable.Range(0, lines).Select(_ => UserIds.New()));
            var filling = Stopwatch.GetTimestamp();
            await ImportScenario.Import(node.Process.Http, "BENCH", body);
            var filled = Stopwatch.GetElapsedTime(filling);
            await node.Verify(head, lines);
            await node.WaitForCheckpoint(head + lines);

            var measurement = await Measurement.Begin(node);
            var started = Stopwatch.GetTimestamp();
            await node.Database.Execute("update projections set state = 'running'; notify ledger_views_asked");
            await node.WaitForViews(head + lines);
            var elapsed = Stopwatch.GetElapsedTime(started);
            measurement.EndLoad();
            var sample = await measurement.Finish("projecting, all views", run, lines / elapsed.TotalSeconds, lines);
            if (run > 0)
            {
                bench.Add(sample with { Yardstick = "import, views off", YardstickRate = lines / filled.TotalSeconds });
            }
        }
    }
}
