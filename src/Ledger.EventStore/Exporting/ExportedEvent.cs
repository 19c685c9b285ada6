using System.Buffers;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Unicode;
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
    public static void Read(ReadOnlyMemory<byte> line, long position, CopyRows events, CopyRows streams) => Parse(line, e =>
    {
        if (e.Position != position)
        {
            throw new FormatException($"it holds position {e.Position}");
        }

        events.BeginRow(CopyColumnCount);
        events.Bigint(position);
        events.Uuid(e.Id);
        events.Text(e.StreamId);
        events.Bigint(e.Version);
        events.Jsonb(e.Data);
        events.Bytes(e.Binary);
        events.Text(e.Type);
        events.Instant(e.RecordedAt);
        events.Text(e.TenantId);
        events.Text(e.DotnetType);
        events.Text(e.CorrelationId);
        events.Text(e.CausationId);
        events.JsonbOrNull(e.Headers);
        events.Text(e.Actor);
        events.Boolean(e.IsArchived);
        if (e.Version == 1)
        {
            streams.BeginRow(3);
            streams.Text(e.TenantId);
            streams.Text(e.StreamId);
            streams.Text(e.StreamType);
        }

        return 0;
    });

    /// <summary>Reads a line into a row of <see cref="StoredRow.Columns"/>, as the database would send it; returns whose event it is, and which of which stream.</summary>
    /// <exception cref="FormatException">The line is no event.</exception>
    public static (string? TenantId, string? StreamId, long Version) Read(ReadOnlyMemory<byte> line, CopyRows rows) => Parse(line, e =>
    {
        rows.BeginRow(StoredRow.ColumnCount);
        rows.Bigint(e.Position);
        rows.Bigint(e.Version);
        rows.Uuid(e.Id);
        rows.Instant(e.RecordedAt);
        rows.Text(e.TenantId);
        rows.Text(e.StreamId);
        rows.Text(e.Type);
        rows.Text(e.Actor);
        rows.Jsonb(e.Data);
        rows.Text(e.DotnetType);
        rows.Text(e.CorrelationId);
        rows.Text(e.CausationId);
        rows.JsonbOrNull(e.Headers);
        rows.Bytes(e.Binary);
        rows.Boolean(e.IsArchived);
        return (e.TenantId, e.StreamId, e.Version);
    });

    /// <summary>Reads which version of which stream a line holds.</summary>
    /// <exception cref="FormatException">The line is no event.</exception>
    public static (string? TenantId, string? StreamId, long Version) ReadVersion(ReadOnlyMemory<byte> line) =>
        Parse(line, e => (e.TenantId, e.StreamId, e.Version));

    private static T Parse<T>(ReadOnlyMemory<byte> line, Func<Fields, T> read)
    {
        const int MaxDepth = 10_000; // what PostgreSQL took, it takes again

        try
        {
            using var document = JsonDocument.Parse(line, new JsonDocumentOptions { MaxDepth = MaxDepth });
            return document.RootElement.ValueKind == JsonValueKind.Object
                ? read(new Fields(document.RootElement)) : throw new FormatException("it is no JSON object");
        }
        catch (JsonException exception)
        {
            throw new FormatException($"it is no JSON: {exception.Message}");
        }
        catch (InvalidOperationException exception)
        {
            throw new FormatException(exception.Message); // a value of another kind, or text that is no Unicode
        }
    }

    /// <summary>The fields of a line. One that no event has, or that is there twice, could say something else to another reader.</summary>
    private readonly struct Fields
    {
        private static readonly string[] s_names =
        [
            "position", "id", "tenantId", "streamId", "streamType", "version", "type", "dotnetType", "data", "binaryData", "recordedAt", "actor",
            "correlationId", "causationId", "headers", "archived",
        ];

        private readonly JsonElement[] _values = new JsonElement[s_names.Length];

        public Fields(JsonElement line)
        {
            var next = 0; // they come in order
            foreach (var property in line.EnumerateObject())
            {
                var field = next;
                while (field < s_names.Length && !property.NameEquals(s_names[field]))
                {
                    field++;
                }

                if (field == s_names.Length)
                {
                    field = Array.FindIndex(s_names, property.NameEquals);
                    if (field < 0)
                    {
                        throw new FormatException($"it has a field '{property.Name}', which no event has");
                    }

                    if (_values[field].ValueKind != JsonValueKind.Undefined)
                    {
                        throw new FormatException($"it has {property.Name} twice");
                    }
                }

                _values[field] = property.Value;
                next = field + 1;
            }
        }

        public long Position => Required(0).GetInt64();

        public Guid Id => Required(1).GetGuid();

        public string? TenantId => Text(2);

        public string? StreamId => Text(3);

        public string? StreamType => Text(4);

        public long Version => Required(5).GetInt64();

        public string? Type => Required(6).GetString();

        public string? DotnetType => Text(7);

        public ReadOnlySpan<byte> Data => Json(Required(8));

        public byte[]? Binary => Has(9) ? _values[9].GetBytesFromBase64() : null;

        public DateTimeOffset RecordedAt =>
            DateTimeOffset.ParseExact(Required(10).GetString() ?? "", TimeFormat, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal);

        public string? Actor => Text(11);

        public string? CorrelationId => Text(12);

        public string? CausationId => Text(13);

        public ReadOnlySpan<byte> Headers => Has(14) ? Json(_values[14]) : default;

        public bool IsArchived => Has(15) && _values[15].GetBoolean();

        private static ReadOnlySpan<byte> Json(JsonElement value)
        {
            var utf8 = JsonMarshal.GetRawUtf8Value(value);
            return Utf8.IsValid(utf8) ? utf8 : throw new FormatException("it holds text that is no Unicode");
        }

        private bool Has(int field) => _values[field].ValueKind != JsonValueKind.Undefined;

        private string? Text(int field) => Has(field) ? _values[field].GetString() : null;

        private JsonElement Required(int field) => Has(field) ? _values[field] : throw new FormatException($"it has no {s_names[field]}");
    }
}
