using System.Buffers.Binary;
using System.Globalization;
using System.IO.Compression;
using Google.Protobuf;
using Google.Protobuf.Collections;
using Ledger.Tests.Operations.Otlp;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Ledger.Tests.Operations;

/// <summary>Takes what is exported over OTLP, by gRPC on one port and over HTTP on another.</summary>
internal sealed class OtlpReceiver : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly Lock _lock = new();
    private readonly List<ReceivedSpan> _spans = [];
    private readonly List<ReceivedMetric> _metrics = [];
    private readonly List<ReceivedLog> _logs = [];
    private readonly HashSet<string> _requests = [];
    private TaskCompletionSource _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private OtlpReceiver(WebApplication app) => _app = app;

    public string GrpcAddress => _app.Urls.First();

    public string HttpAddress => _app.Urls.Last();

    public IReadOnlyList<ReceivedSpan> Spans => Locked(() => _spans.ToArray());

    public IReadOnlyList<ReceivedMetric> Metrics => Locked(() => _metrics.ToArray());

    public IReadOnlyList<ReceivedLog> Logs => Locked(() => _logs.ToArray());

    /// <summary>What was asked for, with the header <c>x-token</c> of it.</summary>
    public IReadOnlyCollection<string> Requests => Locked(() => _requests.ToArray());

    public static async Task<OtlpReceiver> Start()
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.Listen(System.Net.IPAddress.Loopback, 0, port => port.Protocols = HttpProtocols.Http2);
            kestrel.Listen(System.Net.IPAddress.Loopback, 0, port => port.Protocols = HttpProtocols.Http1);
        });
        var app = builder.Build();
        var receiver = new OtlpReceiver(app);
        app.Run(receiver.Receive);
        await app.StartAsync();
        return receiver;
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();

    /// <summary>Waits until what has come is enough.</summary>
    public async Task Until(Func<bool> isEnough, string what)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        patience.CancelAfter(TimeSpan.FromSeconds(60));
        while (true)
        {
            var changed = Locked(() => _changed.Task);
            if (isEnough())
            {
                return;
            }

            try
            {
                await changed.WaitAsync(patience.Token);
            }
            catch (OperationCanceledException)
            {
                Assert.Fail($"{what}: not within a minute. There were the spans {string.Join(", ", Spans.Select(s => s.Name).Distinct())}.");
            }
        }
    }

    private T Locked<T>(Func<T> read)
    {
        lock (_lock)
        {
            return read();
        }
    }

    private async Task Receive(HttpContext http)
    {
        var isGrpc = http.Request.ContentType == "application/grpc";
        var path = http.Request.Path.Value!;
        using var body = new MemoryStream();
        await http.Request.Body.CopyToAsync(body);
        var bytes = body.ToArray();
        if (isGrpc)
        {
            Assert.Equal(bytes.Length - 5, (int)BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(1)));
            bytes = bytes[0] == 1 ? Unpack(bytes[5..]) : bytes[5..];
        }
        else if (http.Request.Headers.ContentEncoding == "gzip")
        {
            bytes = Unpack(bytes);
        }

        lock (_lock)
        {
            _requests.Add($"{path} {http.Request.Headers["x-token"]}");
            switch (path)
            {
                case "/v1/traces" or "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
                    _spans.AddRange(
                        from resource in TraceExport.Parser.ParseFrom(bytes).ResourceSpans
                        from scope in resource.ScopeSpans
                        from span in scope.Spans
                        select new ReceivedSpan(Texts(resource.Resource.Attributes), scope.Scope.Name, span));
                    break;
                case "/v1/metrics" or "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export":
                    _metrics.AddRange(
                        from resource in MetricsExport.Parser.ParseFrom(bytes).ResourceMetrics
                        from scope in resource.ScopeMetrics
                        from metric in scope.Metrics
                        select new ReceivedMetric(Texts(resource.Resource.Attributes), scope.Scope.Name, metric));
                    break;
                case "/v1/logs" or "/opentelemetry.proto.collector.logs.v1.LogsService/Export":
                    _logs.AddRange(
                        from resource in LogsExport.Parser.ParseFrom(bytes).ResourceLogs
                        from scope in resource.ScopeLogs
                        from log in scope.LogRecords
                        select new ReceivedLog(Texts(resource.Resource.Attributes), scope.Scope.Name, log));
                    break;
                default:
                    http.Response.StatusCode = 404;
                    return;
            }

            _changed.SetResult();
            _changed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        http.Response.ContentType = isGrpc ? "application/grpc" : "application/x-protobuf";
        if (isGrpc)
        {
            await http.Response.Body.WriteAsync(new byte[5]); // an empty answer
            http.Response.AppendTrailer("grpc-status", "0");
        }
    }

    private static byte[] Unpack(byte[] packed)
    {
        using var gzip = new GZipStream(new MemoryStream(packed), CompressionMode.Decompress);
        using var bytes = new MemoryStream();
        gzip.CopyTo(bytes);
        return bytes.ToArray();
    }

    internal static Dictionary<string, string> Texts(RepeatedField<KeyValue> attributes) => attributes.ToDictionary(a => a.Key, a => Text(a.Value));

    internal static string Text(AnyValue value) => value.ValueCase switch
    {
        AnyValue.ValueOneofCase.StringValue => value.StringValue,
        AnyValue.ValueOneofCase.BoolValue => value.BoolValue ? "true" : "false",
        AnyValue.ValueOneofCase.IntValue => value.IntValue.ToString(CultureInfo.InvariantCulture),
        AnyValue.ValueOneofCase.DoubleValue => value.DoubleValue.ToString(CultureInfo.InvariantCulture),
        AnyValue.ValueOneofCase.ArrayValue => string.Join(',', value.ArrayValue.Values.Select(Text)),
        _ => "",
    };

    internal static string Hex(ByteString bytes) => Convert.ToHexStringLower(bytes.Span);
}

/// <summary>A span as it came.</summary>
internal sealed record ReceivedSpan(IReadOnlyDictionary<string, string> Resource, string Scope, Span Span)
{
    public const int Internal = 1, Server = 2, Client = 3, Producer = 4, Consumer = 5, Error = 2;

    public string Name => Span.Name;

    public string Trace => OtlpReceiver.Hex(Span.TraceId);

    public string Id => OtlpReceiver.Hex(Span.SpanId);

    public string Parent => OtlpReceiver.Hex(Span.ParentSpanId);

    public IReadOnlyDictionary<string, string> Tags => OtlpReceiver.Texts(Span.Attributes);

    public IEnumerable<string> Links => Span.Links.Select(l => OtlpReceiver.Hex(l.SpanId));
}

/// <summary>A metric as it came.</summary>
internal sealed record ReceivedMetric(IReadOnlyDictionary<string, string> Resource, string Scope, Metric Metric);

/// <summary>A log entry as it came.</summary>
internal sealed record ReceivedLog(IReadOnlyDictionary<string, string> Resource, string Scope, LogRecord Log)
{
    public string Text => OtlpReceiver.Text(Log.Body);

    public string Trace => OtlpReceiver.Hex(Log.TraceId);

    public string Span => OtlpReceiver.Hex(Log.SpanId);

    public IReadOnlyDictionary<string, string> Tags => OtlpReceiver.Texts(Log.Attributes);
}
