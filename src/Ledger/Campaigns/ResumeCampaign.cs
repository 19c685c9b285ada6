using Ledger.Http;

namespace Ledger.Campaigns;

/// <summary>Goes on with a campaign that was paused.</summary>
public sealed record ResumeCampaign
{
    /// <summary>Decides on the campaign.</summary>
    public static Decision Decide(Campaign campaign)
    {
        if (!campaign.IsActive)
        {
            return CampaignRejections.Over(campaign);
        }

        return campaign.IsPaused ? Decision.Of(new CampaignResumed()) : Decision.Nothing;
    }

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/campaigns/{campaignId}/resume", Handle)
        .Requires(Scopes.CampaignsWrite).WithName(nameof(ResumeCampaign)).WithTags("Campaigns").WithSummary("Go on with a paused campaign")
        .Produces<CampaignAnswer>().ProducesCommandProblems(404, 412);

    private static Task<IResult> Handle(string campaignId, HttpContext http, CampaignCommands campaigns, CancellationToken cancellation) =>
        campaigns.Handle<object?>(http, campaignId, null, (campaign, _) => Task.FromResult(Decide(campaign)), cancellation);
}
