using System.Buffers.Binary;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// The rows of <c>mt_events</c> as PostgreSQL sends them in a binary COPY: no value is made into an object, most go into the
/// leaf as they come. One row at a time; spans are good until the next.
/// </summary>
internal sealed class StoredRow : IAsyncDisposable
{
    public const string Columns =
        "seq_id, version, id, timestamp, tenant_id, stream_id, type, user_name, data, mt_dotnet_type, correlation_id, causation_id, headers, bdata, is_archived";

    public const short ColumnCount = 15;

    private const int HeaderBytes = 19;
    private const int PieceBytes = 128 * 1024;
    private const byte JsonbVersion = 1;

    private readonly Stream _stream;
    private readonly (int Start, int Length)[] _fields = new (int, int)[ColumnCount];
    private byte[] _buffer = new byte[PieceBytes];
    private int _start = HeaderBytes;
    private int _end;
    private bool _ended;

    public StoredRow(Stream stream) => _stream = stream;

    /// <summary>Rows that are all in memory; what is read of them stays good.</summary>
    public StoredRow(byte[] rows) => (_stream, _buffer, _end) = (Stream.Null, rows, rows.Length);

    public ReadOnlySpan<byte> Position => Field(0);

    public long PositionNumber => BinaryPrimitives.ReadInt64BigEndian(Position);

    public ReadOnlySpan<byte> Version => Field(1);

    public long VersionNumber => BinaryPrimitives.ReadInt64BigEndian(Version);

    public ReadOnlySpan<byte> Id => Field(2);

    /// <summary>Microseconds since 2000, as PostgreSQL counts.</summary>
    public ReadOnlySpan<byte> RecordedAt => Field(3);

    public bool HasTenantId => Has(4);

    public ReadOnlySpan<byte> TenantId => Field(4);

    public bool HasStreamId => Has(5);

    public ReadOnlySpan<byte> StreamId => Field(5);

    public ReadOnlySpan<byte> Type => Field(6);

    public bool HasActor => Has(7);

    public ReadOnlySpan<byte> Actor => Field(7);

    public ReadOnlySpan<byte> Data => Json(8);

    /// <summary>The same, of rows that are all in memory.</summary>
    public ReadOnlyMemory<byte> DataMemory => Data.Length == 0 ? default : _buffer.AsMemory(_fields[8].Start + 1, _fields[8].Length - 1);

    public bool HasDotnetType => Has(9);

    public ReadOnlySpan<byte> DotnetType => Field(9);

    public bool HasCorrelationId => Has(10);

    public ReadOnlySpan<byte> CorrelationId => Field(10);

    public bool HasCausationId => Has(11);

    public ReadOnlySpan<byte> CausationId => Field(11);

    public bool HasHeaders => Has(12);

    public ReadOnlySpan<byte> Headers => Json(12);

    public bool HasBinary => Has(13);

    public ReadOnlySpan<byte> Binary => Field(13);

    public bool IsArchived => Has(14) && Field(14)[0] != 0;

    /// <summary>The events after a position, in its order, at most <paramref name="limit"/>.</summary>
    public static async Task<StoredRow> Read(NpgsqlConnection connection, long after, long limit, CancellationToken cancellation) =>
        new(await Open(connection, after, limit, cancellation));

    /// <summary>The same as bytes. COPY takes no parameters; both are numbers.</summary>
    public static async Task<Stream> Open(NpgsqlConnection connection, long after, long limit, CancellationToken cancellation) =>
        await connection.BeginRawBinaryCopyAsync(
            $"copy (select {Columns} from mt_events where seq_id > {after} order by seq_id limit {limit}) to stdout (format binary)", cancellation);

