namespace Ledger.EventStore;

/// <summary>Requests that share a transaction, with the streams and ids to look up, gathered while the batch before is being stored.</summary>
internal sealed class AppendBatch
{
    private readonly HashSet<StreamKey> _streams = [], _begun = [];

    public List<PendingAppend> Requests { get; } = [];

    public int Events { get; private set; }

    public int Bytes { get; private set; }

    /// <summary>Streams whose version must be looked up.</summary>
    public IReadOnlyCollection<StreamKey> Streams => _streams;

    /// <summary>
    /// Streams that are all written by requests under the condition that they are not there. Their row's key holds that too, so in a
    /// batch of many the look-up can be left out: it took a third of the time under the lock.
    /// </summary>
    public IReadOnlyCollection<StreamKey> Begun => _begun;

    public bool HasRoomFor(PendingAppend request, EventStoreOptions options) =>
        Requests.Count == 0
        || (Events + request.EventCount <= options.MaxBatchEvents && Bytes + request.Bytes <= options.MaxBatchBytes);

    public void Add(PendingAppend request)
    {
        Requests.Add(request);
        Events += request.EventCount;
        Bytes += request.Bytes;
        var conditions = request.Request.Conditions;
        foreach (var append in request.Request.Appends)
        {
            var stream = new StreamKey(request.Request.TenantId, append.StreamId);
            if (conditions.Any(c => c.StreamId == append.StreamId && c.ExpectedVersion == 0) && !_streams.Contains(stream))
            {
                _begun.Add(stream);
            }
            else
            {
                _begun.Remove(stream);
                _streams.Add(stream);
            }
        }

        foreach (var condition in conditions)
        {
            var stream = new StreamKey(request.Request.TenantId, condition.StreamId);
            if (condition.ExpectedVersion != 0)
            {
                _begun.Remove(stream);
            }

            if (!_begun.Contains(stream))
            {
                _streams.Add(stream);
            }
        }
    }

    /// <summary>Some of the requests as a batch of their own, to find out which of them is refused.</summary>
    public static AppendBatch Of(IEnumerable<PendingAppend> requests)
    {
        var batch = new AppendBatch();
        foreach (var request in requests)
        {
            batch.Add(request);
        }

        return batch;
    }
}
