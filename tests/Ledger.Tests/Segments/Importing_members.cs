using System.Net;
using System.Text;
using System.Text.Json;
using Ledger.Http;
using Ledger.Segments;

namespace Ledger.Tests.Segments;

public sealed class Importing_members(TestNode node) : IClassFixture<TestNode>
{
    private static int s_number;

    private sealed record Receipt(long Received, long Joined, long Renewed, long AlreadyMembers, long Rejected, (long Line, string Code)[] Rejections);

    private async Task<string> Segment(string? defaultTtl = null)
    {
        var slug = $"import-{Interlocked.Increment(ref s_number)}";
        (await node.Post("/v1/segments", new { slug, defaultTtl })).Is(HttpStatusCode.Created);
        return slug;
    }

    private async Task<Receipt> Import(string slug, string lines, string mediaType = "text/csv") => Read(await node.Import(slug, lines, mediaType));

    /// <summary>Reads a receipt; one that does not balance is no receipt.</summary>
    private static Receipt Read(Answer answer)
    {
        var json = answer.Is(HttpStatusCode.OK).Json;
        Assert.NotNull(answer.Position);
        var receipt = new Receipt(
            Number("received"), Number("joined"), Number("renewed"), Number("alreadyMembers"), Number("rejected"),
            [.. json.GetProperty("rejections").EnumerateArray().Select(r => (r.GetProperty("line").GetInt64(), r.GetProperty("code").GetString()!))]);
        Assert.Equal(receipt.Received, receipt.Joined + receipt.Renewed + receipt.AlreadyMembers + receipt.Rejected);
        Assert.Equal(Math.Min(receipt.Rejected, RejectedLine.MaxNamed), receipt.Rejections.Length);
        Assert.Equal(receipt.Rejections.Select(r => r.Line).Order(), receipt.Rejections.Select(r => r.Line));
        return receipt;

        long Number(string name) => json.GetProperty(name).GetInt64();
    }

    private async Task<string[]> Members(string slug) => (await node.Get($"/v1/segments/{slug}/members?limit=1000")).Each("userId");

    [Theory]
    [InlineData("a\nb\nc\n", "text/csv")]
    [InlineData("a\nb\nc", "text/csv")]
    [InlineData("userId\na\nb\nc\n", "text/csv")]
    [InlineData("userId,ttl\na,\nb,P1D\nc,PT1H\n", "text/csv; charset=utf-8")]
    [InlineData("userId,expiresAt\na\nb,2030-01-01T00:00:00Z\nc,2030-01-01T00:00:00+02:00\n", "text/csv")]
    [InlineData("\"userId\",\"ttl\"\r\n\"a\",\"P1D\"\r\nb,\r\nc\r\n", "text/csv")]
    [InlineData("a\r\nb\r\nc\r\n", "text/csv")]
    [InlineData("\uFEFFa\nb\nc\n", "text/csv")]
    [InlineData("\uFEFFuserId\r\na\r\n\r\nb\r\n\nc\r\n", "text/csv")]
    [InlineData("\"a\"\n\"b\",\"P1D\"\n\"c\",\n", "TEXT/CSV")]
    [InlineData("{\"userId\":\"a\"}\n{\"userId\":\"b\",\"ttl\":\"P1D\"}\n{\"userId\":\"c\",\"expiresAt\":\"2030-01-01T00:00:00Z\"}\n", "application/x-ndjson")]
    [InlineData("\uFEFF{\"userId\":\"a\",\"ttl\":null}\r\n\r\n{ \"userId\" : \"b\" }\r\n{\"userId\":\"c\"}", "application/x-ndjson")]
    public async Task takes_one_user_a_line(string lines, string mediaType)
    {
        var slug = await Segment();

        var receipt = await Import(slug, lines, mediaType);

        Assert.Equal((3, 3, 0), (receipt.Received, receipt.Joined, receipt.Rejected));
        Assert.Equal(["a", "b", "c"], await Members(slug));
        Assert.Equal(["import"], (await node.Get($"/v1/segments/{slug}/members")).Each("source").Distinct());
    }

    [Fact]
    public async Task gives_the_terms_of_the_lines_or_else_the_default_of_the_segment()
    {
        var slug = await Segment("P7D");

        await Import(slug, "default\nttl,PT1H\nuntil,2030-01-01T00:00:00.123456Z\n");
        await Import(slug, """{"userId":"for-good","ttl":null}""", "application/x-ndjson");

        var members = (await node.Get($"/v1/segments/{slug}/members")).Items.ToDictionary(m => m.GetProperty("userId").GetString()!, m => m.GetProperty("expiresAt").GetString());
        Assert.Equal(Rfc3339.Format(node.Clock.Now.AddDays(7)), members["default"]);
        Assert.Equal(Rfc3339.Format(node.Clock.Now.AddHours(1)), members["ttl"]);
        Assert.Equal("2030-01-01T00:00:00.123456Z", members["until"]);
        Assert.Null(members["for-good"]);
    }

