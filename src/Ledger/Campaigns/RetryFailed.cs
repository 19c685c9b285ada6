using Ledger.Http;

namespace Ledger.Campaigns;

/// <summary>Tries the messages again that failed, and only those; a campaign that was through goes on for them until its end.</summary>
public sealed record RetryFailed
{
    /// <summary>Decides on the campaign.</summary>
    public static Decision Decide(Campaign campaign, DateTimeOffset now)
    {
        if (campaign.Phase is not (Campaign.Running or Campaign.Completed) || campaign.Plan!.EndsAt <= now)
        {
            return campaign.Phase is Campaign.Scheduled or Campaign.Starting
                ? Decision.Nothing // nothing can have failed yet
                : CampaignRejections.Over(campaign);
        }

        return Decision.Of(new FailedMessagesRetried());
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/campaigns/{campaignId}/retry-failed", Handle)
        .Requires(Scopes.CampaignsWrite).WithName(nameof(RetryFailed)).WithTags("Campaigns").WithSummary("Try the failed messages again, and only those")
        .Produces<CampaignAnswer>().ProducesCommandProblems(404, 412);

    private static Task<IResult> Handle(string campaignId, HttpContext http, CampaignCommands campaigns, CancellationToken cancellation) =>
        campaigns.Handle<object?>(http, campaignId, null, (campaign, now) => Task.FromResult(Decide(campaign, now)), cancellation);
}
