using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Rows in the format of a binary COPY (https://www.postgresql.org/docs/current/sql-copy.html#id-1.9.3.55.9.4): a header, each
/// row as its number of columns and each value after its length, a trailer. Npgsql's importer awaits once a value, which took
/// half of the time that a batch is in the database; here a batch is sent in pieces. One array for all of it would be a large
/// object, of which the pool keeps several of each size.
/// </summary>
public sealed class CopyRows : IDisposable
{
    /// <summary>Rows from which on a COPY's own round trips cost less than it saves: it takes half of an insert's time a row.</summary>
    public const int MinRows = 200;

    private const int PieceBytes = 64 * 1024;
    private const int NullLength = -1;
    private const int MaxGroups = 9; // of the 29 digits of a decimal, wherever the point is
    private const byte JsonbVersion = 1;
    private static readonly long s_epochTicks = new DateTime(2000, 1, 1, 0, 0, 0, DateTimeKind.Utc).Ticks; // PostgreSQL's

    private readonly List<ArraySegment<byte>> _full = [];
    private byte[] _piece = ArrayPool<byte>.Shared.Rent(PieceBytes);
    private int _used; // of the piece
    private int _before; // bytes in the full ones

    /// <summary>No rows yet; without a header it is for values that become a part of other rows.</summary>
    public CopyRows(bool header = true)
    {
        if (header)
        {
            Write([(byte)'P', (byte)'G', (byte)'C', (byte)'O', (byte)'P', (byte)'Y', (byte)'\n', 0xFF, (byte)'\r', (byte)'\n', 0]);
            Write([0, 0, 0, 0, 0, 0, 0, 0]); // no flags, no extension
        }
    }

    /// <summary>Bytes written so far.</summary>
    public int Length => _before + _used;

    /// <summary>Begins a row of so many values, which follow in the order of the command's columns.</summary>
    public void BeginRow(short columns) => Smallint(columns);

    /// <summary>A bigint.</summary>
    public void Bigint(long value)
    {
        var room = Room(sizeof(int) + sizeof(long));
        BinaryPrimitives.WriteInt32BigEndian(room, sizeof(long));
        BinaryPrimitives.WriteInt64BigEndian(room[sizeof(int)..], value);
        _used += sizeof(int) + sizeof(long);
    }

    /// <summary>An int.</summary>
    public void Number(int value)
    {
        LengthOf(sizeof(int));
        LengthOf(value);
    }

    /// <summary>An int that may be null.</summary>
    public void Number(int? value)
    {
        if (value is { } number)
        {
            Number(number);
        }
        else
        {
            LengthOf(NullLength);
        }
    }

    /// <summary>A bigint that may be null.</summary>
    public void Bigint(long? value)
    {
        if (value is { } number)
        {
            Bigint(number);
        }
        else
        {
            LengthOf(NullLength);
        }
    }

    /// <summary>A numeric that may be null, with as many decimals as the value has.</summary>
    public void Numeric(decimal? value)
    {
        if (value is { } number)
        {
            Numeric(number);
        }
        else
        {
            LengthOf(NullLength);
        }
    }

    /// <summary>
    /// A numeric, with as many decimals as the value has: its digits to the base of 10 000, the point between two of them
    /// (<c>numeric_recv</c> of https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/numeric.c).
    /// </summary>
    public void Numeric(decimal value)
    {
        const int DigitsOfGroup = 4;
        const int Base = 10_000;
        ReadOnlySpan<int> powers = [1, 10, 100, 1_000];
        Span<int> parts = stackalloc int[4];
        decimal.GetBits(value, parts);
        var decimals = value.Scale;
        var groupsAfterPoint = (decimals + DigitsOfGroup - 1) / DigitsOfGroup;
        var rest = new UInt128((uint)parts[2], ((ulong)(uint)parts[1] << 32) | (uint)parts[0]) * (uint)powers[(groupsAfterPoint * DigitsOfGroup) - decimals];
        Span<short> groups = stackalloc short[MaxGroups]; // the lowest first
        var count = 0;
        for (; rest > ulong.MaxValue; rest /= Base)
        {
            groups[count++] = (short)(rest % Base);
        }

        for (var small = (ulong)rest; small > 0; small /= Base)
        {
            groups[count++] = (short)(small % Base);
        }

        var weight = count - groupsAfterPoint - 1; // of the highest group, as a power of the base
        var lowest = 0;
        while (lowest < count && groups[lowest] == 0)
        {
            lowest++;
        }

        LengthOf((4 + count - lowest) * sizeof(short));
        Smallint((short)(count - lowest));
        Smallint((short)(count == 0 ? 0 : weight));
        Smallint((short)(value < 0 ? 0x4000 : 0));
        Smallint(decimals);
        for (var i = count - 1; i >= lowest; i--)
        {
            Smallint(groups[i]);
        }
    }

    /// <summary>A numeric[] of one dimension.</summary>
    public void Numerics(ReadOnlySpan<decimal> values)
    {
        const int OidOfNumeric = 1700;
        const int MaxHeaderBytes = 6 * sizeof(int);
        const int MaxNumericBytes = sizeof(int) + ((4 + MaxGroups) * sizeof(short));
        Room(MaxHeaderBytes + (values.Length * MaxNumericBytes)); // all in one piece, as its length is known at the end only
        var start = _used;
        LengthOf(0);
        LengthOf(values.IsEmpty ? 0 : 1); // dimensions
        LengthOf(0); // no nulls
        LengthOf(OidOfNumeric);
        if (!values.IsEmpty)
        {
            LengthOf(values.Length);
            LengthOf(1); // the first index
        }

        foreach (var value in values)
        {
            Numeric(value);
        }

        BinaryPrimitives.WriteInt32BigEndian(_piece.AsSpan(start), _used - start - sizeof(int));
    }

    /// <summary>A timestamptz, to the microsecond.</summary>
    public void Instant(DateTimeOffset value) => Bigint((value.UtcTicks - s_epochTicks) / TimeSpan.TicksPerMicrosecond);

    /// <summary>A timestamptz that may be null.</summary>
    public void Instant(DateTimeOffset? value)
    {
        if (value is { } instant)
        {
            Instant(instant);
        }
        else
        {
            LengthOf(NullLength);
        }
    }

    /// <summary>A uuid.</summary>
    public void Uuid(Guid value)
    {
        var room = Room(sizeof(int) + 16);
        BinaryPrimitives.WriteInt32BigEndian(room, 16);
        value.TryWriteBytes(room[sizeof(int)..], bigEndian: true, out _);
        _used += sizeof(int) + 16;
    }

    /// <summary>A text or varchar.</summary>
    public void Text(string? value)
    {
        if (value is null)
        {
            LengthOf(NullLength);
            return;
        }

        var room = Room(sizeof(int) + Encoding.UTF8.GetMaxByteCount(value.Length));
        var bytes = Encoding.UTF8.GetBytes(value, room[sizeof(int)..]);
        BinaryPrimitives.WriteInt32BigEndian(room, bytes);
        _used += sizeof(int) + bytes;
    }

    /// <summary>A jsonb.</summary>
    public void Jsonb(ReadOnlySpan<byte> utf8)
    {
        LengthOf(utf8.Length + 1);
        Room(1)[0] = JsonbVersion;
        _used++;
        Write(utf8);
    }

    /// <summary>A jsonb that is null when there is no text.</summary>
    public void JsonbOrNull(ReadOnlySpan<byte> utf8)
    {
        if (utf8.IsEmpty)
        {
            LengthOf(NullLength);
        }
        else
        {
            Jsonb(utf8);
        }
    }

    /// <summary>A jsonb that may be null.</summary>
    public void Jsonb(string? value)
    {
        if (value is null)
        {
            LengthOf(NullLength);
        }
        else
        {
            Jsonb(Encoding.UTF8.GetBytes(value));
        }
    }

    /// <summary>A bytea that may be null.</summary>
    public void Bytes(byte[]? value)
    {
        LengthOf(value?.Length ?? NullLength);
        Write(value);
    }

    /// <summary>A boolean.</summary>
    public void Boolean(bool value)
    {
        LengthOf(1);
        Room(1)[0] = value ? (byte)1 : (byte)0;
        _used++;
    }

    /// <summary>Values of a row that were encoded before, without a header.</summary>
    public void Encoded(ReadOnlySpan<byte> values) => Write(values);

    /// <summary>What was written so far.</summary>
    public byte[] ToArray()
    {
        var all = new byte[Length];
        var copied = 0;
        foreach (var piece in _full)
        {
            piece.AsSpan().CopyTo(all.AsSpan(copied));
            copied += piece.Count;
        }

        _piece.AsSpan(0, _used).CopyTo(all.AsSpan(copied));
        return all;
    }

    /// <summary>Sends what was written as one COPY.</summary>
    public async Task CopyTo(NpgsqlConnection connection, string command, CancellationToken cancellation)
    {
        Write([0xFF, 0xFF]); // the trailer
        await using var copy = await connection.BeginRawBinaryCopyAsync(command, cancellation);
        foreach (var piece in _full)
        {
            await copy.WriteAsync(piece, cancellation);
        }

        await copy.WriteAsync(_piece.AsMemory(0, _used), cancellation);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var piece in _full)
        {
            ArrayPool<byte>.Shared.Return(piece.Array!);
        }

        _full.Clear();
        if (_piece.Length > 0)
        {
            ArrayPool<byte>.Shared.Return(_piece);
            _piece = [];
        }
    }

    private void Smallint(short value)
    {
        BinaryPrimitives.WriteInt16BigEndian(Room(sizeof(short)), value);
        _used += sizeof(short);
    }

    private void LengthOf(int value)
    {
        BinaryPrimitives.WriteInt32BigEndian(Room(sizeof(int)), value);
        _used += sizeof(int);
    }

    private void Write(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            var some = Math.Min(bytes.Length, Room(1).Length);
            bytes[..some].CopyTo(_piece.AsSpan(_used));
            _used += some;
            bytes = bytes[some..];
        }
    }

    /// <summary>What is left of the piece, or another one: at least so many bytes.</summary>
    private Span<byte> Room(int bytes)
    {
        if (_piece.Length - _used < bytes)
        {
            _full.Add(new ArraySegment<byte>(_piece, 0, _used));
            _before += _used;
            _piece = ArrayPool<byte>.Shared.Rent(Math.Max(PieceBytes, bytes));
            _used = 0;
        }

        return _piece.AsSpan(_used);
    }
}