    [Fact]
    public async Task takes_quoted_ids()
    {
        var slug = await Segment();

        var receipt = await Import(slug, "\"a,b\"\n\"say \"\"hi\"\"\",P1D\nuser/1\nä ö\n\U0001F600\n");

        Assert.Equal(5, receipt.Joined);
        Assert.Equal(["a,b", "say \"hi\"", "user/1", "ä ö", "\U0001F600"], await Members(slug));
    }

    [Fact]
    public async Task names_bad_lines_by_number_and_keeps_the_good_ones()
    {
        var slug = await Segment();

        var receipt = await Import(
            slug,
            $"userId,ttl\ngood1\n,P1D\n a\nx,P1M\nx,PT0S\nx,2020-01-01T00:00:00Z\nx,tomorrow\nx,P1D,more\n\"open\ngood2,\n{new string('l', Limits.MaxLineBytes + 1)}\nx\"y\n\ngood3,P1D\n{new string('u', 129)}\nx,P36526D\n");

        Assert.Equal((15, 3, 12), (receipt.Received, receipt.Joined, receipt.Rejected));
        Assert.Equal([3, 4, 5, 6, 7, 8, 9, 10, 12, 13, 16, 17], receipt.Rejections.Select(r => r.Line));
        Assert.Equal("line-too-long", receipt.Rejections.Single(r => r.Line == 12).Code);
        Assert.Equal(["good1", "good2", "good3"], await Members(slug));
    }

    [Fact]
    public async Task names_bad_lines_of_NDJSON()
    {
        var slug = await Segment();
        string[] lines =
        [
            """{"userId":"a"}""", """{"userId":"b","until":"x"}""", """{"userId":1}""", "[]", "null", "{", """{"userId":"c","ttl":"P1D","expiresAt":"2030-01-01T00:00:00Z"}""",
            """{"userId":"d","userId":"e"}""", """{"userId":"\u0000"}""", """{"userId":"f","ttl":"PT0S"}""", "{}", """{"userId":"g"} x""", """{"userId":"z"}""",
        ];

        var receipt = await Import(slug, string.Join('\n', lines), "application/x-ndjson");

        Assert.Equal((13, 2, 11), (receipt.Received, receipt.Joined, receipt.Rejected));
        Assert.Equal(Enumerable.Range(2, 11).Select(i => (long)i), receipt.Rejections.Select(r => r.Line));
        Assert.Equal(["a", "z"], await Members(slug));
    }

    [Theory]
    [InlineData("""{"userId":"u1","expiresAt":"2020-01-01T00:00:00Z"}""", "application/x-ndjson")]
    [InlineData("u1,2020-01-01T00:00:00Z", "text/csv")]
    public async Task names_the_field_that_lies_in_the_past(string line, string mediaType)
    {
        var receipt = (await node.Import(await Segment(), line, mediaType)).Is(HttpStatusCode.OK);

        Assert.Equal(
            """{"line":1,"code":"invalid-request","detail":"expiresAt must lie in the future.","errors":{"expiresAt":["must lie in the future"]}}""",
            Assert.Single(receipt.Json.GetProperty("rejections").EnumerateArray()).GetRawText());
    }

    [Fact]
    public async Task refuses_a_line_that_is_not_UTF8()
    {
        var slug = await Segment();

        var receipt = Read(await node.Import(slug, [(byte)'a', (byte)'\n', 0xff, 0xfe, (byte)'\n', (byte)'b', 0, (byte)'\n']));

        Assert.Equal((3, 1, 2), (receipt.Received, receipt.Joined, receipt.Rejected));
    }

    [Theory]
    [InlineData("")]
    [InlineData("\n\r\n\n")]
    [InlineData("userId\n")]
    [InlineData("\uFEFF")]
    public async Task of_nothing_receives_nothing(string lines)
    {
        var slug = await Segment();

        Assert.Equal(0, (await Import(slug, lines)).Received);
    }

    [Fact]
    public async Task counts_a_line_twice_as_one_joined_and_one_already_there()
    {
        var slug = await Segment();

        var receipt = await Import(slug, "a\nb\na\na,P1D\na,P2D\na\nb,\n");

        Assert.Equal((7, 2, 2, 3), (receipt.Received, receipt.Joined, receipt.Renewed, receipt.AlreadyMembers));
        var expiries = (await node.Get($"/v1/segments/{slug}/members")).Each("expiresAt");
        Assert.Equal([Rfc3339.Format(node.Clock.Now.AddDays(2)), ""], expiries);
    }

