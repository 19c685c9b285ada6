using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Ledger.Testing;

namespace Ledger.Tests.Grpc;

/// <summary>HTTP/2 as nobody should speak it, on the port of gRPC: the node closes the connection, and goes on for others.</summary>
public sealed class Hostile_frames(PostgresFixture postgres) : IAsyncLifetime
{
    private const byte Data = 0, Headers = 1, Priority = 2, ResetStream = 3, Settings = 4, PushPromise = 5, Ping = 6, GoAway = 7, WindowUpdate = 8, Continuation = 9;

    private const byte EndStream = 1, EndHeaders = 4;

    private static readonly byte[] Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"u8.ToArray();

    private readonly TestNode _node = new(postgres) { GrpcUrls = "http://127.0.0.1:0" };

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync() => _node.InitializeAsync();

    public async ValueTask DisposeAsync()
    {
        using var client = new HttpClient { BaseAddress = _node.GrpcAddress };
        using var request = new HttpRequestMessage(HttpMethod.Post, "/grpc.health.v1.Health/Check")
        {
            Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Content = new ByteArrayContent(new byte[5]) { Headers = { ContentType = new("application/grpc") } },
        };
        using var response = await client.SendAsync(request, Cancellation);
        await response.Content.ReadAsByteArrayAsync(Cancellation);
        Assert.Equal("0", response.TrailingHeaders.GetValues("grpc-status").Single());
        Assert.Empty(_node.Errors);
        Assert.Empty(await _node.Log());
        await _node.DisposeAsync();
    }

    public static TheoryData<string> Names { get; } = [.. Attacks.Keys];

