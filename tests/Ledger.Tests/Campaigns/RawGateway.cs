using System.Collections.Concurrent;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Ledger.Testing;

namespace Ledger.Tests.Campaigns;

/// <summary>A gateway on a bare socket, which answers each request with whatever bytes it is told to, or does worse.</summary>
internal sealed class RawGateway : IAsyncDisposable
{
    private readonly LoopbackListener _listener;
    private readonly Func<Socket, string, Task> _answer;
    private int _connections;

    /// <param name="answer">Is given the connection and the request; the connection is closed if it throws.</param>
    public RawGateway(Func<Socket, string, Task> answer)
    {
        _answer = answer;
        _listener = new LoopbackListener(Serve);
    }

    public Uri Address => new($"http://127.0.0.1:{_listener.Port}");

    /// <summary>What came, in order.</summary>
    public ConcurrentQueue<string> Requests { get; } = [];

    public int Connections => Volatile.Read(ref _connections);

    /// <summary>One that answers with these bytes.</summary>
    public static RawGateway Answering(string bytes) => new((socket, _) => socket.SendAsync(Encoding.Latin1.GetBytes(bytes)));

    public ValueTask DisposeAsync() => _listener.DisposeAsync();

    private async Task Serve(Socket socket, CancellationToken stopping)
    {
        Interlocked.Increment(ref _connections);
        using (socket)
        {
            try
            {
                while (await Read(socket, stopping) is { } request)
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

    private static async Task<string?> Read(Socket socket, CancellationToken stopping)
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

            var count = await socket.ReceiveAsync(buffer, stopping);
            if (count == 0)
            {
                return null;
            }

            read.Append(Encoding.Latin1.GetString(buffer, 0, count));
        }
    }
}