    [Fact]
    public async Task twice_adds_nothing()
    {
        var slug = await Segment("P1D");
        var lines = string.Concat(Enumerable.Range(0, 500).Select(i => $"t{i:000}\nu{i:000},2030-01-01T00:00:00Z\n"));
        var first = await Import(slug, lines);
        var head = (await node.Log()).Count;

        var second = await Import(slug, lines);

        Assert.Equal((1000, 1000), (first.Joined, second.AlreadyMembers));
        Assert.Equal(head, (await node.Log()).Count);
    }

    [Fact]
    public async Task takes_many_lines_of_one_user()
    {
        var slug = await Segment();

        var receipt = await Import(slug, string.Concat(Enumerable.Range(1, ImportMembers.ChunkLines + 10).Select(i => $"same,PT{i}S\n")));

        Assert.Equal((1, ImportMembers.ChunkLines + 9), (receipt.Joined, receipt.Renewed));
        Assert.Equal([Rfc3339.Format(node.Clock.Now.AddSeconds(ImportMembers.ChunkLines + 10))], (await node.Get($"/v1/segments/{slug}/members")).Each("expiresAt"));
    }

    [Theory]
    [InlineData(-1, false)]
    [InlineData(0, false)]
    [InlineData(0, true)]
    [InlineData(1, false)]
    public async Task balances_around_the_end_of_a_chunk(int more, bool header)
    {
        var slug = await Segment();
        var count = ImportMembers.ChunkLines + more;
        var users = string.Join('\n', Enumerable.Range(0, count).Select(i => $"c{i:00000}"));

        var receipt = await Import(slug, (header ? "userId\n" : "") + users);

        Assert.Equal((count, count), (receipt.Received, receipt.Joined));
        Assert.Equal($"{count}", (await node.Get($"/v1/segments/{slug}")).Json.GetProperty("members").ToString());
    }

    [Fact]
    public async Task names_the_first_rejected_lines_when_later_ones_are_refused_sooner()
    {
        var past = Enumerable.Range(1, ImportMembers.ChunkLines).Select(i => $"late{i},2020-01-01T00:00:00Z\n"); // refused when their users are loaded
        var malformed = Enumerable.Repeat("a,b,c\n", ImportMembers.ChunkLines); // refused when they are read

        var receipt = await Import(await Segment(), string.Concat(past.Concat(malformed)));

        Assert.Equal(2 * ImportMembers.ChunkLines, receipt.Rejected);
        Assert.Equal(Enumerable.Range(1, RejectedLine.MaxNamed).Select(i => (long)i), receipt.Rejections.Select(r => r.Line));
    }

    [Fact]
    public async Task names_at_most_a_hundred_rejections_and_counts_them_all()
    {
        var slug = await Segment();

        var receipt = await Import(slug, string.Concat(Enumerable.Range(0, 250).Select(_ => ",\n")));

        Assert.Equal((250, 100), (receipt.Rejected, receipt.Rejections.Length));
        Assert.Equal(Enumerable.Range(1, 100).Select(i => (long)i), receipt.Rejections.Select(r => r.Line));
    }

    [Fact]
    public async Task sent_in_pieces_is_read_as_one()
    {
        var slug = await Segment();
        var bytes = Encoding.UTF8.GetBytes($"\uFEFFuserId\r\n{string.Concat(Enumerable.Range(0, 300).Select(i => $"ä{i:000},P1D\r\n"))}{new string('x', 70_000)}\r\nlast");
        using var request = new HttpRequestMessage(HttpMethod.Post, $"/v1/segments/{slug}/members") { Content = new Trickle(bytes, 7, 65_000) };
        request.Content.Headers.TryAddWithoutValidation("Content-Type", "text/csv");

        var receipt = Read(await node.Send(request));

        Assert.Equal((302, 301, 1), (receipt.Received, receipt.Joined, receipt.Rejected));
        Assert.Equal(302, Assert.Single(receipt.Rejections).Line);
    }

    [Fact]
    public async Task takes_a_line_of_64_kB_and_not_one_byte_more()
    {
        var slug = await Segment();
        var fits = $"{{\"userId\":\"fits\"{new string(' ', Limits.MaxLineBytes - 17)}}}";
        Assert.Equal(Limits.MaxLineBytes, fits.Length);

        var receipt = await Import(slug, $"{fits}\n{fits} \n{fits}", "application/x-ndjson");

        Assert.Equal((1, 1, 1), (receipt.Joined, receipt.AlreadyMembers, receipt.Rejected));
        Assert.Equal((2, "line-too-long"), Assert.Single(receipt.Rejections));
    }

