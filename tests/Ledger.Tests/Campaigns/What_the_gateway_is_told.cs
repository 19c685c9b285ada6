using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Ledger.Campaigns;
using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Ledger.Tests.Campaigns;

/// <summary>Who may know what of the gateway, and how it is set.</summary>
public sealed class What_the_gateway_is_told(PostgresFixture postgres)
{
    private const string Secret = "s3cr3t-t0ken-4711";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static LedgerSettings Settings(params (string Name, string Value)[] environment) =>
        LedgerSettings.FromEnvironment(environment.ToDictionary(e => e.Name, e => e.Value).GetValueOrDefault);

    [Fact]
    public async Task Is_repeated_nowhere()
    {
        var log = new Recorder();
        var spans = new ConcurrentQueue<string>();
        var measured = new ConcurrentQueue<string>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Ledger", Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = span => spans.Enqueue($"{span.DisplayName} {span.Kind} {span.StatusDescription} {string.Join(' ', span.TagObjects)} {string.Join(' ', span.Events.SelectMany(e => e.Tags))}"),
        };
        ActivitySource.AddActivityListener(listener);
        using var meters = new MeterListener { InstrumentPublished = (instrument, l) => { if (instrument.Meter.Name == "Ledger") { l.EnableMeasurementEvents(instrument); } } };
        meters.SetMeasurementEventCallback<long>((i, _, tags, _) => measured.Enqueue($"{i.Name} {string.Join(' ', tags.ToArray())}"));
        meters.SetMeasurementEventCallback<double>((i, _, tags, _) => measured.Enqueue($"{i.Name} {string.Join(' ', tags.ToArray())}"));
        meters.Start();
        var behaviour = "";
        var run = $"m-{Guid.NewGuid()}";
        await using var raw = new RawGateway(async (socket, request) =>
        {
            // Whatever it does, it repeats all that it was told.
            var told = string.Concat(request.Split("\r\n").First(l => l.StartsWith("Authorization", StringComparison.Ordinal)).Where(c => c != '"'));
            var body = $"{{\"code\":1,\"message\":\"{told}, {Secret.ToUpperInvariant()}\"}}";
            if (behaviour.Length != 3)
            {
                await Calls_to_the_gateway.Misbehave(socket, request, behaviour);
                return;
            }

            await socket.SendAsync(Encoding.Latin1.GetBytes($"HTTP/1.1 {behaviour} {told}\r\nX-Told: {told}\r\nRetry-After: {told}\r\nLocation: /{Secret}\r\nContent-Length: {body.Length}\r\n\r\n{body}"));
        });
        await using var node = new TestNode(postgres)
        {
            WallClock = TimeProvider.System,
            Settings = s => s with { MessageGateway = new GatewaySettings(raw.Address, Secret) { Timeout = TimeSpan.FromMilliseconds(500) } },
            Configure = s => s.AddSingleton<ILoggerProvider>(log),
        };
        await node.InitializeAsync();
        var settings = node.Services.GetRequiredService<LedgerSettings>();
        Assert.True(node.Services.GetRequiredService<Gateway>().IsAccepting);
        var outcomes = new List<SendOutcome>();
        foreach (var next in (string[])["200", "400", "500", "429", "401", "302", "echo", "garbage", "hang", "close", "half body"])
        {
            behaviour = next;
            using var gateway = new Gateway(settings.MessageGateway, TimeProvider.System, node.Services.GetRequiredService<ILogger<Gateway>>());
            for (var i = 0; i < (next == "echo" ? CircuitBreaker.FailuresToOpen : 1); i++)
            {
                outcomes.Add(await gateway.Send($"{run}-{next}-{i}", "+4915112345678", "text", Cancellation));
            }
        }

        var metrics = (await node.GetAsIs("/metrics")).Is(HttpStatusCode.OK).Text;

