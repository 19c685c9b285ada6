using System.Net;
using System.Net.Sockets;

namespace Ledger.Testing;

/// <summary>Accepts connections on a free port of the loopback interface until it is disposed, and serves each beside the others.</summary>
internal sealed class LoopbackListener : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly Task _accepting;

    /// <param name="serve">Owns the connection it is given, and ends when the token says so.</param>
    public LoopbackListener(Func<Socket, CancellationToken, Task> serve)
    {
        _listener.Start();
        Stopping = _stop.Token;
        _accepting = Accept(serve);
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    public CancellationToken Stopping { get; }

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _accepting; // before the listener goes: the loop may be on its way to it
        _listener.Dispose();
        _stop.Dispose();
    }

    private async Task Accept(Func<Socket, CancellationToken, Task> serve)
    {
        try
        {
            while (true)
            {
                var socket = await _listener.AcceptSocketAsync(Stopping);
                _ = serve(socket, Stopping);
            }
        }
        catch (OperationCanceledException)
        {
            // disposed
        }
    }
}
