using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Campaigns;

/// <summary>A campaign's messages by status; together they are its recipients.</summary>
public sealed record MessageTotals(long Pending, long Sending, long Sent, long Failed, long Unknown, long Expired, long Suppressed, long Cancelled)
{
    /// <summary>All of them.</summary>
    internal long Sum => Pending + Sending + Sent + Failed + Unknown + Expired + Suppressed + Cancelled;

    /// <summary>The totals of two.</summary>
    public static MessageTotals operator +(MessageTotals one, MessageTotals other) => new(
        one.Pending + other.Pending, one.Sending + other.Sending, one.Sent + other.Sent, one.Failed + other.Failed, one.Unknown + other.Unknown,
        one.Expired + other.Expired, one.Suppressed + other.Suppressed, one.Cancelled + other.Cancelled);

    /// <summary>What is stored, what is under way, and what the campaign has come to, put together.</summary>
    internal static MessageTotals Of(string phase, MessageCounts counts, UnderWay underWay)
    {
        var waiting = counts.Pending - underWay.Pending;
        var (isCancelled, isOver) = (phase is Campaign.Cancelled or Campaign.Invalid, phase is Campaign.Completed or Campaign.Ended);
        return new MessageTotals(
            isCancelled || isOver ? 0 : waiting, underWay.Pending + underWay.Unknown, counts.Sent, counts.Failed, counts.Unknown - underWay.Unknown,
            isOver ? waiting : 0, counts.Suppressed, isCancelled ? waiting : 0);
    }
}

/// <summary>Messages that are with a node right now, by what is stored of them.</summary>
internal readonly record struct UnderWay(long Pending, long Unknown);

/// <summary>
/// A campaign. <c>position</c> is the one its audience was taken at; <c>recipients</c> are those recorded so far, all of them once it
/// is past <c>starting</c>; <c>error</c> says why it is <c>invalid</c>, and <c>errorUsers</c> names the first users that it is invalid for.
/// </summary>
public sealed record CampaignAnswer(
    string Id, string Name, string State, string Text, Audience Audience, DateTimeOffset StartsAt, DateTimeOffset EndsAt, LocalWindow? Window,
    int? RatePerSecond, OnUnknown OnUnknown, DateTimeOffset CreatedAt, DateTimeOffset? StartedAt, DateTimeOffset? EndedAt, long? Position, long Recipients,
    MessageTotals Totals, string? Error, IReadOnlyList<string>? ErrorUsers)
{
    internal static CampaignAnswer Of(Campaign campaign, MessageCounts counts, UnderWay underWay)
    {
        var (plan, totals) = (campaign.Plan!, MessageTotals.Of(campaign.Phase, counts, underWay));
        return new CampaignAnswer(
            $"{campaign.Id:N}", plan.Name, campaign.State, plan.Text, plan.Audience, plan.StartsAt, plan.EndsAt, plan.Window, plan.RatePerSecond, plan.OnUnknown,
            campaign.CreatedAt, campaign.StartedAt, campaign.EndedAt, campaign.AudiencePosition, campaign.Recipients ?? totals.Sum, totals, campaign.Error, campaign.ErrorUsers);
    }
}

/// <summary>Answers which campaigns there are, and how far they are.</summary>
public static class CampaignCatalogue
{
    private static readonly CsvTable<CampaignAnswer> Csv = new(
        [
            "id", "name", "state", "startsAt", "endsAt", "createdAt", "startedAt", "endedAt", "position", "recipients", .. Message.Statuses, "error",
        ],
        (csv, campaign) =>
        {
            csv.Text(campaign.Id);
            csv.Text(campaign.Name);
            csv.Text(campaign.State);
            csv.Time(campaign.StartsAt);
            csv.Time(campaign.EndsAt);
            csv.Time(campaign.CreatedAt);
            csv.Time(campaign.StartedAt);
            csv.Time(campaign.EndedAt);
            csv.Number(campaign.Position);
            csv.Number(campaign.Recipients);
            csv.Number(campaign.Totals.Pending);
            csv.Number(campaign.Totals.Sending);
            csv.Number(campaign.Totals.Sent);
            csv.Number(campaign.Totals.Failed);
            csv.Number(campaign.Totals.Unknown);
            csv.Number(campaign.Totals.Expired);
            csv.Number(campaign.Totals.Suppressed);
            csv.Number(campaign.Totals.Cancelled);
            csv.Text(campaign.Error);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/campaigns/{campaignId}", GetOne)
            .Requires(Scopes.CampaignsRead).WithName("GetCampaign").WithTags("Campaigns").WithSummary("A campaign with its messages by status")
            .Produces<CampaignAnswer>().ProducesQueryProblems(404);
        routes.MapGet("/v1/campaigns", List)
            .Requires(Scopes.CampaignsRead).WithName("ListCampaigns").WithTags("Campaigns").WithSummary("All campaigns, the one created last first")
            .ProducesList<CampaignAnswer>().ProducesQueryProblems(406);
    }

    private static Task<IResult> GetOne(string campaignId, HttpContext http, Queries queries, CampaignsReader campaigns, CancellationToken cancellation) =>
        queries.Now(http, CampaignsReader.Views, async _ =>
        {
            if (!CampaignIds.TryParse(campaignId, out var id))
            {
                return Problems.For(CampaignRejections.NotFound(campaignId));
            }

            var (position, row) = await campaigns.Find(http.TenantId(), id, cancellation);
            http.AnswerPosition(position);
            if (row is null)
            {
                return Problems.For(CampaignRejections.NotFound(campaignId));
            }

            ETags.Write(http.Response, row.Campaign.Version);
            return Results.Ok(CampaignAnswer.Of(row.Campaign, row.Counts, row.UnderWay));
        });

    private static Task<IResult> List(
        [AsParameters] PageQuery page, HttpContext http, Queries queries, CampaignsReader campaigns, CancellationToken cancellation) =>
        queries.Now(http, CampaignsReader.Views, _ => ListAnswers.Answer<CampaignAnswer, long>(
            http, page, "campaigns", [], Csv,
            async (before, rows) =>
            {
                var (position, found) = await campaigns.List(http.TenantId(), before == 0 ? long.MaxValue : before, rows, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(r => (CampaignAnswer.Of(r.Campaign, r.Counts, r.UnderWay), r.CreatedPosition))];
            }));
}

/// <summary>A campaign as the view has it, with what is under way in the same snapshot.</summary>
internal sealed record CampaignOfView(Campaign Campaign, MessageCounts Counts, UnderWay UnderWay, long CreatedPosition);

/// <summary>Reads the view "Campaigns". What is under way is counted from the rows of <c>campaign_sends</c>, which are few.</summary>
public sealed class CampaignsReader(ViewDatabase views)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [CampaignsProjection.View];

