using System.Buffers;
using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Ledger.Http;

/// <summary>The header <c>Idempotency-Key</c>: a command repeated with the same key takes effect once.</summary>
public static class IdempotencyKeys
{
    /// <summary>The request header.</summary>
    public const string Header = "Idempotency-Key";

    /// <summary>The response header that says the outcome is that of an earlier request.</summary>
    public const string ReplayedHeader = "Idempotency-Replayed";

    /// <summary>The longest key.</summary>
    public const int MaxChars = 255;

    // Absent means the same as null in a typed body, and stays so when a later version has more fields.
    private static readonly JsonSerializerOptions Canonical = new(Json.Options) { DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull };

    /// <summary>Reads the key, null when there is none. It may stand in double quotes, as the IETF draft writes it.</summary>
    public static bool TryRead(HttpRequest request, out string? key, [NotNullWhen(false)] out Rejection? rejection)
    {
        key = null;
        rejection = null;
        var header = request.Headers[Header];
        if (header.Count == 0) return true;
        if (header is [{ } text])
        {
            var quoted = text is ['"', .., '"'];
            key = quoted ? text[1..^1] : text;
            var valid = key.Length is > 0 and <= MaxChars && !key.AsSpan().ContainsAnyExceptInRange('!', '~')
                && !(quoted || text[0] == '"' ? key.AsSpan().ContainsAny('"', '\\') : false);
            if (valid) return true;
        }
        key = null;
        rejection = Validation.Field(Header, $"must be one key of 1 to {MaxChars} visible ASCII characters");
        return false;
    }

    /// <summary>
    /// What a repeat must have in common with the first request: SHA-256, in base64url, of method, path and the body
    /// as it was understood, whatever its order of fields and spelling of numbers.
    /// </summary>
    public static string Fingerprint<TBody>(HttpRequest request, TBody body) =>
        Fingerprint($"{request.Method} {request.PathBase + request.Path}", body);

    /// <summary>The same for a request that comes another way: <paramref name="operation"/> is its method and path over HTTP.</summary>
    public static string Fingerprint<TBody>(string operation, TBody body)
    {
        var buffer = new ArrayBufferWriter<byte>();
        buffer.Write(Encoding.UTF8.GetBytes($"{operation}\n"));
        using (var writer = new Utf8JsonWriter(buffer))
            WriteSorted(writer, JsonSerializer.SerializeToElement(body, Canonical));
        return Base64Url.EncodeToString(SHA256.HashData(buffer.WrittenSpan));
    }

    /// <summary>Says in the answer that it is the first one's.</summary>
    public static void MarkReplayed(HttpResponse response) => response.Headers[ReplayedHeader] = "true";

    private static void WriteSorted(Utf8JsonWriter writer, JsonElement element)
    {
        switch (element.ValueKind)
        {
            case JsonValueKind.Object:
                writer.WriteStartObject();
                foreach (var property in element.EnumerateObject().OrderBy(p => p.Name, StringComparer.Ordinal))
                {
                    writer.WritePropertyName(property.Name);
                    WriteSorted(writer, property.Value);
                }
                writer.WriteEndObject();
                break;
            case JsonValueKind.Array:
                writer.WriteStartArray();
                foreach (var item in element.EnumerateArray()) WriteSorted(writer, item);
                writer.WriteEndArray();
                break;
            case JsonValueKind.Number when Decimals.TryParse(element.GetRawText(), out var number):
                writer.WriteRawValue(Decimals.Format(number));
                break;
            default:
                element.WriteTo(writer);
                break;
        }
    }
}
