using System.Buffers.Text;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Ledger.Benchmarks;

/// <summary>An answer; its body is valid until the next request on the connection.</summary>
internal readonly record struct HttpAnswer(int Status, long Position, bool Replayed, ReadOnlyMemory<byte> Body)
{
    public string Text => Encoding.UTF8.GetString(Body.Span);
}

/// <summary>A keep-alive connection that sends bytes made beforehand and reads one answer at a time: HTTP at little cost to the client.</summary>
internal sealed class HttpConnection : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
    private byte[] _buffer = new byte[16 * 1024];

    public static async Task<HttpConnection> Connect(int port)
    {
        var connection = new HttpConnection();
        await connection._socket.ConnectAsync(IPAddress.Loopback, port);
        return connection;
    }

    /// <summary>The bytes of a request.</summary>
    public static byte[] Request(string method, string path, string? json = null, params IEnumerable<(string Name, string Value)> headers)
    {
        var text = new StringBuilder($"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        foreach (var (name, value) in headers)
        {
            text.Append(name).Append(": ").Append(value).Append("\r\n");
        }

        if (json is not null)
        {
            text.Append("Content-Type: application/json\r\nContent-Length: ").Append(Encoding.UTF8.GetByteCount(json)).Append("\r\n");
        }

        return Encoding.UTF8.GetBytes(text.Append("\r\n").Append(json).ToString());
    }

    public async ValueTask<HttpAnswer> Send(ReadOnlyMemory<byte> request)
    {
        await _socket.SendAsync(request);
        var filled = 0;
        while (true)
        {
            if (filled == _buffer.Length)
            {
                Array.Resize(ref _buffer, _buffer.Length * 2);
            }

            var read = await _socket.ReceiveAsync(_buffer.AsMemory(filled));
            if (read == 0)
            {
                throw new IOException("The server has closed the connection.");
            }

            filled += read;
            if (TryParse(filled) is { } answer)
            {
                return answer;
            }
        }
    }

    public void Dispose() => _socket.Dispose();

    /// <summary>The answer, once it is here as a whole. A body in chunks is put together in place.</summary>
    private HttpAnswer? TryParse(int filled)
    {
        var bytes = _buffer.AsSpan(0, filled);
        var headersEnd = bytes.IndexOf("\r\n\r\n"u8);
        if (headersEnd < 0)
        {
            return null;
        }

        var status = (int)Number(bytes[9..12]);
        var (length, position, chunked, replayed) = (0, 0L, false, false);
        foreach (var range in bytes[..headersEnd].Split("\r\n"u8))
        {
            var line = bytes[range];
            if (ValueOf(line, "Content-Length"u8) is { IsEmpty: false } contentLength)
            {
                length = (int)Number(contentLength);
            }
            else if (ValueOf(line, "Ledger-Position"u8) is { IsEmpty: false } ledgerPosition)
            {
                position = Number(ledgerPosition);
            }
            else if (ValueOf(line, "Transfer-Encoding"u8) is { IsEmpty: false })
            {
                chunked = true;
            }
            else if (ValueOf(line, "Idempotency-Replayed"u8) is { IsEmpty: false })
            {
                replayed = true;
            }
        }

        var start = headersEnd + 4;
        if (!chunked)
        {
            return filled < start + length ? null : new HttpAnswer(status, position, replayed, _buffer.AsMemory(start, length));
        }

        if (!bytes[start..].EndsWith("0\r\n\r\n"u8))
        {
            return null;
        }

        var (from, to) = (start, start);
        while (Utf8Parser.TryParse(bytes[from..], out int size, out var digits, 'x') && size > 0)
        {
            from += digits + 2;
            if (from + size + 2 > filled)
            {
                return null; // what looked like the end was inside a chunk
            }

            bytes.Slice(from, size).CopyTo(bytes[to..]);
            (from, to) = (from + size + 2, to + size);
        }

        return new HttpAnswer(status, position, replayed, _buffer.AsMemory(start, to - start));
    }

    private static long Number(ReadOnlySpan<byte> digits) =>
        Utf8Parser.TryParse(digits, out long number, out _) ? number : throw new IOException("This is not HTTP.");

    private static ReadOnlySpan<byte> ValueOf(ReadOnlySpan<byte> line, ReadOnlySpan<byte> name) =>
        line.Length > name.Length + 2 && line[name.Length] == ':' && Ascii.EqualsIgnoreCase(line[..name.Length], name) ? line[(name.Length + 2)..] : default;
}
