using System.Text.Json;
using Ledger.Http;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Http;

public sealed class The_description_of_the_api
{
    [Fact]
    public async Task says_what_is_read_and_written()
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().UseUrls("http://127.0.0.1:0");
        builder.Services.AddRoutingCore().AddLedgerJson().AddLedgerProblems().AddLedgerOpenApi();
        await using var app = builder.Build();
        app.UseLedgerProblems();
        app.UseLedgerRouting();
        app.MapOpenApi();
        app.MapPost("/things", (Thing thing) => TypedResults.Ok(thing));
        app.MapPatch("/things/{id}", (string id, ThingPatch patch) => TypedResults.Ok(id));
        app.MapGet("/things", ([AsParameters] PageQuery page, QueryTime? at) => TypedResults.Ok(new Page<Part>([], null))).Produces<Problem>(400, Problems.ContentType);
        await app.StartAsync(TestContext.Current.CancellationToken);
        using var client = new HttpClient();
        var document = JsonElement.Parse(await client.GetStringAsync($"{app.Urls.Single()}/openapi/v1.json", TestContext.Current.CancellationToken));

        var schemas = document.GetProperty("components").GetProperty("schemas");
        AssertJson("""{"type":["null","string"]}""", schemas, "ThingPatch", "properties", "description");
        AssertJson("""{"pattern":"^-?\\d+(\\.\\d+)?$","type":["null","string"],"format":"decimal"}""", schemas, "ThingPatch", "properties", "percent");
        AssertJson("""{"type":"integer","format":"int32"}""", schemas, "ThingPatch", "properties", "count");
        Assert.False(schemas.GetProperty("ThingPatch").TryGetProperty("required", out _));
        AssertJson("""["name"]""", schemas, "Thing", "required");
        AssertJson("""{"enum":["red","darkBlue"],"type":"string","default":"red"}""", schemas, "Thing", "properties", "colour");
        AssertJson("""{"type":["null","object"],"additionalProperties":{"type":"string"}}""", schemas, "Thing", "properties", "tags");
        AssertJson("""{"type":["null","string"],"format":"date-time"}""", schemas, "Part", "properties", "expiresAt");
        Assert.Equal("duration", schemas.GetProperty("Part").GetProperty("properties").GetProperty("ttl").GetProperty("format").GetString());
        AssertJson("""["null","string"]""", schemas, "PageOfPart", "properties", "nextCursor", "type");
        AssertJson("""["type","title","status","detail","instance","code","traceId"]""", schemas, "Problem", "required");

        var parameters = document.GetProperty("paths").GetProperty("/things").GetProperty("get").GetProperty("parameters").EnumerateArray().ToArray();
        Assert.Equal(["limit", "cursor", "at"], parameters.Select(p => p.GetProperty("name").GetString()));
        AssertJson("""{"maximum":1000,"minimum":1,"type":"integer","format":"int32","default":100}""", parameters[0], "schema");
        AssertJson("""{"type":"string","format":"date-time"}""", parameters[2], "schema");
    }

    private static void AssertJson(string expected, JsonElement element, params string[] path)
    {
        foreach (var name in path) element = element.GetProperty(name);
        Assert.True(JsonElement.DeepEquals(JsonElement.Parse(expected), element), $"{string.Join('.', path)} is {element.GetRawText()}");
    }
}
