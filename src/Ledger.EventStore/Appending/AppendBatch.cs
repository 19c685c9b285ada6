namespace Ledger.EventStore;

/// <summary>Requests that share a transaction, with the streams and ids to look up, gathered while the batch before is being stored.</summary>
internal sealed class AppendBatch
{
    private readonly HashSet<StreamKey> _streams = [];

    public List<PendingAppend> Requests { get; } = [];

    public int Events { get; private set; }

    public int Bytes { get; private set; }

    public IReadOnlyCollection<StreamKey> Streams => _streams;

    public bool HasRoomFor(PendingAppend request, EventStoreOptions options) =>
        Requests.Count == 0
        || (Events + request.EventCount <= options.MaxBatchEvents && Bytes + request.Bytes <= options.MaxBatchBytes);

    public void Add(PendingAppend request)
    {
        Requests.Add(request);
        Events += request.EventCount;
        Bytes += request.Bytes;
        foreach (var append in request.Request.Appends)
        {
            _streams.Add(new StreamKey(request.Request.TenantId, append.StreamId));
        }

        foreach (var condition in request.Request.Conditions)
        {
            _streams.Add(new StreamKey(request.Request.TenantId, condition.StreamId));
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
