using System.Buffers.Binary;

namespace Ledger.EventStore;

/// <summary>Bytes that grow, and are used again: what was written can be changed and taken back.</summary>
internal sealed class ByteBuffer
{
    private byte[] _bytes = new byte[4_096];

    public int Length { get; private set; }

    public Span<byte> Written => _bytes.AsSpan(0, Length);

    public void Clear() => Length = 0;

    public void Write(ReadOnlySpan<byte> bytes) => bytes.CopyTo(Room(bytes.Length));

    public void Write(byte value) => Room(1)[0] = value;

    public void WriteInt64(long value) => BinaryPrimitives.WriteInt64BigEndian(Room(sizeof(long)), value);

    public void WriteUInt32(uint value) => BinaryPrimitives.WriteUInt32BigEndian(Room(sizeof(uint)), value);

    public void WriteUInt16(ushort value) => BinaryPrimitives.WriteUInt16BigEndian(Room(sizeof(ushort)), value);

    /// <summary>The next bytes, to be written to.</summary>
    public Span<byte> Room(int bytes)
    {
        if (_bytes.Length - Length < bytes)
        {
            Array.Resize(ref _bytes, Math.Max(2 * _bytes.Length, Length + bytes));
        }

        Length += bytes;
        return _bytes.AsSpan(Length - bytes, bytes);
    }
}
