using System.Buffers;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;

namespace Ledger.Http;

/// <summary>A line of a streamed body, without its end. One that is too long has no text.</summary>
public readonly record struct Line(long Number, ReadOnlyMemory<byte> Text, bool TooLong);

/// <summary>
/// Splits a streamed body into lines (LF or CRLF) and hands them out in chunks. Memory stays at a chunk; nothing more is read
/// from the socket while a chunk is being worked on. Empty lines are passed over, a byte order mark is dropped.
/// </summary>
public static class LineReader
{
    /// <summary>Bytes of lines that are handed out together, but for one line more.</summary>
    public const int MaxChunkBytes = 1_048_576;

    /// <summary>Reads all lines, at most <paramref name="chunk"/> at a time.</summary>
    public static async IAsyncEnumerable<IReadOnlyList<Line>> Read(
        PipeReader body, int chunk, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var lines = new List<Line>(chunk);
        var (number, bytes) = (0L, 0L);
        var skipping = false; // within a line that is too long
        while (true)
        {
            var read = await body.ReadAsync(cancellation);
            var buffer = read.Buffer;
            while (true)
            {
                var end = buffer.PositionOf((byte)'\n');
                var isLast = end is null && read.IsCompleted;
                if (end is null && !isLast)
                {
                    if (buffer.Length > Limits.MaxLineBytes)
                    {
                        skipping = true;
                        buffer = buffer.Slice(buffer.End);
                    }

                    break;
                }

                if (isLast && buffer.IsEmpty && !skipping)
                {
                    break;
                }

                var text = end is { } at ? buffer.Slice(0, at) : buffer;
                number++;
                if (skipping || text.Length > Limits.MaxLineBytes)
                {
                    lines.Add(new Line(number, default, TooLong: true));
                    skipping = false;
                }
                else if (Trim(text.ToArray(), number == 1) is { IsEmpty: false } line)
                {
                    lines.Add(new Line(number, line, TooLong: false));
                    bytes += line.Length;
                }

                buffer = end is { } position ? buffer.Slice(buffer.GetPosition(1, position)) : buffer.Slice(buffer.End);
                if (lines.Count == chunk || bytes >= MaxChunkBytes)
                {
                    bytes = 0;
                    body.AdvanceTo(buffer.Start, buffer.Start);
                    yield return lines;
                    lines = new List<Line>(chunk);
                    read = await body.ReadAsync(cancellation);
                    buffer = read.Buffer;
                }

                if (isLast)
                {
                    break;
                }
            }

            body.AdvanceTo(buffer.Start, buffer.End);
            if (read.IsCompleted && buffer.IsEmpty)
            {
                break;
            }
        }

        if (lines.Count > 0)
        {
            yield return lines;
        }
    }

    private static ReadOnlyMemory<byte> Trim(byte[] line, bool isFirst)
    {
        ReadOnlyMemory<byte> text = line;
        if (isFirst && text.Span.StartsWith("\uFEFF"u8))
        {
            text = text[3..];
        }

        return text.Span.EndsWith("\r"u8) ? text[..^1] : text;
    }
}
