using System.Net;
using System.Text.Json;

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

    private static async Task<(HttpStatusCode Status, JsonElement Problem)> Problem(HttpResponseMessage response)
    {
        var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        foreach (var leak in (string[])["System.", "Ledger.", "Exception", ".NET", "Thing", "   at "]) Assert.DoesNotContain(leak, text);
        return (response.StatusCode, JsonElement.Parse(text));
    }
}
