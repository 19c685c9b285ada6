using Ledger.EventStore;

namespace Ledger.Campaigns;

/// <summary>The numbers of a summary: what was recorded of messages in the quarters of an hour of a time, of all tenants.</summary>
public sealed class CampaignNumbersReader(BackgroundDatabase background) : ICampaignNumbers
{
    /// <inheritdoc/>
    public async Task<IReadOnlyList<CampaignNumbers>> Read(DateTimeOffset from, DateTimeOffset to, CancellationToken cancellation)
    {
        await using var command = background.Source.Command(
            """
            select c.tenant_id, c.campaign_id, c.plan ->> 'name', h.sent, h.failed, h.unknown, h.suppressed
            from campaigns c
            cross join lateral (
              select sum(q.sent)::bigint as sent, sum(q.failed)::bigint as failed, sum(q.unknown)::bigint as unknown, sum(q.suppressed)::bigint as suppressed
              from campaign_quarters q
              where q.tenant_id = c.tenant_id and q.campaign_id = c.campaign_id and q.quarter >= $1 and q.quarter < $2) h
            where h.sent + h.failed + h.unknown + h.suppressed > 0
            order by c.tenant_id, c.campaign_id
            """,
            Sql.Value(from), Sql.Value(to));
        var numbers = new List<CampaignNumbers>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            (string State, long Count)[] states =
            [
                (Message.Sent, reader.GetInt64(3)), (Message.Failed, reader.GetInt64(4)), (Message.Unknown, reader.GetInt64(5)), (Message.Suppressed, reader.GetInt64(6)),
            ];
            numbers.Add(new CampaignNumbers(
                reader.GetString(0), $"{reader.GetGuid(1):N}", reader.GetString(2), states.Where(s => s.Count > 0).ToDictionary(s => s.State, s => s.Count)));
        }

        return numbers;
    }
}
