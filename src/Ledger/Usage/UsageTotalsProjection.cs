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
    public IReadOnlyList<string> ReaderIndexes => ["usage_totals_of_service"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
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

            var ofUsers = await CopyNew(users.InKeyOrder(), transaction, cancellation);
            transaction.AddFor(ofUsers.Count, () => Upsert(ofUsers, "usage_totals", withUser: true));
            transaction.Add(Upsert(services.InKeyOrder(), "usage_service_totals", withUser: false));
            transaction.Add(Upsert(wider.InKeyOrder(), "usage_service_sums", withUser: false, withWidth: true));
        }
    }

    /// <summary>
    /// Copies those of many users' sums that no row is there for, which takes half of an insert's time; returns the others. No one
    /// else writes to these tables.
    /// </summary>
    private static async Task<List<KeyValuePair<Key, Sum>>> CopyNew(
        List<KeyValuePair<Key, Sum>> sums, ViewTransaction transaction, CancellationToken cancellation)
    {
        if (sums.Count < CopyRows.MinRows)
        {
            return sums;
        }

        var connection = await transaction.Connection(cancellation);
        var known = new List<KeyValuePair<Key, Sum>>();
        await using (var command = new NpgsqlCommand(
            """
            select k.row
            from unnest($1, $2, $3, $4, $5, $6) with ordinality k (tenant_id, user_id, service_id, bucket, currency, units, row)
            cross join lateral (
              select from usage_totals t
              where t.tenant_id = k.tenant_id and t.user_id = k.user_id and t.service_id = k.service_id and t.bucket = k.bucket
                and t.currency = k.currency and t.units = k.units limit 1) t
            order by k.row
            """, connection))
        {
            command.Parameters.AddRange(Keys(sums));
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                known.Add(sums[(int)reader.GetInt64(0) - 1]);
            }
        }

        using var rows = new CopyRows();
        var next = 0;
        foreach (var sum in sums)
        {
            if (next < known.Count && known[next].Value == sum.Value)
            {
                next++;
                continue;
            }

            rows.BeginRow(columns: 9);
            rows.Text(sum.Key.Tenant);
            rows.Text(sum.Key.User);
            rows.Text(sum.Key.Service);
            rows.Instant(sum.Key.Bucket);
            rows.Text(sum.Key.Currency);
            rows.Text(sum.Key.Units);
            rows.Bigint(sum.Value.Calls);
            rows.Numerics(sum.Value.Quantities);
            rows.Numeric(sum.Value.Amount);
        }

        if (known.Count < sums.Count)
        {
            await rows.CopyTo(
                connection,
                """
                copy usage_totals (tenant_id, user_id, service_id, bucket, currency, units, calls, quantities, amount) from stdin (format binary)
                """,
                cancellation);
        }

        return known;
    }

    /// <summary>
    /// Zeros are kept: a row is there when any call ever counted in it, however the events were cut into batches; and a number has
    /// as many decimals as any that was ever added to it.
    /// </summary>
    private static NpgsqlBatchCommand Upsert(List<KeyValuePair<Key, Sum>> sums, string table, bool withUser, bool withWidth = false)
    {
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
            [
                .. Keys(sums), Sql.Longs(sums.Select(s => s.Value.Calls)), Sql.Texts(sums.Select(s => Literal(s.Value.Quantities))),
                Sql.Value(sums.Select(s => s.Value.Amount).ToArray()), Sql.Value(sums.Select(s => UsageBuckets.MinutesOf(s.Key.Width)).ToArray()),
            ]);
    }

    private static NpgsqlParameter[] Keys(List<KeyValuePair<Key, Sum>> sums) =>
    [
        Sql.Texts(sums.Select(s => s.Key.Tenant)), Sql.Texts(sums.Select(s => s.Key.User)), Sql.Texts(sums.Select(s => s.Key.Service)),
        Sql.Instants(sums.Select(s => s.Key.Bucket)), Sql.Texts(sums.Select(s => s.Key.Currency)), Sql.Texts(sums.Select(s => s.Key.Units)),
    ];

    private static string Literal(decimal[] quantities) =>
        $"{{{string.Join(',', quantities.Select(q => q.ToString(CultureInfo.InvariantCulture)))}}}";

    private readonly record struct Key(string Tenant, string User, string Service, DateTimeOffset Bucket, string Currency, string Units)
    {
        public TimeSpan Width { get; init; } = UsageBuckets.Width;

        /// <summary>The order of the primary keys.</summary>
        public int CompareTo(in Key other)
        {
            var order = string.CompareOrdinal(Tenant, other.Tenant);
            order = order != 0 ? order : string.CompareOrdinal(User, other.User);
            order = order != 0 ? order : string.CompareOrdinal(Service, other.Service);
            order = order != 0 ? order : Width.CompareTo(other.Width);
            order = order != 0 ? order : Bucket.CompareTo(other.Bucket);
            order = order != 0 ? order : string.CompareOrdinal(Currency, other.Currency);
            return order != 0 ? order : string.CompareOrdinal(Units, other.Units);
        }
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

        /// <summary>In the order of the primary key, so that neighbours go to the same page.</summary>
        public List<KeyValuePair<Key, Sum>> InKeyOrder()
        {
            var rows = _sums.ToList();
            rows.Sort((a, b) => a.Key.CompareTo(b.Key));
            return rows;
        }
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