        Assert.Contains(raw.Requests, r => r.Contains(Secret, StringComparison.Ordinal));
        Assert.Contains(outcomes, o => o.Error!.Contains("code 1: Authorization: Bearer ***, ***", StringComparison.Ordinal));
        Assert.Equal(outcomes.Count, spans.Count(s => s.StartsWith("POST /send/{id} Client ", StringComparison.Ordinal) && s.Contains(run, StringComparison.Ordinal)));
        Assert.Contains(log.Lines, l => l.StartsWith("Error The gateway lets nobody in; nothing is sent for ", StringComparison.Ordinal));
        Assert.Contains(log.Lines, l => l.StartsWith("Warning The gateway is not called for ", StringComparison.Ordinal));
        Assert.Contains(measured, m => m.StartsWith("ledger.gateway.calls ", StringComparison.Ordinal));
        Assert.Contains("ledger_gateway_breaker_state{state=\"closed\"} 1", metrics, StringComparison.Ordinal);
        Assert.All(
            [.. log.Lines, .. spans, .. measured, metrics, .. outcomes.Select(o => $"{o}"), $"{settings}", $"{settings.MessageGateway}"],
            text =>
            {
                Assert.DoesNotContain(Secret, text, StringComparison.OrdinalIgnoreCase);
                Assert.DoesNotContain("+4915112345678", text, StringComparison.Ordinal);
            });
    }

    [Fact]
    public async Task Is_measured_and_traced_by_the_conventions()
    {
        var spans = new ConcurrentQueue<Activity>();
        var measured = new ConcurrentQueue<(string Name, double Value, string Tags)>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == "Ledger", Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        ActivitySource.AddActivityListener(listener);
        using var meters = new MeterListener
        {
            InstrumentPublished = (instrument, l) =>
            {
                if (instrument.Name.StartsWith("ledger.gateway.", StringComparison.Ordinal) && !instrument.IsObservable)
                {
                    l.EnableMeasurementEvents(instrument);
                }
            },
        };
        meters.SetMeasurementEventCallback<int>((i, value, tags, _) => measured.Enqueue((i.Name, value, Shown(tags))));
        meters.SetMeasurementEventCallback<long>((i, value, tags, _) => measured.Enqueue((i.Name, value, Shown(tags))));
        meters.SetMeasurementEventCallback<double>((i, value, tags, _) => measured.Enqueue((i.Name, value, Shown(tags))));
        meters.Start();
        await using var gateway = await GatewayProcess.Start(new { errorPercent = 100 });
        using var client = new Gateway(new GatewaySettings(gateway.Address, GatewayProcess.Token), TimeProvider.System, Microsoft.Extensions.Logging.Abstractions.NullLogger<Gateway>.Instance);
        var id = $"m-{Guid.NewGuid()}";

        await client.Send(id, "+4915112345678", "text", Cancellation);
        await gateway.SetFaults(new { });
        await client.Send(id, "+4915112345678", "text", Cancellation);

        var (failed, sent) = (Of(0), Of(1));
        Assert.Equal(("POST /send/{id}", ActivityKind.Client, ActivityStatusCode.Error), (failed.DisplayName, failed.Kind, failed.Status));
        Assert.Equal(
            $"error.type=500 http.request.method=POST http.response.status_code=500 ledger.gateway.outcome=failed ledger.message.id={id} server.address=127.0.0.1 server.port={gateway.Address.Port} url.template=/send/{{id}}",
            Shown([.. failed.TagObjects]));
        Assert.Equal(ActivityStatusCode.Unset, sent.Status);
        Assert.Equal(
            $"http.request.method=POST http.response.status_code=200 ledger.gateway.outcome=sent ledger.message.id={id} server.address=127.0.0.1 server.port={gateway.Address.Port} url.template=/send/{{id}}",
            Shown([.. sent.TagObjects]));
        Assert.Contains(measured, m => m is { Name: "ledger.gateway.calls", Value: 1, Tags: "error.type=500 outcome=failed" });
        Assert.Contains(measured, m => m is { Name: "ledger.gateway.calls", Value: 1, Tags: "outcome=sent" });
        Assert.Contains(measured, m => m is { Name: "ledger.gateway.call.duration", Value: > 0 and < 30, Tags: "outcome=sent" });
        Assert.Contains(measured, m => m is { Name: "ledger.gateway.calls.in_flight", Value: 1 });
        Assert.Contains(measured, m => m is { Name: "ledger.gateway.calls.in_flight", Value: -1 });

        Activity Of(int index) => spans.Where(s => Equals(s.GetTagItem("ledger.message.id"), id)).ElementAt(index);

        static string Shown(ReadOnlySpan<KeyValuePair<string, object?>> tags) =>
            string.Join(' ', tags.ToArray().OrderBy(t => t.Key, StringComparer.Ordinal).Select(t => $"{t.Key}={t.Value}"));
    }

    [Fact]
    public void Is_set_by_the_environment()
    {
        Assert.Null(Settings().MessageGateway);
        Assert.Null(Settings(("LEDGER_GATEWAY_CONCURRENCY", "5")).MessageGateway);
        var settings = Settings(("LEDGER_GATEWAY_URL", "https://gateway.example.com/v1"), ("LEDGER_GATEWAY_TOKEN", Secret)).MessageGateway!;
        Assert.Equal(
            ("https://gateway.example.com/v1", Secret, 32, 0, TimeSpan.FromSeconds(10)),
            ($"{settings.Url}", settings.Token, settings.Concurrency, settings.RatePerSecond, settings.Timeout));
        settings = Settings(
            ("LEDGER_GATEWAY_URL", "http://localhost:8090"), ("LEDGER_GATEWAY_TOKEN", Secret), ("LEDGER_GATEWAY_CONCURRENCY", "1000"),
            ("LEDGER_GATEWAY_RATE_PER_SECOND", "100000"), ("LEDGER_GATEWAY_TIMEOUT_SECONDS", "300")).MessageGateway!;
        Assert.Equal((1_000, 100_000, TimeSpan.FromSeconds(300)), (settings.Concurrency, settings.RatePerSecond, settings.Timeout));
        Assert.NotNull(Settings(
            ("LEDGER_GATEWAY_URL", "http://gateway:8090"), ("LEDGER_GATEWAY_TOKEN", Secret), (GatewaySettings.PlainVariable, "yes")).MessageGateway);
    }

    [Theory]
    [InlineData("LEDGER_GATEWAY_URL", "https://gateway.example.com", "LEDGER_GATEWAY_URL and LEDGER_GATEWAY_TOKEN go together.")]
    [InlineData("LEDGER_GATEWAY_TOKEN", Secret, "LEDGER_GATEWAY_URL and LEDGER_GATEWAY_TOKEN go together.")]
    [InlineData("both", "gateway.example.com", "LEDGER_GATEWAY_URL must be an address such as https://gateway.example.com/v1, without a user, '?' or '#'.")]
    [InlineData("both", "ftp://gateway.example.com", "LEDGER_GATEWAY_URL must be an address such as https://gateway.example.com/v1, without a user, '?' or '#'.")]
    [InlineData("both", "https://me:" + Secret + "@gateway.example.com", "LEDGER_GATEWAY_URL must be an address such as https://gateway.example.com/v1, without a user, '?' or '#'.")]
    [InlineData("both", "https://gateway.example.com?key=" + Secret, "LEDGER_GATEWAY_URL must be an address such as https://gateway.example.com/v1, without a user, '?' or '#'.")]
    [InlineData("both", "https://gateway.example.com#x", "LEDGER_GATEWAY_URL must be an address such as https://gateway.example.com/v1, without a user, '?' or '#'.")]
    [InlineData("both", "http://10.0.0.7:8090", "LEDGER_GATEWAY_URL is http, so everybody on the way could read the token and every message. Use https, or set LEDGER_I_ACCEPT_SENDING_THE_GATEWAY_TOKEN_UNENCRYPTED=yes.")]
    [InlineData("LEDGER_GATEWAY_CONCURRENCY", "0", "LEDGER_GATEWAY_CONCURRENCY must be a whole number from 1 to 1000; it is '0'.")]
    [InlineData("LEDGER_GATEWAY_CONCURRENCY", "1001", "LEDGER_GATEWAY_CONCURRENCY must be a whole number from 1 to 1000; it is '1001'.")]
    [InlineData("LEDGER_GATEWAY_RATE_PER_SECOND", "-1", "LEDGER_GATEWAY_RATE_PER_SECOND must be a whole number from 0 to 100000; it is '-1'.")]
    [InlineData("LEDGER_GATEWAY_TIMEOUT_SECONDS", "301", "LEDGER_GATEWAY_TIMEOUT_SECONDS must be a whole number from 1 to 300; it is '301'.")]
    public void Is_refused_at_the_start_if_it_makes_no_sense(string variable, string value, string message) => Assert.Equal(
        message,
        Assert.Throws<SettingsException>(() => variable == "both" ? Settings(("LEDGER_GATEWAY_URL", value), ("LEDGER_GATEWAY_TOKEN", Secret)) : Settings((variable, value))).Message);

    [Theory]
    [InlineData("two words")]
    [InlineData("line\nend")]
    [InlineData("ümlaut")]
    public void Is_not_shown_when_the_token_is_refused(string token)
    {
        var message = Assert.Throws<SettingsException>(() => Settings(("LEDGER_GATEWAY_URL", "https://gateway.example.com"), ("LEDGER_GATEWAY_TOKEN", token))).Message;
        Assert.Equal("LEDGER_GATEWAY_TOKEN must be at most 8192 visible ASCII characters.", message);
    }

    private sealed class Recorder : ILoggerProvider, ILogger
    {
        public ConcurrentQueue<string> Lines { get; } = [];

        public ILogger CreateLogger(string categoryName) => this;

        public void Dispose()
        {
        }

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            Lines.Enqueue($"{logLevel} {formatter(state, exception)} {exception}");
    }
}
