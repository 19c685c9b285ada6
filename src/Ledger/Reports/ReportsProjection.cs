using Ledger.EventStore;
using Ledger.Segments;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Reports;

/// <summary>Keeps the view "Reports": the reports there are, and the few expiries that were recorded after their month.</summary>
public sealed class ReportsProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Reports";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>
    {
        typeof(ReportRequested), typeof(ReportCompleted), typeof(ReportFailed), typeof(ReportDeleted), typeof(MembershipExpired),
    };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["reports", "report_late_expiries"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var late = events.Where(e => e.Data is MembershipExpired expired && Month.Of(expired.ExpiresAt) != Month.Of(e.RecordedAt)).ToArray();
        var told = events.Where(e => e.Data is not MembershipExpired).ToArray();
        if (late.Length > 0)
        {
            transaction.Add(Sql.Command(
                "insert into report_late_expiries (tenant_id, month, position) select * from unnest($1, $2, $3)",
                Sql.Texts(late.Select(e => e.TenantId)), Months(late.Select(e => Month.Of(((MembershipExpired)e.Data!).ExpiresAt))),
                Sql.Longs(late.Select(e => e.Position))));
        }

        if (told.Length > 0)
        {
            await Fold(told, transaction, cancellation);
        }
    }

    private static async Task Fold(RecordedEvent[] told, ViewTransaction transaction, CancellationToken cancellation)
    {
        var reports = await Load(told, await transaction.Connection(cancellation), cancellation);
        foreach (var recorded in told)
        {
            var key = (recorded.TenantId, Report.IdOf(recorded.StreamId));
            reports[key] = Report.Evolve(reports.GetValueOrDefault(key) ?? Report.Initial(key.Item2), recorded);
        }

        var (tenants, there) = (reports.Keys.Select(k => k.Tenant), reports.Where(r => r.Value.Exists).ToArray());
        transaction.Add(Sql.Command(
            """
            delete from reports r
            using unnest($1, $2) k (tenant_id, report_id)
            cross join lateral (select ctid from reports o where o.tenant_id = k.tenant_id and o.report_id = k.report_id limit 1) o
            where r.ctid = o.ctid
            """,
            Sql.Texts(tenants), Sql.Texts(reports.Keys.Select(k => k.Id))));
        if (there.Length > 0)
        {
            transaction.Add(Sql.Command(
                """
                insert into reports (
                  tenant_id, report_id, kind, month, user_id, status, requested_position, requested_at, position, rows, bytes, sha256, error, version)
                select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
                """,
                Sql.Texts(there.Select(r => r.Key.Tenant)), Sql.Texts(there.Select(r => r.Key.Id)), Sql.Texts(there.Select(r => r.Value.Kind)),
                Months(there.Select(r => r.Value.Month)), Sql.Texts(there.Select(r => r.Value.UserId)), Sql.Texts(there.Select(r => r.Value.Status)),
                Sql.Longs(there.Select(r => r.Value.RequestedPosition)), Sql.Instants(there.Select(r => r.Value.RequestedAt)),
                Sql.Value(there.Select(r => r.Value.Completed?.Position).ToArray()), Sql.Value(there.Select(r => r.Value.Completed?.Rows).ToArray()),
                Sql.Value(there.Select(r => r.Value.Completed?.Bytes).ToArray()), Sql.Texts(there.Select(r => r.Value.Completed?.Sha256)),
                Sql.Texts(there.Select(r => r.Value.Error)), Sql.Longs(there.Select(r => r.Value.Version))));
        }
    }

    private static async Task<Dictionary<(string Tenant, string Id), Report>> Load(
        RecordedEvent[] told, NpgsqlConnection connection, CancellationToken cancellation)
    {
        var keys = told.Select(e => (e.TenantId, Id: Report.IdOf(e.StreamId))).Distinct().ToArray();
        await using var command = new NpgsqlCommand(
            $"""
             select r.tenant_id, {ReportRow.Columns}
             from unnest($1, $2) k (tenant_id, report_id)
             cross join lateral (select * from reports o where o.tenant_id = k.tenant_id and o.report_id = k.report_id limit 1) r
             """, connection)
        {
            Parameters = { Sql.Texts(keys.Select(k => k.TenantId)), Sql.Texts(keys.Select(k => k.Id)) },
        };
        var reports = new Dictionary<(string, string), Report>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            var report = ReportRow.Read(reader, 1);
            reports[(reader.GetString(0), report.Id)] = report;
        }

        return reports;
    }

    private static NpgsqlParameter<DateOnly[]> Months(IEnumerable<Month> months) => new NpgsqlParameter<DateOnly[]>
    {
        TypedValue = [.. months.Select(m => DateOnly.FromDateTime(m.Begin.UtcDateTime))], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Date,
    };
}

/// <summary>A row of <c>reports</c>, under the alias r.</summary>
internal static class ReportRow
{
    public const string Columns =
        "r.report_id, r.status, r.kind, r.month, r.user_id, r.requested_at, r.requested_position, r.position, r.rows, r.bytes, r.sha256, r.error, r.version";

    public static Report Read(NpgsqlDataReader reader, int first) => new(
        reader.GetString(first), reader.GetString(first + 1), reader.GetString(first + 2),
        new Month(new DateTimeOffset(reader.GetFieldValue<DateOnly>(first + 3), TimeOnly.MinValue, TimeSpan.Zero)), reader.Maybe<string>(first + 4),
        reader.GetFieldValue<DateTimeOffset>(first + 5), reader.GetInt64(first + 6),
        reader.IsDBNull(first + 7) ? null : new ReportCompleted(reader.GetInt64(first + 7), reader.GetInt64(first + 8), reader.GetInt64(first + 9), reader.GetString(first + 10)),
        reader.Maybe<string>(first + 11), reader.GetInt64(first + 12));
}
