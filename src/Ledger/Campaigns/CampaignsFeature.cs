using Ledger.EventStore;

namespace Ledger.Campaigns;

/// <summary>Campaigns: what is stored, what is kept, what can be called.</summary>
public static class CampaignsFeature
{
    /// <summary>Its events, with their stored names.</summary>
    public static readonly (Type, string)[] Events =
    [
        (typeof(CampaignCreated), "campaign_created"),
        (typeof(CampaignChanged), "campaign_changed"),
        (typeof(CampaignStarted), "campaign_started"),
        (typeof(AudienceCompleted), "audience_completed"),
        (typeof(CampaignInvalidated), "campaign_invalidated"),
        (typeof(CampaignPaused), "campaign_paused"),
        (typeof(CampaignResumed), "campaign_resumed"),
        (typeof(CampaignCancelled), "campaign_cancelled"),
        (typeof(CampaignCompleted), "campaign_completed"),
        (typeof(CampaignEnded), "campaign_ended"),
        (typeof(FailedMessagesRetried), "failed_messages_retried"),
        (typeof(RecipientsPinned), "recipients_pinned"),
        (typeof(MessageSent), "message_sent"),
        (typeof(MessageDeferred), "message_deferred"),
        (typeof(MessageFailed), "message_failed"),
        (typeof(MessageOutcomeUnknown), "message_outcome_unknown"),
        (typeof(MessageSuppressed), "message_suppressed"),
        (typeof(MessagesRequeued), "messages_requeued"),
    ];

    /// <summary>Its services.</summary>
    public static IServiceCollection AddCampaigns(this IServiceCollection services) => services
        .AddSingleton<IProjection, CampaignsProjection>()
        .AddSingleton<CampaignsReader>()
        .AddSingleton<CampaignMessagesReader>()
        .AddSingleton<CampaignStatsReader>()
        .AddSingleton<ICampaignNumbers, CampaignNumbersReader>()
        .AddSingleton<CampaignCommands>()
        .AddSingleton<WaitingMessages>()
        .AddSingleton<AudienceFinder>()
        .AddSingleton<OutcomeRecorder>()
        .AddSingleton<CampaignKeeper>()
        .AddSingleton<Dispatcher>()
        .AddHostedService(services => services.GetRequiredService<CampaignKeeper>())
        .AddHostedService(services => services.GetRequiredService<Dispatcher>());

    /// <summary>Its routes.</summary>
    public static void MapCampaigns(this IEndpointRouteBuilder routes)
    {
        CreateCampaign.Map(routes);
        ChangeCampaign.Map(routes);
        PauseCampaign.Map(routes);
        ResumeCampaign.Map(routes);
        CancelCampaign.Map(routes);
        RetryFailed.Map(routes);
        CampaignCatalogue.Map(routes);
        CampaignMessages.Map(routes);
        CampaignStats.Map(routes);
    }
}
