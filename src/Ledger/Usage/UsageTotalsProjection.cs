using System.Globalization;
using Ledger.EventStore;
using Ledger.Services;
using Npgsql;

namespace Ledger.Usage;

/// <summary>
/// Keeps the view "UsageTotals": what calls come to in each quarter of an hour, by user and service, and by service alone; by
/// service alone also in each hour and day of UTC.
/// </summary>
public sealed class UsageTotalsProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "UsageTotals";

    /// <summary>
    /// Calls that are added up in memory. With the limits on amounts and quantities their sums fit into a decimal, which would
    /// round without a word; what is more is added up by PostgreSQL.
    /// </summary>
    public const int MaxSummedCalls = 10_000;

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type> { typeof(CallRecorded), typeof(CallPriced), typeof(CallVoided) };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["usage_totals", "usage_service_totals", "usage_service_sums"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, NpgsqlConnection connection, CancellationToken cancellation)
    {
        foreach (var some in events.Chunk(MaxSummedCalls))
        {
            var users = new Sums();
            var services = new Sums();
            var wider = new Sums();
            foreach (var recorded in some)
            {
                foreach (var change in Changes(recorded))
                {
                    users.Add(change);
                    var ofService = change with { Key = change.Key with { User = "" } };
                    services.Add(ofService);
                    foreach (var width in UsageBuckets.Wider)
                    {
                        wider.Add(ofService with { Key = ofService.Key with { Width = width, Bucket = UsageBuckets.Of(ofService.Key.Bucket, width) } });
                    }
                }
            }

            await using var batch = new NpgsqlBatch(connection);
            batch.BatchCommands.Add(users.Upsert("usage_totals", withUser: true));
            batch.BatchCommands.Add(services.Upsert("usage_service_totals", withUser: false));
            batch.BatchCommands.Add(wider.Upsert("usage_service_sums", withUser: false, withWidth: true));
            await batch.ExecuteNonQueryAsync(cancellation);
        }
    }

    private readonly record struct Key(string Tenant, string User, string Service, DateTimeOffset Bucket, string Currency, string Units)
    {
        public TimeSpan Width { get; init; } = UsageBuckets.Width;
    }

    /// <summary>A call that comes to a total (<paramref name="Sign"/> +1) or goes from it (-1).</summary>
    private readonly record struct Change(Key Key, int Sign, decimal[] Quantities, decimal Amount);

    private static IEnumerable<Change> Changes(RecordedEvent recorded)
    {
        switch (recorded.Data)
        {
            case CallRecorded e:
                var quantities = CallQuantities.Sorted(e.Quantities, out var units);
                var key = new Key(recorded.TenantId, e.UserId, e.ServiceId, UsageBuckets.Of(e.OccurredAt), e.Currency ?? "", units);
                yield return new Change(key, +1, quantities, Amount(e.Amount));
                break;

            case CallPriced e:
                quantities = CallQuantities.Sorted(e.Quantities, out units);
                key = new Key(recorded.TenantId, e.UserId, e.ServiceId, UsageBuckets.Of(e.OccurredAt), "", units);
                yield return new Change(key, -1, quantities, 0);
                yield return new Change(key with { Currency = e.Currency }, +1, quantities, Amount(e.Amount));
                break;

            case CallVoided e:
                quantities = CallQuantities.Sorted(e.Quantities, out units);
                key = new Key(recorded.TenantId, e.UserId, e.ServiceId, UsageBuckets.Of(e.OccurredAt), e.Currency ?? "", units);
                yield return new Change(key, -1, quantities, Amount(e.Amount));
                break;
        }
    }

    private static decimal Amount(decimal? amount)
    {
        var value = amount ?? 0;
        return value is >= 0 and < PricedAmount.AmountLimit && decimal.Round(value, PricedAmount.MaxAmountDecimals) == value
            ? decimal.Round(value, PricedAmount.MaxAmountDecimals)
            : throw new InvalidOperationException($"{value} is no amount: sums of such are not exact.");
    }

    private sealed class Sums
    {
        private readonly Dictionary<Key, Sum> _sums = [];

        public void Add(Change change)
        {
            if (!_sums.TryGetValue(change.Key, out var sum))
            {
                _sums.Add(change.Key, sum = new Sum { Quantities = new decimal[change.Quantities.Length] });
            }

            sum.Calls += change.Sign;
            sum.Amount += change.Sign * change.Amount;
            for (var i = 0; i < sum.Quantities.Length; i++)
            {
                sum.Quantities[i] += change.Sign * change.Quantities[i];
            }
        }

        /// <summary>
        /// In the order of the primary key. Zeros are kept: a row is there when any call ever counted in it, however the events
        /// were cut into batches; and a number has as many decimals as any that was ever added to it.
        /// </summary>
        public NpgsqlBatchCommand Upsert(string table, bool withUser, bool withWidth = false)
        {
            var rows = _sums
                .OrderBy(s => s.Key.Tenant, StringComparer.Ordinal).ThenBy(s => s.Key.User, StringComparer.Ordinal)
                .ThenBy(s => s.Key.Service, StringComparer.Ordinal).ThenBy(s => s.Key.Width).ThenBy(s => s.Key.Bucket)
                .ThenBy(s => s.Key.Currency, StringComparer.Ordinal).ThenBy(s => s.Key.Units, StringComparer.Ordinal).ToList();
            var key = $"tenant_id, {(withUser ? "user_id, " : "")}service_id, {(withWidth ? "minutes, " : "")}bucket, currency, units";
            return Sql.Command(
                $"""
                 insert into {table} as t ({key}, calls, quantities, amount)
                 select {key}, calls, quantities::numeric[], amount
                 from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) k (tenant_id, user_id, service_id, bucket, currency, units, calls, quantities, amount, minutes)
                 on conflict ({key}) do update set
                   calls = t.calls + excluded.calls,
                   quantities = (select array_agg(a + b order by o) from unnest(t.quantities, excluded.quantities) with ordinality x (a, b, o)),
                   amount = t.amount + excluded.amount
                 """,
                Sql.Texts(rows.Select(r => r.Key.Tenant)), Sql.Texts(rows.Select(r => r.Key.User)), Sql.Texts(rows.Select(r => r.Key.Service)),
                Sql.Instants(rows.Select(r => r.Key.Bucket)), Sql.Texts(rows.Select(r => r.Key.Currency)), Sql.Texts(rows.Select(r => r.Key.Units)),
                Sql.Longs(rows.Select(r => r.Value.Calls)), Sql.Texts(rows.Select(r => Literal(r.Value.Quantities))),
                Sql.Value(rows.Select(r => r.Value.Amount).ToArray()), Sql.Value(rows.Select(r => UsageBuckets.MinutesOf(r.Key.Width)).ToArray()));
        }

        private static string Literal(decimal[] quantities) =>
            $"{{{string.Join(',', quantities.Select(q => q.ToString(CultureInfo.InvariantCulture)))}}}";
    }

    private sealed class Sum
    {
        public long Calls { get; set; }

        public decimal[] Quantities { get; init; } = [];

        public decimal Amount { get; set; }
    }
}

