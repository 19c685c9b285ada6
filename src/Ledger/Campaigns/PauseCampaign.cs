using Ledger.Http;

namespace Ledger.Campaigns;

/// <summary>Holds a campaign: within a second no message leaves any more, on no node. Its end still comes.</summary>
public sealed record PauseCampaign
{
    /// <summary>Decides on the campaign.</summary>
    public static Decision Decide(Campaign campaign)
    {
        if (!campaign.IsActive)
        {
            return CampaignRejections.Over(campaign);
        }

        return campaign.IsPaused ? Decision.Nothing : Decision.Of(new CampaignPaused());
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/campaigns/{campaignId}/pause", Handle)
        .Requires(Scopes.CampaignsWrite).WithName(nameof(PauseCampaign)).WithTags("Campaigns").WithSummary("Let no message leave until the campaign is resumed")
        .Produces<CampaignAnswer>().ProducesCommandProblems(404, 412);

    private static Task<IResult> Handle(string campaignId, HttpContext http, CampaignCommands campaigns, CancellationToken cancellation) =>
        campaigns.Handle<object?>(http, campaignId, null, (campaign, _) => Task.FromResult(Decide(campaign)), cancellation);
}
