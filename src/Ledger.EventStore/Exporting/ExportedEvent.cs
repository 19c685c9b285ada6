using System.Buffers;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// An event as a line of an export: everything that <c>mt_events</c> and <c>mt_streams</c> need to hold it again. What is null
/// has no field. The JSON of data and headers is the text that PostgreSQL gives of its jsonb.
/// </summary>
internal static class ExportedEvent
{
    public const string Columns =
        """
        e.seq_id, e.id, e.tenant_id, e.stream_id, s.type, e.version, e.type, e.mt_dotnet_type, e.data, e.bdata, e.timestamp, e.user_name,
        e.correlation_id, e.causation_id, e.headers, coalesce(e.is_archived, false)
        """;

    public const string From =
        """
        mt_events e left join lateral (
          select s.type from mt_streams s where s.tenant_id = e.tenant_id and s.id = e.stream_id limit 1) s on true
        """;

    private const string TimeFormat = "yyyy-MM-dd'T'HH:mm:ss.ffffff'Z'";

    public static Utf8JsonWriter Writer(IBufferWriter<byte> output) =>
        new(output, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, SkipValidation = true });

    /// <summary>Writes the row the reader stands at.</summary>
    public static void Write(Utf8JsonWriter line, NpgsqlDataReader reader)
    {
        line.WriteStartObject();
        line.WriteNumber("position", reader.GetInt64(0));
        line.WriteString("id", reader.GetGuid(1));
        Text("tenantId", 2);
        Text("streamId", 3);
        Text("streamType", 4);
        line.WriteNumber("version", reader.GetInt64(5));
        Text("type", 6);
        Text("dotnetType", 7);
        Raw("data", 8);
        if (!reader.IsDBNull(9))
        {
            line.WriteBase64String("binaryData", reader.GetFieldValue<byte[]>(9));
        }

        line.WriteString("recordedAt", reader.GetFieldValue<DateTimeOffset>(10).UtcDateTime.ToString(TimeFormat, CultureInfo.InvariantCulture));
        Text("actor", 11);
        Text("correlationId", 12);
        Text("causationId", 13);
        Raw("headers", 14);
        if (reader.GetBoolean(15))
        {
            line.WriteBoolean("archived", true);
        }

        line.WriteEndObject();
        line.Flush();
        line.Reset();

        void Text(string name, int column)
        {
            if (!reader.IsDBNull(column))
            {
                line.WriteString(name, reader.GetString(column));
            }
        }

        void Raw(string name, int column)
        {
            if (!reader.IsDBNull(column))
            {
                line.WritePropertyName(name);
                line.WriteRawValue(reader.GetFieldValue<byte[]>(column), skipInputValidation: true);
            }
        }
    }

    public const string CopyColumns =
        "seq_id, id, stream_id, version, data, bdata, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, causation_id, headers, user_name, is_archived";

    private const short CopyColumnCount = 15;

    /// <summary>
    /// Reads a line into a row of <see cref="CopyColumns"/>; of the first event of a stream, also into one of the tenant, the stream
    /// and its type.
    /// </summary>
    /// <exception cref="FormatException">The line is no event, or not the one expected.</exception>
    public static void Read(ReadOnlyMemory<byte> line, long position, CopyRows events, CopyRows streams)
    {
        using var document = Parse(line);
        var e = document.RootElement;
        if (Required("position").GetInt64() is var found && found != position)
        {
            throw new FormatException($"it holds position {found}");
        }

        var (tenantId, streamId, version) = (Text("tenantId"), Text("streamId"), Required("version").GetInt64());
        events.BeginRow(CopyColumnCount);
        events.Bigint(position);
        events.Uuid(Required("id").GetGuid());
        events.Text(streamId);
        events.Bigint(version);
        events.Jsonb(RawOf(Required("data")));
        events.Bytes(e.TryGetProperty("binaryData", out var binary) ? binary.GetBytesFromBase64() : null);
        events.Text(Required("type").GetString());
        events.Instant(DateTimeOffset.ParseExact(Required("recordedAt").GetString()!, TimeFormat, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal));
        events.Text(tenantId);
        events.Text(Text("dotnetType"));
        events.Text(Text("correlationId"));
        events.Text(Text("causationId"));
        if (e.TryGetProperty("headers", out var headers))
        {
            events.Jsonb(RawOf(headers));
        }
        else
        {
            events.Text(null);
        }

        events.Text(Text("actor"));
        events.Boolean(e.TryGetProperty("archived", out var archived) && archived.GetBoolean());
        if (version == 1)
        {
            streams.BeginRow(3);
            streams.Text(tenantId);
            streams.Text(streamId);
            streams.Text(Text("streamType"));
        }

        string? Text(string name) => e.TryGetProperty(name, out var value) ? value.GetString() : null;

        JsonElement Required(string name) => e.TryGetProperty(name, out var value) ? value : throw new FormatException($"it has no {name}");

        static byte[] RawOf(JsonElement value) => System.Text.Encoding.UTF8.GetBytes(value.GetRawText());
    }

    private static JsonDocument Parse(ReadOnlyMemory<byte> line)
    {
        const int MaxDepth = 10_000; // what PostgreSQL took, it takes again

        try
        {
            var document = JsonDocument.Parse(line, new JsonDocumentOptions { MaxDepth = MaxDepth });
            return document.RootElement.ValueKind == JsonValueKind.Object ? document : throw new FormatException("it is no JSON object");
        }
        catch (JsonException exception)
        {
            throw new FormatException($"it is no JSON: {exception.Message}");
        }
    }
}
