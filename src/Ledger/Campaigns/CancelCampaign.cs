using Ledger.Http;

namespace Ledger.Campaigns;

/// <summary>Ends a campaign for good: within a second no message leaves any more, on no node.</summary>
public sealed record CancelCampaign
{
    /// <summary>Decides on the campaign; one that is cancelled stays it.</summary>
    public static Decision Decide(Campaign campaign)
    {
        if (campaign.Phase == Campaign.Cancelled)
        {
            return Decision.Nothing;
        }

        return campaign.IsActive ? Decision.Of(new CampaignCancelled()) : CampaignRejections.Over(campaign);
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/campaigns/{campaignId}/cancel", Handle)
        .Requires(Scopes.CampaignsWrite).WithName(nameof(CancelCampaign)).WithTags("Campaigns").WithSummary("End a campaign for good; what has not left by then never does")
        .Produces<CampaignAnswer>().ProducesCommandProblems(404, 412);

    private static Task<IResult> Handle(string campaignId, HttpContext http, CampaignCommands campaigns, CancellationToken cancellation) =>
        campaigns.Handle<object?>(http, campaignId, null, (campaign, _) => Task.FromResult(Decide(campaign)), cancellation);
}
