using System.Buffers;
using System.Buffers.Binary;
using System.IO.Compression;
using System.IO.Pipelines;
using System.Text.Unicode;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Ledger.Http;

namespace Ledger.Grpc;

/// <summary>A message that can't be read; the call ends with the status.</summary>
public sealed class UnreadableMessageException(GrpcCode code, string message) : Exception(message)
{
    /// <summary>The status.</summary>
    public GrpcStatus Status { get; } = new(code, message);
}

/// <summary>
/// Messages as they stand in a body: a byte that says whether it is compressed, four bytes of length, the message. What is wrong
/// with one is answered by the codes of https://github.com/grpc/grpc/blob/master/doc/statuscodes.md.
/// </summary>
public static class GrpcMessages
{
    /// <summary>Items of a list, and entries of a map, in a message.</summary>
    public const int MaxItems = 10_000;

    private const int PrefixBytes = 5;

    /// <summary>The one message of a body, unpacked.</summary>
    /// <exception cref="UnreadableMessageException">There is none, or not one only, or it is too large or broken.</exception>
    public static async Task<byte[]> ReadOne(PipeReader body, string? encoding, int maxBytes, CancellationToken cancellation)
    {
        try
        {
            var (bytes, isCompressed) = await Take(body, maxBytes, cancellation);
            return isCompressed ? Unpack(bytes, encoding, maxBytes) : bytes;
        }
        catch (IOException)
        {
            // A stream that the client reset, which may show here before the request counts as aborted.
            throw new UnreadableMessageException(GrpcCode.Cancelled, "The request broke off.");
        }
    }

    private static async Task<(byte[] Bytes, bool IsCompressed)> Take(PipeReader body, int maxBytes, CancellationToken cancellation)
    {
        while (true)
        {
            var read = await body.ReadAsync(cancellation);
            if (TryRead(read.Buffer, read.IsCompleted, maxBytes, out var isCompressed, out var message))
            {
                var bytes = message.ToArray();
                body.AdvanceTo(read.Buffer.End);
                return (bytes, isCompressed);
            }

            body.AdvanceTo(read.Buffer.Start, read.Buffer.End);
        }
    }

    /// <summary>Reads a message, after a look at what the generated code lets pass: text that is none, and lists without end.</summary>
    /// <exception cref="UnreadableMessageException">It is no such message.</exception>
    /// <exception cref="RefusedRequestException">It holds what is not text, or too many items.</exception>
    public static TMessage Parse<TMessage>(MessageDescriptor type, byte[] bytes) where TMessage : IMessage<TMessage>, new()
    {
        try
        {
            Check(type, new CodedInputStream(bytes), "");
            var message = new TMessage();
            message.MergeFrom(bytes);
            return message;
        }
        catch (InvalidProtocolBufferException exception)
        {
            throw new UnreadableMessageException(GrpcCode.Internal, $"The message is not a {type.FullName}: {exception.Message}");
        }
    }

    /// <summary>Writes a message, not compressed.</summary>
    public static void Write(IBufferWriter<byte> body, IMessage message)
    {
        var prefix = body.GetSpan(PrefixBytes);
        prefix[0] = 0;
        BinaryPrimitives.WriteInt32BigEndian(prefix[1..], message.CalculateSize());
        body.Advance(PrefixBytes);
        message.WriteTo(body);
    }

