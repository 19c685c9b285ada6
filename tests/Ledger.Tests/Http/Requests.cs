using System.Net;
using System.Text.Json;
using Ledger.Http;

namespace Ledger.Tests.Http;

public sealed class A_request(HttpApp app) : IClassFixture<HttpApp>
{
    [Theory]
    [InlineData("""{"name":"a","color":"red"}""", "unknown-field", "color")]
    [InlineData("""{"name":"a","join":[{"segment":"s","tll":"P1D"}]}""", "unknown-field", "join[0].tll")]
    [InlineData("""{"Name":"a"}""", "unknown-field", "Name")]
    [InlineData("""{"count":1}""", "invalid-request", "name")]
    [InlineData("""{"name":"a","join":[{"ttl":"P1D"}]}""", "invalid-request", "join[0].segment")]
    [InlineData("""{"name":"a","name":"b"}""", "invalid-request", "name")]
    [InlineData("""{"name":"a","tags":{"x":"1","x":"2"}}""", "invalid-request", "tags.x")]
    [InlineData("""{"name":null}""", "invalid-request", "name")]
    [InlineData("""{"name":1}""", "invalid-request", "name")]
    [InlineData("""{"name":"a\u0000b"}""", "invalid-request", "name")]
    [InlineData("""{"name":"a\ud800b"}""", "invalid-request", "name")]
    [InlineData("""{"name":"a","tags":{"a\u0000":"x"}}""", "invalid-request", null)]
    [InlineData("""{"name":"a","tags":{"a":null}}""", "invalid-request", "tags")]
    [InlineData("""{"name":"a","join":[{"segment":"s"},null]}""", "invalid-request", "join[1]")]
    [InlineData("""{"name":"a","join":{}}""", "invalid-request", "join")]
    [InlineData("""{"name":"a","join":"x"}""", "invalid-request", "join")]
    [InlineData("""{"name":"a","join":[3]}""", "invalid-request", "join[0]")]
    [InlineData("""{"name":"a","join":[{"segment":"s","ttl":"P1M"}]}""", "invalid-request", "join[0].ttl")]
    [InlineData("""{"name":"a","join":[{"segment":"s","ttl":60}]}""", "invalid-request", "join[0].ttl")]
    [InlineData("""{"name":"a","join":[{"segment":"s","expiresAt":"2026-11-20T12:00:00"}]}""", "invalid-request", "join[0].expiresAt")]
    [InlineData("""{"name":"a","count":"1"}""", "invalid-request", "count")]
    [InlineData("""{"name":"a","count":1.5}""", "invalid-request", "count")]
    [InlineData("""{"name":"a","count":99999999999}""", "invalid-request", "count")]
    [InlineData("""{"name":"a","price":"NaN"}""", "invalid-request", "price")]
    [InlineData("""{"name":"a","price":1e400}""", "invalid-request", "price")]
    [InlineData("""{"name":"a","price":"1,5"}""", "invalid-request", "price")]
    [InlineData("""{"name":"a","quantities":{"call":true}}""", "invalid-request", "quantities.call")]
    [InlineData("""{"name":"a","quantities":{"a.b":"x"}}""", "invalid-request", "quantities['a.b']")]
    [InlineData("""{"name":"a","colour":"Red"}""", "invalid-request", "colour")]
    [InlineData("""{"name":"a","colour":"red,darkBlue"}""", "invalid-request", "colour")]
    [InlineData("""{"name":"a","colour":0}""", "invalid-request", "colour")]
    [InlineData("""{"name":"a","big":"true"}""", "invalid-request", "big")]
    [InlineData("""{"name":"a","free":{"x":["\u0000"]}}""", "invalid-request", null)]
    [InlineData("""{"name":"a","free":{"x":"\udfff"}}""", "invalid-request", null)]
    [InlineData("""{"name":"a","free":{"x":1,"x":2}}""", "invalid-request", null)]
    [InlineData("[]", "invalid-request", "$")]
    [InlineData("\"text\"", "invalid-request", "$")]
    [InlineData("null", "invalid-request", null)]
    [InlineData("", "invalid-request", null)]
    [InlineData("{", "malformed-json", null)]
    [InlineData("{\"name\":\"a\",}", "malformed-json", null)]
    [InlineData("{\"name\":\"a\"} x", "malformed-json", null)]
    [InlineData("{\"name\":\"a\"/*c*/}", "malformed-json", null)]
    [InlineData("{\"name\":NaN}", "malformed-json", null)]
    [InlineData("{'name':'a'}", "malformed-json", null)]
    [InlineData("{\"name\":\"a\nb\"}", "malformed-json", null)]
    public async Task with_a_bad_body_is_refused_naming_the_field(string json, string code, string? field)
    {
        var (status, problem) = await Problem(await app.PostAsync("/things", json));

        Assert.Equal((HttpStatusCode.BadRequest, code), (status, problem.GetProperty("code").GetString()));
        if (field is not null) Assert.Equal([field], problem.GetProperty("errors").EnumerateObject().Select(e => e.Name));
    }

