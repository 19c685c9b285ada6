using System.Collections.Concurrent;
using Ledger.EventStore;

namespace Ledger.Services;

/// <summary>
/// Services for decisions, folded from their streams and kept in memory. A remembered service may be old: whoever decides on
/// it makes its version a condition of what it appends, and loads it fresh when that fails. Loading one fresh costs what its
/// stream has got since, and one event more: the last one remembered must still stand where it stood, which after a restored
/// backup it may not.
/// </summary>
public sealed class ServiceLoader(EventReader reader)
{
    /// <summary>Services and components of their prices kept in memory; past that the memory starts anew.</summary>
    public const int MaxRemembered = 400_000;

    private readonly ConcurrentDictionary<StreamKey, Folded> _remembered = [];
    private readonly Lock _remembering = new();
    private int _weight;

    /// <summary>The services of the ids, in their order. One that does not exist is always looked for anew.</summary>
    public async Task<Service[]> Load(string tenantId, IReadOnlyList<string> serviceIds, bool fresh, CancellationToken cancellation)
    {
        var known = new Dictionary<string, Folded>();
        foreach (var id in serviceIds)
        {
            known[id] = _remembered.GetValueOrDefault(new StreamKey(tenantId, id)) ?? Folded.Nothing(id);
        }

        var asked = known.Values.Where(k => fresh || !k.Service.Exists).ToArray();
        if (asked.Length > 0)
        {
            foreach (var folded in await Read(tenantId, asked, cancellation))
            {
                known[folded.Service.Id] = folded;
                Remember(tenantId, folded);
            }
        }

        return [.. serviceIds.Select(id => known[id].Service)];
    }

    /// <summary>One service.</summary>
    public async Task<Service> Load(string tenantId, string serviceId, bool fresh, CancellationToken cancellation) =>
        (await Load(tenantId, [serviceId], fresh, cancellation))[0];

    /// <summary>A service as it was after the event at a version of its stream: the one loaded now, unless that has gone on since.</summary>
    public async Task<Service> LoadAt(string tenantId, string serviceId, long version, CancellationToken cancellation)
    {
        var service = await Load(tenantId, serviceId, fresh: true, cancellation);
        if (service.Version == version)
        {
            return service;
        }

        service = Service.Initial(serviceId);
        await foreach (var recorded in reader.ReadStream(new StreamKey(tenantId, Service.StreamOf(serviceId)), toVersion: version, cancellation: cancellation))
        {
            service = Service.Evolve(service, recorded);
        }

        return service;
    }

    /// <summary>Who has a title.</summary>
    public async Task<ServiceTitle> LoadTitle(string tenantId, string title, CancellationToken cancellation) =>
        (await reader.Fold(new StreamKey(tenantId, ServiceTitle.StreamOf(title)), ServiceTitle.Free, ServiceTitle.Evolve, cancellation)).State;

    private async Task<IReadOnlyList<Folded>> Read(string tenantId, IReadOnlyList<Folded> known, CancellationToken cancellation)
    {
        var folded = known.ToDictionary(k => k.Service.Id);
        var confirmed = known.Where(k => !k.Service.Exists).Select(k => k.Service.Id).ToHashSet();
        await foreach (var recorded in reader.ReadStreams(
            tenantId, [.. known.Select(k => Service.StreamOf(k.Service.Id))], [.. known.Select(k => Math.Max(0, k.Service.Version - 1))], cancellation))
        {
            var id = Service.IdOf(recorded.StreamId);
            if (recorded.Version > folded[id].Service.Version)
            {
                folded[id] = new Folded(Service.Evolve(folded[id].Service, recorded), recorded.Id);
            }
            else if (recorded.Id == folded[id].LastEventId)
            {
                confirmed.Add(id);
            }
        }

        var refuted = folded.Keys.Where(id => !confirmed.Contains(id)).Select(Folded.Nothing).ToArray();
        return refuted.Length == 0
            ? [.. folded.Values]
            : [.. folded.Values.Where(f => confirmed.Contains(f.Service.Id)), .. await Read(tenantId, refuted, cancellation)];
    }

    private void Remember(string tenantId, Folded folded)
    {
        var key = new StreamKey(tenantId, folded.Service.Id);
        lock (_remembering)
        {
            if (_remembered.TryRemove(key, out var forgotten))
            {
                _weight -= forgotten.Weight;
            }

            if (!folded.Service.Exists)
            {
                return;
            }

            if (_weight + folded.Weight > MaxRemembered)
            {
                _remembered.Clear();
                _weight = 0;
            }

            _remembered[key] = folded;
            _weight += folded.Weight;
        }
    }

    /// <summary>A service and the event it was last folded with.</summary>
    private sealed record Folded(Service Service, Guid LastEventId)
    {
        public int Weight { get; } = 1 + Service.Prices.ComponentCount;

        public static Folded Nothing(string serviceId) => new(Service.Initial(serviceId), default);
    }
}
