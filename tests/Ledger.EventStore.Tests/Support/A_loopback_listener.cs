using System.Net;
using System.Net.Sockets;
using Ledger.Testing;

namespace Ledger.EventStore.Tests.Support;

public sealed class A_loopback_listener
{
    [Fact]
    public async Task Ends_while_a_connection_keeps_its_loop()
    {
        var served = new TaskCompletionSource();
        var listener = new LoopbackListener((socket, stopping) =>
        {
            using (socket)
            {
                served.SetResult();
                stopping.WaitHandle.WaitOne(TimeSpan.FromMinutes(1));
                Thread.Sleep(200); // a busy connection: by now whoever disposes has gone on
                return Task.CompletedTask;
            }
        });
        using var client = new TcpClient();
        await client.ConnectAsync(IPAddress.Loopback, listener.Port, TestContext.Current.CancellationToken);
        await served.Task.WaitAsync(TimeSpan.FromMinutes(1), TestContext.Current.CancellationToken);
        var port = listener.Port;

        await listener.DisposeAsync();

        using var late = new TcpClient();
        await Assert.ThrowsAsync<SocketException>(() => late.ConnectAsync(IPAddress.Loopback, port, TestContext.Current.CancellationToken).AsTask());
    }
}
