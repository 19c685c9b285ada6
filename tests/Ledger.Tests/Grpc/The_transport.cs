using System.Buffers.Binary;
using System.Diagnostics;
using System.IO.Compression;
using System.IO.Pipelines;
using System.Net;
using System.Net.Http.Headers;
using Google.Protobuf;
using Google.Protobuf.Reflection;
using Ledger.Grpc;
using Ledger.Grpc.Health;
using Ledger.Tests.Keys;
using Ledger.Usage;
using Microsoft.Extensions.DependencyInjection;
using Proto = Ledger.Grpc.V1;

namespace Ledger.Tests.Grpc;

/// <summary>What goes over the wire, byte by byte.</summary>
public sealed class The_transport(GrpcNode node) : IClassFixture<GrpcNode>, IDisposable
{
    private const string RecordCall = "/ledger.v1.UsageService/RecordCall", Check = "/grpc.health.v1.Health/Check";

    private const int Ok = 0, InvalidArgument = 3, DeadlineExceeded = 4, ResourceExhausted = 8, Unimplemented = 12, Internal = 13, Unauthenticated = 16;

    // HTTP/2 at once, as gRPC clients do without TLS.
    private readonly HttpClient _client = new() { BaseAddress = node.Address, Timeout = TimeSpan.FromSeconds(60) };

    public void Dispose() => _client.Dispose();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static byte[] Frame(byte[] message, byte flag = 0, uint? length = null)
    {
        var frame = new byte[5 + message.Length];
        frame[0] = flag;
        BinaryPrimitives.WriteUInt32BigEndian(frame.AsSpan(1), length ?? (uint)message.Length);
        message.CopyTo(frame, 5);
        return frame;
    }

    private static byte[] Gzip(byte[] message)
    {
        var packed = new MemoryStream();
        using (var gzip = new GZipStream(packed, CompressionLevel.Fastest))
        {
            gzip.Write(message);
        }

        return packed.ToArray();
    }

    private async Task<(int Status, string Message, byte[] Body, HttpResponseMessage Response)> Send(
        string path, HttpContent? body, string? contentType = "application/grpc", HttpMethod? method = null, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(method ?? HttpMethod.Post, path) { Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact, Content = body };
        if (body is not null && contentType is not null)
        {
            body.Headers.ContentType = MediaTypeHeaderValue.Parse(contentType);
        }

        foreach (var (name, value) in headers)
        {
            request.Headers.Add(name, value);
        }

        using var response = await _client.SendAsync(request, Cancellation);
        var bytes = await response.Content.ReadAsByteArrayAsync(Cancellation);
        var message = response.TrailingHeaders.TryGetValues("grpc-message", out var values) ? Uri.UnescapeDataString(values.Single()) : "";
        return (int.Parse(response.TrailingHeaders.GetValues("grpc-status").Single(), System.Globalization.CultureInfo.InvariantCulture), message, bytes, response);
    }

    private async Task Refuses(int status, string message, HttpContent body, params (string Name, string Value)[] headers)
    {
        var answer = await Send(RecordCall, body, headers: headers);
        Assert.Equal((HttpStatusCode.OK, status), (answer.Response.StatusCode, answer.Status));
        Assert.Contains(message, answer.Message, StringComparison.Ordinal);
        Assert.Empty(answer.Body);
    }

    private Task Refuses(int status, string message, byte[] body, params (string Name, string Value)[] headers) =>
        Refuses(status, message, new ByteArrayContent(body), headers);

    [Fact]
    public async Task answers_a_message_in_a_frame_with_the_status_in_the_trailers()
    {
        var answer = await Send(Check, new ByteArrayContent(Frame([])), "application/grpc+proto");

        Assert.Equal((HttpStatusCode.OK, Ok, ""), (answer.Response.StatusCode, answer.Status, answer.Message));
        Assert.Equal("application/grpc", answer.Response.Content.Headers.ContentType!.ToString());
        Assert.Equal("identity,gzip", string.Join(',', answer.Response.Headers.GetValues("grpc-accept-encoding")));
        Assert.Equal(Frame(new HealthCheckResponse { Status = HealthCheckResponse.Types.ServingStatus.Serving }.ToByteArray()), answer.Body);
    }

