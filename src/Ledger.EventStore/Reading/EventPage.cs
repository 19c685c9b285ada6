using System.Buffers.Binary;
using System.Text;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>Events that follow one another, and their rows as the database sent them.</summary>
internal sealed class EventPage
{
    private const int TypicalRowBytes = 768;
    private static readonly long s_epochTicks = new DateTime(2000, 1, 1, 0, 0, 0, DateTimeKind.Utc).Ticks; // PostgreSQL's
    private readonly byte[] _rows;

    /// <summary>Reads the events that a binary COPY of <see cref="StoredRow.Columns"/> consists of.</summary>
    public EventPage(byte[] rows, EventTypes types)
    {
        _rows = rows;
        var events = new List<RecordedEvent>();
        var (tenants, kinds, actors, correlations, causations) = (new LastText(), new LastText(), new LastText(), new LastText(), new LastText());
        var row = Rows();
        while (row.TryNext())
        {
            var (position, name, json) = (row.PositionNumber, kinds.Of(true, row.Type)!, row.DataMemory);
            var (data, unreadable) = types.Read(name, json.Span, position);
            events.Add(new RecordedEvent
            {
                Position = position,
                Id = new Guid(row.Id, bigEndian: true),
                TenantId = tenants.Of(row.HasTenantId, row.TenantId) ?? throw Incomplete(position),
                StreamId = row.HasStreamId ? Encoding.UTF8.GetString(row.StreamId) : throw Incomplete(position),
                Version = row.VersionNumber,
                Type = name,
                RecordedAt = Instant(BinaryPrimitives.ReadInt64BigEndian(row.RecordedAt)),
                Json = json,
                Actor = actors.Of(row.HasActor, row.Actor),
                CorrelationId = correlations.Of(row.HasCorrelationId, row.CorrelationId),
                CausationId = causations.Of(row.HasCausationId, row.CausationId),
                TraceParent = row.HasHeaders ? TraceParent(row.Headers) : null,
                Data = data,
                Unreadable = unreadable,
            });
        }

        Events = events;
    }

    /// <summary>The events, oldest first.</summary>
    public IReadOnlyList<RecordedEvent> Events { get; }

    /// <summary>Bytes that it keeps in memory, at least.</summary>
    public int Bytes => _rows.Length;

    /// <summary>Its rows, from the first.</summary>
    public StoredRow Rows() => new(_rows);

    /// <summary>All bytes of a COPY of about so many rows.</summary>
    public static async Task<byte[]> ReadToEnd(Stream stream, int rows, CancellationToken cancellation)
    {
        var (bytes, length) = (GC.AllocateUninitializedArray<byte>((rows + 1) * TypicalRowBytes), 0);
        int read;
        while ((read = await stream.ReadAsync(bytes.AsMemory(length), cancellation)) > 0)
        {
            length += read;
            if (length == bytes.Length)
            {
                Array.Resize(ref bytes, 2 * length);
            }
        }

        return bytes;
    }

    private static DateTimeOffset Instant(long microseconds) =>
        microseconds == long.MaxValue ? DateTimeOffset.MaxValue // infinity, as Npgsql reads it
        : new DateTimeOffset(s_epochTicks + (microseconds * TimeSpan.TicksPerMicrosecond), TimeSpan.Zero);

    private static string? TraceParent(ReadOnlySpan<byte> headers)
    {
        if (headers.IndexOf("\"traceparent\""u8) < 0)
        {
            return null;
        }

        var reader = new Utf8JsonReader(headers);
        while (reader.Read())
        {
            if (reader.TokenType == JsonTokenType.PropertyName && reader.CurrentDepth == 1)
            {
                var found = reader.ValueTextEquals("traceparent"u8);
                reader.Read();
                if (found)
                {
                    return reader.TokenType == JsonTokenType.String ? reader.GetString() : null;
                }

                reader.Skip();
            }
        }

        return null;
    }

    private static InvalidDataException Incomplete(long position) => new($"The event at position {position} has no tenant or no stream.");

    /// <summary>A text that is mostly the same from one event to the next.</summary>
    private sealed class LastText
    {
        private byte[] _bytes = [];
        private string _text = "";

        public string? Of(bool present, ReadOnlySpan<byte> bytes)
        {
            if (!present)
            {
                return null;
            }

            if (!bytes.SequenceEqual(_bytes))
            {
                (_bytes, _text) = (bytes.ToArray(), Encoding.UTF8.GetString(bytes));
            }

            return _text;
        }
    }
}
