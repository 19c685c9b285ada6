using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;

namespace Ledger.Campaigns;

/// <summary>What commands on one campaign have in common: they decide on its stream, which is short, and answer with what it is then.</summary>
public sealed class CampaignCommands(CommandHandler handler, EventReader log, CampaignsReader campaigns, LiveSegments segments, LedgerClock clock)
{
    /// <summary>A campaign and the version of its stream.</summary>
    public Task<(Campaign Campaign, long Version)> Load(string tenantId, Guid id, CancellationToken cancellation) =>
        log.Fold(new StreamKey(tenantId, Campaign.StreamOf(id)), Campaign.Initial(id), Campaign.Evolve, cancellation);

    /// <summary>The first segment that an audience names and that is not there, as a refusal.</summary>
    public async Task<Rejection?> MissingSegment(string tenantId, Audience audience, CancellationToken cancellation) =>
        audience.Segments is { } named && await segments.FirstMissing(tenantId, [.. named.Slugs], cancellation) is { } slug
            ? new Rejection("segment-not-found", $"There is no segment '{slug}'.")
            : null;

    /// <summary>Handles a command on a campaign; <paramref name="decide"/> gets the campaign, which exists, and the time.</summary>
    public async Task<IResult> Handle<TBody>(
        HttpContext http, string campaignId, TBody body, Func<Campaign, DateTimeOffset, Task<Decision>> decide, CancellationToken cancellation)
    {
        if (!CampaignIds.TryParse(campaignId, out var id))
        {
            return Problems.For(CampaignRejections.NotFound(campaignId));
        }

        var context = http.Command(body);
        var ifMatch = http.IfMatch();
        var stream = Campaign.StreamOf(id);
        var result = await handler.Handle(
            context,
            async _ =>
            {
                var (campaign, version) = await Load(context.TenantId, id, cancellation);
                var decision = !campaign.Exists ? CampaignRejections.NotFound(campaignId)
                    : !ifMatch.Allows(version) ? IfMatch.Failed(version)
                    : await decide(campaign, clock.GetUtcNow());
                return new Decided(decision, stream, Campaign.StreamType, [new StreamCondition(stream, version)]);
            },
            cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.Ok(await Answer(http, id, result.Version, cancellation));
    }

    /// <summary>A campaign right after a version of its stream, with the totals that the view knows of.</summary>
    public async Task<CampaignAnswer> Answer(HttpContext http, Guid id, long version, CancellationToken cancellation)
    {
        var campaign = Campaign.Initial(id);
        await foreach (var recorded in log.ReadStream(new StreamKey(http.TenantId(), Campaign.StreamOf(id)), toVersion: version, cancellation: cancellation))
        {
            campaign = Campaign.Evolve(campaign, recorded);
        }

        ETags.Write(http.Response, campaign.Version);
        var (_, row) = await campaigns.Find(http.TenantId(), id, cancellation);
        return CampaignAnswer.Of(campaign, row?.Counts ?? new(), row?.UnderWay ?? default);
    }
}

/// <summary>Ids of campaigns as callers write them: 32 hexadecimal digits.</summary>
internal static class CampaignIds
{
    public static bool TryParse(string text, out Guid id) => Guid.TryParseExact(text, "N", out id) && $"{id:N}" == text;
}
