using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Ledger.Tests.Campaigns;

/// <summary>A gateway on a bare socket, which answers each request with whatever bytes it is told to, or does worse.</summary>
internal sealed class RawGateway : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly Func<Socket, string, Task> _answer;
    private readonly Task _accepting;
    private int _connections;

    /// <param name="answer">Is given the connection and the request; the connection is closed if it throws.</param>
    public RawGateway(Func<Socket, string, Task> answer)
    {
        _answer = answer;
        _listener.Start();
        _accepting = Accept();
    }

    public Uri Address => new($"http://127.0.0.1:{((IPEndPoint)_listener.LocalEndpoint).Port}");

    /// <summary>What came, in order.</summary>
    public ConcurrentQueue<string> Requests { get; } = [];

    public int Connections => Volatile.Read(ref _connections);

    public CancellationToken Stopping => _stop.Token;

    /// <summary>One that answers with these bytes.</summary>
    public static RawGateway Answering(string bytes) => new((socket, _) => socket.SendAsync(Encoding.Latin1.GetBytes(bytes)));

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        await _accepting;
        _stop.Dispose();
    }

    private async Task Accept()
    {
        try
        {
            while (true)
            {
                var socket = await _listener.AcceptSocketAsync(_stop.Token);
                Interlocked.Increment(ref _connections);
                _ = Serve(socket);
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // it has ended
        }
    }

    private async Task Serve(Socket socket)
    {
        using (socket)
        {
            try
            {
                while (await Read(socket) is { } request)
                {
                    Requests.Enqueue(request);
                    await _answer(socket, request);
                }
            }
            catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
            {
                // that connection has ended
            }
        }
    }

    private async Task<string?> Read(Socket socket)
    {
        var read = new StringBuilder();
        var buffer = new byte[16_384];
        while (true)
        {
            var text = read.ToString();
            if (text.IndexOf("\r\n\r\n", StringComparison.Ordinal) is > 0 and var end)
            {
                var length = text.Split("\r\n").First(l => l.StartsWith("Content-Length: ", StringComparison.Ordinal))["Content-Length: ".Length..];
                if (text.Length >= end + 4 + int.Parse(length, CultureInfo.InvariantCulture))
                {
                    return text;
                }
            }

            var count = await socket.ReceiveAsync(buffer, _stop.Token);
            if (count == 0)
            {
                return null;
            }

            read.Append(Encoding.Latin1.GetString(buffer, 0, count));
        }
    }
}
