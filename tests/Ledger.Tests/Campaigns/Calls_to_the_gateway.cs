using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Ledger.Campaigns;
using Microsoft.Extensions.Logging.Abstractions;

namespace Ledger.Tests.Campaigns;

public sealed class Calls_to_the_gateway(ITestOutputHelper output)
{
    private const string Accepted = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{\"code\":0,\"message\":\"okay\"}";
    private const string Token = GatewayProcess.Token;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static Gateway GatewayAt(Uri address, Func<GatewaySettings, GatewaySettings>? change = null)
    {
        var settings = new GatewaySettings(address, Token) { Timeout = TimeSpan.FromSeconds(30) };
        return new Gateway(change?.Invoke(settings) ?? settings, TimeProvider.System, NullLogger<Gateway>.Instance);
    }

    private static GatewaySettings Impatient(GatewaySettings settings) => settings with { Timeout = TimeSpan.FromMilliseconds(300) };

    [Fact]
    public async Task Say_who_calls_what_for_whom()
    {
        await using var raw = RawGateway.Answering(Accepted);
        using var gateway = GatewayAt(new Uri(raw.Address, "/v1/"));

        var outcome = await gateway.Send("camp/7 é-1", "+4915112345678", "Grüße, \"du\"\n🎉", Cancellation);

        Assert.Equal(new SendOutcome(SendResult.Sent, 200, null, null), outcome);
        var lines = Assert.Single(raw.Requests).Split("\r\n");
        Assert.Equal("POST /v1/send/camp%2F7%20%C3%A9-1 HTTP/1.1", lines[0]);
        Assert.Equal(
            ["Accept: application/json", $"Authorization: Bearer {Token}", $"Content-Length: {Encoding.Latin1.GetByteCount(lines[^1])}", "Content-Type: application/json", $"Host: {raw.Address.Authority}"],
            lines[1..^2].Order(StringComparer.Ordinal));
        Assert.Equal("""{"id":"camp/7 é-1","phone":"+4915112345678","text":"Grüße, \"du\"\n\uD83C\uDF89"}""", Encoding.UTF8.GetString(Encoding.Latin1.GetBytes(lines[^1])));
    }

    [Fact]
    public async Task Share_a_connection()
    {
        await using var raw = RawGateway.Answering(Accepted);
        using var gateway = GatewayAt(raw.Address);
        for (var i = 0; i < 20; i++)
        {
            Assert.Equal(SendResult.Sent, (await gateway.Send($"m{i}", "+4915112345678", "text", Cancellation)).Result);
        }

        Assert.Equal((1, 20), (raw.Connections, raw.Requests.Count));
    }

    [Theory]
    [InlineData("close", SendResult.Unknown, "The connection broke before there was an answer. Whether the gateway accepted the message is not known.")]
    [InlineData("reset", SendResult.Unknown, "The connection broke before there was an answer. Whether the gateway accepted the message is not known.")]
    [InlineData("garbage", SendResult.Unknown, "The answer is not HTTP. Whether the gateway accepted the message is not known.")]
    [InlineData("echo", SendResult.Unknown, "The answer is not HTTP. Whether the gateway accepted the message is not known.")]
    [InlineData("half headers", SendResult.Unknown, "The connection broke before there was an answer. Whether the gateway accepted the message is not known.")]
    [InlineData("half body", SendResult.Unknown, "The gateway answered 200. That is no answer of the gateway's.")]
    [InlineData("huge headers", SendResult.Unknown, "The answer is not HTTP. Whether the gateway accepted the message is not known.")]
    [InlineData("endless body", SendResult.Unknown, "The gateway answered 200. That is no answer of the gateway's.")]
    [InlineData("html", SendResult.Unknown, "The gateway answered 200. That is no answer of the gateway's.")]
    [InlineData("redirect", SendResult.NotSent, "The gateway answered 302. The address or the token of the gateway is wrong, or the account behind it.")]
    [InlineData("refused for its text", SendResult.Refused, "The gateway answered 200, code 17: Bad text.")]
    [InlineData("400 without end", SendResult.Refused, "The gateway answered 400.")]
    public async Task End_with_what_can_be_known(string behaviour, SendResult result, string error)
    {
        await using var raw = new RawGateway((socket, request) => Misbehave(socket, request, behaviour));
        using var gateway = GatewayAt(raw.Address);

        var outcome = await gateway.Send("m1", "+4915112345678", "text", Cancellation);

        Assert.Equal((result, error), (outcome.Result, outcome.Error));
        Assert.Single(raw.Requests); // and nothing is sent twice
    }

    [Theory]
    [InlineData("hang", "There was no answer in time. Whether the gateway accepted the message is not known.")]
    [InlineData("drip headers", "There was no answer in time. Whether the gateway accepted the message is not known.")]
    [InlineData("drip body", "The gateway answered 200. That is no answer of the gateway's.")]
    public async Task End_in_time(string behaviour, string error)
    {
        await using var raw = new RawGateway((socket, request) => Misbehave(socket, request, behaviour));
        using var gateway = GatewayAt(raw.Address, Impatient);
        var watch = Stopwatch.StartNew();

        var outcome = await gateway.Send("m1", "+4915112345678", "text", Cancellation);

        Assert.Equal((SendResult.Unknown, error), (outcome.Result, outcome.Error));
        Assert.InRange(watch.Elapsed, TimeSpan.FromMilliseconds(250), TimeSpan.FromSeconds(20));
    }

    [Fact]
    public async Task Are_not_repeated_over_a_connection_that_breaks_when_it_is_used_again()
    {
        await using var raw = new RawGateway((socket, request) =>
            request.Contains("/m1 ", StringComparison.Ordinal) ? socket.SendAsync(Encoding.Latin1.GetBytes(Accepted)) : Misbehave(socket, request, "close"));
        using var gateway = GatewayAt(raw.Address);

        Assert.Equal(SendResult.Sent, (await gateway.Send("m1", "+4915112345678", "text", Cancellation)).Result);
        Assert.Equal(SendResult.Unknown, (await gateway.Send("m2", "+4915112345678", "text", Cancellation)).Result);

        Assert.Equal((1, 2), (raw.Connections, raw.Requests.Count));
    }

    [Fact]
    public async Task Do_not_leave_when_nobody_listens()
    {
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var address = new Uri($"http://{listener.LocalEndpoint}");
        listener.Dispose();
        using var gateway = GatewayAt(address);
        Assert.Equal(new SendOutcome(SendResult.NotSent, null, "The gateway can't be connected to.", null), await gateway.Send("m1", "+4915112345678", "text", Cancellation));

        using var nowhere = GatewayAt(new Uri("https://gateway.invalid"));
        Assert.Equal(new SendOutcome(SendResult.NotSent, null, "The gateway's name can't be resolved.", null), await nowhere.Send("m1", "+4915112345678", "text", Cancellation));
    }

    [Fact]
    public async Task Do_not_leave_without_TLS_where_it_is_asked_for()
    {
        await using var raw = RawGateway.Answering("HTTP/1.1 400 Bad Request\r\n\r\n");
        using var gateway = GatewayAt(new Uri($"https://127.0.0.1:{raw.Address.Port}"));
        // What speaks no TLS is given up by either side; nothing of the message was sent in any case.
        using var tls = new TcpListener(IPAddress.Loopback, 0);
        tls.Start();
        using var plain = GatewayAt(new Uri($"https://{tls.LocalEndpoint}"));
        var sending = plain.Send("m1", "+4915112345678", "text", Cancellation);
        using var socket = await tls.AcceptSocketAsync(Cancellation);
        var hello = new byte[4_096];
        var read = await socket.ReceiveAsync(hello, Cancellation);
        Assert.DoesNotContain(Token, Encoding.Latin1.GetString(hello, 0, read), StringComparison.Ordinal);
        await socket.SendAsync("HTTP/1.1 400 Bad Request\r\n\r\n"u8.ToArray(), Cancellation);

        Assert.Equal(new SendOutcome(SendResult.NotSent, null, "There is no secure connection to the gateway.", null), await sending);
    }

    [Fact]
    public async Task Do_not_leave_when_they_may_not_any_more()
    {
        await using var raw = RawGateway.Answering(Accepted);
        using var gateway = GatewayAt(raw.Address);
        var asked = 0;

        var kept = await gateway.Send("m1", "+4915112345678", "text", () => ++asked < 0, Cancellation);
        var sent = await gateway.Send("m2", "+4915112345678", "text", () => ++asked > 0, Cancellation);

        Assert.Equal((SendResult.NotSent, SendResult.Sent, 2), (kept.Result, sent.Result, asked));
        Assert.Contains("/m2 ", Assert.Single(raw.Requests), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Are_asked_whether_they_may_leave_after_they_have_waited_for_their_turn()
    {
        var first = new TaskCompletionSource();
        await using var raw = new RawGateway(async (socket, request) =>
        {
            if (request.Contains("/m1 ", StringComparison.Ordinal))
            {
                await first.Task;
            }

            await socket.SendAsync(Encoding.Latin1.GetBytes(Accepted));
        });
        using var gateway = GatewayAt(raw.Address, s => s with { Concurrency = 1 });
        var mayLeave = true;
        var one = gateway.Send("m1", "+4915112345678", "text", Cancellation);
        var two = gateway.Send("m2", "+4915112345678", "text", () => mayLeave, Cancellation);
        mayLeave = false;
        first.SetResult();

        Assert.Equal((SendResult.Sent, SendResult.NotSent), ((await one).Result, (await two).Result));
        Assert.Single(raw.Requests);
    }

    [Fact]
    public async Task That_are_given_up_are_unknown_once_they_have_left_and_not_sent_before()
    {
        using var giveUp = new CancellationTokenSource();
        await using var raw = new RawGateway(async (_, _) => await giveUp.CancelAsync());
        using var gateway = GatewayAt(raw.Address, s => s with { Concurrency = 1 });
        var left = gateway.Send("m1", "+4915112345678", "text", giveUp.Token);
        var waits = gateway.Send("m2", "+4915112345678", "text", giveUp.Token);

        Assert.Equal(SendResult.Unknown, (await left).Result);
        Assert.Equal(SendResult.NotSent, (await waits).Result);
        Assert.Equal(SendResult.NotSent, (await gateway.Send("m3", "+4915112345678", "text", giveUp.Token)).Result);
        Assert.Single(raw.Requests);
    }

    [Fact]
    public async Task Are_no_more_at_once_than_are_set()
    {
        var (now, most) = (0, 0);
        await using var raw = new RawGateway(async (socket, _) =>
        {
            var count = Interlocked.Increment(ref now);
            int seen;
            while (count > (seen = Volatile.Read(ref most)) && Interlocked.CompareExchange(ref most, count, seen) != seen)
            {
            }

            await Task.Delay(10, Cancellation);
            Interlocked.Decrement(ref now);
            await socket.SendAsync(Encoding.Latin1.GetBytes(Accepted));
        });
        using var gateway = GatewayAt(raw.Address, s => s with { Concurrency = 7 });

        var outcomes = await Task.WhenAll(Enumerable.Range(0, 100).Select(i => gateway.Send($"m{i}", "+4915112345678", "text", Cancellation)));

        Assert.All(outcomes, o => Assert.Equal(SendResult.Sent, o.Result));
        Assert.Equal(7, most);
        Assert.True(raw.Connections <= 7);
    }

    [Fact]
    public async Task Are_no_more_a_second_than_are_set()
    {
        await using var raw = RawGateway.Answering(Accepted);
        using var gateway = GatewayAt(raw.Address, s => s with { RatePerSecond = 200 });
        var watch = Stopwatch.StartNew();

        await Task.WhenAll(Enumerable.Range(0, 121).Select(i => gateway.Send($"m{i}", "+4915112345678", "text", Cancellation)));

        // The last turn comes 120 intervals after the first, less what may run ahead.
        Assert.True(watch.Elapsed >= TimeSpan.FromSeconds(120 / 200.0) - SendRate.Burst, $"{watch.Elapsed}");
    }

    [Fact]
    public async Task Stop_while_the_gateway_is_down_and_go_on_when_it_is_back()
    {
        await using var gateway = await GatewayProcess.Start();
        using var client = GatewayAt(gateway.Address);
        Assert.Equal(SendResult.Sent, (await client.Send("m1", "+4915112345678", "text", Cancellation)).Result);
        await gateway.Kill();

        var calls = 0;
        while (client.IsAccepting)
        {
            Assert.Equal(SendResult.NotSent, (await client.Send("m2", "+4915112345678", "text", Cancellation)).Result);
            Assert.True(++calls <= CircuitBreaker.FailuresToOpen);
        }

        Assert.Equal(CircuitBreaker.FailuresToOpen, calls);
        var held = await client.Send("m3", "+4915112345678", "text", Cancellation);
        Assert.Equal((SendResult.NotSent, "The gateway is not working; messages wait until it is tried again."), (held.Result, held.Error));
        Assert.NotNull(held.RetryAfter);
        Assert.NotNull(client.RetryAt);

        await using var back = await GatewayProcess.Start(address: gateway.Address);
        while ((await client.Send("m4", "+4915112345678", "text", Cancellation)).Result != SendResult.Sent)
        {
            await Task.Delay(client.RetryAt is { } at && at > DateTimeOffset.UtcNow ? at - DateTimeOffset.UtcNow : TimeSpan.FromMilliseconds(1), Cancellation);
        }

        Assert.Equal((BreakerState.Closed, true, null), (client.State, client.IsAccepting, client.RetryAt));
        Assert.Equal(["m4"], (await back.Received()).Select(c => c.Id));
    }

    [Fact]
    public async Task Burn_nobody_when_the_token_is_wrong()
    {
        await using var gateway = await GatewayProcess.Start();
        using var client = GatewayAt(gateway.Address, s => s with { Url = s.Url, Token = "another" });

        var outcome = await client.Send("m1", "+4915112345678", "text", Cancellation);

        Assert.Equal(
            (SendResult.NotSent, 401, "The gateway answered 401, code 401: The token is not known. The address or the token of the gateway is wrong, or the account behind it."),
            (outcome.Result, outcome.StatusCode, outcome.Error));
        Assert.False(client.IsAccepting);
        Assert.Equal((0, 1), ((await gateway.Summarise()).Calls, (await gateway.Summarise()).Refused));
    }

    [Fact]
    public async Task Stay_away_as_long_as_they_are_told()
    {
        await using var gateway = await GatewayProcess.Start(new { busyPercent = 100, retryAfterSeconds = 40 });
        using var client = GatewayAt(gateway.Address);

        var outcome = await client.Send("m1", "+4915112345678", "text", Cancellation);

        Assert.Equal((SendResult.Failed, 429, TimeSpan.FromSeconds(40)), (outcome.Result, outcome.StatusCode, outcome.RetryAfter));
        Assert.False(client.IsAccepting);
        Assert.InRange(client.RetryAt!.Value, DateTimeOffset.UtcNow.AddSeconds(20), DateTimeOffset.UtcNow.AddSeconds(40));
    }

    [Fact]
    public async Task Say_sent_of_what_was_accepted_and_unknown_of_all_else_that_may_have_been()
    {
        await using var gateway = await GatewayProcess.Start(
            new { errorPercent = 10, refusePercent = 5, brokenPercent = 10, garbagePercent = 10, resetPercent = 10, hangPercent = 3, acceptedAnywayPercent = 50, seed = 7 });
        using var client = GatewayAt(gateway.Address, s => s with { Timeout = TimeSpan.FromSeconds(2), Concurrency = 64 });
        var outcomes = await Task.WhenAll(Enumerable.Range(0, 600).Select(async i => (Id: $"m{i}", Outcome: await SendOnce($"m{i}"))));

        var accepted = (await gateway.Received()).Where(c => c.IsAccepted).Select(c => c.Id).ToHashSet();
        Assert.Equal(600, (await gateway.Summarise()).Messages);
        Assert.All(outcomes, o =>
        {
            Assert.False(o.Outcome.Result == SendResult.Sent && !accepted.Contains(o.Id), $"{o} was not accepted.");
            Assert.False(accepted.Contains(o.Id) && o.Outcome.Result is not (SendResult.Sent or SendResult.Unknown), $"{o} was accepted.");
        });
        Assert.Equal(
            [SendResult.Sent, SendResult.Refused, SendResult.Failed, SendResult.Unknown],
            outcomes.Select(o => o.Outcome.Result).Distinct().Order());

        // What did not leave, because the breaker opened by an unlikely row of faults, is sent when it closes.
        async Task<SendOutcome> SendOnce(string id)
        {
            while (true)
            {
                var outcome = await client.Send(id, "+4915112345678", "text", Cancellation);
                if (outcome.Result != SendResult.NotSent)
                {
                    return outcome;
                }

                await Task.Delay(50, Cancellation);
            }
        }
    }

    [Fact]
    public async Task Arrive_once_each_when_there_are_many()
    {
        const int Messages = 20_000;
        await using var gateway = await GatewayProcess.Start();
        using var client = GatewayAt(gateway.Address, s => s with { Concurrency = 64 });
        await Task.WhenAll(Enumerable.Range(0, 500).Select(i => client.Send($"warm-{i}", "+4915112345678", "text", Cancellation)));
        var watch = Stopwatch.StartNew();

        var outcomes = await Task.WhenAll(Enumerable.Range(0, Messages).Select(i => client.Send($"m{i}", "+4915112345678", $"Hello {i}", Cancellation)));

        output.WriteLine($"{Messages / watch.Elapsed.TotalSeconds:N0} messages/s");
        Assert.All(outcomes, o => Assert.Equal(SendResult.Sent, o.Result));
        var summary = await gateway.Summarise();
        Assert.Equal((Messages + 500, Messages + 500, 0, 0), (summary.Calls, summary.Accepted, summary.AcceptedMoreThanOnce, summary.Unlike));
    }

    [Fact]
    public async Task Without_a_gateway_are_not_sent()
    {
        using var gateway = new Gateway(null, TimeProvider.System, NullLogger<Gateway>.Instance);
        Assert.Equal((false, false, null), (gateway.IsConfigured, gateway.IsAccepting, gateway.RetryAt));
        Assert.Equal(new SendOutcome(SendResult.NotSent, null, "No gateway is configured.", null), await gateway.Send("m1", "+4915112345678", "text", Cancellation));
    }

    [Theory]
    [InlineData("")]
    [InlineData(".")]
    [InlineData("..")]
    public async Task Need_an_id_that_stands_in_a_path(string id)
    {
        using var gateway = new Gateway(null, TimeProvider.System, NullLogger<Gateway>.Instance);
        await Assert.ThrowsAsync<ArgumentException>(() => gateway.Send(id, "+4915112345678", "text", Cancellation));
    }

    internal static async Task Misbehave(Socket socket, string request, string behaviour)
    {
        const string Json = "Content-Type: application/json\r\n";
        switch (behaviour)
        {
            case "close":
                throw new SocketException();
            case "reset":
                socket.LingerState = new LingerOption(true, 0);
                throw new SocketException();
            case "garbage":
                await Send("\0\u0001\u0002 who is there?\r\n\r\n");
                throw new SocketException();
            case "echo":
                await Send(request);
                throw new SocketException();
            case "half headers":
                await Send($"HTTP/1.1 200 OK\r\n{Json}");
                throw new SocketException();
            case "half body":
                await Send($"HTTP/1.1 200 OK\r\n{Json}Content-Length: 100\r\n\r\n{{\"code\":0");
                throw new SocketException();
            case "huge headers":
                await Send($"HTTP/1.1 200 OK\r\n{string.Concat(Enumerable.Range(0, 40).Select(i => $"X-{i}: {new string('x', 1_000)}\r\n"))}\r\n");
                break;
            case "endless body":
                await Send($"HTTP/1.1 200 OK\r\n{Json}Transfer-Encoding: chunked\r\n\r\n");
                while (true)
                {
                    await Send($"1000\r\n{new string(' ', 4_096)}\r\n");
                }

            case "html":
                await Send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\nIt works!");
                break;
            case "redirect":
                await Send("HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n");
                break;
            case "refused for its text":
                await Send($"HTTP/1.1 200 OK\r\n{Json}Content-Length: 32\r\n\r\n{{\"code\":17,\"message\":\"Bad text\"}}");
                break;
            case "400 without end":
                await Send($"HTTP/1.1 400 Bad Request\r\n{Json}Content-Length: 100\r\n\r\n{{\"co");
                throw new SocketException();
            case "hang":
                await Task.Delay(Timeout.Infinite, Cancellation);
                break;
            case "drip headers":
                await Drip("HTTP/1.1 200 OK\r\nX: ");
                break;
            case "drip body":
                await Drip($"HTTP/1.1 200 OK\r\n{Json}Content-Length: 10000\r\n\r\n{{");
                break;
            default:
                throw new ArgumentException(behaviour, nameof(behaviour));
        }

        Task Send(string bytes) => socket.SendAsync(Encoding.Latin1.GetBytes(bytes), SocketFlags.None, Cancellation).AsTask();

        async Task Drip(string start)
        {
            await Send(start);
            while (true)
            {
                await Task.Delay(20, Cancellation);
                await Send(" ");
            }
        }
    }
}
