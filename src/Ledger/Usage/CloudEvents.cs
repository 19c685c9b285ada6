using System.Buffers;
using System.Text.Json;
using Ledger.Http;
using Ledger.Services;

namespace Ledger.Usage;

/// <summary>
/// Calls as CloudEvents 1.0 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its HTTP binding and JSON
/// format): <c>id</c>, <c>source</c>, <c>subject</c> (the user) and <c>time</c> are the envelope's, the rest is in the data.
/// Extension attributes, and <c>type</c>, may be anything.
/// </summary>
public static class CloudEvents
{
    /// <summary>One event with its envelope.</summary>
    public const string StructuredType = "application/cloudevents+json";

    /// <summary>A list of such events.</summary>
    public const string BatchType = "application/cloudevents-batch+json";

    private const string HeaderPrefix = "ce-";
    private const string DataPrefix = "data.";
    private const string Version = "1.0";

    private static readonly Names InJson = new("", DataPrefix), InBinaryMode = new(HeaderPrefix, "");

    private static readonly SearchValues<char> AttributeChars = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789");

    /// <summary>The data of an event. The user may stand here instead of in the subject.</summary>
    private sealed record Data(
        string ServiceId, string? UserId = null, IReadOnlyDictionary<string, decimal>? Quantities = null, IReadOnlyDictionary<string, string>? Tags = null);

    /// <summary>What stands before the names of attributes and before those in the data; the user may stand among either.</summary>
    private sealed record Names(string Attribute, string Data)
    {
        public CallFields WithSubject { get; } =
            new($"{Attribute}id", $"{Attribute}source", $"{Attribute}subject", $"{Data}serviceId", $"{Attribute}time", $"{Data}quantities", $"{Data}tags");

        public CallFields WithUserInData => WithSubject with { UserId = $"{Data}userId" };
    }

    /// <summary>Whether a request is one, in any of the three modes.</summary>
    public static bool IsCloudEvent(HttpRequest request) =>
        IsType(request, StructuredType) || IsType(request, BatchType) || request.Headers.ContainsKey("ce-specversion");

    /// <summary>Reads and checks the events of a request; what is wrong is noted by JSON path, or by the name of the header.</summary>
    public static IReadOnlyList<ReportedCall> Read(HttpRequest request, ReadOnlySpan<byte> body, Validation errors, out bool isList)
    {
        isList = IsType(request, BatchType);
        if (isList)
        {
            var batch = Json.ReadOr<List<Dictionary<string, JsonElement>>>(body, errors) ?? [];
            return [.. batch.Select((e, i) => FromEnvelope(e, errors, $"[{i}].")).OfType<ReportedCall>()];
        }

        var call = IsType(request, StructuredType)
            ? Json.ReadOr<Dictionary<string, JsonElement>>(body, errors) is { } envelope ? FromEnvelope(envelope, errors, "") : null
            : FromHeaders(request, body, errors);
        return call is null ? [] : [call];
    }

    private static ReportedCall? FromEnvelope(Dictionary<string, JsonElement> envelope, Validation errors, string path)
    {
        var attributes = new Dictionary<string, string>(StringComparer.Ordinal);
        JsonElement? data = null;
        foreach (var (name, value) in envelope)
        {
            if (name == "data")
            {
                data = value;
            }
            else if (errors.Check(IsAttributeName(name), $"{path}{name}", "is not an attribute: they have the letters a to z and digits only")
                && errors.Check(value.ValueKind is not (JsonValueKind.Object or JsonValueKind.Array), $"{path}{name}", "must be text, a number, true or false")
                && value.ValueKind is not JsonValueKind.Null)
            {
                errors.Check(value.ValueKind == JsonValueKind.String || !IsKnown(name), $"{path}{name}", "must be text");
                attributes[name] = value.ToString();
            }
        }

        errors.Check(!envelope.ContainsKey("data_base64"), $"{path}data_base64", "is not read here: the data must be JSON");
        if (!errors.Check(data is not null, $"{path}data", "is missing"))
        {
            return null;
        }

        var read = Json.ReadOr<Data>(JsonSerializer.SerializeToUtf8Bytes(data!.Value), errors, path + DataPrefix);
        return From(attributes, read, errors, path, InJson);
    }

    private static ReportedCall? FromHeaders(HttpRequest request, ReadOnlySpan<byte> body, Validation errors)
    {
        var attributes = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (var (name, value) in request.Headers)
        {
            if (name.StartsWith(HeaderPrefix, StringComparison.OrdinalIgnoreCase))
            {
                attributes[name[HeaderPrefix.Length..].ToLowerInvariant()] = Uri.UnescapeDataString(value.ToString());
            }
        }

        return From(attributes, Json.ReadOr<Data>(body, errors), errors, "", InBinaryMode);
    }

    private static ReportedCall? From(Dictionary<string, string> attributes, Data? data, Validation errors, string path, Names names)
    {
        var (id, source, time) = (Required("id"), Required("source"), (DateTimeOffset?)null);
        Required("type");
        if (Required("specversion") is { } version)
        {
            errors.Check(version == Version, Name("specversion"), $"must be {Version}");
        }

        if (attributes.TryGetValue("datacontenttype", out var type))
        {
            errors.Check(type.Split(';')[0].Trim() is "application/json" or "text/json", Name("datacontenttype"), "must be application/json");
        }

        if (attributes.TryGetValue("time", out var text) && errors.Check(Rfc3339.TryParse(text, out var at), Name("time"), Rfc3339.Rule))
        {
            time = at;
        }

        var subject = attributes.GetValueOrDefault("subject");
        errors.Check(subject is not null || data is null || data.UserId is not null, Name("subject"), "is missing: it says which user called");
        errors.Check(subject is null || data?.UserId is null || subject == data.UserId, Name("subject"), $"is another user than {names.Data}userId");
        return data is null || id is null || source is null || (subject ?? data.UserId) is not { } userId
            ? null
            : ReportedCall.From(
                new CallBody(userId, data.ServiceId, id, source, time, data.Quantities, data.Tags), errors, path,
                subject is null ? names.WithUserInData : names.WithSubject);

        string Name(string attribute) => $"{path}{names.Attribute}{attribute}";

        string? Required(string name)
        {
            var value = attributes.GetValueOrDefault(name);
            return errors.Check(!string.IsNullOrEmpty(value), Name(name), "is missing") ? value : null;
        }
    }

    private static bool IsKnown(string name) => name is "id" or "source" or "type" or "specversion" or "subject" or "time" or "datacontenttype" or "dataschema";

    private static bool IsAttributeName(string name) => name == "data_base64" || (name.Length > 0 && !name.AsSpan().ContainsAnyExcept(AttributeChars));

    private static bool IsType(HttpRequest request, string type) =>
        request.ContentType?.Split(';')[0].Trim().Equals(type, StringComparison.OrdinalIgnoreCase) ?? false;
}
