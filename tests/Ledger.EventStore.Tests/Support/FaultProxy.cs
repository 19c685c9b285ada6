using System.Net;
using System.Net.Sockets;
using Npgsql;

namespace Ledger.EventStore.Tests.Support;

/// <summary>Stands between Npgsql and PostgreSQL and cuts or holds connections where it hurts.</summary>
internal sealed class FaultProxy : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stopping = new();
    private readonly List<TcpClient> _open = [];
    private readonly int _target;
    private readonly Task _accepting;
    private int _cuts;

    public FaultProxy(string connectionString)
    {
        _target = new NpgsqlConnectionStringBuilder(connectionString).Port;
        _listener.Start();
        Port = ((IPEndPoint)_listener.LocalEndpoint).Port;
        _accepting = Accept();
    }

    public int Port { get; }

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
        await _stopping.CancelAsync();
        _listener.Stop();
        CutAll();
        await _accepting;
        _stopping.Dispose();
    }

    private async Task Accept()
    {
        try
        {
            while (true)
            {
                var client = await _listener.AcceptTcpClientAsync(_stopping.Token);
                if (Away)
                {
                    client.Close();
                    continue;
                }

                var server = new TcpClient { NoDelay = true };
                client.NoDelay = true;
                lock (_open)
                {
                    _open.AddRange([client, server]);
                }

                _ = Serve(client, server);
            }
        }
        catch (Exception exception) when (exception is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // Disposed.
        }
    }

    private async Task Serve(TcpClient client, TcpClient server)
    {
        try
        {
            await server.ConnectAsync(IPAddress.Loopback, _target, _stopping.Token);
            await Task.WhenAny(
                Pump(client.GetStream(), server.GetStream(), piece => ToServer(piece)),
                Pump(server.GetStream(), client.GetStream(), piece => ToClient(piece)));
        }
        catch (Exception exception) when (exception is IOException or SocketException or ObjectDisposedException or OperationCanceledException or InvalidOperationException)
        {
            // Cut.
        }
        finally
        {
            client.Close();
            server.Close();
        }
    }

    private async Task Pump(NetworkStream from, NetworkStream to, Func<ReadOnlyMemory<byte>, Task<bool>> rule)
    {
        try
        {
            var buffer = new byte[256 * 1024];
            int read;
            while ((read = await from.ReadAsync(buffer, _stopping.Token)) > 0)
            {
                if (!await rule(buffer.AsMemory(0, read)))
                {
                    Interlocked.Increment(ref _cuts);
                    return;
                }

                await to.WriteAsync(buffer.AsMemory(0, read), _stopping.Token);
            }
        }
        catch (Exception exception) when (exception is IOException or SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // The other side is gone.
        }
    }
}