    [Theory]
    [InlineData("['")]
    [InlineData("']")]
    [InlineData("'][")]
    [InlineData("a.")]
    [InlineData("a")]
    public async Task with_a_field_whose_name_is_a_megabyte_is_refused_at_once_naming_its_beginning(string repeated)
    {
        // With a line break at its end, which no pattern looks past unless it is told to.
        const string before = "{\"name\":\"a\",\"", after = "\\n\":1}";
        var name = string.Concat(Enumerable.Repeat(repeated, (Limits.MaxCommandBodyBytes - before.Length - after.Length) / repeated.Length));

        var answering = app.PostAsync("/things", before + name + after);
        var (status, problem) = await Problem(await answering.WaitAsync(TimeSpan.FromSeconds(20), TestContext.Current.CancellationToken));

        Assert.Equal((HttpStatusCode.BadRequest, "unknown-field"), (status, problem.GetProperty("code").GetString()));
        var field = Assert.Single(problem.GetProperty("errors").EnumerateObject()).Name;
        Assert.Equal((Validation.MaxFieldChars + 1, '…'), (field.Length, field[^1]));
        Assert.InRange(problem.GetRawText().Length, 1, 2_000);
    }

    [Fact]
    public async Task with_a_long_name_that_is_given_twice_or_has_no_value_is_told_its_beginning()
    {
        var name = new string('n', 10_000);
        foreach (var json in (string[])[$$$"""{"name":"a","free":{"{{{name}}}":1,"{{{name}}}":2}}""", $$$"""{"name":"a","tags":{"{{{name}}}":null}}""", $$$"""{"name":"a","tags":{"{{{name}}}":1}}"""])
        {
            var (status, problem) = await Problem(await app.PostAsync("/things", json));

            Assert.Equal(HttpStatusCode.BadRequest, status);
            Assert.Contains("nnn…", problem.GetProperty("detail").GetString(), StringComparison.Ordinal);
            Assert.InRange(problem.GetRawText().Length, 1, 2_000);
        }
    }

    [Theory]
    [InlineData("/at?at=yesterday&how-many=1", null, "at")]
    [InlineData("/at?at=2026-11-20T12:00:00&how-many=1", null, "at")]
    [InlineData("/at?how-many=many", null, "how-many")]
    [InlineData("/at?how-many=99999999999", null, "how-many")]
    [InlineData("/at?how-many=1&how-many=2", null, "how-many")]
    [InlineData("/at", null, "how-many")]
    [InlineData("/at?how-many=1", "deep", "X-Depth")]
    [InlineData("/things?limit=0", null, "limit")]
    [InlineData("/things?limit=1001", null, "limit")]
    [InlineData("/things?limit=-1", null, "limit")]
    [InlineData("/things?limit=ten", null, "limit")]
    [InlineData("/things?limit=", null, "limit")]
    [InlineData("/things?limit=1&limit=2", null, "limit")]
    [InlineData("/things?cursor=x", null, "cursor")]
    [InlineData("/things?cursor=*%20*", null, "cursor")]
    public async Task with_a_bad_parameter_is_refused_naming_it(string path, string? depth, string field)
    {
        var (status, problem) = await Problem(await (depth is null ? app.GetAsync(path) : app.GetAsync(path, ("X-Depth", depth))));

        Assert.Equal((HttpStatusCode.BadRequest, field == "cursor" ? "invalid-cursor" : "invalid-request"), (status, problem.GetProperty("code").GetString()));
        Assert.Equal([field], problem.GetProperty("errors").EnumerateObject().Select(e => e.Name));
    }

    [Theory]
    [InlineData("/at?at=2026-11-20T13:00:00%2B01:00&how-many=1")]
    [InlineData("/at?at=2026-11-20T13:00:00+01:00&how-many=1")]
    public async Task with_a_time_in_its_query_is_understood_in_any_offset(string path) =>
        Assert.Equal("2026-11-20T12:00:00Z 1 ", await (await app.GetAsync(path)).Content.ReadAsStringAsync(TestContext.Current.CancellationToken));

    [Fact]
    public async Task that_is_refused_gets_every_member_of_a_problem()
    {
        var (_, problem) = await Problem(await app.PostAsync("/things", "{"));

        Assert.Equal(["type", "title", "status", "detail", "instance", "code", "traceId"], problem.EnumerateObject().Select(p => p.Name));
        Assert.Equal("/problems/malformed-json", problem.GetProperty("type").GetString());
        Assert.Equal(400, problem.GetProperty("status").GetInt32());
        Assert.Equal("/things", problem.GetProperty("instance").GetString());
        Assert.Matches("^[0-9a-f]{32}$", problem.GetProperty("traceId").GetString());
    }