    private const string Columns =
        $"{CampaignRow.Columns}, c.pending, c.sent, c.failed, c.unknown, c.suppressed, c.resending, w.pending, w.unknown, c.created_position";

    private const string UnderWay =
        """
        cross join lateral (
          select count(*) filter (where m.status = 'pending') as pending, count(*) filter (where m.status = 'unknown') as unknown
          from campaign_sends s
          cross join lateral (
            select o.status from campaign_messages o
            where o.tenant_id = s.tenant_id and o.campaign_id = s.campaign_id and o.user_id = s.user_id limit 1) m
          where s.tenant_id = c.tenant_id and s.campaign_id = c.campaign_id and s.recorded_position is null) w
        """;

    /// <summary>One campaign, by primary key.</summary>
    internal async Task<(long Position, CampaignOfView? Row)> Find(string tenantId, Guid id, CancellationToken cancellation)
    {
        var (position, rows) = await Query(tenantId, "c.tenant_id = $1 and c.campaign_id = $2", [Sql.Value(tenantId), Sql.Value(id)], cancellation);
        return (position, rows.SingleOrDefault());
    }

    /// <summary>A page of the list, the one created last first.</summary>
    internal Task<(long Position, IReadOnlyList<CampaignOfView> Rows)> List(string tenantId, long before, int limit, CancellationToken cancellation) => Query(
        tenantId, "c.tenant_id = $1 and c.created_position < $2 order by c.created_position desc limit $3",
        [Sql.Value(tenantId), Sql.Value(before), Sql.Value(limit)], cancellation);

    /// <summary>Campaigns that had a part of [from, to), with what was recorded of them then; reads past a tenant's other campaigns.</summary>
    internal async Task<(long Position, IReadOnlyList<(CampaignOfView Row, MessageOutcomes Outcomes)> Rows)> Between(
        string tenantId, DateTimeOffset from, DateTimeOffset to, int limit, CancellationToken cancellation)
    {
        var rows = new List<(CampaignOfView, MessageOutcomes)>();
        var position = await views.Read(
            tenantId, Views,
            [
                Sql.Command(
                    $"""
                     select {Columns}, h.sent, h.deferred, h.failed, h.unknown, h.suppressed
                     from campaigns c {UnderWay}
                     cross join lateral (
                       select coalesce(sum(h.sent), 0)::bigint as sent, coalesce(sum(h.deferred), 0)::bigint as deferred, coalesce(sum(h.failed), 0)::bigint as failed,
                              coalesce(sum(h.unknown), 0)::bigint as unknown, coalesce(sum(h.suppressed), 0)::bigint as suppressed, count(*) as quarters
                       from campaign_quarters h
                       where h.tenant_id = c.tenant_id and h.campaign_id = c.campaign_id and h.quarter >= $2 and h.quarter < $3) h
                     where c.tenant_id = $1 and (c.starts_at < $3 and coalesce(c.ended_at, c.ends_at) >= $2 or h.quarters > 0)
                     order by c.created_position limit $4
                     """,
                    Sql.Value(tenantId), Sql.Value(from), Sql.Value(to), Sql.Value(limit)),
            ],
            async reader =>
            {
                const int First = CampaignRow.Count + 9;
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add((Read(reader), new MessageOutcomes(
                        reader.GetInt64(First), reader.GetInt64(First + 1), reader.GetInt64(First + 2), reader.GetInt64(First + 3), reader.GetInt64(First + 4))));
                }
            },
            cancellation);
        return (position, rows);
    }

    private async Task<(long Position, IReadOnlyList<CampaignOfView> Rows)> Query(string tenantId, string where, NpgsqlParameter[] parameters, CancellationToken cancellation)
    {
        var rows = new List<CampaignOfView>();
        var position = await views.Read(
            tenantId, Views, [Sql.Command($"select {Columns} from campaigns c {UnderWay} where {where}", parameters)],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(Read(reader));
                }
            },
            cancellation);
        return (position, rows);
    }

    private static CampaignOfView Read(NpgsqlDataReader reader)
    {
        const int First = CampaignRow.Count;
        return new CampaignOfView(
            CampaignRow.Read(reader, 0),
            new MessageCounts
            {
                Pending = reader.GetInt64(First), Sent = reader.GetInt64(First + 1), Failed = reader.GetInt64(First + 2), Unknown = reader.GetInt64(First + 3),
                Suppressed = reader.GetInt64(First + 4), Resending = reader.GetInt64(First + 5),
            },
            new UnderWay(reader.GetInt64(First + 6), reader.GetInt64(First + 7)), reader.GetInt64(First + 8));
    }
}
