using System.Diagnostics;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Segments;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Benchmarks;

/// <summary>Each view folded anew from the first event beside the live one, until it has taken its place.</summary>
internal static class RebuildScenario
{
    public static async Task Run(Bench bench)
    {
        var lines = bench.Options.Size(ImportScenario.DefaultLines, 10 * ImportScenario.DefaultLines);
        await Run(bench, "joins", async node =>
        {
            await node.CreateSegment("BENCH");
            await ImportScenario.Import(node.Process.Http, "BENCH", ImportScenario.Csv(Enumerable.Range(0, lines).Select(_ => UserIds.New())));
        });
        await Run(bench, "calls", async node =>
        {
            await GatewayServices.Register(node);
            await IngestScenario.Ingest(node.Process.Http, GatewayCall.Lines(IngestScenario.Until(DateTime.UtcNow, lines, TimeSpan.FromDays(1))), lines);
        }, besides: MembershipsProjection.View);
    }

    /// <summary>Fills a log, then folds each view that many of its events come to, and one besides to which none does.</summary>
    private static async Task Run(Bench bench, string what, Func<Node, Task> fill, string? besides = null)
    {
        await using var node = await bench.StartNode("rebuild");
        await fill(node);
        var head = await node.Head();
        await node.Settle(head);
        var copy = await BareCopy.Prepare(bench);
        await using var here = LedgerHost.Build(new LedgerSettings(), bench.ConnectionTo(node.Name));
        foreach (var view in here.Services.GetRequiredService<IReadOnlyList<IProjection>>().OrderBy(v => v.Name, StringComparer.Ordinal))
        {
            if (view.Name != besides && !await node.Scalar<bool>($"select {string.Join(" or ", view.Tables.Select(t => $"exists (select from {t} offset 1000)"))}"))
            {
                continue;
            }

            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var measurement = await Measurement.Begin(node);
                var started = Stopwatch.GetTimestamp();
                await Rebuild(node, view.Name);
                var elapsed = Stopwatch.GetElapsedTime(started);
                measurement.EndLoad();
                if (run > 0)
                {
                    var sample = await measurement.Finish($"rebuild of {view.Name} from {what}", run, head / elapsed.TotalSeconds, 0);
                    bench.Add(view.Name == besides ? sample : sample with
                    {
                        Yardstick = "bare COPY of its rows", YardstickRate = head / (await copy.RunView(node.Database, view.Tables)).TotalSeconds,
                    });
                }
            }
        }
    }

    /// <summary>Asks for a rebuild and waits until it is in place.</summary>
    public static async Task Rebuild(Node node, string view)
    {
        await node.Post($"/v1/projections/{view}/rebuild");
        while (await node.Scalar<string>($"select coalesce(rebuild, 'done') from projections where name = '{view}'") is var state and not "done")
        {
            if (state == "failed")
            {
                throw new BenchFailedException(await node.Scalar<string>($"select rebuild_error from projections where name = '{view}'"));
            }

            node.ExpectRunning();
            await Task.Delay(20); // more often it would take from what it measures
        }
    }
}