    [Fact]
    public async Task to_an_unknown_address_is_a_problem()
    {
        var (status, problem) = await Problem(await app.GetAsync("/nowhere"));
        Assert.Equal((HttpStatusCode.NotFound, "not-found"), (status, problem.GetProperty("code").GetString()));
    }

    [Fact]
    public async Task with_another_method_learns_the_methods()
    {
        var response = await app.Client.DeleteAsync("/things", TestContext.Current.CancellationToken);
        var (status, problem) = await Problem(response);
        Assert.Equal((HttpStatusCode.MethodNotAllowed, "method-not-allowed"), (status, problem.GetProperty("code").GetString()));
        Assert.Equal(["GET", "HEAD", "POST"], response.Content.Headers.Allow.Order());
    }

    [Theory]
    [InlineData("POST", "/things", "text/plain", "Accept-Post")]
    [InlineData("POST", "/things", "application/xml; charset=utf-8", "Accept-Post")]
    [InlineData("POST", "/things", "nonsense", "Accept-Post")]
    [InlineData("POST", "/things", "", "Accept-Post")]
    [InlineData("PATCH", "/things/a%2Fb", "text/plain", "Accept-Patch")]
    public async Task in_another_media_type_learns_the_types(string method, string path, string type, string header)
    {
        var request = new HttpRequestMessage(new(method), path) { Content = new ByteArrayContent("{}"u8.ToArray()) };
        if (type.Length > 0) request.Content.Headers.TryAddWithoutValidation("Content-Type", type);
        var response = await app.Client.SendAsync(request, TestContext.Current.CancellationToken);
        var (status, problem) = await Problem(response);
        Assert.Equal((HttpStatusCode.UnsupportedMediaType, "unsupported-media-type"), (status, problem.GetProperty("code").GetString()));
        Assert.Equal(["application/json"], response.Headers.GetValues(header));
    }

    [Theory]
    [InlineData("application/json; charset=utf-16", HttpStatusCode.UnsupportedMediaType)]
    [InlineData("application/json; charset=bogus", HttpStatusCode.UnsupportedMediaType)]
    [InlineData("application/json; charset=UTF-8", HttpStatusCode.OK)]
    [InlineData("application/json; charset=\"utf-8\"", HttpStatusCode.OK)]
    [InlineData("application/vnd.thing+json", HttpStatusCode.OK)]
    public async Task is_read_in_utf_8_only(string type, HttpStatusCode expected) =>
        Assert.Equal(expected, (await app.PostAsync("/things", """{"name":"a"}""", type)).StatusCode);

