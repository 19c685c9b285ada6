using System.Net;
using System.Net.Sockets;
using Ledger.Testing;
using Npgsql;

namespace Ledger.EventStore.Tests.Support;

/// <summary>Stands between Npgsql and PostgreSQL and cuts or holds connections where it hurts.</summary>
internal sealed class FaultProxy : IAsyncDisposable
{
    private readonly LoopbackListener _listener;
    private readonly List<Socket> _open = [];
    private readonly int _target;
    private int _cuts;
    private TaskCompletionSource<bool>? _thaw;

    public FaultProxy(string connectionString)
    {
        _target = new NpgsqlConnectionStringBuilder(connectionString).Port;
        _listener = new LoopbackListener(Serve);
    }

    public int Port => _listener.Port;

    /// <summary>Connections cut by the rules below.</summary>
    public int Cuts => Volatile.Read(ref _cuts);

    /// <summary>Refuses every connection, and cuts those there are.</summary>
    public bool Away
    {
        get;
        set
        {
            field = value;
            if (value)
            {
                CutAll();
            }
        }
    }

    /// <summary>Asked for each piece that goes to the server: false cuts before the server has it.</summary>
    public Func<ReadOnlyMemory<byte>, Task<bool>> ToServer { get; set; } = _ => Task.FromResult(true);

    /// <summary>Asked for each piece that comes from the server: false cuts before the client has it.</summary>
    public Func<ReadOnlyMemory<byte>, Task<bool>> ToClient { get; set; } = _ => Task.FromResult(true);

    /// <summary>Whether a piece from the server says that a transaction was committed.</summary>
    public static bool SaysCommitted(ReadOnlyMemory<byte> piece) => piece.Span.IndexOf("COMMIT\0"u8) >= 0;

    /// <summary>Whether a piece from the server ends with "ready, in a transaction": the next to the server is what is to be written.</summary>
    public static bool SaysInTransaction(ReadOnlyMemory<byte> piece) => piece.Span.EndsWith("Z\0\0\0\u0005T"u8);

    /// <summary>Holds whatever goes to the server, from the first piece on that the rule picks out, until <see cref="Thaw"/>. Done once it holds one.</summary>
    public Task FreezeFrom(Func<ReadOnlyMemory<byte>, bool> rule)
    {
        var (froze, thaw) = (new TaskCompletionSource(), _thaw = new TaskCompletionSource<bool>());
        ToServer = piece =>
        {
            if (rule(piece))
            {
                froze.TrySetResult();
            }

            return froze.Task.IsCompleted ? thaw.Task : Task.FromResult(true);
        };
        return froze.Task;
    }

    /// <summary>Lets through what is held, and all that follows.</summary>
    public void Thaw()
    {
        ToServer = _ => Task.FromResult(true);
        _thaw?.SetResult(true);
    }

    public void CutAll()
    {
        lock (_open)
        {
            _open.ForEach(client => client.Close());
            _open.Clear();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _listener.DisposeAsync();
        CutAll();
    }

    private async Task Serve(Socket client, CancellationToken stopping)
    {
        using var server = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        using (client)
        {
            client.NoDelay = true;
            lock (_open)
            {
                if (Away)
                {
                    return;
                }

                _open.AddRange([client, server]);
            }

            try
            {
                await server.ConnectAsync(IPAddress.Loopback, _target, stopping);
                await Task.WhenAny(
                    Pump(client, server, piece => ToServer(piece), stopping),
                    Pump(server, client, piece => ToClient(piece), stopping));
            }
            catch (Exception exception) when (exception is SocketException or ObjectDisposedException or OperationCanceledException)
            {
                // Cut.
            }
        }
    }

    private async Task Pump(Socket from, Socket to, Func<ReadOnlyMemory<byte>, Task<bool>> rule, CancellationToken stopping)
    {
        try
        {
            var buffer = new byte[256 * 1024];
            int read;
            while ((read = await from.ReceiveAsync(buffer, stopping)) > 0)
            {
                if (!await rule(buffer.AsMemory(0, read)))
                {
                    Interlocked.Increment(ref _cuts);
                    return;
                }

                for (var sent = 0; sent < read;)
                {
                    sent += await to.SendAsync(buffer.AsMemory(sent, read - sent), stopping);
                }
            }
        }
        catch (Exception exception) when (exception is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // The other side is gone.
        }
    }
}