/// <summary>The widths of time that totals are kept in.</summary>
public static class UsageBuckets
{
    /// <summary>How wide the narrowest is.</summary>
    public static readonly TimeSpan Width = TimeSpan.FromMinutes(15);

    /// <summary>The widths that are kept for services beside it, the widest first: each is made of whole ones of the next.</summary>
    public static readonly IReadOnlyList<TimeSpan> Wider = [TimeSpan.FromDays(1), TimeSpan.FromHours(1)];

    /// <summary>The first instant of the bucket that an instant falls into.</summary>
    public static DateTimeOffset Of(DateTimeOffset instant) => Of(instant, Width);

    /// <summary>The first instant of the bucket of a width that an instant falls into.</summary>
    public static DateTimeOffset Of(DateTimeOffset instant, TimeSpan width) => new(instant.UtcTicks - (instant.UtcTicks % width.Ticks), TimeSpan.Zero);

    /// <summary>Whether a bucket of a width begins at an instant.</summary>
    public static bool IsStart(DateTimeOffset instant, TimeSpan width) => instant.UtcTicks % width.Ticks == 0;

    /// <summary>A width as it is stored.</summary>
    public static short MinutesOf(TimeSpan width) => (short)width.TotalMinutes;
}

/// <summary>The quantities of a call in one order.</summary>
internal static class CallQuantities
{
    /// <summary>Units of one call that totals can be made of: those a call may name, and the call itself.</summary>
    public const int MaxUnits = Call.MaxQuantities + 1;

    /// <summary>The quantities in the ordinal order of their units, whose names come joined by commas, which none of them has.</summary>
    public static decimal[] Sorted(IReadOnlyDictionary<string, decimal> quantities, out string units)
    {
        if (quantities.Count > MaxUnits || quantities.Any(q => !Unit.IsValid(q.Key) || !Quantity.IsValid(q.Value)))
        {
            throw new InvalidOperationException("The quantities are none of a call: their sums are not exact.");
        }

        var names = quantities.Keys.Order(StringComparer.Ordinal).ToArray();
        units = string.Join(',', names);
        return [.. names.Select(n => decimal.Round(quantities[n], Quantity.MaxDecimals))];
    }
}
