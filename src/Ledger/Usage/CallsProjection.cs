using Ledger.EventStore;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Usage;

/// <summary>Keeps the view "Calls": every call with what became of it, and how many wait for a price.</summary>
public sealed class CallsProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Calls";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type> { typeof(CallRecorded), typeof(CallPriced), typeof(CallVoided) };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["calls", "unpriced_calls"];

    /// <inheritdoc/>
    public IReadOnlyList<string> ReaderIndexes =>
        ["calls_of_service", "calls_by_time", "calls_not_priced_of_user", "calls_not_priced_of_service", "calls_not_priced_by_time"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var fold = new Fold();
        foreach (var recorded in events)
        {
            fold.Apply(recorded);
        }

        await fold.Write(transaction, cancellation);
    }

    /// <summary>A call while a batch is folded: one that was recorded in it, or one whose row is changed by it.</summary>
    private sealed class Row(string tenant, string user, string service, DateTimeOffset occurredAt, long position)
    {
        public string Tenant => tenant;

        public string User => user;

        public string Service => service;

        public DateTimeOffset OccurredAt => occurredAt;

        public long Position => position;

        public bool Recorded { get; init; }

        public decimal? Amount { get; set; }

        public string? Currency { get; set; }

        public int? PriceVersion { get; set; }

        public string? UnpricedReason { get; set; }

        public long? PricedPosition { get; set; }

        public long? VoidedPosition { get; set; }

        public string Status => VoidedPosition is not null ? "voided" : Amount is not null ? "priced" : "unpriced";
    }

    private sealed class Fold
    {
        private readonly Dictionary<long, Row> _rows = [];
        private readonly Dictionary<(string Tenant, string Service, string Reason), long> _unpriced = [];

        public void Apply(RecordedEvent recorded)
        {
            var tenant = recorded.TenantId;
            switch (recorded.Data)
            {
                case CallRecorded e:
                    _rows.Add(recorded.Position, new Row(tenant, e.UserId, e.ServiceId, e.OccurredAt, recorded.Position)
                    {
                        Recorded = true, Amount = e.Amount, Currency = e.Currency, PriceVersion = e.PriceVersion, UnpricedReason = e.UnpricedReason,
                    });
                    CountUnpriced(tenant, e.ServiceId, e.Amount is null ? e.UnpricedReason : null, +1);
                    break;

                case CallPriced e:
                    var row = Find(tenant, e.UserId, e.ServiceId, e.OccurredAt, e.CallPosition);
                    (row.Amount, row.Currency, row.PriceVersion, row.UnpricedReason) = (e.Amount, e.Currency, e.PriceVersion, null);
                    row.PricedPosition = recorded.Position;
                    CountUnpriced(tenant, e.ServiceId, e.UnpricedReason, -1);
                    break;

                case CallVoided e:
                    row = Find(tenant, e.UserId, e.ServiceId, e.OccurredAt, e.CallPosition);
                    row.VoidedPosition = recorded.Position;
                    CountUnpriced(tenant, e.ServiceId, e.Amount is null ? e.UnpricedReason : null, -1);
                    break;
            }
        }

        public async Task Write(ViewTransaction transaction, CancellationToken cancellation)
        {
            // In the order of the primary key, so that neighbours go to the same page.
            var begun = _rows.Values.Where(r => r.Recorded).ToList();
            var priced = _rows.Values.Where(r => r is { Recorded: false, PricedPosition: not null }).ToList();
            var voided = _rows.Values.Where(r => r is { Recorded: false, VoidedPosition: not null }).ToList();
            var unpriced = _unpriced.Where(u => u.Value != 0).OrderBy(u => u.Key).ToList();
            begun.Sort(InKeyOrder);
            priced.Sort(InKeyOrder);
            voided.Sort(InKeyOrder);
            if (begun.Count < CopyRows.MinRows)
            {
                transaction.AddFor(begun.Count, () => Sql.Command(
                    """
                    insert into calls (
                      tenant_id, user_id, service_id, occurred_at, position, amount, currency, price_version, priced_position, status, unpriced_reason, voided_position)
                    select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                    """,
                    [
                        .. Keys(begun), .. Prices(begun), Sql.Texts(begun.Select(r => r.Status)),
                        Sql.Texts(begun.Select(r => r.UnpricedReason)), Sql.LongsOrNull(begun.Select(r => r.VoidedPosition)),
                    ]));
            }
            else
            {
                await Copy(begun, await transaction.Connection(cancellation), cancellation);
            }

            transaction.AddFor(priced.Count, () => Sql.Command(
                $"""
                 update calls c set status = 'priced', amount = k.amount, currency = k.currency, price_version = k.price_version,
                   unpriced_reason = null, priced_position = k.priced_position
                 from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
                   k (tenant_id, user_id, service_id, occurred_at, position, amount, currency, price_version, priced_position)
                 {OldRow}
                 """,
                [
                    .. Keys(priced), .. Prices(priced),
                ]));
            transaction.AddFor(voided.Count, () => Sql.Command(
                $"""
                 update calls c set status = 'voided', voided_position = k.voided_position
                 from unnest($1, $2, $3, $4, $5, $6) k (tenant_id, user_id, service_id, occurred_at, position, voided_position)
                 {OldRow}
                 """,
                [.. Keys(voided), Sql.Longs(voided.Select(r => r.VoidedPosition!.Value))]));
            transaction.AddFor(unpriced.Count, () => Sql.Command(
                """
                insert into unpriced_calls (tenant_id, service_id, reason, calls) select * from unnest($1, $2, $3, $4)
                on conflict (tenant_id, service_id, reason) do update set calls = unpriced_calls.calls + excluded.calls
                """,
                [.. Reasons(), Sql.Longs(unpriced.Select(u => u.Value))]));
            // Whether a row is there depends on the number alone, not on how the events were cut into batches.
            transaction.AddFor(unpriced.Count, () => Sql.Command(
                """
                delete from unpriced_calls c
                using unnest($1, $2, $3) k (tenant_id, service_id, reason)
                cross join lateral (
                  select ctid from unpriced_calls o
                  where o.tenant_id = k.tenant_id and o.service_id = k.service_id and o.reason = k.reason and o.calls = 0 limit 1) o
                where c.ctid = o.ctid
                """,
                Reasons()));

            NpgsqlParameter[] Reasons() =>
                [Sql.Texts(unpriced.Select(u => u.Key.Tenant)), Sql.Texts(unpriced.Select(u => u.Key.Service)), Sql.Texts(unpriced.Select(u => u.Key.Reason))];
        }

        private static async Task Copy(List<Row> calls, NpgsqlConnection connection, CancellationToken cancellation)
        {
            using var rows = new CopyRows();
            foreach (var call in calls)
            {
                rows.BeginRow(columns: 12);
                rows.Text(call.Tenant);
                rows.Text(call.User);
                rows.Text(call.Service);
                rows.Instant(call.OccurredAt);
                rows.Bigint(call.Position);
                rows.Text(call.Status);
                rows.Numeric(call.Amount);
                rows.Text(call.Currency);
                rows.Number(call.PriceVersion);
                rows.Text(call.UnpricedReason);
                rows.Bigint(call.PricedPosition);
                rows.Bigint(call.VoidedPosition);
            }

            await rows.CopyTo(
                connection,
                """
                copy calls (
                  tenant_id, user_id, service_id, occurred_at, position, status, amount, currency, price_version, unpriced_reason, priced_position, voided_position)
                from stdin (format binary)
                """,
                cancellation);
        }

        private static int InKeyOrder(Row a, Row b)
        {
            var order = string.CompareOrdinal(a.Tenant, b.Tenant);
            order = order != 0 ? order : string.CompareOrdinal(a.User, b.User);
            order = order != 0 ? order : string.CompareOrdinal(a.Service, b.Service);
            order = order != 0 ? order : a.OccurredAt.CompareTo(b.OccurredAt);
            return order != 0 ? order : a.Position.CompareTo(b.Position);
        }

        private const string OldRow =
            """
            cross join lateral (
              select ctid from calls o
              where o.tenant_id = k.tenant_id and o.user_id = k.user_id and o.service_id = k.service_id
                and o.occurred_at = k.occurred_at and o.position = k.position limit 1) o
            where c.ctid = o.ctid
            """;

        private Row Find(string tenant, string user, string service, DateTimeOffset occurredAt, long position)
        {
            if (!_rows.TryGetValue(position, out var row))
            {
                _rows.Add(position, row = new Row(tenant, user, service, occurredAt, position));
            }

            return row;
        }

        private void CountUnpriced(string tenant, string service, string? reason, int change)
        {
            if (reason is not null)
            {
                var key = (tenant, service, reason);
                _unpriced[key] = _unpriced.GetValueOrDefault(key) + change;
            }
        }

        private static NpgsqlParameter[] Keys(List<Row> rows) =>
        [
            Sql.Texts(rows.Select(r => r.Tenant)), Sql.Texts(rows.Select(r => r.User)), Sql.Texts(rows.Select(r => r.Service)),
            Sql.Instants(rows.Select(r => r.OccurredAt)), Sql.Longs(rows.Select(r => r.Position)),
        ];

        private static NpgsqlParameter[] Prices(List<Row> rows) =>
        [
            new NpgsqlParameter<decimal?[]> { TypedValue = [.. rows.Select(r => r.Amount)], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Numeric },
            Sql.Texts(rows.Select(r => r.Currency)), Sql.Value(rows.Select(r => r.PriceVersion).ToArray()), Sql.LongsOrNull(rows.Select(r => r.PricedPosition)),
        ];
    }
}
