using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Campaigns;

/// <summary>
/// A recipient's message. <c>attempts</c> are those whose outcome is known or known to be unknown; <c>error</c> and
/// <c>statusCode</c> are of the last one; <c>dueAt</c> is when it may be sent again.
/// </summary>
public sealed record CampaignMessage(
    string UserId, string MessageId, string Status, int Attempts, string? Error, int? StatusCode, DateTimeOffset? DueAt, DateTimeOffset? SentAt, string? TimeZone);

/// <summary>Answers what became of each recipient's message, by user id.</summary>
public static class CampaignMessages
{
    private static readonly CsvTable<CampaignMessage> Csv = new(
        ["userId", "messageId", "status", "attempts", "error", "statusCode", "dueAt", "sentAt", "timeZone"],
        (csv, message) =>
        {
            csv.Text(message.UserId);
            csv.Text(message.MessageId);
            csv.Text(message.Status);
            csv.Number(message.Attempts);
            csv.Text(message.Error);
            csv.Number(message.StatusCode);
            csv.Time(message.DueAt);
            csv.Time(message.SentAt);
            csv.Text(message.TimeZone);
        });

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/campaigns/{campaignId}/messages", Handle)
        .Requires(Scopes.CampaignsRead).WithName("ListCampaignMessages").WithTags("Campaigns").WithSummary("Every recipient of a campaign with what became of the message")
        .ProducesList<CampaignMessage>().ProducesQueryProblems(404, 406);

    private static Task<IResult> Handle(
        string campaignId, string? status, [AsParameters] PageQuery page, HttpContext http, Queries queries, CampaignsReader campaigns, CampaignMessagesReader messages,
        CancellationToken cancellation) =>
        queries.Now(http, CampaignsReader.Views, async _ =>
        {
            var errors = new Validation();
            errors.Check(status is null || Message.Statuses.Contains(status), "status", $"must be one of: {string.Join(", ", Message.Statuses)}");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            if (!CampaignIds.TryParse(campaignId, out var id) || (await campaigns.Find(http.TenantId(), id, cancellation)).Row is null)
            {
                return Problems.For(CampaignRejections.NotFound(campaignId));
            }

            return await ListAnswers.Answer<CampaignMessage, string>(
                http, page, "campaign-messages", [campaignId, status], Csv,
                async (after, rows) =>
                {
                    var (position, found) = await messages.List(http.TenantId(), id, status, after ?? "", rows, cancellation);
                    http.AnswerPosition(position);
                    return [.. found.Select(m => (m, m.UserId))];
                });
        });
}

/// <summary>Reads messages.</summary>
public sealed class CampaignMessagesReader(ViewDatabase views)
{
    /// <summary>
    /// A page of a campaign's messages, by user id: of all, or of those under way, a range of a primary key; of those that are settled,
    /// a range of an index. Of those that wait, it reads past the others.
    /// </summary>
    public async Task<(long Position, IReadOnlyList<CampaignMessage> Rows)> List(
        string tenantId, Guid campaignId, string? status, string after, int limit, CancellationToken cancellation)
    {
        var rows = new List<CampaignMessage>();
        var position = await views.Read(
            tenantId, CampaignsReader.Views,
            [Sql.Command(Statement(status), Sql.Value(tenantId), Sql.Value(campaignId), Sql.Value(after), Sql.Value(limit))],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(Read(tenantId, campaignId, reader));
                }
            },
            cancellation);
        return (position, rows);
    }

    /// <summary>The statement for a status that is one of <see cref="Message.Statuses"/>, or for all.</summary>
    internal static string Statement(string? status)
    {
        const string Columns = "m.user_id, m.status, m.attempts, m.error, m.status_code, m.due_at, m.sent_at, m.time_zone, s.user_id is not null, c.phase";
        const string Key = "m.tenant_id = c.tenant_id and m.campaign_id = c.campaign_id";
        const string UnderWay =
            """
            left join lateral (
              select o.user_id from campaign_sends o
              where o.tenant_id = m.tenant_id and o.campaign_id = m.campaign_id and o.user_id = m.user_id and o.recorded_position is null
                and m.status in ('pending', 'unknown') limit 1) s on true
            """;
        var over = status switch
        {
            Message.Pending => "c.phase in ('scheduled', 'starting', 'running')",
            Message.Expired => "c.phase in ('completed', 'ended')",
            Message.Cancelled => "c.phase in ('cancelled', 'invalid')",
            _ => "true",
        };
        var stored = status switch
        {
            null or Message.Sending => "true",
            Message.Sent or Message.Failed or Message.Suppressed or Message.Unknown => $"m.status = '{status}' and s.user_id is null",
            _ => "m.status = 'pending' and s.user_id is null",
        };
        return status == Message.Sending
            ? $"""
               select {Columns}
               from campaigns c
               cross join campaign_sends s
               cross join lateral (
                 select * from campaign_messages m where {Key} and m.user_id = s.user_id and m.status in ('pending', 'unknown') limit 1) m
               where c.tenant_id = $1 and c.campaign_id = $2 and s.tenant_id = $1 and s.campaign_id = $2 and s.user_id > $3 and s.recorded_position is null
               order by s.user_id limit $4
               """
            : $"""
               select {Columns}
               from campaigns c
               cross join campaign_messages m
               {UnderWay}
               where c.tenant_id = $1 and c.campaign_id = $2 and {over} and m.tenant_id = $1 and m.campaign_id = $2 and m.user_id > $3 and {stored}
               order by m.user_id limit $4
               """;
    }

    private static CampaignMessage Read(string tenantId, Guid campaignId, NpgsqlDataReader reader)
    {
        var (userId, stored, phase) = (reader.GetString(0), reader.GetString(1), reader.GetString(9));
        var isSettledByCampaign = phase is Campaign.Completed or Campaign.Ended or Campaign.Cancelled or Campaign.Invalid;
        var status = reader.GetBoolean(8) ? Message.Sending
            : stored != Message.Pending || !isSettledByCampaign ? stored
            : phase is Campaign.Cancelled or Campaign.Invalid ? Message.Cancelled
            : Message.Expired;
        return new CampaignMessage(
            userId, Message.IdOf(tenantId, campaignId, userId), status, reader.GetInt32(2), reader.Maybe<string>(3), reader.Maybe<int?>(4),
            isSettledByCampaign ? null : reader.Maybe<DateTimeOffset?>(5), reader.Maybe<DateTimeOffset?>(6),
            reader.GetString(7) is { Length: > 0 } zone ? zone : null);
    }
}
