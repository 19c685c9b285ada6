using System.Buffers;
using System.Net;
using System.Net.Http.Json;
using System.Text;
using Ledger.Http;

namespace Ledger.Tests.Http;

public sealed class A_list(HttpApp app) : IClassFixture<HttpApp>
{
    [Fact]
    public async Task is_walked_page_by_page_without_gap_or_repeat()
    {
        List<string> seen = [];
        List<int> sizes = [];
        for (string? cursor = "", query = ""; cursor is not null; query = $"?cursor={cursor}")
        {
            var page = (await app.Client.GetFromJsonAsync<Page<string>>($"/things{query}", Json.Options, TestContext.Current.CancellationToken))!;
            seen.AddRange(page.Items);
            sizes.Add(page.Items.Count);
            cursor = page.NextCursor;
        }
        Assert.Equal([100, 100, 50], sizes);
        Assert.Equal(Enumerable.Range(0, 250).Select(i => $"t{i:000}"), seen);
    }

    [Fact]
    public async Task says_with_a_null_that_there_is_no_next_page() =>
        Assert.EndsWith(",\"nextCursor\":null}", await app.Client.GetStringAsync("/things?limit=250", TestContext.Current.CancellationToken));

    [Fact]
    public async Task refuses_the_cursor_of_another_filter()
    {
        var cursor = Lists.Cursor("things", [null], "t001");
        Assert.Equal(HttpStatusCode.OK, (await app.GetAsync($"/things?cursor={cursor}")).StatusCode);
        var refused = await app.GetAsync($"/things?name=x&cursor={cursor}");
        Assert.Equal(HttpStatusCode.BadRequest, refused.StatusCode);
        Assert.Contains("\"code\":\"invalid-cursor\"", await refused.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
    }

    [Fact]
    public void takes_no_cursor_but_its_own()
    {
        string?[] filter = ["a", null];
        var own = Lists.Cursor("things", filter, new Key(3, "x"));
        Assert.True(Lists.TryRead<Key>(new(null, own), "things", filter, out var list, out _));
        Assert.Equal((new Key(3, "x"), 100, 101, false), (list.After!, list.Limit, list.Fetch, list.IsFirst));

        string?[] cursors =
        [
            Lists.Cursor("others", filter, new Key(3, "x")),
            Lists.Cursor("things", ["a", ""], new Key(3, "x")),
            Lists.Cursor("things", ["a"], new Key(3, "x")),
            Lists.Cursor("things", [null, "a"], new Key(3, "x")),
            Lists.Cursor("things", filter, "x"),
            Lists.Cursor("things", filter, new { position = 3 }),
            Lists.Cursor<Key?>("things", filter, null),
            own[..^1], own + "A", own[1..], own + "!", own.ToUpperInvariant(), "x", new string('A', Lists.MaxCursorChars + 4),
        ];
        Assert.All(cursors, cursor =>
        {
            Assert.False(Lists.TryRead<Key>(new(null, cursor), "things", filter, out _, out var rejection));
            Assert.Equal("invalid-cursor", rejection.Code);
        });
    }

    private sealed record Key(long Position, string Id);
}

public sealed class A_format(HttpApp app) : IClassFixture<HttpApp>
{
    [Theory]
    [InlineData(null, "application/json")]
    [InlineData("", "application/json")]
    [InlineData("*/*", "application/json")]
    [InlineData("application/*", "application/json")]
    [InlineData("text/*", "text/csv")]
    [InlineData("text/csv", "text/csv")]
    [InlineData("TEXT/CSV; charset=utf-8", "text/csv")]
    [InlineData("text/csv, */*", "text/csv")]
    [InlineData("text/html, application/xhtml+xml, */*;q=0.8", "application/json")]
    [InlineData("application/x-ndjson", "application/x-ndjson")]
    [InlineData("text/csv;q=0.5, application/x-ndjson;q=0.9", "application/x-ndjson")]
    [InlineData("application/json;q=0, */*", "application/x-ndjson")]
    [InlineData("image/png", null)]
    [InlineData("text/csv;q=0", null)]
    [InlineData("nonsense", null)]
    [InlineData("a/b/c", null)]
    public async Task is_what_the_caller_accepts(string? accept, string? type)
    {
        var response = accept is null ? await app.GetAsync("/rows?count=1") : await app.GetAsync("/rows?count=1", ("Accept", accept));
        Assert.Equal(type is null ? HttpStatusCode.NotAcceptable : HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(type ?? "application/problem+json", response.Content.Headers.ContentType?.MediaType);
        if (type is not null) Assert.Equal(["Accept"], response.Headers.Vary);
    }

    [Fact]
    public async Task of_lines_has_one_value_a_line() =>
        Assert.Equal(
            """{"id":0,"text":"=ä, \"x\"","price":"0","at":"1970-01-01T00:00:00Z"}""" + "\n"
            + """{"id":1,"text":"plain","price":"0.25","at":"1970-01-01T00:00:01Z"}""" + "\n",
            await Get("/rows?count=2", "application/x-ndjson"));

    [Fact]
    public async Task of_cells_has_a_header_and_runs_no_formula() =>
        Assert.Equal(
            "id,text,price,at\r\n0,\"'=ä, \"\"x\"\"\",0,1970-01-01T00:00:00Z\r\n1,plain,0.25,1970-01-01T00:00:01Z\r\n",
            await Get("/rows?count=2", "text/csv"));

    [Theory]
    [InlineData("text/csv", 1)]
    [InlineData("application/x-ndjson", 0)]
    public async Task holds_however_many_rows(string type, int header)
    {
        var text = await Get("/rows?count=100000", type);
        Assert.Equal(100_000 + header, text.AsSpan().Count('\n'));
        if (header == 0) Assert.Empty(await Get("/rows?count=0", type));
    }

    [Theory]
    [InlineData("text/csv")]
    [InlineData("application/x-ndjson")]
    public async Task is_a_problem_when_it_fails_before_anything_was_sent(string type)
    {
        var response = await app.GetAsync("/rows?count=10&failAt=5", ("Accept", type));
        Assert.Equal(HttpStatusCode.ServiceUnavailable, response.StatusCode);
        Assert.StartsWith("{\"type\":\"/problems/queue-full\"", await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken));
    }

