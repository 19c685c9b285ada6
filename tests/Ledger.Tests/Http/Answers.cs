using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using Ledger.Http;

namespace Ledger.Tests.Http;

public sealed partial class An_answer(TestNode node) : IClassFixture<TestNode>
{
    [Theory]
    [InlineData("/v1/users", HttpStatusCode.OK)]
    [InlineData("/v1/users?limit=0", HttpStatusCode.BadRequest)]
    [InlineData("/v1/users/nobody", HttpStatusCode.NotFound)]
    [InlineData("/nowhere", HttpStatusCode.NotFound)]
    [InlineData("/health/live", HttpStatusCode.OK)]
    [InlineData("/metrics", HttpStatusCode.OK)]
    [InlineData("/openapi/v1.json", HttpStatusCode.OK)]
    public async Task is_data_to_a_browser_and_nothing_else(string path, HttpStatusCode status)
    {
        var answer = (await node.GetAsIs(path)).Is(status);

        Assert.Equal("nosniff", answer.Headers["X-Content-Type-Options"]);
        Assert.Equal("DENY", answer.Headers["X-Frame-Options"]);
        Assert.Equal("default-src 'none'; frame-ancestors 'none'", answer.Headers["Content-Security-Policy"]);
        Assert.Equal("no-referrer", answer.Headers["Referrer-Policy"]);
        Assert.Equal("no-store", answer.Headers["Cache-Control"]);
        Assert.DoesNotContain("Server", answer.Headers.Keys);
    }

    [Fact]
    public async Task that_may_be_kept_says_so_itself() =>
        Assert.Equal("max-age=60, private", (await node.GetAsIs("/v1/log/key")).Is(HttpStatusCode.OK).Headers["Cache-Control"]);

    [Fact]
    public async Task that_is_a_page_loads_what_its_policy_allows_and_nothing_else()
    {
        var page = (await node.GetAsIs("/docs/index.html")).Is(HttpStatusCode.OK);

        Assert.Equal(SecurityHeaders.PagesPolicy, page.Headers["Content-Security-Policy"]);
        Assert.DoesNotContain("<style", page.Text, StringComparison.OrdinalIgnoreCase);
        Assert.Empty(InlineScript().Matches(page.Text));
        var loaded = Loaded().Matches(page.Text).Select(m => m.Groups[1].Value).ToArray();
        Assert.True(loaded.Length >= 5, page.Text);
        foreach (var file in loaded)
        {
            Assert.DoesNotContain(":", file, StringComparison.Ordinal);
            var answer = (await node.GetAsIs($"/docs/{file}")).Is(HttpStatusCode.OK);
            Assert.Equal("nosniff", answer.Headers["X-Content-Type-Options"]);
            Assert.EndsWith(Path.GetExtension(file) switch { ".css" => "text/css", ".js" => "/javascript", _ => "image/png" }, answer.Headers["Content-Type"].Split(';')[0], StringComparison.Ordinal);
        }
    }

    [Theory]
    [InlineData("/v1/users", "application/json")]
    [InlineData("/v1/users", "text/csv")]
    [InlineData("/v1/users", "application/x-ndjson")]
    [InlineData("/v1/users?limit=0", "application/json")]
    [InlineData("/v1/users?unheard=of", "application/json")]
    [InlineData("/v1/users/nobody", "application/json")]
    [InlineData("/v1/segments/S-of-heads", "application/json")]
    [InlineData("/v1/events", "application/x-ndjson")]
    [InlineData("/v1/log/key", "text/plain")]
    [InlineData("/health/ready", "application/json")]
    [InlineData("/docs/index.html", "text/html")]
    [InlineData("/nowhere", "application/json")]
    public async Task to_HEAD_is_that_to_GET_without_a_body(string path, string accept)
    {
        await node.Post("/v1/segments", new { slug = "S-of-heads" });
        await node.CatchUp();
        var get = await node.GetAsIs(path, ("Accept", accept));
        var head = await node.Send(HttpMethod.Head, path, null, ("Accept", accept));

        Assert.Equal(get.Status, head.Status);
        Assert.Empty(head.Text);
        foreach (var (name, value) in get.Headers.Where(h => h.Key is not ("Transfer-Encoding" or "Date" or "Content-Length")))
        {
            Assert.Equal(value, head.Headers.GetValueOrDefault(name));
        }
    }

