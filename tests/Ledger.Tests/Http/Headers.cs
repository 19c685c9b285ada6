using System.Net;
using Ledger.Http;
using Microsoft.AspNetCore.Http;

namespace Ledger.Tests.Http;

public sealed class An_if_match
{
    [Theory]
    [InlineData("\"3\"", 3, true)]
    [InlineData("\"3\"", 4, false)]
    [InlineData("\"3\", \"4\"", 4, true)]
    [InlineData("\"3\",\"x\"", 3, true)]
    [InlineData("W/\"3\"", 3, false)]
    [InlineData("w/\"3\"", 3, false)]
    [InlineData("\"03\"", 3, false)]
    [InlineData("\"+3\"", 3, false)]
    [InlineData("\"\"", 3, false)]
    [InlineData("\"abc\"", 3, false)]
    [InlineData("\"99999999999999999999\"", 3, false)]
    [InlineData("*", 3, true)]
    [InlineData("*", 0, false)]
    [InlineData("\"0\"", 0, true)]
    public void allows_the_versions_it_names(string header, long version, bool allowed)
    {
        Assert.True(IfMatch.TryRead(Request(header), out var ifMatch, out _));
        Assert.True(ifMatch.IsPresent);
        Assert.Equal(allowed, ifMatch.Allows(version));
    }

    [Theory]
    [InlineData("")]
    [InlineData("3")]
    [InlineData("\"3")]
    [InlineData("\"3\" \"4\"")]
    [InlineData("*, \"3\"")]
    [InlineData("nonsense")]
    public void that_is_malformed_is_refused(string header)
    {
        Assert.False(IfMatch.TryRead(Request(header), out _, out var rejection));
        Assert.Equal(["If-Match"], rejection.Errors!.Keys);
    }

    [Fact]
    public void that_is_not_there_allows_everything()
    {
        Assert.True(IfMatch.TryRead(new DefaultHttpContext().Request, out var ifMatch, out _));
        Assert.Equal((false, true, true, null), (ifMatch.IsPresent, ifMatch.Allows(0), ifMatch.Allows(3), ifMatch.Only));
    }

    [Fact]
    public void over_several_lines_is_one_list()
    {
        var request = new DefaultHttpContext().Request;
        request.Headers.IfMatch = new(["\"3\"", "\"4\""]);
        Assert.True(IfMatch.TryRead(request, out var ifMatch, out _));
        Assert.Equal((true, true, false, null), (ifMatch.Allows(3), ifMatch.Allows(4), ifMatch.Allows(5), ifMatch.Only));
    }

    [Theory]
    [InlineData("\"3\"", true)]
    [InlineData("W/\"3\"", true)]
    [InlineData("*", true)]
    [InlineData("\"4\"", false)]
    [InlineData("nonsense", false)]
    public void has_a_sister_for_reading(string header, bool known)
    {
        var request = new DefaultHttpContext().Request;
        request.Headers.IfNoneMatch = header;
        Assert.Equal(known, ETags.IsKnown(request, 3));
    }

    private static HttpRequest Request(string header)
    {
        var request = new DefaultHttpContext().Request;
        request.Headers.IfMatch = header;
        return request;
    }
}

public sealed class A_header(HttpApp app) : IClassFixture<HttpApp>
{
    [Theory]
    [InlineData(null, HttpStatusCode.OK)]
    [InlineData("\"3\"", HttpStatusCode.OK)]
    [InlineData("\"2\"", HttpStatusCode.PreconditionFailed)]
    [InlineData("W/\"3\"", HttpStatusCode.PreconditionFailed)]
    [InlineData("3", HttpStatusCode.BadRequest)]
    public async Task If_Match_is_honoured(string? ifMatch, HttpStatusCode expected)
    {
        var request = new HttpRequestMessage(HttpMethod.Put, "/versioned");
        if (ifMatch is not null) request.Headers.TryAddWithoutValidation("If-Match", ifMatch);
        var response = await app.Client.SendAsync(request, TestContext.Current.CancellationToken);
        Assert.Equal(expected, response.StatusCode);
        if (expected == HttpStatusCode.OK) Assert.Equal("\"4\"", response.Headers.ETag?.Tag);
    }