    [Fact]
    public async Task breaks_off_when_it_fails_later_so_that_nobody_takes_it_for_whole() =>
        await Assert.ThrowsAnyAsync<HttpRequestException>(() => Get("/rows?count=100000&failAt=99999", "text/csv"));

    [Fact]
    public async Task that_nobody_reads_any_more_is_no_error_of_ours()
    {
        var before = app.Errors.Count;
        using (var response = await app.Client.SendAsync(
            new(HttpMethod.Get, "/rows?count=10000000") { Headers = { { "Accept", "text/csv" } } }, HttpCompletionOption.ResponseHeadersRead, TestContext.Current.CancellationToken))
            Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        await Get("/rows?count=100000", "text/csv");
        Assert.Equal(before, app.Errors.Count);
    }

    private async Task<string> Get(string path, string accept) =>
        await (await app.GetAsync(path, ("Accept", accept))).Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
}

public sealed class A_csv_cell
{
    [Theory]
    [InlineData(null, "")]
    [InlineData("", "")]
    [InlineData("plain", "plain")]
    [InlineData("a,b", "\"a,b\"")]
    [InlineData("a;b", "a;b")]
    [InlineData("say \"x\"", "\"say \"\"x\"\"\"")]
    [InlineData("\"", "\"\"\"\"")]
    [InlineData("a\nb", "\"a\nb\"")]
    [InlineData("a\r\nb", "\"a\r\nb\"")]
    [InlineData("=1+1", "'=1+1")]
    [InlineData("+1", "'+1")]
    [InlineData("-1", "'-1")]
    [InlineData("@SUM(A1)", "'@SUM(A1)")]
    [InlineData("\t=1", "'\t=1")]
    [InlineData("\r=1", "\"'\r=1\"")]
    [InlineData("\n=1", "\"'\n=1\"")]
    [InlineData("=HYPERLINK(\"x\",\"y\")", "\"'=HYPERLINK(\"\"x\"\",\"\"y\"\")\"")]
    [InlineData("a=1", "a=1")]
    [InlineData("'x", "''x")]
    [InlineData("'=1+1", "''=1+1")]
    [InlineData("'", "''")]
    [InlineData("x'", "x'")]
    [InlineData("日本", "日本")]
    public void is_quoted_and_harmless(string? text, string expected) => Assert.Equal($"{expected}\r\n", Write(csv => csv.Text(text)));

    [Fact]
    public void that_is_written_by_us_keeps_its_sign() =>
        Assert.Equal("-1;-2.5;1970-01-01T00:00:00Z;true;;\r\n", Write(csv =>
        {
            csv.Number(-1);
            csv.Number(-2.50m);
            csv.Time(DateTimeOffset.UnixEpoch);
            csv.Bool(true);
            csv.Number((long?)null);
            csv.Time(null);
        }, ';'));

    [Fact]
    public void is_quoted_for_its_own_separator() => Assert.Equal("\"a;b\";a,b\r\n", Write(csv => { csv.Text("a;b"); csv.Text("a,b"); }, ';'));

    [Fact]
    public void may_be_long() => Assert.Equal(new string('ä', 100_000) + "\r\n", Write(csv => csv.Text(new('ä', 100_000))));

    private static string Write(Action<CsvWriter> write, char separator = ',')
    {
        var output = new ArrayBufferWriter<byte>();
        var csv = new CsvWriter(output, separator);
        write(csv);
        csv.EndRow();
        return Encoding.UTF8.GetString(output.WrittenSpan);
    }
}
