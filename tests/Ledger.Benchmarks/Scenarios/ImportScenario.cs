using System.Diagnostics;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using System.Text;
using Ledger.Segments;

namespace Ledger.Benchmarks;

/// <summary>One CSV stream of user ids into a segment.</summary>
internal static class ImportScenario
{
    public const int DefaultLines = 200_000;

    public static async Task Run(Bench bench)
    {
        var lines = bench.Options.Events ?? DefaultLines;
        await using var node = await bench.StartNode("import");
        var copy = await BareCopy.Prepare(bench);
        await node.CreateSegment("BENCH");
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var (untilReceipt, untilVisible) = await Measure(node, run, lines);
            var yardstick = await copy.Run(node.Database);
            if (run > 0)
            {
                bench.Add(untilReceipt with { Yardstick = BareCopy.Name, YardstickRate = yardstick });
                bench.Add(untilVisible with { Yardstick = BareCopy.Name, YardstickRate = yardstick });
            }
        }
    }

    /// <summary>One import of new users: until the receipt, and until all views show it.</summary>
    public static async Task<(Sample UntilReceipt, Sample UntilVisible)> Measure(Node node, int run, int lines)
    {
        var body = Csv(Enumerable.Range(0, lines).Select(_ => UserIds.New()));
        var head = await node.Head();
        var measurement = await Measurement.Begin(node);
        var started = Stopwatch.GetTimestamp();
        var receipt = await Import(node.Process.Http, "BENCH", body);
        var stored = Stopwatch.GetElapsedTime(started);
        measurement.EndLoad();
        await node.WaitForViews(head + lines);
        var (visible, cpu) = (Stopwatch.GetElapsedTime(started), measurement.CpuSoFar());
        await node.WaitForCheckpoint(head + lines);
        if (receipt.Joined != lines)
        {
            throw new BenchFailedException($"Of {lines} new users {receipt.Joined} joined.");
        }

        await node.Verify(head, lines);
        var sample = await measurement.Finish("import, until the receipt", run, lines / stored.TotalSeconds, lines);
        return (sample, sample.UntilVisible("import, until all views show it", lines / visible.TotalSeconds, cpu));
    }

    public static byte[] Csv(IEnumerable<string> userIds) =>
        Encoding.ASCII.GetBytes(new StringBuilder("userId\n").AppendJoin('\n', userIds).Append('\n').ToString());

    /// <summary>Sends the lines as one request.</summary>
    public static async Task<ImportReceipt> Import(HttpClient http, string segment, byte[] csv)
    {
        using var content = new StreamContent(new MemoryStream(csv), 1 << 16);
        content.Headers.ContentType = new MediaTypeHeaderValue("text/csv");
        using var response = await http.PostAsync($"/v1/segments/{segment}/members", content);
        return response.IsSuccessStatusCode
            ? (await response.Content.ReadFromJsonAsync<ImportReceipt>())!
            : throw new BenchFailedException($"Import: {(int)response.StatusCode} {await response.Content.ReadAsStringAsync()}");
    }
}
