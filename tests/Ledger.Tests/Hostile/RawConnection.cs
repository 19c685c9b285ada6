using System.Globalization;
using System.Net.Sockets;
using System.Text;

namespace Ledger.Tests.Hostile;

/// <summary>A request as it goes over the wire; nothing is mended.</summary>
public sealed record RawRequest(string Method, string Target)
{
    public IReadOnlyList<(string Name, string Value)> Headers { get; init; } = [];

    public byte[]? Body { get; init; }

    /// <summary>What a failure is told by.</summary>
    public override string ToString() =>
        $"{Method} {Short(Target)} {string.Join(", ", Headers.Select(h => $"{h.Name}: {Short(h.Value)}"))} {(Body is null ? "" : Short(Encoding.Latin1.GetString(Body)))}";

    private static string Short(string text) => text.Length <= 300 ? text : $"{text[..300]}… ({text.Length})";
}

/// <summary>What came back.</summary>
public sealed record RawAnswer(int Status, IReadOnlyDictionary<string, string> Headers, byte[] Body)
{
    public string Text => Encoding.UTF8.GetString(Body);

    /// <summary>Whether the server answered by itself, before any code of ours, and closes: what came was no HTTP request.</summary>
    public bool IsBare => Body.Length == 0 && !Headers.ContainsKey("Content-Type") && Headers.GetValueOrDefault("Connection") == "close";
}

/// <summary>HTTP/1.1 by hand, with one request at a time.</summary>
public sealed class RawConnection(Uri address) : IDisposable
{
    private readonly byte[] _buffer = new byte[65_536];
    private TcpClient? _client;
    private int _start;
    private int _end;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => _client?.Dispose();

    public async Task<RawAnswer> Send(RawRequest request)
    {
        var head = new StringBuilder($"{request.Method} {request.Target} HTTP/1.1\r\n");
        foreach (var (name, value) in request.Headers)
        {
            head.Append(CultureInfo.InvariantCulture, $"{name}: {value}\r\n");
        }

        if (request.Body is { } body && !request.Headers.Any(h => h.Name is "Content-Length" or "Transfer-Encoding"))
        {
            head.Append(CultureInfo.InvariantCulture, $"Content-Length: {body.Length}\r\n");
        }

        var reused = _client is not null;
        byte[] bytes = [.. Encoding.Latin1.GetBytes(head.Append("\r\n").ToString()), .. request.Body ?? []];
        try
        {
            return await Send(bytes, request.Method == "HEAD");
        }
        catch (Exception exception) when (reused && exception is IOException or SocketException)
        {
            // The server may have closed it meanwhile.
            Close();
            return await Send(bytes, request.Method == "HEAD");
        }
    }

    private async Task<RawAnswer> Send(byte[] bytes, bool isHead)
    {
        if (_client is null)
        {
            (_client, _start, _end) = (new TcpClient { NoDelay = true }, 0, 0);
            await _client.ConnectAsync(address.Host, address.Port, Cancellation);
        }

        var writing = _client.GetStream().WriteAsync(bytes, Cancellation).AsTask();
        var answer = await Read(isHead);
        if (answer.Headers.GetValueOrDefault("Connection") == "close")
        {
            // What was too much to be read breaks off while it is being sent.
            await writing.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            Close();
        }
        else
        {
            await writing;
        }

        return answer;
    }

    private async Task<RawAnswer> Read(bool isHead)
    {
        var status = int.Parse((await Line()).Split(' ')[1], CultureInfo.InvariantCulture);
        var headers = new Dictionary<string, string>(StringComparer.OrdinalIgnoreCase);
        while (await Line() is { Length: > 0 } line)
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            headers[line[..colon]] = headers.TryGetValue(line[..colon], out var before) ? $"{before}, {line[(colon + 1)..].Trim()}" : line[(colon + 1)..].Trim();
        }

        if (isHead || status is 204 or 304)
        {
            return new(status, headers, []);
        }

        var body = new MemoryStream();
        if (headers.GetValueOrDefault("Transfer-Encoding") == "chunked")
        {
            while (int.Parse(await Line(), NumberStyles.HexNumber, CultureInfo.InvariantCulture) is > 0 and var count)
            {
                await Copy(body, count);
                Assert.Equal("", await Line());
            }

            Assert.Equal("", await Line());
        }
        else
        {
            await Copy(body, int.Parse(headers["Content-Length"], CultureInfo.InvariantCulture));
        }

        return new(status, headers, body.ToArray());
    }

    private async Task<string> Line()
    {
        var line = new StringBuilder();
        while (true)
        {
            if (_start == _end)
            {
                await Fill();
            }

            var c = (char)_buffer[_start++];
            if (c == '\n')
            {
                return line.ToString().TrimEnd('\r');
            }

            line.Append(c);
        }
    }

    private async Task Copy(MemoryStream body, int count)
    {
        while (count > 0)
        {
            if (_start == _end)
            {
                await Fill();
            }

            var taken = Math.Min(count, _end - _start);
            body.Write(_buffer, _start, taken);
            _start += taken;
            count -= taken;
        }
    }

    private async Task Fill()
    {
        _start = 0;
        _end = await _client!.GetStream().ReadAsync(_buffer, Cancellation);
        if (_end == 0)
        {
            throw new IOException("The connection was closed without an answer.");
        }
    }

    public void Close()
    {
        _client?.Dispose();
        _client = null;
    }
}