    /// <summary>The bytes of those events after a position, up to another, that have one of these names, which are the program's own.</summary>
    /// <remarks>Without the inner select PostgreSQL expects few rows, and sorts them: up to a third more time for a view that folds them all.</remarks>
    public static async Task<Stream> Open(NpgsqlConnection connection, long after, long to, IEnumerable<string> types, CancellationToken cancellation) =>
        await connection.BeginRawBinaryCopyAsync(
            $"""
             copy (
               select {Columns} from (select * from mt_events where seq_id > {after} order by seq_id limit {to - after}) e
               where seq_id <= {to} and type in ({string.Join(", ", types.Select(t => $"'{t}'"))}) order by seq_id)
             to stdout (format binary)
             """, cancellation);

    /// <summary>What comes after the last row.</summary>
    public static ReadOnlySpan<byte> Trailer => [0xFF, 0xFF];

    /// <summary>Where the last of the rows ends that are within so many bytes, or else the first one; 0 while not even that is whole.</summary>
    public static int EndWithin(ReadOnlySpan<byte> rows, int maxBytes)
    {
        var (end, at) = (0, HeaderBytes);
        while (rows.Length - at >= sizeof(short) && !rows[at..].StartsWith(Trailer))
        {
            at += sizeof(short);
            for (var i = 0; i < ColumnCount; i++)
            {
                if (rows.Length - at < sizeof(int))
                {
                    return end;
                }

                at += sizeof(int) + Math.Max(0, BinaryPrimitives.ReadInt32BigEndian(rows[at..]));
            }

            if (at > rows.Length || (at > maxBytes && end > 0))
            {
                return end;
            }

            end = at;
        }

        return end;
    }

    /// <summary>Goes to the next row; false when there is none.</summary>
    public async ValueTask<bool> Next(CancellationToken cancellation)
    {
        if (_ended)
        {
            return false;
        }

        int missing;
        while ((missing = Parse()) > 0)
        {
            await Fill(missing, cancellation);
        }

        return !_ended;
    }

    /// <summary>The same, of rows that are all in memory.</summary>
    public bool TryNext()
    {
        if (!_ended && Parse() > 0)
        {
            throw new EndOfStreamException("A row ends too early.");
        }

        return !_ended;
    }

    public ValueTask DisposeAsync() => _stream.DisposeAsync();

    /// <summary>Finds the fields of the row that begins at <see cref="_start"/>; returns how many bytes are missing at least.</summary>
    private int Parse()
    {
        var at = _start;
        if (_end - at < sizeof(short))
        {
            return sizeof(short) - (_end - at);
        }

        var count = BinaryPrimitives.ReadInt16BigEndian(_buffer.AsSpan(at));
        at += sizeof(short);
        if (count < 0)
        {
            _ended = true;
            return 0;
        }

        if (count != ColumnCount)
        {
            throw new InvalidDataException($"A row has {count} columns.");
        }

        for (var i = 0; i < count; i++)
        {
            if (_end - at < sizeof(int))
            {
                return sizeof(int) - (_end - at);
            }

            var length = BinaryPrimitives.ReadInt32BigEndian(_buffer.AsSpan(at));
            at += sizeof(int);
            _fields[i] = (at, length);
            at += Math.Max(0, length);
            if (at > _end)
            {
                return at - _end;
            }
        }

        _start = at;
        return 0;
    }

    private async ValueTask Fill(int missing, CancellationToken cancellation)
    {
        if (_start > 0 && _start <= _end)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            _end -= _start;
            _start = 0;
        }

        if (_buffer.Length - _end < missing)
        {
            Array.Resize(ref _buffer, Math.Max(2 * _buffer.Length, _end + missing));
        }

        var read = await _stream.ReadAtLeastAsync(_buffer.AsMemory(_end), missing, throwOnEndOfStream: true, cancellation);
        _end += read;
    }

    private bool Has(int column) => _fields[column].Length >= 0;

    private ReadOnlySpan<byte> Field(int column) => _buffer.AsSpan(_fields[column].Start, Math.Max(0, _fields[column].Length));

    private ReadOnlySpan<byte> Json(int column)
    {
        var value = Field(column);
        return value[0] == JsonbVersion ? value[1..] : throw new InvalidDataException($"jsonb comes in version {value[0]}.");
    }
}