    [Fact]
    public async Task is_larger_than_other_bodies_may_be()
    {
        var slug = await Segment();
        var count = LongTests.Wanted ? 1_000_000 : 12_000;

        var receipt = await Import(slug, string.Concat(Enumerable.Range(0, count).Select(i => $"{i:00000000}-{new string('x', 100)}\n")));

        Assert.Equal(count, receipt.Joined);
        Assert.Equal($"{count}", (await node.Get($"/v1/segments/{slug}")).Json.GetProperty("members").ToString());
    }

    [Fact]
    public async Task into_a_segment_that_is_not_there_is_refused_whole()
    {
        var slug = await Segment();
        await node.Delete($"/v1/segments/{slug}");
        var head = (await node.Log()).Count;

        (await node.Import(slug, "a\n")).IsProblem(404, "segment-not-found");
        (await node.Import("no-such", "a\n")).IsProblem(404, "segment-not-found");

        Assert.Equal(head, (await node.Log()).Count);
    }

    [Fact]
    public async Task races_single_joins_and_leaves_and_loses_nothing()
    {
        var slug = await Segment();
        var users = Enumerable.Range(0, 400).Select(i => $"r{i:000}").ToArray();
        var lines = string.Concat(users.Select(u => $"{u}\n"));

        var imports = Enumerable.Range(0, 3).Select(_ => Import(slug, lines)).ToArray();
        var singles = users.Take(120).Select(async (u, i) =>
            (i % 2 == 0 ? await node.Put($"/v1/users/{u}/segments/{slug}", null) : await node.Delete($"/v1/users/{u}/segments/{slug}")).Status).ToArray();
        var receipts = await Task.WhenAll(imports);
        Assert.All(await Task.WhenAll(singles), s => Assert.Contains(s, (HttpStatusCode[])[HttpStatusCode.OK, HttpStatusCode.NoContent]));

        Assert.All(receipts, r => Assert.Equal((400, 0), (r.Received, r.Rejected)));
        var log = (await node.Log()).Where(e => e.Data is UserJoinedSegment j && j.Segment == slug || e.Data is UserLeftSegment l && l.Segment == slug).ToArray();
        Assert.Equal(receipts.Sum(r => r.Joined), log.Count(e => e.Data is UserJoinedSegment { Source: "import" }));
        foreach (var stream in log.GroupBy(e => e.StreamId))
        {
            Assert.Equal(stream.Select((_, i) => i % 2 == 0), stream.Select(e => e.Data is UserJoinedSegment));
        }

        Assert.Equal(
            log.GroupBy(e => e.StreamId).Where(s => s.Last().Data is UserJoinedSegment).Select(s => s.Key["user-".Length..]).Order(StringComparer.Ordinal),
            await Members(slug));
    }

    [Fact]
    public async Task races_the_deletion_of_the_segment()
    {
        for (var round = 0; round < (LongTests.Wanted ? 20 : 2); round++)
        {
            var slug = await Segment();
            await node.CatchUp();
            var import = Import(slug, string.Concat(Enumerable.Range(0, 3 * ImportMembers.ChunkLines).Select(i => $"d{i:00000}\n")));
            while ((await node.GetAsIs($"/v1/segments/{slug}")).Json.GetProperty("members").GetInt64() == 0 && !import.IsCompleted)
            {
            }

            await node.Delete($"/v1/segments/{slug}");
            var receipt = await import;

            Assert.Equal(3 * ImportMembers.ChunkLines, receipt.Received);
            Assert.All(receipt.Rejections, r => Assert.Equal("segment-not-found", r.Code));
            var log = await node.Log();
            var deletedAt = log.Last(e => e.StreamId == $"segment-{slug}").Position;
            var joins = log.Where(e => e.Data is UserJoinedSegment j && j.Segment == slug).ToArray();
            Assert.Equal(receipt.Joined, joins.Length);
            Assert.All(joins, j => Assert.True(j.Position < deletedAt));
        }
    }

    /// <summary>A body that comes in small pieces at first, then in one large one.</summary>
    private sealed class Trickle(byte[] bytes, int piece, int large) : HttpContent
    {
        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            for (var at = 0; at < bytes.Length;)
            {
                var length = Math.Min(at < 4_000 ? piece : large, bytes.Length - at);
                await stream.WriteAsync(bytes.AsMemory(at, length));
                await stream.FlushAsync();
                at += length;
            }
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}
