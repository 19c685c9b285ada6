using System.Collections.Concurrent;
using Ledger.EventStore;

namespace Ledger.Services;

/// <summary>
/// Services for decisions, folded from their streams and kept in memory. A remembered service may be old: whoever decides on
/// it makes its version a condition of what it appends, and loads it fresh when that fails. Loading one fresh costs what its
/// stream has got since.
/// </summary>
public sealed class ServiceLoader(EventReader reader)
{
    /// <summary>Services and components of their prices kept in memory; past that the memory starts anew.</summary>
    public const int MaxRemembered = 400_000;

    private readonly ConcurrentDictionary<StreamKey, Service> _remembered = [];
    private readonly Lock _remembering = new();
    private int _weight;

    /// <summary>The services of the ids, in their order. One that does not exist is always looked for anew.</summary>
    public async Task<Service[]> Load(string tenantId, IReadOnlyList<string> serviceIds, bool fresh, CancellationToken cancellation)
    {
        var services = new Service[serviceIds.Count];
        var missing = new Dictionary<string, Service>();
        for (var i = 0; i < serviceIds.Count; i++)
        {
            services[i] = Remembered(tenantId, serviceIds[i]);
            if (fresh || !services[i].Exists)
            {
                missing[serviceIds[i]] = services[i];
            }
        }

        if (missing.Count == 0)
        {
            return services;
        }

        var streams = missing.Keys.Select(Service.StreamOf).ToArray();
        await foreach (var recorded in reader.ReadStreams(tenantId, streams, [.. missing.Values.Select(s => s.Version)], cancellation))
        {
            var id = Service.IdOf(recorded.StreamId);
            missing[id] = Service.Evolve(missing[id], recorded);
        }

        foreach (var service in missing.Values)
        {
            Remember(tenantId, service);
        }

        for (var i = 0; i < serviceIds.Count; i++)
        {
            services[i] = missing.GetValueOrDefault(serviceIds[i]) ?? services[i];
        }

        return services;
    }

    /// <summary>One service.</summary>
    public async Task<Service> Load(string tenantId, string serviceId, bool fresh, CancellationToken cancellation) =>
        (await Load(tenantId, [serviceId], fresh, cancellation))[0];

    /// <summary>A service, and who has a title, as they are now.</summary>
    public async Task<(Service Service, ServiceTitle Title)> Load(string tenantId, string serviceId, string title, CancellationToken cancellation)
    {
        var service = Remembered(tenantId, serviceId);
        var holder = ServiceTitle.Free;
        string[] streams = [Service.StreamOf(serviceId), ServiceTitle.StreamOf(title)];
        await foreach (var recorded in reader.ReadStreams(tenantId, streams, [service.Version, 0], cancellation))
        {
            if (recorded.StreamId == streams[0])
            {
                service = Service.Evolve(service, recorded);
            }
            else
            {
                holder = ServiceTitle.Evolve(holder, recorded);
            }
        }

        Remember(tenantId, service);
        return (service, holder);
    }

    /// <summary>A service as it was after the event at a version of its stream.</summary>
    public async Task<Service> LoadAt(string tenantId, string serviceId, long version, CancellationToken cancellation)
    {
        var service = Remembered(tenantId, serviceId) is var remembered && remembered.Version <= version ? remembered : Service.Initial(serviceId);
        var stream = new StreamKey(tenantId, Service.StreamOf(serviceId));
        await foreach (var recorded in reader.ReadStream(stream, service.Version + 1, version, cancellation))
        {
            service = Service.Evolve(service, recorded);
        }

        Remember(tenantId, service);
        return service;
    }

    private Service Remembered(string tenantId, string serviceId) =>
        _remembered.GetValueOrDefault(new StreamKey(tenantId, serviceId)) ?? Service.Initial(serviceId);

    private void Remember(string tenantId, Service service)
    {
        var key = new StreamKey(tenantId, service.Id);
        lock (_remembering)
        {
            var known = _remembered.GetValueOrDefault(key);
            if (service.Version <= (known?.Version ?? 0))
            {
                return;
            }

            var added = Weight(service) - (known is null ? 0 : Weight(known));
            if (_weight + added > MaxRemembered)
            {
                _remembered.Clear();
                (_weight, added) = (0, Weight(service));
            }

            _remembered[key] = service;
            _weight += added;
        }
    }

    private static int Weight(Service service) => 1 + service.Prices.ComponentCount;
}
