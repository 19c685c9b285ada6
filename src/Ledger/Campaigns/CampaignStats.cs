using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Campaigns;

/// <summary>What was recorded of messages in a span of time: accepted, put off, failed, unknown and suppressed.</summary>
public sealed record MessageOutcomes(long Sent, long Deferred, long Failed, long Unknown, long Suppressed)
{
    /// <summary>The outcomes of two.</summary>
    public static MessageOutcomes operator +(MessageOutcomes one, MessageOutcomes other) => new(
        one.Sent + other.Sent, one.Deferred + other.Deferred, one.Failed + other.Failed, one.Unknown + other.Unknown, one.Suppressed + other.Suppressed);
}

/// <summary>A campaign: its messages by status now, and what was recorded of them in the time asked for.</summary>
public sealed record CampaignStat(string Id, string Name, string State, DateTimeOffset StartsAt, DateTimeOffset EndsAt, long Recipients, MessageTotals Totals, MessageOutcomes Outcomes);

/// <summary>All campaigns that had a part of the time asked for, each and together.</summary>
public sealed record CampaignStatsAnswer(
    DateTimeOffset From, DateTimeOffset To, long Campaigns, long Recipients, MessageTotals Totals, MessageOutcomes Outcomes, IReadOnlyList<CampaignStat> Items);

/// <summary>Answers how campaigns did in a span of time.</summary>
public static class CampaignStats
{
    /// <summary>Campaigns of one answer; the sums are of these, so more are refused.</summary>
    public const int MaxCampaigns = 10_000;

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/campaigns/stats", Handle)
        .Requires(Scopes.CampaignsRead).WithName("GetCampaignStats").WithTags("Campaigns").WithSummary("How campaigns did in a span of time, each and together")
        .Produces<CampaignStatsAnswer>().ProducesQueryProblems();

    private static Task<IResult> Handle(
        [FromQuery(Name = "from")] QueryTime? from, [FromQuery(Name = "to")] QueryTime? to, HttpContext http, Queries queries, CampaignStatsReader stats,
        CancellationToken cancellation) =>
        queries.Now(http, CampaignsReader.Views, async now =>
        {
            var until = to?.Value ?? QuarterOf(now).AddMinutes(15);
            var since = from?.Value ?? (until - DateTimeOffset.MinValue > TimeSpan.FromDays(1) ? until.AddDays(-1) : DateTimeOffset.MinValue);
            var errors = new Validation();
            errors.Check(from is null || since == QuarterOf(since), "from", "must be a full quarter of an hour");
            errors.Check(to is null || until == QuarterOf(until), "to", "must be a full quarter of an hour");
            errors.Check(since < until, "from", "must be before to");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var (position, items) = await stats.Read(http.TenantId(), since, until, cancellation);
            if (items.Count > MaxCampaigns)
            {
                return Problems.For(Validation.Field("from", $"has more than {MaxCampaigns} campaigns up to to: ask for a shorter time"));
            }

            http.AnswerPosition(position);
            return Results.Ok(Sum(since, until, items));
        });

    /// <summary>The answer made of its items.</summary>
    internal static CampaignStatsAnswer Sum(DateTimeOffset from, DateTimeOffset to, IReadOnlyList<CampaignStat> items) => new(
        from, to, items.Count, items.Sum(i => i.Recipients), items.Aggregate(new MessageTotals(0, 0, 0, 0, 0, 0, 0, 0), (sum, i) => sum + i.Totals),
        items.Aggregate(new MessageOutcomes(0, 0, 0, 0, 0), (sum, i) => sum + i.Outcomes), items);

    /// <summary>The quarter of an hour that an instant lies in.</summary>
    internal static DateTimeOffset QuarterOf(DateTimeOffset at) => new(at.UtcTicks - (at.UtcTicks % (15 * TimeSpan.TicksPerMinute)), TimeSpan.Zero);
}

/// <summary>Reads how campaigns did.</summary>
public sealed class CampaignStatsReader(CampaignsReader campaigns)
{
    /// <summary>The campaigns of a tenant that had a part of [from, to), or of which something was recorded then; one more than an answer has, at most.</summary>
    public async Task<(long Position, IReadOnlyList<CampaignStat> Items)> Read(
        string tenantId, DateTimeOffset from, DateTimeOffset to, CancellationToken cancellation)
    {
        var (position, rows) = await campaigns.Between(tenantId, from, to, CampaignStats.MaxCampaigns + 1, cancellation);
        return (position, [.. rows.Select(r => Of(r.Row, r.Outcomes))]);
    }

    private static CampaignStat Of(CampaignOfView row, MessageOutcomes outcomes)
    {
        var totals = MessageTotals.Of(row.Campaign.Phase, row.Counts, row.UnderWay);
        return new CampaignStat(
            $"{row.Campaign.Id:N}", row.Campaign.Plan!.Name, row.Campaign.State, row.Campaign.Plan.StartsAt, row.Campaign.Plan.EndsAt, row.Campaign.Recipients ?? totals.Sum, totals, outcomes);
    }
}
