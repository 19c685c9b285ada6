using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Services;

/// <summary>Keeps the view "Services": the services, and all prices of each.</summary>
public sealed class ServicesProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Services";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>
    {
        typeof(ServiceRegistered), typeof(ServiceRenamed), typeof(ServiceDescribed), typeof(PriceSet), typeof(ServiceRetired),
    };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["services", "service_prices"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var services = await LoadKnown(events, transaction, cancellation);
        var prices = new List<(StreamKey Service, PriceVersion Price)>();
        foreach (var recorded in events)
        {
            var key = new StreamKey(recorded.TenantId, Service.IdOf(recorded.StreamId));
            var known = services.GetValueOrDefault(key);
            if (recorded.Data is PriceSet set)
            {
                prices.Add((key, new PriceVersion(set, recorded.RecordedAt, recorded.Position)));
            }

            services[key] = recorded.Data is ServiceRegistered
                ? (Service.Evolve(Service.Initial(key.StreamId), recorded), recorded.Position)
                : (Service.Evolve(known.Service, recorded), known.RegisteredPosition);
        }

        var rows = services.Values;
        transaction.Add(Sql.Command(
            """
            insert into services (tenant_id, service_id, title, description, registered_at, registered_position, retired_at, version)
            select * from unnest($1, $2, $3, $4, $5, $6, $7, $8)
            on conflict (tenant_id, service_id) do update set
              title = excluded.title, description = excluded.description, retired_at = excluded.retired_at, version = excluded.version
            """,
            Sql.Texts(services.Keys.Select(k => k.TenantId)), Sql.Texts(services.Keys.Select(k => k.StreamId)),
            Sql.Texts(rows.Select(r => r.Service.Title)), Sql.Texts(rows.Select(r => r.Service.Description)),
            Sql.Instants(rows.Select(r => r.Service.RegisteredAt)), Sql.Longs(rows.Select(r => r.RegisteredPosition)),
            Sql.InstantsOrNull(rows.Select(r => r.Service.RetiredAt)), Sql.Longs(rows.Select(r => r.Service.Version))));
        if (prices.Count > 0)
        {
            transaction.Add(Sql.Command(
                """
                insert into service_prices (tenant_id, service_id, price_version, currency, effective_from, components, set_at, position)
                select * from unnest($1, $2, $3, $4, $5, $6, $7, $8)
                """,
                Sql.Texts(prices.Select(p => p.Service.TenantId)), Sql.Texts(prices.Select(p => p.Service.StreamId)),
                Sql.Value(prices.Select(p => p.Price.Version).ToArray()), Sql.Texts(prices.Select(p => p.Price.Currency)),
                Sql.Instants(prices.Select(p => p.Price.EffectiveFrom)),
                new NpgsqlParameter<string[]>
                {
                    TypedValue = [.. prices.Select(p => PriceRow.Json(p.Price.Components))], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb,
                },
                Sql.Instants(prices.Select(p => p.Price.SetAt)), Sql.Longs(prices.Select(p => p.Price.Position))));
        }
    }

    private static async Task<Dictionary<StreamKey, (Service Service, long RegisteredPosition)>> LoadKnown(
        IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var keys = events.Select(e => new StreamKey(e.TenantId, Service.IdOf(e.StreamId))).Distinct().ToArray();
        var known = new Dictionary<StreamKey, (Service, long)>();
        await using var command = new NpgsqlCommand(
            $"""
             select s.tenant_id, s.registered_position, {ServiceRow.Columns}
             from unnest($1, $2) k (tenant_id, service_id)
             cross join lateral (select * from services s where s.tenant_id = k.tenant_id and s.service_id = k.service_id limit 1) s
             """, await transaction.Connection(cancellation))
        {
            Parameters = { Sql.Texts(keys.Select(k => k.TenantId)), Sql.Texts(keys.Select(k => k.StreamId)) },
        };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            var service = ServiceRow.Read(reader, 2);
            known[new StreamKey(reader.GetString(0), service.Id)] = (service, reader.GetInt64(1));
        }

        return known;
    }
}

/// <summary>A row of <c>services</c>, under the alias s: a service without its prices.</summary>
internal static class ServiceRow
{
    public const string Columns = "s.service_id, s.title, s.description, s.registered_at, s.retired_at, s.version";

    public const int Count = 6;

    public static Service Read(NpgsqlDataReader reader, int first) => new(
        reader.GetString(first), reader.GetString(first + 1), reader.Maybe<string>(first + 2), PriceList.Empty,
        reader.GetFieldValue<DateTimeOffset>(first + 3), reader.Maybe<DateTimeOffset?>(first + 4), reader.GetInt64(first + 5));
}

/// <summary>A row of <c>service_prices</c>, under the alias p.</summary>
internal static class PriceRow
{
    public const string Columns = "p.price_version, p.currency, p.effective_from, p.components, p.set_at, p.position";

    public const int Count = 6;

    public static PriceVersion Read(NpgsqlDataReader reader, int first) => new(
        new PriceSet(
            reader.GetInt32(first), reader.GetString(first + 1), reader.GetFieldValue<DateTimeOffset>(first + 2),
            JsonSerializer.Deserialize<PriceComponent[]>(reader.GetFieldValue<byte[]>(first + 3), Http.Json.Options)!),
        reader.GetFieldValue<DateTimeOffset>(first + 4), reader.GetInt64(first + 5));

    public static string Json(IReadOnlyList<PriceComponent> components) => JsonSerializer.Serialize(components, Http.Json.Options);
}
