using System.Text.Json;
using System.Text.Json.Serialization;
using Ledger.EventStore;

namespace Ledger.Events;

/// <summary>An event as it stands in the log.</summary>
/// <param name="Position">Its place in the log, from 1, without gaps, in the order of commit.</param>
/// <param name="Id">Its id, unique in the database.</param>
/// <param name="StreamId">The stream it belongs to.</param>
/// <param name="Version">Its place in the stream, from 1, without gaps.</param>
/// <param name="Type">The stored name of its kind.</param>
/// <param name="Data">The fact, as it is stored.</param>
/// <param name="RecordedAt">When it was recorded; never earlier than the event before it.</param>
/// <param name="Actor">Who caused it.</param>
/// <param name="CorrelationId">The request it belongs to.</param>
/// <param name="CausationId">What it follows from.</param>
public sealed record EventAnswer(
    long Position, Guid Id, string StreamId, long Version, string Type, StoredJson Data, DateTimeOffset RecordedAt,
    string? Actor, string? CorrelationId, string? CausationId)
{
    internal static EventAnswer Of(RecordedEvent recorded) => new(
        recorded.Position, recorded.Id, recorded.StreamId, recorded.Version, recorded.Type, new StoredJson(recorded.Json), recorded.RecordedAt,
        recorded.Actor, recorded.CorrelationId, recorded.CausationId);
}

/// <summary>JSON that is passed on as it is stored, whether or not this program knows its kind.</summary>
[JsonConverter(typeof(StoredJsonConverter))]
public readonly record struct StoredJson(ReadOnlyMemory<byte> Utf8);

internal sealed class StoredJsonConverter : JsonConverter<StoredJson>
{
    public override StoredJson Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        using var document = JsonDocument.ParseValue(ref reader);
        return new StoredJson(JsonSerializer.SerializeToUtf8Bytes(document.RootElement, options));
    }

    public override void Write(Utf8JsonWriter writer, StoredJson value, JsonSerializerOptions options) =>
        writer.WriteRawValue(value.Utf8.Span, skipInputValidation: true); // PostgreSQL wrote it
}
