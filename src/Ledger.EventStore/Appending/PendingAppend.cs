using System.Buffers;
using System.Diagnostics;
using System.Text;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>A request on its way through the appender, its events already serialised by the caller's thread.</summary>
internal sealed class PendingAppend : IDisposable
{
    private const int Waiting = 0, Started = 1, Withdrawn = 2;

    private readonly AppendCompletion _completion;
    private readonly int _place;
    private CancellationTokenRegistration _cancellation;
    private int _state = Waiting;

    public PendingAppend(AppendRequest request, EventTypes types, AppendCompletion completion, int place = 0, bool bulk = false)
    {
        Request = request;
        (_completion, _place) = (completion, place);
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

        if (request.Identities is { } identities && (identities.Count != EventCount || request.IdempotencyId is not null))
        {
            throw new ArgumentException("A request has one id, or one for each of its events.", nameof(request));
        }

        var traceParent = Activity.Current is { IdFormat: ActivityIdFormat.W3C, Recorded: true, Id: { } trace } ? trace : null;
        Trace = traceParent is null ? default : Activity.Current!.Context;
        var headers = request.Identities is null ? MakeHeaders(EventCount, request.Fingerprint, traceParent) : null;
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
                Events[index] = request.Identities is { } ids
                    ? new PendingEvent(append.StreamId, append.Type, type, json, ids[index].Id, MakeHeaders(1, ids[index].Fingerprint, traceParent))
                    : new PendingEvent(append.StreamId, append.Type, type, json, EventId.Next(Id, index), headers);
                if (bulk)
                {
                    Events[index] = Events[index] with { CopyValues = Events[index].EncodeCopyValues(request) };
                }

                index++;
            }
        }
    }

    public AppendRequest Request { get; }

    /// <summary>The first event's id.</summary>
    public Guid Id { get; }

    /// <summary>The span of the caller, when it is recorded.</summary>
    public ActivityContext Trace { get; }

    public PendingEvent[] Events { get; }

    public int EventCount { get; }

    public int Bytes { get; }

    public long Enqueued { get; }

    /// <summary>
    /// What the last transaction that tried to store this request would have answered: finding its events just there afterwards
    /// means that it succeeded; finding them elsewhere, that another request had the same key.
    /// </summary>
    public AppendResult? Attempt { get; set; }

    /// <summary>From here on the caller's cancellation takes the request out, until <see cref="TryStart"/>.</summary>
    public void WatchCancellation(CancellationToken cancellation) =>
        _cancellation = cancellation.UnsafeRegister(static (self, token) =>
        {
            var pending = (PendingAppend)self!;
            if (Interlocked.CompareExchange(ref pending._state, Withdrawn, Waiting) == Waiting)
            {
                pending._completion.Cancel(token);
            }
        }, this);

    /// <summary>False when the caller has withdrawn the request.</summary>
    public bool TryStart() => Interlocked.CompareExchange(ref _state, Started, Waiting) == Waiting;

    public void Complete(AppendResult result)
    {
        _completion.Complete(_place, result);
        Telemetry.AppendRequests.Add(1, new KeyValuePair<string, object?>("outcome", OutcomeName(result.Outcome)));
    }

    public void Fail(Exception exception)
    {
        _completion.Fail(exception);
        Telemetry.AppendRequests.Add(1, new KeyValuePair<string, object?>("outcome", "failed"));
    }

    public void Dispose() => _cancellation.Dispose();

    /// <summary>What neither the client nor the server can send would fail everybody in the batch.</summary>
    private static void Check(params ReadOnlySpan<string?> texts)
    {
        foreach (var text in texts)
        {
            var isOrdinary = !text.AsSpan().ContainsAnyInRange('\uD800', '\uDFFF') && !text.AsSpan().Contains('\0');
            for (var rest = isOrdinary ? [] : text.AsSpan(); !rest.IsEmpty;)
            {
                if (Rune.DecodeFromUtf16(rest, out var rune, out var length) != OperationStatus.Done || rune.Value == 0)
                {
                    throw new ArgumentException($"PostgreSQL can't hold the text '{text}'.");
                }

                rest = rest[length..];
            }
        }
    }

    internal static string OutcomeName(AppendOutcome outcome) => outcome switch
    {
        AppendOutcome.Appended => "appended",
        AppendOutcome.Duplicate => "duplicate",
        AppendOutcome.KeyReused => "key_reused",
        _ => "condition_failed",
    };

    /// <summary>An event's headers: how many events it stands for, what was asked for, and the trace that caused it; null for none.</summary>
    private static string? MakeHeaders(int events, string? fingerprint, string? traceParent)
    {
        if (events == 1 && fingerprint is null && traceParent is null)
        {
            return null;
        }

        var (count, print, trace) = (
            events > 1 ? $"\"events\":{events}" : null,
            fingerprint is not null ? $"\"fingerprint\":\"{JsonEncodedText.Encode(fingerprint)}\"" : null,
            traceParent is not null ? $"\"traceparent\":\"{traceParent}\"" : null);
        return count is null && trace is null ? $"{{{print}}}" : $"{{{string.Join(',', ((string?[])[count, print, trace]).OfType<string>())}}}";
    }
}

/// <summary>An event on its way. <paramref name="CopyValues"/>, when there, is what <see cref="EncodeCopyValues"/> makes of it.</summary>
internal readonly record struct PendingEvent(
    string StreamId, string StreamType, EventType Type, byte[] Json, Guid Id, string? Headers, byte[]? CopyValues = null)
{
    /// <summary>The columns of mt_events that are known before an event has its place in the log, in the order they are encoded in.</summary>
    public const string CopyColumnNames = "id, stream_id, data, type, tenant_id, mt_dotnet_type, correlation_id, causation_id, headers, user_name";

    public const short CopyColumns = 10;

    public byte[] EncodeCopyValues(AppendRequest request)
    {
        using var values = new CopyRows(header: false);
        values.Uuid(Id);
        values.Text(StreamId);
        values.Jsonb(Json);
        values.Text(Type.Name);
        values.Text(request.TenantId);
        values.Text(Type.DotnetName);
        values.Text(request.CorrelationId);
        values.Text(request.CausationId);
        values.Jsonb(Headers);
        values.Text(request.Actor);
        return values.ToArray();
    }
}
