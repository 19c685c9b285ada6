using System.Text.Json;
using Ledger.Http;

namespace Ledger.Campaigns;

/// <summary>
/// Changes what has not been acted on yet: before the campaign begins everything, afterwards its name, its end, its window, its
/// rate and what to do with unknown outcomes. A field left out stays; null takes it away.
/// </summary>
public sealed record ChangeCampaign(
    Patch<string> Name, Patch<string> Text, Patch<Audience> Audience, Patch<DateTimeOffset> StartsAt, Patch<DateTimeOffset> EndsAt,
    Patch<LocalWindow?> Window, Patch<int?> RatePerSecond, Patch<OnUnknown> OnUnknown)
{
    /// <summary>Decides on the campaign; what is so already makes no event.</summary>
    public Decision Decide(Campaign campaign, DateTimeOffset now)
    {
        if (!campaign.IsActive)
        {
            return CampaignRejections.Over(campaign);
        }

        var plan = Apply(campaign.Plan!);
        if (campaign.Phase != Campaign.Scheduled && FixedField(campaign.Plan!, plan) is { } field)
        {
            return CampaignRejections.Started(field);
        }

        var errors = new Validation();
        CampaignRules.Check(errors, plan, now);
        if (errors.Rejection is { } invalid)
        {
            return invalid;
        }

        return Same(plan, campaign.Plan) ? Decision.Nothing : Decision.Of(new CampaignChanged(plan));
    }

    private CampaignPlan Apply(CampaignPlan plan) => new(
        Name.Or(plan.Name) ?? "", Text.Or(plan.Text) ?? "", Audience.Or(plan.Audience) ?? new Audience(), StartsAt.Or(plan.StartsAt), EndsAt.Or(plan.EndsAt),
        Window.Or(plan.Window), RatePerSecond.Or(plan.RatePerSecond), OnUnknown.Or(plan.OnUnknown));

    private static string? FixedField(CampaignPlan before, CampaignPlan after) =>
        before.Text != after.Text ? "text"
        : !Same(before.Audience, after.Audience) ? "audience"
        : before.StartsAt != after.StartsAt ? "startsAt"
        // Whoever has no zone could be recorded without one.
        : before.Window is null && after.Window is not null ? "the lack of a window"
        : null;

    private static bool Same<T>(T one, T other) => JsonSerializer.Serialize(one, Json.Options) == JsonSerializer.Serialize(other, Json.Options);

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPatch("/v1/campaigns/{campaignId}", Handle)
        .Requires(Scopes.CampaignsWrite).WithName(nameof(ChangeCampaign)).WithTags("Campaigns").WithSummary("Change what a campaign has not acted on yet")
        .Accepts<ChangeCampaign>("application/json", "application/merge-patch+json")
        .Produces<CampaignAnswer>().ProducesCommandProblems(404, 412);

    private static Task<IResult> Handle(string campaignId, ChangeCampaign body, HttpContext http, CampaignCommands campaigns, CancellationToken cancellation) =>
        campaigns.Handle(
            http, campaignId, body,
            async (campaign, now) =>
            {
                var decision = body.Decide(campaign, now);
                return decision.Events is [CampaignChanged changed] && body.Audience.IsSet
                    && await campaigns.MissingSegment(http.TenantId(), changed.Plan.Audience, cancellation) is { } missing
                    ? missing
                    : decision;
            },
            cancellation);
}
