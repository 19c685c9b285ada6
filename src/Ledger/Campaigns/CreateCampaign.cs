using Ledger.EventStore;
using Ledger.Http;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Campaigns;

/// <summary>Plans a campaign. One whose time has come begins at once, others by themselves when it comes.</summary>
public sealed record CreateCampaign(
    string Name, string Text, Audience Audience, DateTimeOffset EndsAt, DateTimeOffset? StartsAt = null, LocalWindow? Window = null,
    int? RatePerSecond = null, OnUnknown OnUnknown = OnUnknown.Retry)
{
    /// <summary>Decides on what the id has been so far, which is new.</summary>
    public static Decision Decide(Campaign campaign, CampaignPlan plan) => campaign.Exists ? Decision.Nothing : Decision.Of(new CampaignCreated(plan));

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/campaigns", Handle)
        .Requires(Scopes.CampaignsWrite).WithName(nameof(CreateCampaign)).WithTags("Campaigns").WithSummary("Plan a campaign; it begins by itself when its time has come")
        .Produces<CampaignAnswer>(201).ProducesCommandProblems(404);

    private static async Task<IResult> Handle(
        CreateCampaign body, HttpContext http, CommandHandler handler, CampaignCommands campaigns, EventReader log, LedgerClock clock, CancellationToken cancellation)
    {
        var now = clock.GetUtcNow();
        var plan = new CampaignPlan(
            body.Name, body.Text, body.Audience, body.StartsAt ?? now, body.EndsAt, body.Window, body.RatePerSecond, body.OnUnknown);
        var errors = new Validation();
        CampaignRules.Check(errors, plan, now);
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var context = http.Command(body);
        var id = EventId.New();
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var missing = await campaigns.MissingSegment(context.TenantId, plan.Audience, cancellation);
                var stream = Campaign.StreamOf(id);
                return new Decided(
                    missing ?? Decide(Campaign.Initial(id), plan), stream, Campaign.StreamType, [new StreamCondition(stream, 0)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        // The first request under this key made up another id.
        id = result.Replayed ? Campaign.IdOf((await log.ReadAt(context.TenantId, result.FirstPosition, cancellation))!.StreamId) : id;
        http.Answer(result);
        return Results.Created($"/v1/campaigns/{id:N}", await campaigns.Answer(http, id, result.Version, cancellation));
    }
}
