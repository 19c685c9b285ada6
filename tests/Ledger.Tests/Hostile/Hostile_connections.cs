using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using Ledger.Testing;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Hostile;

/// <summary>What goes wrong below a request: bytes that come too slowly, or not at all, or are none of HTTP's.</summary>
public sealed class Hostile_connections(PostgresFixture postgres) : IAsyncLifetime
{
    private const string PutUser = "PUT /v1/users/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private readonly TestNode _node = new(postgres)
    {
        Configure = services => services.Configure<KestrelServerOptions>(o =>
        {
            // The documented ones, but in times that a test can wait for.
            o.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(1);
            o.Limits.KeepAliveTimeout = TimeSpan.FromSeconds(1);
            o.Limits.MinRequestBodyDataRate = new(240, TimeSpan.FromSeconds(2));
        }),
    };

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public ValueTask InitializeAsync() => _node.InitializeAsync();

    public async ValueTask DisposeAsync()
    {
        Assert.Equal(200, (int)(await _node.GetAsIs("/health/live")).Status); // whatever came before
        Assert.Empty(_node.Errors);
        Assert.DoesNotContain(await _node.Log(), e => e.StreamId == "user-smuggled");
        await _node.DisposeAsync();
    }

    /// <summary>Sends bytes, and gives all that comes back until the node closes.</summary>
    private async Task<string> Exchange(byte[] bytes, bool thenShutdown = false)
    {
        using var client = new TcpClient { NoDelay = true };
        await client.ConnectAsync(_node.Client.BaseAddress!.Host, _node.Client.BaseAddress.Port, Cancellation);
        var stream = client.GetStream();
        var writing = stream.WriteAsync(bytes, Cancellation).AsTask();
        if (thenShutdown)
        {
            await writing;
            client.Client.Shutdown(SocketShutdown.Send);
        }

        var answer = new MemoryStream();
        try
        {
            await stream.CopyToAsync(answer, Cancellation).WaitAsync(Patience, Cancellation);
            await writing;
        }
        catch (IOException)
        {
            // reset: what it was sent was not even read
        }

        return Encoding.Latin1.GetString(answer.ToArray());
    }

    private Task<string> Exchange(string text, bool thenShutdown = false) => Exchange(Encoding.Latin1.GetBytes(text), thenShutdown);

    [Theory]
    [InlineData("")]
    [InlineData("GET /v1/us")]
    [InlineData("GET /v1/users HTTP/1.1\r\n")]
    [InlineData("GET /v1/users HTTP/1.1\r\nHost: localhost\r\nX-Slow: 1")]
    public async Task that_never_finish_their_headers_are_closed_while_others_are_served(string start)
    {
        var slow = Enumerable.Range(0, 50).Select(_ => Exchange(start.Length == 0 ? "\r\n" : start)).ToArray();

        (await _node.GetAsIs("/v1/users")).Is(System.Net.HttpStatusCode.OK);
        Assert.All(await Task.WhenAll(slow), answer => Assert.True(answer.Length == 0 || answer.StartsWith("HTTP/1.1 408", StringComparison.Ordinal), answer));
    }

    [Theory]
    [InlineData("/v1/segments", "application/json", "{\"slug\":")]
    [InlineData("/v1/usage", "application/x-ndjson", "{\"userId\":")]
    public async Task that_never_finish_their_body_are_ended_and_nothing_is_stored(string path, string type, string start)
    {
        var before = await _node.CatchUp();

        var answer = await Exchange($"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {type}\r\nContent-Length: 1000\r\n\r\n{start}");

        Assert.StartsWith("HTTP/1.1 408", answer, StringComparison.Ordinal);
        Assert.Contains("\"code\":\"request-timeout\"", answer, StringComparison.Ordinal);
        Assert.Equal(before, await _node.CatchUp());
    }

    [Fact]
    public async Task that_are_half_closed_are_answered_what_they_asked_whole_or_nothing()
    {
        // The server takes an end of what is sent for the caller's going away.
        var whole = await Exchange("GET /v1/users HTTP/1.1\r\nHost: localhost\r\n\r\n", thenShutdown: true);
        Assert.True(whole.Length == 0 || whole.StartsWith("HTTP/1.1 200", StringComparison.Ordinal), whole);

        var before = await _node.CatchUp();
        var broken = await Exchange("POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"slug\":\"Half\"}", thenShutdown: true);
        Assert.True(broken.Length == 0 || broken.StartsWith("HTTP/1.1 400", StringComparison.Ordinal), broken);
        Assert.Equal(before, await _node.CatchUp());
    }

    [Fact]
    public async Task that_send_one_request_after_another_get_the_answers_in_order_and_none_for_garbage()
    {
        var pipelined = string.Concat(Enumerable.Range(0, 200).Select(i => $"GET /v1/users/u{i} HTTP/1.1\r\nHost: localhost\r\n\r\n"));

        var answer = await Exchange($"{pipelined}\0garbage \u00ff\r\n\r\n{PutUser}");

        var order = System.Text.RegularExpressions.Regex.Matches(answer, "\"instance\":\"/v1/users/u(\\d+)\"").Select(m => int.Parse(m.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture));
        Assert.Equal(Enumerable.Range(0, 200), order);
        Assert.Contains("HTTP/1.1 400 Bad Request", answer[answer.LastIndexOf("HTTP/1.1 ", StringComparison.Ordinal)..], StringComparison.Ordinal);
    }

