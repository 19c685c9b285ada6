using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Rows in the format of a binary COPY (https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4): a header, each
/// row as its number of columns and each value after its length, a trailer. Npgsql's importer awaits once a value, which took
/// half of the time that a batch is in the database; here a batch is sent in large pieces.
/// </summary>
internal sealed class CopyRows : IDisposable
{
    private const int PieceBytes = 64 * 1024;
    private const int NullLength = -1;
    private const byte JsonbVersion = 1;
    private static readonly long s_epochTicks = new DateTime(2000, 1, 1, 0, 0, 0, DateTimeKind.Utc).Ticks; // PostgreSQL's

    private byte[] _buffer = ArrayPool<byte>.Shared.Rent(PieceBytes);
    private int _length;

    public CopyRows(bool header = true)
    {
        if (header)
        {
            Write([(byte)'P', (byte)'G', (byte)'C', (byte)'O', (byte)'P', (byte)'Y', (byte)'\n', 0xFF, (byte)'\r', (byte)'\n', 0]);
            Write([0, 0, 0, 0, 0, 0, 0, 0]); // no flags, no extension
        }
    }

    public void BeginRow(short columns)
    {
        BinaryPrimitives.WriteInt16BigEndian(Room(sizeof(short)), columns);
        _length += sizeof(short);
    }

    public void Long(long value)
    {
        var room = Room(sizeof(int) + sizeof(long));
        BinaryPrimitives.WriteInt32BigEndian(room, sizeof(long));
        BinaryPrimitives.WriteInt64BigEndian(room[sizeof(int)..], value);
        _length += sizeof(int) + sizeof(long);
    }

    public void Instant(DateTimeOffset value) => Long((value.UtcTicks - s_epochTicks) / TimeSpan.TicksPerMicrosecond);

    public void Uuid(Guid value)
    {
        var room = Room(sizeof(int) + 16);
        BinaryPrimitives.WriteInt32BigEndian(room, 16);
        value.TryWriteBytes(room[sizeof(int)..], bigEndian: true, out _);
        _length += sizeof(int) + 16;
    }

    public void Text(string? value)
    {
        if (value is null)
        {
            Length(NullLength);
            return;
        }

        var room = Room(sizeof(int) + Encoding.UTF8.GetMaxByteCount(value.Length));
        var bytes = Encoding.UTF8.GetBytes(value, room[sizeof(int)..]);
        BinaryPrimitives.WriteInt32BigEndian(room, bytes);
        _length += sizeof(int) + bytes;
    }

    public void Jsonb(ReadOnlySpan<byte> utf8)
    {
        Length(utf8.Length + 1);
        Room(1)[0] = JsonbVersion;
        _length++;
        Write(utf8);
    }

    public void Jsonb(string? value)
    {
        if (value is null)
        {
            Length(NullLength);
        }
        else
        {
            Jsonb(Encoding.UTF8.GetBytes(value));
        }
    }

    /// <summary>Values of a row that were encoded before, without a header.</summary>
    public void Encoded(ReadOnlySpan<byte> values) => Write(values);

    public byte[] ToArray() => _buffer.AsSpan(0, _length).ToArray();

    /// <summary>Sends what was written as one COPY.</summary>
    public async Task CopyTo(NpgsqlConnection connection, string command, CancellationToken cancellation)
    {
        Write([0xFF, 0xFF]); // the trailer
        await using var copy = await connection.BeginRawBinaryCopyAsync(command, cancellation);
        await copy.WriteAsync(_buffer.AsMemory(0, _length), cancellation);
    }

    public void Dispose()
    {
        ArrayPool<byte>.Shared.Return(_buffer);
        _buffer = [];
    }

    private void Length(int value)
    {
        BinaryPrimitives.WriteInt32BigEndian(Room(sizeof(int)), value);
        _length += sizeof(int);
    }

    private void Write(ReadOnlySpan<byte> bytes)
    {
        bytes.CopyTo(Room(bytes.Length));
        _length += bytes.Length;
    }

    private Span<byte> Room(int bytes)
    {
        if (_buffer.Length - _length < bytes)
        {
            var larger = ArrayPool<byte>.Shared.Rent(Math.Max(2 * _buffer.Length, _length + bytes));
            _buffer.AsSpan(0, _length).CopyTo(larger);
            ArrayPool<byte>.Shared.Return(_buffer);
            _buffer = larger;
        }

        return _buffer.AsSpan(_length);
    }
}
