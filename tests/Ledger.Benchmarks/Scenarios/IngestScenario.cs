using System.Diagnostics;
using System.IO.Compression;
using System.Net.Http.Headers;
using System.Net.Http.Json;
using Ledger.Usage;

namespace Ledger.Benchmarks;

/// <summary>One stream of calls as lines of JSON, a day of them in their order; plain and packed.</summary>
internal static class IngestScenario
{
    public const int DefaultLines = 500_000;

    public static async Task Run(Bench bench)
    {
        var lines = bench.Options.Events ?? DefaultLines;
        foreach (var (figure, encoding) in new[] { ("ingest", (string?)null), ("ingest of gzip", "gzip") })
        {
            await using var node = await bench.StartNode("ingest");
            var copy = await BareCopy.Prepare(bench);
            await GatewayServices.Register(node);
            await node.Settle(await node.Head());
            for (var run = 0; run <= bench.Options.Runs; run++)
            {
                var body = GatewayCall.Lines(Until(DateTime.UtcNow, lines, TimeSpan.FromDays(1)));
                if (encoding is not null)
                {
                    body = Packed(body); // before the time is taken: it is the client's to do
                }

                var head = await node.Head();
                var measurement = await Measurement.Begin(node);
                var started = Stopwatch.GetTimestamp();
                await Ingest(node.Process.Http, body, lines, encoding);
                var stored = Stopwatch.GetElapsedTime(started);
                measurement.EndLoad();
                await node.WaitForViews(head + lines);
                var (visible, cpu) = (Stopwatch.GetElapsedTime(started), measurement.CpuSoFar());
                await node.WaitForCheckpoint(head + lines);
                await node.VerifyCalls(head, lines);
                var sample = await measurement.Finish($"{figure}, until the receipt", run, lines / stored.TotalSeconds, lines);
                var yardstick = await copy.Run(node.Database);
                await UsageSums.ExpectSame(node.Database);
                if (run > 0)
                {
                    sample = sample with { Yardstick = BareCopy.Name, YardstickRate = yardstick };
                    bench.Add(sample);
                    bench.Add(sample.UntilVisible($"{figure}, until all views show it", lines / visible.TotalSeconds, cpu));
                }
            }
        }
    }

    /// <summary>New calls, spread evenly over a time that ends at an instant, the oldest first.</summary>
    public static IEnumerable<GatewayCall> Until(DateTime end, int calls, TimeSpan duration) =>
        Enumerable.Range(1, calls).Select(n => GatewayCall.Of(GatewayCall.NewNumber(), end - (duration * ((double)(calls - n) / calls))));

    /// <summary>Sends lines as one request; fails unless each of them is recorded.</summary>
    public static async Task Ingest(HttpClient http, byte[] body, int lines, string? encoding = null)
    {
        using var content = new StreamContent(new MemoryStream(body), 1 << 16);
        content.Headers.ContentType = new MediaTypeHeaderValue(RecordCalls.NdjsonType);
        if (encoding is not null)
        {
            content.Headers.ContentEncoding.Add(encoding);
        }

        using var response = await http.PostAsync("/v1/usage", content);
        if (!response.IsSuccessStatusCode)
        {
            throw new BenchFailedException($"Ingest: {(int)response.StatusCode} {await response.Content.ReadAsStringAsync()}");
        }

        var receipt = (await response.Content.ReadFromJsonAsync<CallsAnswer>())!;
        if ((receipt.Received, receipt.Accepted, receipt.Duplicates, receipt.Rejected) != (lines, lines, 0, 0))
        {
            throw new BenchFailedException($"Of {lines} new calls {receipt.Accepted} were recorded: {receipt} {(receipt.Rejections is [var first, ..] ? first : null)}");
        }
    }

    private static byte[] Packed(byte[] body)
    {
        using var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest))
        {
            gzip.Write(body);
        }

        return packed.ToArray();
    }
}