    public static TheoryData<string> Names { get; } = [.. Ambiguous.Keys];

    private static Dictionary<string, string> Ambiguous => new()
    {
        ["two lengths"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{PutUser}",
        ["two transfer codings"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n{PutUser}",
        ["a coding that is not known"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{PutUser}",
        ["a space before the colon"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n{PutUser}",
        ["a length given twice"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0\r\nContent-Length: 2\r\n\r\n{PutUser}",
        ["a length that is no number"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 0x0\r\n\r\n{PutUser}",
        ["a chunk of less than nothing"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n{PutUser}",
        ["a chunk larger than any"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{PutUser}",
        ["an extension that ends in a bare LF"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2;x\n{{}}\r\n0\r\n\r\n{PutUser}",
        ["a chunk longer than it says"] = $"POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{{}}XX0\r\n\r\n{PutUser}",
        ["a folded header"] = $"GET /v1/users HTTP/1.1\r\nHost: localhost\r\n X-Folded: y\r\n\r\n{PutUser}",
        ["NUL in a header"] = $"GET /v1/users HTTP/1.1\r\nHost: localhost\r\nX-Null: a\0b\r\n\r\n{PutUser}",
        ["two hosts"] = $"GET /v1/users HTTP/1.1\r\nHost: localhost\r\nHost: y\r\n\r\n{PutUser}",
        ["no host"] = $"GET /v1/users HTTP/1.1\r\n\r\n{PutUser}",
        ["no version"] = $"GET /v1/users\r\n\r\n{PutUser}",
        ["another version"] = $"GET /v1/users HTTP/9.9\r\nHost: localhost\r\n\r\n{PutUser}",
        ["two spaces"] = $"GET  /v1/users HTTP/1.1\r\nHost: localhost\r\n\r\n{PutUser}",
        ["no slash"] = $"GET v1/users HTTP/1.1\r\nHost: localhost\r\n\r\n{PutUser}",
        ["bytes in the target"] = $"GET /v1/\u00ff HTTP/1.1\r\nHost: localhost\r\n\r\n{PutUser}",
        ["a target that is too long"] = $"GET /{new string('a', 20_000)} HTTP/1.1\r\nHost: localhost\r\n\r\n{PutUser}",
        ["a header that is too long"] = $"GET /v1/users HTTP/1.1\r\nHost: localhost\r\nX-Long: {new string('a', 40_000)}\r\n\r\n{PutUser}",
        ["too many headers"] = $"GET /v1/users HTTP/1.1\r\nHost: localhost\r\n{string.Concat(Enumerable.Range(0, 150).Select(i => $"X-{i}: 1\r\n"))}\r\n{PutUser}",
        ["HTTP/2"] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u0004\0\0\0\0\0",
        ["TLS"] = "\u0016\u0003\u0001\u0002\0\u0001\0\u0001\u00fc\u0003\u0003",
        ["NULs"] = "\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        ["bytes"] = $"{new string('\n', 100)}{new string('\u00ff', 100_000)}",
    };

    [Theory]
    [MemberData(nameof(Names))]
    public async Task that_can_be_read_in_two_ways_are_closed_before_the_second(string name)
    {
        var answer = await Exchange(Ambiguous[name]);

        // What is asked within what was refused is never answered; that it was not stored is looked for in the end.
        Assert.DoesNotContain("HTTP/1.1 201", answer, StringComparison.Ordinal);
        Assert.DoesNotContain("HTTP/1.1 5", answer.Replace("HTTP/1.1 505", "", StringComparison.Ordinal), StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", answer, StringComparison.Ordinal);
    }

    [Fact]
    public async Task that_break_off_in_every_place_of_a_request_leave_nothing_behind()
    {
        const string whole = "POST /v1/segments HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"slug\":\"Part\"}";
        var before = await _node.CatchUp();
        foreach (var cut in Enumerable.Range(1, whole.Length - 1).Where(c => c % 3 == 0 || c > whole.Length - 16))
        {
            using var client = new TcpClient { LingerState = new(cut % 2 == 0, 0) };
            await client.ConnectAsync(_node.Client.BaseAddress!.Host, _node.Client.BaseAddress.Port, Cancellation);
            await client.GetStream().WriteAsync(Encoding.ASCII.GetBytes(whole[..cut]), Cancellation);
        }

        var waited = Stopwatch.StartNew();
        do
        {
            (await _node.GetAsIs("/v1/segments/Part")).IsProblem(404, "segment-not-found");
        }
        while (waited.Elapsed < TimeSpan.FromMilliseconds(200));
        Assert.Equal(before, await _node.CatchUp());
    }
}
