using System.Globalization;
using System.IO.Pipelines;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.RegularExpressions;
using Ledger.Http;
using Ledger.Usage;

namespace Ledger.Tests.Usage;

public sealed class Streaming_calls(TestNode node) : IClassFixture<TestNode>
{
    private static string Line(string service, string id, long tokens = 1000) =>
        $$"""{"id":"{{id}}","source":"gw","userId":"u1","serviceId":"{{service}}","occurredAt":"2026-11-19T12:00:00Z","quantities":{"inputToken":{{tokens}} } }""";

    [Theory]
    [InlineData(null)]
    [InlineData("gzip")]
    [InlineData("br")]
    public async Task Takes_one_a_line_and_the_same_lines_again_for_duplicates(string? encoding)
    {
        var service = await UsageOf.Service(node);
        var lines = Encoding.UTF8.GetBytes(string.Join('\n', Enumerable.Range(0, 2_500).Select(i => Line(service, $"{service}-{i}"))));

        var first = await node.Record(lines, "application/x-ndjson", encoding);
        var second = await node.Record(lines, "application/x-ndjson", encoding);

        Assert.Equal((2_500, 0, 2_500, 0), Counts(first));
        Assert.Equal((0, 2_500, 2_500, 0), Counts(second));
        Assert.Equal(first.Position, second.Position);
        Assert.Equal((2_500, "0.375", 0), await node.Totals(service));
        var ids = (await node.Recorded(service)).Select(c => c.CallId).ToArray();
        Assert.Equal(Enumerable.Range(0, 2_500).Select(i => $"{service}-{i}").Order(), ids.Order());
        Assert.All(ids.Zip(ids.Skip(1)), pair => Assert.True(Number(pair.Second) == Number(pair.First) + 1 || Number(pair.Second) % StreamedCalls.ChunkLines == 0));

        int Number(string id) => int.Parse(id.AsSpan(service.Length + 1), CultureInfo.InvariantCulture);
    }

    [Fact]
    public async Task Keeps_the_good_lines_and_says_of_the_others_which_field_breaks_which_rule()
    {
        var service = await UsageOf.Service(node);
        string[] lines =
        [
            Line(service, "a"), "not json", Line(service, "a"), Line(service, "a", 5), Line("no-such", "b"), "", Line(service, "c").Replace("1000", "-1", StringComparison.Ordinal),
            $$"""{"userId":"u","serviceId":"{{service}}","occurredAt":"{{Rfc3339.Format(node.Clock.Now.AddHours(1))}}"}""", new string('x', Limits.MaxLineBytes + 1),
            """{"serviceId":"s"}""", Line(service, "z"),
        ];

        var answer = await node.Record(string.Join("\r\n", lines), "application/x-ndjson; charset=utf-8");

        var (accepted, duplicates, received, rejected, rejections) = answer.Receipt();
        Assert.Equal((2, 1, 10, 7), (accepted, duplicates, received, rejected));
        Assert.Equal(
            [
                (2, "malformed-json", ""), (4, "call-conflict", "id"), (5, "service-not-found", ""), (7, "invalid-request", "quantities.inputToken"),
                (8, "invalid-request", "occurredAt"), (9, "line-too-long", ""), (10, "invalid-request", "userId"),
            ],
            rejections);
        Assert.Equal(["a", "z"], (await node.Recorded(service)).Select(c => c.CallId));
    }

    [Fact]
    public async Task Names_the_first_rejected_lines_in_their_order_though_it_counts_all()
    {
        var service = await UsageOf.Service(node);
        var lines = Enumerable.Range(1, 5_000).Select(i => i % 2 == 0 ? Line(service, $"{service}-{i}") : i % 3 == 0 ? "bad" : Line("no-such", $"{i}"));

        var (accepted, _, received, rejected, rejections) = (await node.Record(string.Join('\n', lines), "application/x-ndjson")).Receipt();

        Assert.Equal((2_500, 5_000, 2_500), (accepted, received, rejected));
        Assert.Equal(Enumerable.Range(0, RejectedLine.MaxNamed).Select(i => (long)((2 * i) + 1)), rejections.Select(r => r.Line));
    }

    [Fact]
    public async Task Makes_the_same_ids_of_the_lines_again_under_an_idempotency_key()
    {
        var service = await UsageOf.Service(node);
        var lines = Encoding.UTF8.GetBytes(string.Join('\n', Enumerable.Repeat($$"""{"userId":"u","serviceId":"{{service}}","occurredAt":"2026-11-19T12:00:00Z"}""", 1_500)));
        var key = ("Idempotency-Key", UsageOf.NewId("stream"));

        Assert.Equal((1_500, 0, 1_500, 0), Counts(await node.Record(lines, "application/x-ndjson", null, key)));
        Assert.Equal((0, 1_500, 1_500, 0), Counts(await node.Record(lines, "application/x-ndjson", null, key)));
    }