    [Fact]
    public async Task reads_what_comes_in_pieces()
    {
        var pieces = new PiecewiseContent(Frame(new HealthCheckRequest { Service = "ledger.v1.UsageService" }.ToByteArray()));

        Assert.Equal(Ok, (await Send(Check, pieces)).Status);
    }

    [Theory]
    [InlineData("identity", 0)]
    [InlineData("gzip", 0)]
    [InlineData("gzip", 1)]
    public async Task reads_what_is_compressed_or_not(string encoding, byte flag)
    {
        var message = new HealthCheckRequest { Service = "ledger.v1.UsageService" }.ToByteArray();

        Assert.Equal(Ok, (await Send(Check, new ByteArrayContent(Frame(flag == 1 ? Gzip(message) : message, flag)), headers: ("grpc-encoding", encoding))).Status);
    }

    [Fact]
    public async Task passes_over_fields_that_it_does_not_know() =>
        Assert.Equal(Ok, (await Send(Check, new ByteArrayContent(Frame([0xF8, 0x01, 0x01])))).Status); // field 31, varint 1

    [Fact]
    public async Task refuses_what_is_no_message()
    {
        await Refuses(Unimplemented, "There is no message", []);
        await Refuses(Internal, "breaks off", [0, 0, 0]);
        await Refuses(Internal, "breaks off", Frame([1, 2, 3], length: 10));
        await Refuses(Unimplemented, "more than one message", Frame([0x0A, 0x00], length: 1));
        await Refuses(Unimplemented, "more than one message", [.. Frame([]), .. Frame([])]);
        await Refuses(Unimplemented, "more than one message", [.. Frame([]), 0]);
        await Refuses(Internal, "must be 0 or 1", Frame([], flag: 2));
        await Refuses(Internal, "is not a ledger.v1.RecordCallRequest", Frame([0xFF, 0xFF, 0xFF]));
        await Refuses(Internal, "is not a ledger.v1.RecordCallRequest", Frame([0x0A, 0x7F, 0x00]));
    }

    [Fact]
    public async Task refuses_what_is_compressed_badly()
    {
        await Refuses(Internal, "grpc-encoding does not say how", Frame(Gzip([]), flag: 1));
        await Refuses(Internal, "grpc-encoding does not say how", Frame(Gzip([]), flag: 1), ("grpc-encoding", "identity"));
        await Refuses(Internal, "is not gzip", Frame([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], flag: 1), ("grpc-encoding", "gzip"));
        await Refuses(Internal, "is not gzip", Frame(Gzip(new byte[100_000])[..50], flag: 1), ("grpc-encoding", "gzip"));
        await Refuses(Unimplemented, "must be one of identity,gzip", Frame([]), ("grpc-encoding", "br"));
    }

    [Fact]
    public async Task refuses_what_is_too_large_before_it_has_come()
    {
        var max = Ledger.Http.Limits.MaxCommandBodyBytes;
        await Refuses(ResourceExhausted, $"larger than {max} bytes", new StandstillContent(Frame([], length: uint.MaxValue)));
        await Refuses(ResourceExhausted, $"larger than {max} bytes", new StandstillContent(Frame([], length: (uint)max + 1)));
        await Refuses(Internal, "breaks off", Frame([], length: (uint)max));
    }

    [Fact]
    public async Task refuses_what_is_too_large_once_it_is_unpacked()
    {
        var bomb = Frame(Gzip(new byte[1_000_000_000]), flag: 1);
        var before = GC.GetTotalAllocatedBytes();

        var answer = await Send("/ledger.v1.UsageService/RecordCalls", new ByteArrayContent(bomb), headers: ("grpc-encoding", "gzip"));

        Assert.Equal((ResourceExhausted, $"The message is larger than {RecordCalls.MaxBodyBytes} bytes."), (answer.Status, answer.Message));
        Assert.InRange(GC.GetTotalAllocatedBytes() - before, 0, 500_000_000);
    }

