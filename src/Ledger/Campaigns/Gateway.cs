using System.Buffers;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text.Encodings.Web;
using System.Text.Json;

namespace Ledger.Campaigns;

/// <summary>
/// Sends messages: <c>POST {gateway}/send/{id}</c> with a bearer token. At most so many calls at once and a second, and none
/// while the breaker is open. Whatever the gateway does, a call ends within the timeout, with one outcome, and is made once:
/// repeating it is the caller's, who keeps the id.
/// </summary>
public sealed partial class Gateway : IDisposable
{
    /// <summary>How long a connection may take.</summary>
    public static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(5);

    /// <summary>How long a connection is kept that nothing is sent over: shorter than common servers keep theirs, which may close it just when it is used.</summary>
    public static readonly TimeSpan IdleTimeout = TimeSpan.FromSeconds(4);

    /// <summary>How long a connection is used, so that the gateway's name is looked up again.</summary>
    public static readonly TimeSpan ConnectionLifetime = TimeSpan.FromMinutes(5);

    private const int MaxHeaderKilobytes = 16;

    private static readonly JsonWriterOptions s_json = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private readonly GatewaySettings? _settings;
    private readonly TimeProvider _clock;
    private readonly ILogger<Gateway> _logger;
    private readonly HttpMessageInvoker? _client;
    private readonly SemaphoreSlim _slots;
    private readonly SendRate _rate;
    private readonly CircuitBreaker _breaker;
    private readonly Meter _meter = new("Ledger");
    private readonly string _base = "";

    /// <summary>A gateway; without settings, one that sends nothing.</summary>
    public Gateway(GatewaySettings? settings, TimeProvider clock, ILogger<Gateway> logger)
    {
        (_settings, _clock, _logger) = (settings, clock, logger);
        _slots = new SemaphoreSlim(settings?.Concurrency ?? 1);
        _rate = new SendRate(settings?.RatePerSecond ?? 0, clock);
        _breaker = new CircuitBreaker(clock, RetryDelays.Jitter);
        _meter.CreateObservableGauge("ledger.gateway.breaker.state", MeasureState, "{state}", "The state of the breaker before the gateway: 1 for the one it is in");
        if (settings is null)
        {
            return;
        }

        _base = settings.Url.GetLeftPart(UriPartial.Path).TrimEnd('/');
        _client = new HttpMessageInvoker(new SocketsHttpHandler
        {
            UseProxy = false, UseCookies = false, AllowAutoRedirect = false, AutomaticDecompression = DecompressionMethods.None,
            MaxConnectionsPerServer = settings.Concurrency, ConnectTimeout = ConnectTimeout,
            PooledConnectionIdleTimeout = IdleTimeout, PooledConnectionLifetime = ConnectionLifetime,
            MaxResponseHeadersLength = MaxHeaderKilobytes, MaxResponseDrainSize = GatewayAnswer.MaxBytes,
            ActivityHeadersPropagator = null, // it would send on the baggage of a caller, too
        });
    }

    /// <summary>Whether there is a gateway.</summary>
    public bool IsConfigured => _client is not null;

    /// <summary>Whether a call would be made now; false without a gateway and while the breaker is open.</summary>
    public bool IsAccepting => IsConfigured && _breaker.IsAccepting;

    /// <summary>When it is worth asking again; null: now, or there is no gateway.</summary>
    public DateTimeOffset? RetryAt => IsConfigured && _breaker.RetryAfter is { } wait ? _clock.GetUtcNow() + wait : null;

    /// <summary>Calls that this node has under way at once, at most; 0 without a gateway.</summary>
    public int Concurrency => _settings?.Concurrency ?? 0;

    /// <summary>How long a call may take; zero without a gateway.</summary>
    public TimeSpan Timeout => _settings?.Timeout ?? TimeSpan.Zero;

    /// <summary>The state of the breaker.</summary>
    public BreakerState State => _breaker.State;