    [Theory]
    [InlineData(null, null, HttpStatusCode.OK, null)]
    [InlineData("0", null, HttpStatusCode.OK, null)]
    [InlineData("10", "wait=60", HttpStatusCode.OK, "wait=30")]
    [InlineData("11", "respond-async, wait=1", HttpStatusCode.ServiceUnavailable, null)]
    [InlineData("9223372036854775807", null, HttpStatusCode.ServiceUnavailable, null)]
    [InlineData("9223372036854775808", null, HttpStatusCode.BadRequest, null)]
    [InlineData("-1", null, HttpStatusCode.BadRequest, null)]
    [InlineData("+1", null, HttpStatusCode.BadRequest, null)]
    [InlineData("1.0", null, HttpStatusCode.BadRequest, null)]
    [InlineData("ten", null, HttpStatusCode.BadRequest, null)]
    [InlineData("1, 2", null, HttpStatusCode.BadRequest, null)]
    public async Task Ledger_Min_Position_makes_a_query_wait(string? position, string? prefer, HttpStatusCode expected, string? applied)
    {
        List<(string, string)> headers = [];
        if (position is not null) headers.Add((Positions.MinHeader, position));
        if (prefer is not null) headers.Add(("Prefer", prefer));
        var response = await app.GetAsync("/waits", [.. headers]);
        var body = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.Equal(expected, response.StatusCode);
        if (expected == HttpStatusCode.ServiceUnavailable) Assert.Contains("\"code\":\"view-behind\"", body);
        if (expected == HttpStatusCode.ServiceUnavailable) Assert.NotNull(response.Headers.RetryAfter);
        if (expected == HttpStatusCode.BadRequest) Assert.Contains("\"errors\":{\"Ledger-Min-Position\":", body);
        if (applied is not null) Assert.Equal([applied], response.Headers.GetValues("Preference-Applied"));
    }

    [Theory]
    [InlineData(null, 5)]
    [InlineData("wait=0", 0)]
    [InlineData("wait=7", 7)]
    [InlineData("Wait = \"7\"", 7)]
    [InlineData("return=minimal; foo=bar, wait=7", 7)]
    [InlineData("wait=30", 30)]
    [InlineData("wait=99999999999", 30)]
    [InlineData("wait=99999999999999999999", 5)]
    [InlineData("wait=-1", 5)]
    [InlineData("wait=soon", 5)]
    [InlineData("wait", 5)]
    [InlineData(",;=,", 5)]
    public void Prefer_says_how_long_to_wait(string? prefer, int seconds)
    {
        var request = new DefaultHttpContext().Request;
        if (prefer is not null) request.Headers["Prefer"] = prefer;
        Assert.Equal(TimeSpan.FromSeconds(seconds), Positions.WaitOf(request));
    }

    [Theory]
    [InlineData("k1", "k1")]
    [InlineData("\"k1\"", "k1")]
    [InlineData("a\"b", "a\"b")]
    [InlineData("", null)]
    [InlineData("\"\"", null)]
    [InlineData("\"", null)]
    [InlineData("\"k1", null)]
    [InlineData("\"a\"b\"", null)]
    [InlineData("a b", null)]
    [InlineData("ä", null)]
    [InlineData("a\tb", null)]
    public void Idempotency_Key_is_visible_ascii(string header, string? expected)
    {
        var request = new DefaultHttpContext().Request;
        request.Headers[IdempotencyKeys.Header] = header;
        Assert.Equal(expected is not null, IdempotencyKeys.TryRead(request, out var key, out var rejection));
        Assert.Equal(expected, key);
        if (expected is null) Assert.Equal(["Idempotency-Key"], rejection!.Errors!.Keys);
    }

    [Fact]
    public void Idempotency_Key_has_255_characters_at_most_and_comes_once()
    {
        var request = new DefaultHttpContext().Request;
        Assert.True(IdempotencyKeys.TryRead(request, out var none, out _) && none is null);
        request.Headers[IdempotencyKeys.Header] = new string('k', 255);
        Assert.True(IdempotencyKeys.TryRead(request, out _, out _));
        request.Headers[IdempotencyKeys.Header] = new string('k', 256);
        Assert.False(IdempotencyKeys.TryRead(request, out _, out _));
        request.Headers[IdempotencyKeys.Header] = new(["k1", "k2"]);
        Assert.False(IdempotencyKeys.TryRead(request, out _, out _));
    }

    [Fact]
    public async Task Idempotency_Key_goes_with_the_meaning_of_a_request_not_its_spelling()
    {
        var first = await Once("/once", """{"name":"ä","price":"12.50","tags":{"a":"1","b":"2"}}""");
        Assert.Equal(first, await Once("/%6fnce", """ {"tags":{"b":"2","a":"1"},"price":12.5,"name":"\u00e4","join":null} """));
        Assert.NotEqual(first, await Once("/once", """{"name":"ä","price":"12.51","tags":{"a":"1","b":"2"}}"""));
        Assert.NotEqual(first, await Once("/once", """{"name":"ä","price":"12.50","tags":{"a":"1","c":"2"}}"""));
    }

    private async Task<string> Once(string path, string json)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(json, null, "application/json") };
        request.Headers.Add(IdempotencyKeys.Header, "again");
        var response = await app.Client.SendAsync(request, TestContext.Current.CancellationToken);
        Assert.Equal(["true"], response.Headers.GetValues(IdempotencyKeys.ReplayedHeader));
        return await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
    }
}
