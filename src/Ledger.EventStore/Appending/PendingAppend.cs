using System.Buffers;
using System.Diagnostics;
using System.Text;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>A request on its way through the appender, its events already serialised by the caller's thread.</summary>
internal sealed class PendingAppend : IDisposable
{
    private const int Waiting = 0, Started = 1, Withdrawn = 2;

    private readonly TaskCompletionSource<AppendResult> _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private CancellationTokenRegistration _cancellation;
    private int _state = Waiting;

    public PendingAppend(AppendRequest request, EventTypes types)
    {
        Request = request;
        Id = request.IdempotencyId ?? EventId.New();
        Enqueued = Stopwatch.GetTimestamp();
        Check(request.TenantId, request.Actor, request.CorrelationId, request.CausationId);
        foreach (var condition in request.Conditions)
        {
            Check(condition.StreamId);
        }

        foreach (var append in request.Appends)
        {
            Check(append.StreamId, append.Type);
            EventCount += append.Events.Count > 0
                ? append.Events.Count
                : throw new ArgumentException($"There is no event for the stream '{append.StreamId}'.", nameof(request));
        }

        if (EventCount is 0 or > EventStoreOptions.MaxRequestEvents)
        {
            throw new ArgumentException($"A request holds 1 to {EventStoreOptions.MaxRequestEvents} events, not {EventCount}.", nameof(request));
        }

        Headers = MakeHeaders();
        Events = new PendingEvent[EventCount];
        var index = 0;
        foreach (var append in request.Appends)
        {
            foreach (var data in append.Events)
            {
                var type = types.Of(data.GetType());
                var json = JsonSerializer.SerializeToUtf8Bytes(data, type.Json);
                if (json.Length > EventStoreOptions.MaxEventBytes)
                {
                    throw new ArgumentException($"An event holds at most {EventStoreOptions.MaxEventBytes} bytes; this {type.Name} has {json.Length}.", nameof(request));
                }

                Bytes += json.Length;
                Events[index] = new PendingEvent(append.StreamId, append.Type, type, json, EventId.Next(Id, index));
                index++;
            }
        }
    }

    public AppendRequest Request { get; }

    /// <summary>The first event's id.</summary>
    public Guid Id { get; }

    public PendingEvent[] Events { get; }

    public int EventCount { get; }

    public int Bytes { get; }

    public string? Headers { get; }

    public long Enqueued { get; }

    /// <summary>
    /// Where and when the last transaction tried to store this request: finding its id just there afterwards means that it
    /// succeeded; finding it elsewhere, that another request had the same key.
    /// </summary>
    public (long FirstPosition, DateTimeOffset RecordedAt)? Attempt { get; set; }

    public Task<AppendResult> Completion => _completion.Task;

    /// <summary>From here on the caller's cancellation takes the request out, until <see cref="TryStart"/>.</summary>
    public void WatchCancellation(CancellationToken cancellation) =>
        _cancellation = cancellation.UnsafeRegister(static (self, token) =>
        {
            var pending = (PendingAppend)self!;
            if (Interlocked.CompareExchange(ref pending._state, Withdrawn, Waiting) == Waiting)
            {
                pending._completion.TrySetCanceled(token);
            }
        }, this);

    /// <summary>False when the caller has withdrawn the request.</summary>
    public bool TryStart() => Interlocked.CompareExchange(ref _state, Started, Waiting) == Waiting;

    public void Complete(AppendResult result)
    {
        _completion.TrySetResult(result);
        Telemetry.AppendRequests.Add(1, new KeyValuePair<string, object?>("outcome", OutcomeName(result.Outcome)));
    }

    public void Fail(Exception exception)
    {
        _completion.TrySetException(exception);
        Telemetry.AppendRequests.Add(1, new KeyValuePair<string, object?>("outcome", "failed"));
    }

    public void Dispose() => _cancellation.Dispose();

    /// <summary>What neither the client nor the server can send would fail everybody in the batch.</summary>
    private static void Check(params ReadOnlySpan<string?> texts)
    {
        foreach (var text in texts)
        {
            for (var rest = text.AsSpan(); !rest.IsEmpty;)
            {
                if (Rune.DecodeFromUtf16(rest, out var rune, out var length) != OperationStatus.Done || rune.Value == 0)
                {
                    throw new ArgumentException($"PostgreSQL can't hold the text '{text}'.");
                }

                rest = rest[length..];
            }
        }
    }

    private static string OutcomeName(AppendOutcome outcome) => outcome switch
    {
        AppendOutcome.Appended => "appended",
        AppendOutcome.Duplicate => "duplicate",
        AppendOutcome.KeyReused => "key_reused",
        _ => "condition_failed",
    };

    /// <summary>The events' headers: how many events the request has, what it asked for, and the trace that caused it; null for none.</summary>
    private string? MakeHeaders()
    {
        var headers = new StringBuilder();
        if (EventCount > 1)
        {
            headers.Append(",\"events\":").Append(EventCount);
        }

        if (Request.Fingerprint is { } fingerprint)
        {
            headers.Append(",\"fingerprint\":\"").Append(JsonEncodedText.Encode(fingerprint)).Append('"');
        }

        if (Activity.Current is { IdFormat: ActivityIdFormat.W3C, Recorded: true, Id: { } traceParent })
        {
            headers.Append(",\"traceparent\":\"").Append(traceParent).Append('"');
        }

        return headers.Length == 0 ? null : headers.Replace(',', '{', 0, 1).Append('}').ToString();
    }
}

internal readonly record struct PendingEvent(string StreamId, string StreamType, EventType Type, byte[] Json, Guid Id);
