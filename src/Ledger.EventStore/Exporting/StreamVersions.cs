namespace Ledger.EventStore;

/// <summary>
/// Checks that the versions of every stream are 1, 2, 3, … in the order of positions, of pieces of a log that come in any order. A
/// stream is known by a hash of its name here, which takes some 50 bytes a stream.
/// </summary>
internal sealed class StreamVersions
{
    private readonly Lock _lock = new();
    private readonly Dictionary<Guid, long> _newest = [];
    private readonly Dictionary<long, List<(Guid Stream, long Version)>> _early = [];
    private long _position;
    private (long Position, long Before)? _broken;

    /// <summary>The first event, as far as all are there, that does not follow, and the version of its stream before it; null when all do.</summary>
    public (long Position, long Before)? Broken
    {
        get
        {
            lock (_lock)
            {
                return _broken;
            }
        }
    }

    /// <summary>Up to where all are there.</summary>
    public long Position
    {
        get
        {
            lock (_lock)
            {
                return _position;
            }
        }
    }

    /// <summary>What stands for a stream in a piece.</summary>
    public static Guid Key(string tenantId, string streamId) => EventId.From(tenantId, streamId);

    /// <summary>Takes in the events that follow a position; those that come before what they follow wait for it.</summary>
    public void Add(long after, List<(Guid Stream, long Version)> events)
    {
        lock (_lock)
        {
            _early[after] = events;
            while (_early.Remove(_position, out var next) && next.Count > 0)
            {
                foreach (var (stream, version) in next)
                {
                    _position++;
                    var before = _newest.GetValueOrDefault(stream);
                    if (version != before + 1)
                    {
                        _broken ??= (_position, before);
                    }

                    _newest[stream] = version;
                }
            }
        }
    }
}