    [Fact]
    public async Task refuses_endless_lists_before_it_makes_them()
    {
        var calls = new byte[2 * (GrpcMessages.MaxItems + 1)];
        for (var i = 0; i < calls.Length; i += 2)
        {
            calls[i] = 0x0A; // field 1, of length 0
        }

        var answer = await Send("/ledger.v1.UsageService/RecordCalls", new ByteArrayContent(Frame(calls)));

        Assert.Equal((InvalidArgument, "calls must hold at most 10000."), (answer.Status, answer.Message));
    }

    [Theory]
    [InlineData(new byte[] { 0x0A, 0x03, 0x0A, 0x01, 0xFF }, "call.user_id")] // half a character
    [InlineData(new byte[] { 0x0A, 0x09, 0x3A, 0x07, 0x0A, 0x01, (byte)'t', 0x12, 0x02, 0xC3, 0x28 }, "call.tags")]
    [InlineData(new byte[] { 0x0A, 0x05, 0x3A, 0x03, 0x0A, 0x01, 0xC3 }, "call.tags")]
    public async Task refuses_text_that_is_none(byte[] message, string field) => await Refuses(InvalidArgument, $"{field} holds what is not text", Frame(message));

    [Theory]
    [InlineData("/")]
    [InlineData("/ledger.v1.UsageService/Nothing")]
    [InlineData("/ledger.v1.UsageService/recordcall")]
    [InlineData("/ledger.v1.Other/RecordCall")]
    [InlineData("/ledger.v1.UsageService/RecordCall/")]
    [InlineData("/grpc.health.v1.Health/Watch")]
    [InlineData("/v1/users")]
    [InlineData("/health/live")]
    [InlineData("/%C3%BC%0A")]
    public async Task has_no_other_method(string path)
    {
        var answer = await Send(path, new ByteArrayContent(Frame([])));
        Assert.Equal((HttpStatusCode.OK, Unimplemented), (answer.Response.StatusCode, answer.Status));
        Assert.StartsWith("There is no method /", answer.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("POST", RecordCall, "application/json")]
    [InlineData("POST", RecordCall, "application/grpc+json")]
    [InlineData("POST", RecordCall, "application/grpc-web")]
    [InlineData("POST", RecordCall, null)]
    [InlineData("PUT", RecordCall, "application/grpc")]
    [InlineData("GET", "/health/live", null)]
    [InlineData("POST", "/v1/users", "application/json")]
    public async Task answers_nothing_but_grpc(string method, string path, string? contentType)
    {
        var answer = await Send(path, method == "GET" ? null : new ByteArrayContent(Frame([])), contentType, new HttpMethod(method));
        Assert.Equal((HttpStatusCode.UnsupportedMediaType, InvalidArgument), (answer.Response.StatusCode, answer.Status));
        Assert.Empty(answer.Body);
    }

    [Fact]
    public async Task answers_no_older_http()
    {
        using var response = await _client.GetAsync(new Uri("/health/live", UriKind.Relative), Cancellation);
        Assert.Equal(HttpStatusCode.BadRequest, response.StatusCode);
    }

    [Fact]
    public async Task is_not_on_the_port_of_http()
    {
        using var client = new HttpClient { BaseAddress = node.Http.Client.BaseAddress };
        using var old = new ByteArrayContent(Frame([]));
        old.Headers.ContentType = new("application/grpc");
        using var response = await client.PostAsync(new Uri(RecordCall, UriKind.Relative), old, Cancellation);
        Assert.Equal((HttpStatusCode.NotFound, "application/problem+json"), (response.StatusCode, response.Content.Headers.ContentType?.MediaType));

        using var request = new HttpRequestMessage(HttpMethod.Post, RecordCall) { Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact, Content = new ByteArrayContent(Frame([])) };
        await Assert.ThrowsAsync<HttpRequestException>(() => client.SendAsync(request, Cancellation));
    }

    [Theory]
    [InlineData("1")]
    [InlineData("S")]
    [InlineData("1s")]
    [InlineData("-1S")]
    [InlineData("1.5S")]
    [InlineData("123456789S")]
    public async Task refuses_a_time_that_is_none(string timeout) => await Refuses(InvalidArgument, "grpc-timeout must be", Frame([]), ("grpc-timeout", timeout));

    [Theory]
    [InlineData("99999999H")]
    [InlineData("1M")]
    [InlineData("60S")]
    [InlineData("60000m")]
    [InlineData("60000000u")]
    public async Task has_the_time_that_the_caller_gives(string timeout) =>
        Assert.Equal(Ok, (await Send(Check, new ByteArrayContent(Frame([])), headers: ("grpc-timeout", timeout))).Status);

    [Theory]
    [InlineData("0S")]
    [InlineData("99999999n")]
    [InlineData("50m")]
    public async Task ends_when_the_time_is_up(string timeout) =>
        await Refuses(DeadlineExceeded, "is up", new StandstillContent([0, 0]), ("grpc-timeout", timeout));

    [Fact]
    public async Task ends_a_wait_for_a_position_when_the_time_is_up()
    {
        var started = Stopwatch.StartNew();

        var answer = await Send(
            "/ledger.v1.UsageService/QueryTotals", new ByteArrayContent(Frame([])),
            headers: [("grpc-timeout", "200m"), ("ledger-min-position", "999999999"), ("prefer", "wait=30")]);

        Assert.Equal(DeadlineExceeded, answer.Status);
        Assert.InRange(started.Elapsed.TotalSeconds, 0.1, 20);
    }

    [Fact]
    public async Task does_not_wait_for_ever_for_a_message()
    {
        var started = Stopwatch.StartNew();
        var ended = await Assert.ThrowsAnyAsync<Exception>(() => Send(RecordCall, new StandstillContent([0, 0])));
        Assert.True(ended is HttpRequestException or TaskCanceledException, $"{ended}"); // whichever of its two halves the client hears of first
        Assert.InRange(started.Elapsed.TotalSeconds, 0, 2 * Ledger.Http.Limits.BodyGraceSeconds);
    }

    [Fact]
    public void has_every_method_of_the_descriptions()
    {
        FileDescriptor[] files = [Proto.UsageReflection.Descriptor, HealthReflection.Descriptor];

        Assert.Equal(
            files.SelectMany(f => f.Services).SelectMany(s => s.Methods).Select(m => $"/{m.Service.FullName}/{m.Name}").Order(),
            node.Http.Services.GetRequiredService<GrpcTransport>().Methods.Select(m => m.Path).Order());
    }

    [Fact]
    public async Task goes_on_with_the_callers_trace()
    {
        var spans = new List<Activity>();
        var trace = ActivityTraceId.CreateRandom().ToHexString();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Microsoft.AspNetCore",
            Sample = (ref _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = span =>
            {
                lock (spans)
                {
                    spans.Add(span);
                }
            },
        };
        ActivitySource.AddActivityListener(listener);

        var refused = (await node.Call("RecordCall", new { }, ("traceparent", $"00-{trace}-00f067aa0ba902b7-01"))).IsRefused(InvalidArgument, "invalid-request");

        Assert.Equal(trace, refused.Detail("ErrorInfo").GetProperty("metadata").GetProperty("traceId").GetString());
        Activity? span = null;
        Assert.True(SpinWait.SpinUntil(
            () =>
            {
                lock (spans)
                {
                    return (span = spans.Find(s => s.TraceId.ToHexString() == trace)) is not null;
                }
            },
            TimeSpan.FromSeconds(10)));
        Assert.Equal("ledger.v1.UsageService/RecordCall", span!.DisplayName);
        Assert.Equal(
            ["rpc.grpc.status_code=3", "rpc.method=RecordCall", "rpc.service=ledger.v1.UsageService", "rpc.system=grpc"],
            span.TagObjects.Where(t => t.Key.StartsWith("rpc.", StringComparison.Ordinal)).Select(t => $"{t.Key}={t.Value}").Order());
    }

    [Fact]
    public async Task tells_whether_the_node_is_well()
    {
        foreach (var service in (string[])["", "ledger.v1.UsageService"])
        {
            var well = (await node.Call(new GrpcCall("Check", new { service }) { Service = "grpc.health.v1.Health" })).IsOk();
            Assert.Equal("""{"status":"SERVING"}""", well.Response!.Value.GetRawText());
        }

        Assert.Equal(5, (await node.Call(new GrpcCall("Check", new { service = "other" }) { Service = "grpc.health.v1.Health" })).Code);
    }

    [Fact]
    public async Task gives_the_client_its_deadline()
    {
        var late = await node.Call(new GrpcCall("RecordCalls", new { calls = Enumerable.Range(0, 10_000).Select(i => new { user_id = "u", service_id = $"s{i}" }) }) { DeadlineMs = 1 });

        Assert.Equal(DeadlineExceeded, late.Code);
    }

    [Fact]
    public async Task takes_a_stream_that_breaks_off_for_a_cancelled_call()
    {
        var body = new Pipe();
        await body.Writer.WriteAsync(new byte[] { 0, 0 }, Cancellation);
        await body.Writer.CompleteAsync(new IOException("The client reset the request stream."));

        var broken = await Assert.ThrowsAsync<UnreadableMessageException>(() => GrpcMessages.ReadOne(body.Reader, null, 10, Cancellation));

        Assert.Equal(GrpcCode.Cancelled, broken.Status.Code);
    }

    [Fact]
    public async Task takes_calls_that_are_given_up_for_no_failure_of_its_own()
    {
        var calls = Enumerable.Range(0, 10_000).Select(i => new { user_id = "u", service_id = $"s{i}" }).ToArray();
        for (var i = 0; i < 100; i++)
        {
            Assert.NotEqual(Ok, (await node.Call(new GrpcCall("RecordCalls", new { calls }) { DeadlineMs = 1 + i % 4 })).Code);
        }

        Assert.True(node.Http.Errors.Count == 0, string.Join("\n", node.Http.Errors));
    }

    [Fact]
    public async Task cuts_off_a_call_whose_key_is_revoked_while_its_message_is_sent()
    {
        var key = await node.Http.Key(Scopes.UsageWrite);
        Assert.NotEqual(Unauthenticated, (await Send(RecordCall, new ByteArrayContent(Frame([])), headers: key.Bearer())).Status); // and the node knows the key
        var calling = Send(RecordCall, new StandstillContent([0, 0]), headers: key.Bearer());

        (await node.Http.Delete($"/v1/keys/{key.KeyId}")).Is(HttpStatusCode.NoContent);

        var ended = await Assert.ThrowsAnyAsync<Exception>(() => calling.WaitAsync(TimeSpan.FromSeconds(5), Cancellation));
        Assert.True(ended is HttpRequestException or TaskCanceledException, $"{ended}");
    }

    /// <summary>Goes out byte by byte.</summary>
    private sealed class PiecewiseContent(byte[] bytes) : HttpContent
    {
        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            foreach (var single in bytes)
            {
                await stream.WriteAsync(new[] { single });
                await stream.FlushAsync();
            }
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }

    /// <summary>Begins, and never ends.</summary>
    private sealed class StandstillContent(byte[] bytes) : HttpContent
    {
        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) => SerializeToStreamAsync(stream, context, default);

        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
        {
            await stream.WriteAsync(bytes, cancellationToken);
            await stream.FlushAsync(cancellationToken);
            await Task.Delay(Timeout.Infinite, cancellationToken);
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}
