using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>The rows of events that follow one another, as a binary COPY sent them: at least one, from the first position to the last.</summary>
internal sealed record PageRows(byte[] Bytes, long First, long Last);

/// <summary>Events that follow one another, and their rows as the database sent them.</summary>
internal sealed class EventPage
{
    private const int TypicalRowBytes = 768;
    private static readonly ArrayPool<byte> s_gathering = ArrayPool<byte>.Create(EventReader.MaxPageBytes, maxArraysPerBucket: 1); // the shared one keeps one a thread
    private static readonly long s_epochTicks = new DateTime(2000, 1, 1, 0, 0, 0, DateTimeKind.Utc).Ticks; // PostgreSQL's

    /// <summary>Events that were not copied.</summary>
    public EventPage(IReadOnlyList<RecordedEvent> events, bool isCut) => (Events, IsCut) = (events, isCut);

    /// <summary>Reads the events that a binary COPY of <see cref="StoredRow.Columns"/> consists of.</summary>
    private EventPage(byte[] rows, bool isCut, EventTypes types)
    {
        var events = new List<RecordedEvent>();
        var (tenants, kinds, actors, correlations, causations) = (new LastText(), new LastText(), new LastText(), new LastText(), new LastText());
        var row = new StoredRow(rows);
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

        (Events, IsCut) = (events, isCut);
        Rows = events.Count == 0 ? null : new PageRows(rows, events[0].Position, events[^1].Position);
    }

    /// <summary>The events, oldest first.</summary>
    public IReadOnlyList<RecordedEvent> Events { get; }

    /// <summary>Whether it ends before what was asked for, as that would have been too many bytes. Then it has an event at least.</summary>
    public bool IsCut { get; }

    /// <summary>Its rows, without what was made of them; null when it is empty or was not copied.</summary>
    public PageRows? Rows { get; }

    /// <summary>A COPY of about so many rows, as far as they are within so many bytes, and at least the first. The rest is read past.</summary>
    /// <remarks>They are gathered in a borrowed array: one of its own, with room to spare, is a large object that makes the collector run.</remarks>
    public static async Task<EventPage> Read(Stream copy, int rows, int maxBytes, EventTypes types, CancellationToken cancellation)
    {
        var (bytes, length, end) = (s_gathering.Rent((rows + 1) * TypicalRowBytes), 0, 0);
        try
        {
            int read;
            while (end == 0 && (read = await copy.ReadAsync(bytes.AsMemory(length), cancellation)) > 0)
            {
                length += read;
                if (length >= maxBytes)
                {
                    end = StoredRow.EndWithin(bytes.AsSpan(0, length), maxBytes);
                }

                if (end == 0 && length == bytes.Length)
                {
                    var larger = s_gathering.Rent(2 * length);
                    bytes.CopyTo(larger, 0);
                    s_gathering.Return(bytes);
                    bytes = larger;
                }
            }

            end = end == 0 ? length - StoredRow.Trailer.Length : end;
            var within = GC.AllocateUninitializedArray<byte>(end + StoredRow.Trailer.Length);
            bytes.AsSpan(0, end).CopyTo(within);
            StoredRow.Trailer.CopyTo(within.AsSpan(end));
            var rest = (long)length - end;
            while ((read = await copy.ReadAsync(bytes, cancellation)) > 0)
            {
                rest += read;
            }

            return new EventPage(within, isCut: rest > StoredRow.Trailer.Length, types);
        }
        finally
        {
            s_gathering.Return(bytes);
        }
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
