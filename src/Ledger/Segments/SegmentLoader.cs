using System.Collections.Concurrent;
using Ledger.EventStore;

namespace Ledger.Segments;

/// <summary>
/// Segments for decisions, folded from their streams and kept in memory. A remembered segment may be old: whoever decides on
/// it makes its version a condition of what it appends, and loads it fresh when that fails.
/// </summary>
public sealed class SegmentLoader(EventReader reader)
{
    /// <summary>Segments kept in memory; past that the memory starts anew.</summary>
    public const int MaxRemembered = 10_000;

    private readonly ConcurrentDictionary<StreamKey, Segment> _remembered = [];

    /// <summary>The segments of the slugs, in their order. One that is not live is always read anew.</summary>
    public async Task<Segment[]> Load(string tenantId, IReadOnlyList<string> slugs, bool fresh, CancellationToken cancellation)
    {
        var segments = new Segment[slugs.Count];
        var missing = new Dictionary<string, List<int>>();
        for (var i = 0; i < slugs.Count; i++)
        {
            if (!fresh && _remembered.TryGetValue(new StreamKey(tenantId, slugs[i]), out var segment) && segment.IsLive)
            {
                segments[i] = segment;
            }
            else
            {
                (missing.TryGetValue(slugs[i], out var places) ? places : missing[slugs[i]] = []).Add(i);
            }
        }

        if (missing.Count > 0)
        {
            var loaded = missing.Keys.ToDictionary(s => s, Segment.Initial);
            await foreach (var recorded in reader.ReadStreams(tenantId, [.. missing.Keys.Select(Segment.StreamOf)], cancellation))
            {
                var slug = recorded.StreamId["segment-".Length..];
                loaded[slug] = Segment.Evolve(loaded[slug], recorded);
            }

            foreach (var (slug, places) in missing)
            {
                Remember(tenantId, loaded[slug]);
                places.ForEach(i => segments[i] = loaded[slug]);
            }
        }

        return segments;
    }

    /// <summary>One segment.</summary>
    public async Task<Segment> Load(string tenantId, string slug, bool fresh, CancellationToken cancellation) =>
        (await Load(tenantId, [slug], fresh, cancellation))[0];

    /// <summary>A segment as it was after the event at a version of its stream.</summary>
    public async Task<Segment> LoadAt(string tenantId, string slug, long version, CancellationToken cancellation)
    {
        var segment = Segment.Initial(slug);
        await foreach (var recorded in reader.ReadStream(new StreamKey(tenantId, Segment.StreamOf(slug)), toVersion: version, cancellation: cancellation))
        {
            segment = Segment.Evolve(segment, recorded);
        }

        return segment;
    }

    private void Remember(string tenantId, Segment segment)
    {
        if (_remembered.Count >= MaxRemembered)
        {
            _remembered.Clear();
        }

        _remembered[new StreamKey(tenantId, segment.Slug)] = segment;
    }
}