    private static Dictionary<string, Func<byte[]>> Attacks => new()
    {
        ["no preface"] = () => Encoding.Latin1.GetBytes("\0\u0001\u00ff garbage that is no HTTP/2 at all, and long enough to be read\r\n\r\n"),
        ["HTTP/1.1"] = () => "GET /v1/users HTTP/1.1\r\nHost: localhost\r\n\r\n"u8.ToArray(),
        ["a frame before the settings"] = () => [.. Preface, .. Frame(Ping, 0, 0, new byte[8])],
        ["a frame larger than any"] = () => [.. Start(), 0xff, 0xff, 0xff, Data, 0, 0, 0, 0, 1],
        ["settings of a wrong length"] = () => [.. Preface, .. Frame(Settings, 0, 0, new byte[5])],
        ["settings with a value that is none"] = () => [.. Preface, .. Frame(Settings, 0, 0, [0, 4, 0xff, 0xff, 0xff, 0xff])],
        ["headers on stream 0"] = () => [.. Start(), .. Frame(Headers, EndHeaders, 0, Block())],
        ["headers on an even stream"] = () => [.. Start(), .. Frame(Headers, EndHeaders, 2, Block())],
        ["headers that can't be unpacked"] = () => [.. Start(), .. Frame(Headers, EndHeaders, 1, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff])],
        ["headers with upper case"] = () => [.. Start(), .. Frame(Headers, EndHeaders | EndStream, 1, [.. Block(), 0, 1, (byte)'A', 1, (byte)'b'])],
        ["headers without end"] = () => [.. Start(), .. Frame(Headers, 0, 1, Block()), .. Many(3_000, i => Frame(Continuation, 0, 1, [0, 1, (byte)'a', 100, .. new byte[100].Select(_ => (byte)'b')]))],
        ["one header that is too long"] = () => [.. Start(), .. Frame(Headers, 0, 1, [.. Block(), 0, 1, (byte)'a', 0x7f, 0xe1, 0xff, 0x03]), .. Many(10, i => Frame(Continuation, 0, 1, [.. new byte[16_000].Select(_ => (byte)'b')]))],
        ["another frame between headers"] = () => [.. Start(), .. Frame(Headers, 0, 1, Block()), .. Frame(Ping, 0, 0, new byte[8])],
        ["continuation of nothing"] = () => [.. Start(), .. Frame(Continuation, EndHeaders, 1, Block())],
        ["data on a stream that is not there"] = () => [.. Start(), .. Frame(Data, 0, 1, new byte[10])],
        ["data on stream 0"] = () => [.. Start(), .. Frame(Data, 0, 0, new byte[10])],
        ["a window of nothing"] = () => [.. Start(), .. Frame(WindowUpdate, 0, 0, new byte[4])],
        ["a window larger than any"] = () => [.. Start(), .. Many(2, _ => Frame(WindowUpdate, 0, 0, [0x7f, 0xff, 0xff, 0xff]))],
        ["a reset of a stream that is not there"] = () => [.. Start(), .. Frame(ResetStream, 0, 1, new byte[4])],
        ["a promise by a client"] = () => [.. Start(), .. Frame(PushPromise, EndHeaders, 1, [0, 0, 0, 2, .. Block()])],
        ["a stream that depends on itself"] = () => [.. Start(), .. Frame(Priority, 0, 1, [0, 0, 0, 1, 0])],
        ["padding longer than the frame"] = () => [.. Start(), .. Frame(Headers, EndHeaders | 8, 1, [0xff, .. Block()])],
        ["streams that are reset as soon as they are opened"] = () => [.. Start(), .. Many(10_000, i => (byte[])[.. Frame(Headers, EndHeaders, (2 * i) + 1, Block()), .. Frame(ResetStream, 0, (2 * i) + 1, [0, 0, 0, 8])])],
        ["more streams than a connection may have"] = () => [.. Start(), .. Many(5_000, i => Frame(Headers, EndHeaders, (2 * i) + 1, Block()))],
    };

    [Theory]
    [MemberData(nameof(Names))]
    public async Task close_the_connection(string attack)
    {
        var received = await Exchange(Attacks[attack]());

        // Either it says why, or it was not even spoken to in HTTP/2.
        Assert.True(received.Length == 0 || !attack.StartsWith("no ", StringComparison.Ordinal) || Types(received).Contains(GoAway), attack);
        Assert.DoesNotContain("   at ", Encoding.Latin1.GetString(received), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(Ping)]
    [InlineData(Settings)]
    public async Task that_ask_for_an_answer_each_do_not_fill_the_memory_of_a_node_whose_answers_are_not_read(byte type)
    {
        using var client = new TcpClient { NoDelay = true, ReceiveBufferSize = 1_024 };
        await client.ConnectAsync(_node.GrpcAddress.Host, _node.GrpcAddress.Port, Cancellation);
        var stream = client.GetStream();
        await stream.WriteAsync(Start(), Cancellation);
        byte[] flood = [.. Many(10_000, _ => Frame(type, 0, 0, type == Ping ? new byte[8] : []))];
        var sent = 0L;
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
        patience.CancelAfter(TimeSpan.FromSeconds(5));
        try
        {
            while (sent < 20_000_000)
            {
                await stream.WriteAsync(flood, patience.Token);
                sent += flood.Length;
            }
        }
        catch (Exception exception) when (exception is IOException or OperationCanceledException)
        {
            // closed, or read no further
        }

        // Unread answers are bounded by the buffers of the two sockets.
        Assert.True(sent < 20_000_000, $"{sent} bytes were taken.");
    }

    private async Task<byte[]> Exchange(byte[] bytes)
    {
        using var client = new TcpClient { NoDelay = true };
        await client.ConnectAsync(_node.GrpcAddress.Host, _node.GrpcAddress.Port, Cancellation);
        var stream = client.GetStream();
        var received = new MemoryStream();
        var reading = stream.CopyToAsync(received, Cancellation);
        try
        {
            await stream.WriteAsync(bytes, Cancellation);
            client.Client.Shutdown(SocketShutdown.Send);
        }
        catch (Exception exception) when (exception is IOException or SocketException)
        {
            // closed before all of it was sent
        }

        try
        {
            await reading.WaitAsync(TimeSpan.FromSeconds(30), Cancellation);
        }
        catch (IOException)
        {
            // reset
        }

        return received.ToArray();
    }

    private static byte[] Start() => [.. Preface, .. Frame(Settings, 0, 0, [])];

    private static byte[] Many(int count, Func<int, byte[]> frame) => [.. Enumerable.Range(0, count).SelectMany(frame)];

    private static byte[] Frame(byte type, int flags, int stream, byte[] payload)
    {
        var frame = new byte[9 + payload.Length];
        (frame[0], frame[1], frame[2], frame[3], frame[4]) = ((byte)(payload.Length >> 16), (byte)(payload.Length >> 8), (byte)payload.Length, type, (byte)flags);
        BinaryPrimitives.WriteInt32BigEndian(frame.AsSpan(5), stream);
        payload.CopyTo(frame, 9);
        return frame;
    }

    /// <summary>POST http /x with an authority, by the static table.</summary>
    private static byte[] Block() => [0x83, 0x86, 0x04, 2, (byte)'/', (byte)'x', 0x01, 1, (byte)'x'];

    private static IEnumerable<byte> Types(byte[] received)
    {
        for (var at = 0; at + 9 <= received.Length; at += 9 + (received[at] << 16) + (received[at + 1] << 8) + received[at + 2])
        {
            yield return received[at + 3];
        }
    }
}