    [Fact]
    public async Task Takes_lines_of_the_largest_size_in_chunks_of_bytes()
    {
        var service = await UsageOf.Service(node);
        var lines = string.Join('\n', Enumerable.Range(0, 100).Select(i => Line(service, $"{service}-{i}").PadRight(Limits.MaxLineBytes)));

        var chunks = 0;
        await foreach (var chunk in LineReader.Read(PipeReader.Create(new System.Buffers.ReadOnlySequence<byte>(Encoding.UTF8.GetBytes(lines))), 1_000, TestContext.Current.CancellationToken))
        {
            chunks++;
            Assert.InRange(chunk.Sum(l => l.Text.Length), 1, LineReader.MaxChunkBytes + Limits.MaxLineBytes);
        }

        Assert.InRange(chunks, 6, 8);
        Assert.Equal((100, 0, 100, 0), Counts(await node.Record(lines, "application/x-ndjson", "gzip")));
    }

    [Fact]
    public async Task Takes_nothing_for_nothing() => Assert.Equal((0, 0, 0, 0), Counts(await node.Record("", "application/x-ndjson")));

    [Fact]
    public async Task Stores_chunks_while_the_rest_is_still_to_come_and_keeps_them_when_it_breaks_off()
    {
        var service = await UsageOf.Service(node);
        var pipe = new Pipe();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/usage") { Content = new StreamContent(pipe.Reader.AsStream()) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/x-ndjson");
        var sending = node.Client.SendAsync(request, TestContext.Current.CancellationToken);
        for (var i = 0; i < StreamedCalls.ChunkLines * 2; i++)
        {
            await pipe.Writer.WriteAsync(Encoding.UTF8.GetBytes(Line(service, $"{service}-{i}") + "\n"), TestContext.Current.CancellationToken);
        }

        while ((await node.Recorded(service)).Length < StreamedCalls.ChunkLines)
        {
            await Task.Delay(10, TestContext.Current.CancellationToken);
        }

        await pipe.Writer.CompleteAsync(new IOException("The client is gone."));
        await Assert.ThrowsAnyAsync<Exception>(() => sending);

        var resent = await node.Record(string.Join('\n', Enumerable.Range(0, StreamedCalls.ChunkLines * 3).Select(i => Line(service, $"{service}-{i}"))), "application/x-ndjson");
        Assert.Equal(StreamedCalls.ChunkLines * 3, resent.Receipt().Received);
        Assert.Equal(0, resent.Receipt().Rejected);
        Assert.InRange(resent.Receipt().Duplicates, StreamedCalls.ChunkLines, StreamedCalls.ChunkLines * 2);
        Assert.Equal(StreamedCalls.ChunkLines * 3, (await node.Totals(service)).Calls);
    }

    [Fact]
    public async Task Say_what_is_answered_for_when_the_database_goes_away_in_their_midst()
    {
        await using var own = await node.StartAnew();
        var service = await UsageOf.Service(own);
        var others = own.Position; // events that are no calls
        var pipe = new Pipe();
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/usage") { Content = new StreamContent(pipe.Reader.AsStream()) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/x-ndjson");
        var sending = own.Client.SendAsync(request, TestContext.Current.CancellationToken);
        await Write(0, StreamedCalls.ChunkLines * 2);
        while ((await own.Recorded(service)).Length < StreamedCalls.ChunkLines)
        {
            await Task.Delay(10, TestContext.Current.CancellationToken);
        }

        string problem;
        await using (await TakenAway.Database(own.Database))
        {
            await Write(StreamedCalls.ChunkLines * 2, StreamedCalls.ChunkLines * 4);
            await pipe.Writer.CompleteAsync();
            using var response = await sending;
            Assert.Equal(HttpStatusCode.ServiceUnavailable, response.StatusCode);
            Assert.NotNull(response.Headers.RetryAfter);
            problem = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        }

        Assert.Contains("\"code\":\"store-unavailable\"", problem, StringComparison.Ordinal);
        var stored = long.Parse(Regex.Match(problem, "What was stored stays: ([0-9]+) items").Groups[1].Value, CultureInfo.InvariantCulture);
        Assert.Contains(stored, (long[])[StreamedCalls.ChunkLines, StreamedCalls.ChunkLines * 2]);
        Assert.Contains($"{stored} items, up to position {stored + others}, are answered for", problem, StringComparison.Ordinal);
        var again = await own.Record(
            string.Join('\n', Enumerable.Range(0, StreamedCalls.ChunkLines * 4).Select(i => Line(service, $"{service}-{i}"))), "application/x-ndjson");
        Assert.Equal((StreamedCalls.ChunkLines * 4, 0), (again.Receipt().Received, again.Receipt().Rejected));
        Assert.InRange(again.Receipt().Duplicates, stored, StreamedCalls.ChunkLines * 2);
        Assert.Equal(StreamedCalls.ChunkLines * 4, (await own.Totals(service)).Calls);
        Assert.Empty(own.Errors);

        async Task Write(int from, int to)
        {
            for (var i = from; i < to; i++)
            {
                await pipe.Writer.WriteAsync(Encoding.UTF8.GetBytes(Line(service, $"{service}-{i}") + "\n"), TestContext.Current.CancellationToken);
            }
        }
    }

    private static (long, long, long, long) Counts(Answer answer)
    {
        var (accepted, duplicates, received, rejected, _) = answer.Receipt();
        return (accepted, duplicates, received, rejected);
    }
}
