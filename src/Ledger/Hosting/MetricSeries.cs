using System.Collections.Concurrent;
using System.Diagnostics.Metrics;

namespace Ledger.Hosting;

/// <summary>What the numbers of an instrument mean.</summary>
internal enum MetricKind
{
    /// <summary>It only grows.</summary>
    Counter,

    /// <summary>It stands at a value.</summary>
    Gauge,

    /// <summary>Its values are counted by size.</summary>
    Histogram,
}

/// <summary>One instrument and what was measured with it, a series for each set of tags.</summary>
internal sealed class MeasuredInstrument
{
    private static readonly double[] DefaultBounds = [0, 5, 10, 25, 50, 75, 100, 250, 500, 750, 1000, 2500, 5000, 7500, 10000];
    private static readonly double[] DefaultSecondsBounds = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

    // The runtime has these as counters, yet they go up and down.
    private static readonly HashSet<string> GaugesByNature = ["dotnet.thread_pool.thread.count", "dotnet.thread_pool.queue.length"];

    private readonly ConcurrentDictionary<KeyValuePair<string, object?>[], MetricSeries> _series = new(new ByTags());
    private readonly ConcurrentDictionary<KeyValuePair<string, object?>[], MetricSeries>.AlternateLookup<ReadOnlySpan<KeyValuePair<string, object?>>> _lookup;
    private readonly Action<string> _overflowed;
    private readonly bool _isSet;
    private int _count;

    public MeasuredInstrument(Instrument instrument, Action<string> overflowed)
    {
        var type = instrument.GetType().GetGenericTypeDefinition();
        (Name, UnitCode, Description, _overflowed) = (instrument.Name, instrument.Unit, instrument.Description, overflowed);
        Kind = type == typeof(Histogram<>) ? MetricKind.Histogram
            : (type == typeof(Counter<>) || type == typeof(ObservableCounter<>)) && !GaugesByNature.Contains(instrument.Name) ? MetricKind.Counter
            : MetricKind.Gauge;
        IsObserved = instrument.IsObservable;
        _isSet = IsObserved || type == typeof(Gauge<>);
        Bounds = Kind == MetricKind.Histogram ? BoundsOf(instrument) : [];
        _lookup = _series.GetAlternateLookup<ReadOnlySpan<KeyValuePair<string, object?>>>();
    }

    public string Name { get; }

    public string? UnitCode { get; }

    public string? Description { get; }

    public MetricKind Kind { get; }

    /// <summary>Whether it is asked for its values, and has those only that it gave when it was last asked.</summary>
    public bool IsObserved { get; }

    /// <summary>The upper bounds of a histogram's buckets but for the last, which has none.</summary>
    public double[] Bounds { get; }

    public IEnumerable<MetricSeries> Series => _series.Values;

    /// <summary>Takes a measurement in; <paramref name="round"/> says in which round of asking.</summary>
    public void Measure(double value, ReadOnlySpan<KeyValuePair<string, object?>> tags, long round)
    {
        if (!_lookup.TryGetValue(tags, out var series))
        {
            series = Add(tags);
        }

        if (Kind == MetricKind.Histogram)
        {
            series.Record(value, Bounds);
        }
        else if (_isSet)
        {
            series.Set(value, round);
        }
        else
        {
            series.Add(value);
        }
    }

    private MetricSeries Add(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        if (Interlocked.Increment(ref _count) > MetricCollector.MaxSeriesPerInstrument)
        {
            Interlocked.Decrement(ref _count);
            _overflowed(Name);
            return _series.GetOrAdd([new("otel.metric.overflow", "true")], tags => new MetricSeries(tags, Bounds.Length));
        }

        var series = new MetricSeries(tags.ToArray(), Bounds.Length);
        if (_lookup.TryAdd(tags, series))
        {
            return series;
        }

        Interlocked.Decrement(ref _count); // another thread has added it meanwhile
        return _lookup[tags];
    }

    private static double[] BoundsOf(Instrument instrument)
    {
        double[]? advised = instrument switch
        {
            Histogram<double> histogram => histogram.Advice?.HistogramBucketBoundaries?.ToArray(),
            Histogram<int> histogram => histogram.Advice?.HistogramBucketBoundaries?.Select(b => (double)b).ToArray(),
            Histogram<long> histogram => histogram.Advice?.HistogramBucketBoundaries?.Select(b => (double)b).ToArray(),
            _ => null,
        };
        return advised ?? (instrument.Unit == "s" ? DefaultSecondsBounds : DefaultBounds);
    }

    /// <summary>Finds a series by tags that were not copied yet, so that a measurement of a known one allocates nothing.</summary>
    private sealed class ByTags
        : IEqualityComparer<KeyValuePair<string, object?>[]>, IAlternateEqualityComparer<ReadOnlySpan<KeyValuePair<string, object?>>, KeyValuePair<string, object?>[]>
    {
        public bool Equals(KeyValuePair<string, object?>[]? x, KeyValuePair<string, object?>[]? y) => Equals(x.AsSpan(), y!);

        public int GetHashCode(KeyValuePair<string, object?>[] tags) => GetHashCode(tags.AsSpan());

        public KeyValuePair<string, object?>[] Create(ReadOnlySpan<KeyValuePair<string, object?>> tags) => tags.ToArray();

        public bool Equals(ReadOnlySpan<KeyValuePair<string, object?>> tags, KeyValuePair<string, object?>[] other)
        {
            if (tags.Length != other.Length)
            {
                return false;
            }

            for (var i = 0; i < tags.Length; i++)
            {
                if (tags[i].Key != other[i].Key || !Equals(tags[i].Value, other[i].Value))
                {
                    return false;
                }
            }

            return true;
        }

        public int GetHashCode(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            var hash = tags.Length;
            foreach (var (_, value) in tags)
            {
                hash = HashCode.Combine(hash, value); // the names are nearly always the same
            }

            return hash;
        }
    }
}

/// <summary>What was measured under one set of tags.</summary>
internal sealed class MetricSeries(KeyValuePair<string, object?>[] tags, int bounds)
{
    private readonly long[] _buckets = new long[bounds + 1];
    private double _value;
    private long _round;

    public ReadOnlySpan<KeyValuePair<string, object?>> Tags => tags;

    /// <summary>The value, or the sum of a histogram's.</summary>
    public double Value => Volatile.Read(ref _value);

    /// <summary>The round of asking in which it was last set.</summary>
    public long Round => Volatile.Read(ref _round);

    /// <summary>How many of a histogram's values lie in each bucket.</summary>
    public long[] Buckets => Array.ConvertAll(_buckets, count => Volatile.Read(ref count));

    public void Set(double value, long round)
    {
        Volatile.Write(ref _value, value);
        Volatile.Write(ref _round, round);
    }

    public void Add(double value)
    {
        var seen = Volatile.Read(ref _value);
        for (double before; (before = Interlocked.CompareExchange(ref _value, seen + value, seen)) != seen; seen = before)
        {
            // Another thread was faster.
        }
    }

    public void Record(double value, double[] upper)
    {
        var bucket = Array.BinarySearch(upper, value);
        Interlocked.Increment(ref _buckets[bucket < 0 ? ~bucket : bucket]);
        Add(value);
    }
}