    /// <summary>False while there is more to come.</summary>
    private static bool TryRead(ReadOnlySequence<byte> body, bool isWhole, int maxBytes, out bool isCompressed, out ReadOnlySequence<byte> message)
    {
        (isCompressed, message) = (false, default);
        if (body.IsEmpty && isWhole)
        {
            throw new UnreadableMessageException(GrpcCode.Unimplemented, "There is no message: the method takes one.");
        }

        if (body.Length < PrefixBytes)
        {
            return isWhole ? throw BreaksOff() : false;
        }

        Span<byte> prefix = stackalloc byte[PrefixBytes];
        body.Slice(0, PrefixBytes).CopyTo(prefix);
        if (prefix[0] > 1)
        {
            throw new UnreadableMessageException(GrpcCode.Internal, $"The message begins with the flag {prefix[0]}; it must be 0 or 1.");
        }

        var length = BinaryPrimitives.ReadUInt32BigEndian(prefix[1..]);
        if (length > maxBytes)
        {
            throw TooLarge(maxBytes);
        }

        if (body.Length > PrefixBytes + length)
        {
            throw new UnreadableMessageException(GrpcCode.Unimplemented, "There is more than one message: the method takes one.");
        }

        if (!isWhole)
        {
            return false;
        }

        isCompressed = prefix[0] == 1;
        message = body.Slice(PrefixBytes);
        return message.Length == length ? true : throw BreaksOff();
    }

    private static byte[] Unpack(byte[] packed, string? encoding, int maxBytes)
    {
        if (encoding != "gzip")
        {
            throw new UnreadableMessageException(GrpcCode.Internal, "The message is compressed, but grpc-encoding does not say how.");
        }

        try
        {
            using var gzip = new GZipStream(new MemoryStream(packed), CompressionMode.Decompress);
            var unpacked = new MemoryStream();
            var buffer = new byte[81_920];
            while (gzip.Read(buffer) is > 0 and var count)
            {
                if (unpacked.Length + count > maxBytes)
                {
                    throw TooLarge(maxBytes);
                }

                unpacked.Write(buffer, 0, count);
            }

            // The stream takes what breaks off for what ends; the last four bytes say how long it must be.
            return packed.Length >= sizeof(int) && BinaryPrimitives.ReadInt32LittleEndian(packed.AsSpan(^sizeof(int)..)) == unpacked.Length
                ? unpacked.ToArray()
                : throw NotGzip();
        }
        catch (InvalidDataException)
        {
            throw NotGzip();
        }
    }

    private static UnreadableMessageException NotGzip() => new(GrpcCode.Internal, "The message is not gzip, as grpc-encoding says.");

    private static UnreadableMessageException BreaksOff() => new(GrpcCode.Internal, "The message breaks off.");

    private static UnreadableMessageException TooLarge(int maxBytes) =>
        new(GrpcCode.ResourceExhausted, $"The message is larger than {maxBytes} bytes.");

    private static void Check(MessageDescriptor type, CodedInputStream message, string path)
    {
        Dictionary<int, int>? counts = null;
        while (message.ReadTag() is > 0 and var tag)
        {
            var field = type.FindFieldByNumber(WireFormat.GetTagFieldNumber(tag));
            if (field?.FieldType is not (FieldType.String or FieldType.Message) || WireFormat.GetTagWireType(tag) != WireFormat.WireType.LengthDelimited)
            {
                message.SkipLastField();
                continue;
            }

            var (name, value) = ($"{path}{field.Name}", message.ReadBytes());
            if (field.IsRepeated)
            {
                counts ??= [];
                var index = counts.GetValueOrDefault(field.FieldNumber);
                if (index == MaxItems)
                {
                    throw new RefusedRequestException(Validation.Field(name, $"must hold at most {MaxItems}"));
                }

                counts[field.FieldNumber] = index + 1;
                name = field.IsMap ? name : $"{name}[{index}]";
            }

            if (field.FieldType == FieldType.Message)
            {
                Check(field.MessageType, value.CreateCodedInput(), field.IsMap ? $"{name}:" : $"{name}.");
            }
            else if (!Utf8.IsValid(value.Span) || value.Span.Contains((byte)0))
            {
                // Of an entry of a map, the map is what can be named.
                var map = path.EndsWith(':');
                throw new RefusedRequestException(Validation.Field(map ? path[..^1] : name, StorableStringConverter.Rule));
            }
        }
    }
}