    [Fact]
    public async Task to_HEAD_does_not_follow_the_log()
    {
        var head = await node.Send(HttpMethod.Head, "/v1/events", null, ("Accept", "text/event-stream")).WaitAsync(TimeSpan.FromSeconds(10), TestContext.Current.CancellationToken);

        Assert.Equal((HttpStatusCode.OK, "text/event-stream"), (head.Status, head.Headers["Content-Type"]));
    }

    [Fact]
    public async Task to_HEAD_where_there_is_no_GET_names_the_methods()
    {
        var answer = await node.Send(HttpMethod.Head, "/v1/usage", null);

        Assert.Equal((HttpStatusCode.MethodNotAllowed, "POST"), (answer.Status, answer.Headers["Allow"]));
        Assert.Equal("GET, HEAD", (await node.Delete("/v1/users")).IsProblem(405, "method-not-allowed").Headers["Allow"]);
    }

    [GeneratedRegex(@"<script(?![^>]*\ssrc=)[^>]*>|\son\w+\s*=", RegexOptions.IgnoreCase)]
    private static partial Regex InlineScript();

    [GeneratedRegex(@"\s(?:src|href)=""([^""]+)""")]
    private static partial Regex Loaded();
}

public sealed class A_query_parameter(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task that_is_not_known_is_refused_naming_it_and_those_that_are()
    {
        var answer = (await node.GetAsIs("/v1/users?limit=1&limt=2&Cursor=x")).IsProblem(400, "unknown-parameter");

        Assert.Equal(["limt", "Cursor"], answer.Fields);
        Assert.Equal("limt is not a known parameter; known are: cursor, limit. There is more: see errors.", answer.Json.GetProperty("detail").GetString());
        Assert.Contains("none is", (await node.GetAsIs("/health/live?x=1")).IsProblem(400, "unknown-parameter").Text, StringComparison.Ordinal);
        Assert.Equal(["dryRun"], (await node.Post("/v1/segments?dryRun=true", new { slug = "Dry" })).IsProblem(400, "unknown-parameter").Fields);
        (await node.GetAsIs("/v1/segments/Dry")).IsProblem(404, "segment-not-found");
    }

    [Theory]
    [InlineData("limit=1&limit=1")]
    [InlineData("cursor=&cursor=")]
    public async Task may_be_given_once(string query)
    {
        var answer = (await node.GetAsIs($"/v1/users?{query}")).IsProblem(400, "invalid-request");

        Assert.Contains("is given twice", answer.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task that_is_very_long_is_not_repeated_whole()
    {
        var field = Assert.Single((await node.GetAsIs($"/v1/users?{new string('a', 5_000)}")).IsProblem(400, "unknown-parameter").Fields);

        Assert.Equal(new string('a', Validation.MaxFieldChars) + "…", field);
    }

    [Fact]
    public async Task that_is_described_is_known()
    {
        foreach (var path in (await node.GetAsIs("/openapi/v1.json")).Json.GetProperty("paths").EnumerateObject())
        {
            foreach (var operation in path.Value.EnumerateObject().Where(o => o.Value.TryGetProperty("parameters", out _)))
            {
                foreach (var name in operation.Value.GetProperty("parameters").EnumerateArray().Where(p => p.GetProperty("in").GetString() == "query").Select(p => p.GetProperty("name").GetString()))
                {
                    var answer = await node.Send(new HttpMethod(operation.Name.ToUpperInvariant()), $"{path.Name}?{name}=x", null, ("Accept", "application/json"), ("Prefer", "wait=0"));
                    Assert.DoesNotContain("unknown-parameter", answer.Text, StringComparison.Ordinal);
                }
            }
        }
    }

    [Theory]
    [InlineData("/v1/usage/calls?user=%ff")]
    [InlineData("/v1/usage/calls?user=%ed%a0%80")]
    [InlineData("/v1/usage/calls?user=%c0%af")]
    [InlineData("/v1/usage/calls?user=%00")]
    [InlineData("/v1/usage/calls?user=%zz")]
    [InlineData("/v1/usage/calls?user=50%")]
    [InlineData("/v1/users/%ff")]
    [InlineData("/v1/users/%zz")]
    public async Task or_an_id_that_is_no_text_is_refused(string target)
    {
        using var connection = new Hostile.RawConnection(node.Client.BaseAddress!);
        var answer = await connection.Send(new("GET", target) { Headers = [("Host", "x")] });

        Assert.Equal(400, answer.Status);
        Assert.Equal("The URL must be percent-encoded UTF-8 without U+0000.", JsonElement.Parse(answer.Body).GetProperty("detail").GetString());
    }
}
