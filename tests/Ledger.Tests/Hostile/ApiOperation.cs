using System.Text.Json;
using System.Text.Json.Nodes;

namespace Ledger.Tests.Hostile;

/// <summary>An operation as the OpenAPI document describes it.</summary>
internal sealed record ApiOperation(string Id, string Method, string Path, string[] PathParameters, string[] QueryParameters, string[] BodyTypes, JsonElement? BodySchema)
{
    public static IReadOnlyList<ApiOperation> In(JsonElement document) =>
    [
        .. from path in document.GetProperty("paths").EnumerateObject()
           from operation in path.Value.EnumerateObject()
           let parameters = operation.Value.TryGetProperty("parameters", out var list) ? list.EnumerateArray().ToArray() : []
           let body = operation.Value.TryGetProperty("requestBody", out var read) ? read.GetProperty("content") : default(JsonElement?)
           select new ApiOperation(
               operation.Value.GetProperty("operationId").GetString()!, operation.Name.ToUpperInvariant(), path.Name,
               [.. parameters.Where(p => p.GetProperty("in").GetString() == "path").Select(p => p.GetProperty("name").GetString()!)],
               [.. parameters.Where(p => p.GetProperty("in").GetString() == "query").Select(p => p.GetProperty("name").GetString()!)],
               body is null ? [] : [.. body.Value.EnumerateObject().Select(t => t.Name)],
               body?.EnumerateObject().Select(t => Resolve(document, t.Value.GetProperty("schema"))).First()),
    ];

    /// <summary>The names of the fields that the body may have.</summary>
    public IEnumerable<string> Fields => BodySchema is { } schema && schema.TryGetProperty("properties", out var properties) ? properties.EnumerateObject().Select(p => p.Name) : [];

    /// <summary>A body made of nothing but the schema, for an operation that no better one is known for.</summary>
    public JsonObject Guess() => new(Fields.Select(f => KeyValuePair.Create(f, (JsonNode?)Of(BodySchema!.Value.GetProperty("properties").GetProperty(f)))));

    private static JsonNode? Of(JsonElement schema)
    {
        var type = schema.TryGetProperty("type", out var t) ? t.ValueKind == JsonValueKind.Array ? t.EnumerateArray().Select(e => e.GetString()).First(e => e != "null") : t.GetString() : null;
        var format = schema.TryGetProperty("format", out var f) ? f.GetString() : null;
        return type switch
        {
            "string" => format switch { "date-time" => "2026-11-20T12:00:00Z", "duration" => "P1D", "decimal" => "1", _ => "x" },
            "integer" or "number" => 1,
            "boolean" => true,
            "array" => new JsonArray("x"),
            _ => new JsonObject { ["x"] = "1" },
        };
    }

    private static JsonElement Resolve(JsonElement document, JsonElement schema)
    {
        if (schema.TryGetProperty("oneOf", out var alternatives))
        {
            return Resolve(document, alternatives.EnumerateArray().Last());
        }

        return schema.TryGetProperty("$ref", out var reference)
            ? document.GetProperty("components").GetProperty("schemas").GetProperty(reference.GetString()!.Split('/')[^1])
            : schema;
    }
}