    /// <summary>Sends a message; see <see cref="Send(string, string, string, Func{bool}, CancellationToken)"/>.</summary>
    public Task<SendOutcome> Send(string messageId, string phone, string text, CancellationToken ct) => Send(messageId, phone, text, null, ct);

    /// <summary>
    /// Sends a message, once. It waits for its turn; what is cancelled meanwhile is not sent, and what is cancelled after it
    /// has left is unknown. It does not throw.
    /// </summary>
    /// <param name="messageId">The id under which a gateway knows it again, the same at each attempt.</param>
    /// <param name="phone">The recipient.</param>
    /// <param name="text">The message.</param>
    /// <param name="mayLeave">
    /// Asked once, when a connection is there and before the first byte goes out: false keeps the message here. For what must
    /// hold when it leaves, however long it has waited.
    /// </param>
    /// <param name="ct">Gives it up.</param>
    public async Task<SendOutcome> Send(string messageId, string phone, string text, Func<bool>? mayLeave, CancellationToken ct)
    {
        if (messageId.Length == 0 || messageId.All(c => c == '.'))
        {
            throw new ArgumentException("The id must have a character that is not '.', or it does not stand in the path.", nameof(messageId));
        }

        if (_client is null)
        {
            return Count(new SendOutcome(SendResult.NotSent, null, "No gateway is configured.", null), "not_configured", null);
        }

        if (!_breaker.IsAccepting)
        {
            return Held();
        }

        try
        {
            await _slots.WaitAsync(ct);
        }
        catch (OperationCanceledException)
        {
            return Cancelled();
        }

        try
        {
            await _rate.Wait(ct);
            if (_breaker.TryEnter() is not { } permit)
            {
                return Held();
            }

            SendOutcome? outcome = null;
            var verdict = CallVerdict.None;
            try
            {
                (outcome, verdict) = await Call(messageId, phone, text, mayLeave, ct);
                return outcome;
            }
            finally
            {
                Leave(permit, verdict, outcome);
            }
        }
        catch (OperationCanceledException) when (ct.IsCancellationRequested)
        {
            return Cancelled();
        }
        finally
        {
            _slots.Release();
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _client?.Dispose();
        _slots.Dispose();
        _meter.Dispose();
    }

    private async Task<(SendOutcome Outcome, CallVerdict Verdict)> Call(string messageId, string phone, string text, Func<bool>? mayLeave, CancellationToken ct)
    {
        using var span = GatewayMetrics.Source.StartActivity("POST /send/{id}", ActivityKind.Client);
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(ct);
        patience.CancelAfter(_settings!.Timeout);
        using var content = new MessageContent(Write(messageId, phone, text), mayLeave);
        using var request = new HttpRequestMessage(HttpMethod.Post, $"{_base}/send/{Uri.EscapeDataString(messageId)}")
        {
            Version = HttpVersion.Version11, VersionPolicy = HttpVersionPolicy.RequestVersionExact, Content = content,
            Headers = { Authorization = new AuthenticationHeaderValue("Bearer", _settings.Token), Accept = { new MediaTypeWithQualityHeaderValue("application/json") } },
        };
        if (span is { IdFormat: ActivityIdFormat.W3C })
        {
            request.Headers.TryAddWithoutValidation("traceparent", span.Id);
        }

        var began = _clock.GetTimestamp();
        GatewayMetrics.InFlight.Add(1);
        try
        {
            var (outcome, verdict, error) = await Exchange(request, content, patience.Token, ct);
            Describe(span, messageId, outcome, error);
            Count(outcome, error, _clock.GetElapsedTime(began));
            return (outcome, verdict);
        }
        finally
        {
            GatewayMetrics.InFlight.Add(-1);
        }
    }

    /// <summary>Sends the request and judges what comes back; the last part is the type of the error, of a few.</summary>
    private async Task<(SendOutcome Outcome, CallVerdict Verdict, string? Error)> Exchange(
        HttpRequestMessage request, MessageContent content, CancellationToken patience, CancellationToken ct)
    {
        try
        {
            using var response = await _client!.SendAsync(request, patience);
            var status = (int)response.StatusCode;
            var retryAfter = GatewayAnswer.RetryAfterOf(response.Headers, _clock.GetUtcNow());
            var (answer, lost) = await ReadAnswer(response.Content, patience);
            var (outcome, verdict) = GatewayAnswer.Judge(status, answer, retryAfter);
            var error = (outcome.Result, status) switch
            {
                (SendResult.Sent, _) => null,
                (SendResult.Refused, < 300) => "refused",
                (_, < 300) => lost ?? "invalid_answer",
                _ => status.ToString(CultureInfo.InvariantCulture),
            };
            return (outcome, ct.IsCancellationRequested && lost is not null ? CallVerdict.None : verdict, error);
        }
        catch (MustStayException)
        {
            return (NotSent("It was not to be sent any more when its turn came."), CallVerdict.None, "not_allowed");
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException or OperationCanceledException)
        {
            // What an exception says may repeat what the gateway sent, and so the token: it is neither kept nor logged.
            var (error, why) = Explain(exception, ct);
            return (
                content.HasLeft ? new SendOutcome(SendResult.Unknown, null, $"{why} Whether the gateway accepted the message is not known.", null) : NotSent(why),
                ct.IsCancellationRequested ? CallVerdict.None : CallVerdict.Faulty, error);
        }
    }

    /// <summary>The body, if it is an answer of a gateway, and otherwise what kept it from being read to its end.</summary>
    private async Task<(GatewayAnswer? Answer, string? Lost)> ReadAnswer(HttpContent content, CancellationToken cancellation)
    {
        var buffer = ArrayPool<byte>.Shared.Rent(GatewayAnswer.MaxBytes + 1);
        try
        {
            await using var stream = await content.ReadAsStreamAsync(cancellation);
            var length = await stream.ReadAtLeastAsync(buffer.AsMemory(0, GatewayAnswer.MaxBytes + 1), GatewayAnswer.MaxBytes + 1, throwOnEndOfStream: false, cancellation);
            return length > GatewayAnswer.MaxBytes ? (null, "answer_too_long") : (GatewayAnswer.Read(buffer.AsMemory(0, length), _settings!.Token), null);
        }
        catch (Exception exception) when (exception is HttpRequestException or IOException or OperationCanceledException)
        {
            return (null, exception is OperationCanceledException ? "timeout" : "response_ended"); // the status alone must do
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private static (string Error, string Why) Explain(Exception exception, CancellationToken ct) => exception switch
    {
        _ when ct.IsCancellationRequested => ("cancelled", "The call was given up."),
        OperationCanceledException => ("timeout", "There was no answer in time."),
        HttpRequestException { HttpRequestError: HttpRequestError.NameResolutionError } => ("name_resolution_error", "The gateway's name can't be resolved."),
        HttpRequestException { HttpRequestError: HttpRequestError.ConnectionError } => ("connection_error", "The gateway can't be connected to."),
        HttpRequestException { HttpRequestError: HttpRequestError.SecureConnectionError } => ("secure_connection_error", "There is no secure connection to the gateway."),
        HttpRequestException { HttpRequestError: HttpRequestError.InvalidResponse or HttpRequestError.ConfigurationLimitExceeded } => ("invalid_response", "The answer is not HTTP."),
        _ => ("response_ended", "The connection broke before there was an answer."),
    };

    private static byte[] Write(string messageId, string phone, string text)
    {
        var body = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(body, s_json))
        {
            json.WriteStartObject();
            json.WriteString("id", messageId);
            json.WriteString("phone", phone);
            json.WriteString("text", text);
            json.WriteEndObject();
        }

        return body.WrittenSpan.ToArray();
    }

    private void Describe(Activity? span, string messageId, SendOutcome outcome, string? error)
    {
        if (span is not { IsAllDataRequested: true })
        {
            return;
        }

        span.SetTag("http.request.method", "POST");
        span.SetTag("url.template", "/send/{id}"); // the full address may hold what is nobody's business
        span.SetTag("server.address", _settings!.Url.Host);
        span.SetTag("server.port", _settings.Url.Port);
        span.SetTag("http.response.status_code", outcome.StatusCode);
        span.SetTag("ledger.message.id", messageId);
        span.SetTag("ledger.gateway.outcome", GatewayMetrics.NameOf(outcome.Result));
        if (error is not null)
        {
            span.SetTag("error.type", error).SetStatus(ActivityStatusCode.Error);
        }
    }

    private void Leave(CircuitBreaker.Permit permit, CallVerdict verdict, SendOutcome? outcome)
    {
        switch (_breaker.Leave(permit, verdict, outcome?.RetryAfter ?? TimeSpan.Zero))
        {
            case true:
                GatewayMetrics.CountOpening(verdict);
                var seconds = Math.Round((_breaker.RetryAfter ?? TimeSpan.Zero).TotalSeconds, 1);
                if (verdict == CallVerdict.Misconfigured)
                {
                    LogMisconfigured(seconds, outcome?.Error);
                }
                else
                {
                    LogOpened(seconds, outcome?.Error);
                }

                break;
            case false:
                LogClosed();
                break;
        }
    }

    private SendOutcome Held() => Count(
        new SendOutcome(SendResult.NotSent, null, "The gateway is not working; messages wait until it is tried again.", _breaker.RetryAfter), "breaker_open", null);

    private static SendOutcome Cancelled() => Count(NotSent("The call was given up before its turn came."), "cancelled", null);

    private static SendOutcome NotSent(string why) => new(SendResult.NotSent, null, why, null);

    private static SendOutcome Count(SendOutcome outcome, string? error, TimeSpan? took)
    {
        GatewayMetrics.Count(outcome, error, took);
        return outcome;
    }

    private IEnumerable<Measurement<int>> MeasureState()
    {
        if (!IsConfigured)
        {
            return [];
        }

        var state = State;
        return [Of("closed", BreakerState.Closed), Of("half_open", BreakerState.HalfOpen), Of("open", BreakerState.Open)];

        Measurement<int> Of(string name, BreakerState named) => new(state == named ? 1 : 0, new KeyValuePair<string, object?>("state", name));
    }

    [LoggerMessage(LogLevel.Error, "The gateway lets nobody in; nothing is sent for {Seconds} s: {Reason}")]
    private partial void LogMisconfigured(double seconds, string? reason);

    [LoggerMessage(LogLevel.Warning, "The gateway is not called for {Seconds} s: {Reason}")]
    private partial void LogOpened(double seconds, string? reason);

    [LoggerMessage(LogLevel.Information, "The gateway works again")]
    private partial void LogClosed();

    /// <summary>Thrown when the message must not leave any more.</summary>
    private sealed class MustStayException : Exception;

    /// <summary>The body of a request, which knows whether it was begun to be sent. A connection is there by then, and nothing has gone over it.</summary>
    private sealed class MessageContent : HttpContent
    {
        private readonly byte[] _body;
        private readonly Func<bool>? _mayLeave;

        public MessageContent(byte[] body, Func<bool>? mayLeave)
        {
            (_body, _mayLeave) = (body, mayLeave);
            Headers.ContentType = new MediaTypeHeaderValue("application/json");
        }

        public bool HasLeft { get; private set; }

        protected override bool TryComputeLength(out long length)
        {
            length = _body.Length;
            return true;
        }

        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) => SerializeToStreamAsync(stream, context, CancellationToken.None);

        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
        {
            if (HasLeft)
            {
                throw new IOException("It is sent once."); // never by a client that tries again on its own
            }

            if (_mayLeave?.Invoke() == false)
            {
                throw new MustStayException();
            }

            HasLeft = true;
            return stream.WriteAsync(_body, cancellationToken).AsTask();
        }
    }
}