    [Theory]
    [InlineData("/things", false)]
    [InlineData("/things", true)]
    [InlineData("/raw", false)]
    [InlineData("/raw", true)]
    public async Task with_too_large_a_body_is_refused(string path, bool chunked)
    {
        var json = $$"""{"name":"{{new string('a', Limits.MaxCommandBodyBytes)}}"}""";
        var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new StringContent(json, null, "application/json") };
        request.Headers.TransferEncodingChunked = chunked;
        request.Headers.ExpectContinue = true;
        var (status, problem) = await Problem(await app.Client.SendAsync(request, TestContext.Current.CancellationToken));
        Assert.Equal((HttpStatusCode.RequestEntityTooLarge, "body-too-large"), (status, problem.GetProperty("code").GetString()));
    }

    [Fact]
    public async Task that_nests_too_deep_is_refused()
    {
        var (status, problem) = await Problem(await app.PostAsync("/free", new string('[', 10_000)));
        Assert.Equal((HttpStatusCode.BadRequest, "malformed-json"), (status, problem.GetProperty("code").GetString()));
        Assert.Contains("32 levels", problem.GetProperty("detail").GetString());
    }

    [Fact]
    public async Task that_fails_for_our_own_fault_is_told_nothing_and_logged()
    {
        var (status, problem) = await Problem(await app.GetAsync("/fails"));
        Assert.Equal((HttpStatusCode.InternalServerError, "internal-error"), (status, problem.GetProperty("code").GetString()));
        Assert.DoesNotContain("secret", problem.GetRawText());
        Assert.Contains(app.Errors, e => e.Contains("GET /fails failed") && e.Contains("the secret is 42"));
    }

    [Theory]
    [InlineData("/full", "queue-full")]
    [InlineData("/times-out", "timeout")]
    public async Task that_may_be_repeated_is_told_when(string path, string code)
    {
        var response = await app.GetAsync(path);
        var (status, problem) = await Problem(response);
        Assert.Equal((HttpStatusCode.ServiceUnavailable, code), (status, problem.GetProperty("code").GetString()));
        Assert.NotNull(response.Headers.RetryAfter?.Delta);
        Assert.DoesNotContain(app.Errors, e => e.Contains(path));
    }

    [Theory]
    [InlineData("/things", "{\"name\":\"\u00ff\"}")]
    [InlineData("/things", "{\"name\":\"\u00ed\u00a0\u0080\"}")]
    [InlineData("/things", "{\"\u00ff\":1}")]
    [InlineData("/things", "{\"name\":\"a\",\"tags\":{\"\u00ff\":\"x\"}}")]
    [InlineData("/things", "{\"name\":\"a\",\"quantities\":{\"\u00ff\":1}}")]
    [InlineData("/things", "{\"name\":\"a\",\"colour\":\"\u00ff\"}")]
    [InlineData("/things", "{\"name\":\"a\",\"price\":\"\u00ff\"}")]
    [InlineData("/things", "{\"name\":\"a\",\"join\":[{\"segment\":\"s\",\"ttl\":\"\u00ff\"}]}")]
    [InlineData("/things", "{\"name\":\"a\",\"free\":\"\u00ff\"}")]
    [InlineData("/free", "{\"x\":[\"\u00ff\"]}")]
    [InlineData("/free", "{\"\u00ff\":1}")]
    [InlineData("/free", "\u00ff\u00fe{\u0000}\u0000")]
    [InlineData("/free", "\u0000")]
    public async Task that_is_not_utf_8_is_refused(string path, string latin1)
    {
        var content = new ByteArrayContent(System.Text.Encoding.Latin1.GetBytes(latin1)) { Headers = { { "Content-Type", "application/json" } } };
        var (status, _) = await Problem(await app.Client.PostAsync(path, content, TestContext.Current.CancellationToken));
        Assert.Equal(HttpStatusCode.BadRequest, status);
    }

    [Theory]
    [InlineData("/things")]
    [InlineData("/raw")]
    public async Task that_breaks_off_is_no_error_of_ours(string path)
    {
        var before = app.Errors.Count;
        for (var i = 0; i < 20; i++)
        {
            using var socket = new System.Net.Sockets.TcpClient { LingerState = new(i % 2 == 0, 0) };
            await socket.ConnectAsync("127.0.0.1", app.Address.Port, TestContext.Current.CancellationToken);
            await socket.GetStream().WriteAsync(System.Text.Encoding.ASCII.GetBytes(
                $"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{\"name\":"), TestContext.Current.CancellationToken);
        }
        while (app.Open > 0) await Task.Yield();
        Assert.Equal(before, app.Errors.Count);
    }

    [Fact]
    public async Task does_not_learn_what_the_server_is() => Assert.False((await app.GetAsync("/things")).Headers.Contains("Server"));

    [Theory]
    [InlineData("/things/%00")]
    [InlineData("/things?name=%00")]
    [InlineData("/things?name=a%00b&limit=2")]
    [InlineData("/things/%")]
    [InlineData("/things/%zz")]
    [InlineData("/things/%ff%fe")]
    [InlineData("/things?name=%ff%fe&limit=x")]
    [InlineData("/things?cursor=%ED%A0%80")]
    [InlineData("/things//parts/")]
    [InlineData("/things?limit[]=1&limit=")]
    [InlineData("/things?limit=1;drop")]
    [InlineData("/things?limit=0x10")]
    [InlineData("/things?limit=%F0%9F%98%80")]
    [InlineData("/things?cursor=AAAAAAAAAAAAAAAAAAAA")]
    [InlineData("/things?&&&===&limit=1e3")]
    [InlineData("/rows?count=1&count=2")]
    public async Task that_is_hostile_never_breaks_us(string target)
    {
        // Below the client, which would mend the target.
        using var socket = new System.Net.Sockets.TcpClient();
        await socket.ConnectAsync("127.0.0.1", app.Address.Port, TestContext.Current.CancellationToken);
        await using var stream = socket.GetStream();
        await stream.WriteAsync(System.Text.Encoding.Latin1.GetBytes($"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), TestContext.Current.CancellationToken);
        using var reader = new StreamReader(stream);
        var answer = await reader.ReadToEndAsync(TestContext.Current.CancellationToken);
        Assert.Matches("^HTTP/1.1 [24]", answer);
    }

    private static async Task<(HttpStatusCode Status, JsonElement Problem)> Problem(HttpResponseMessage response)
    {
        var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        foreach (var leak in (string[])["System.", "Ledger.", "Exception", ".NET", "Thing", "   at "]) Assert.DoesNotContain(leak, text);
        return (response.StatusCode, JsonElement.Parse(text));
    }
}
