using System.Text.Json;
using System.Text.Json.Serialization;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Keys;
using Ledger.Reports;
using Ledger.Segments;
using Ledger.Services;
using Ledger.Usage;
using Ledger.Users;

namespace Ledger.Hosting;

/// <summary>All events of all features, and how they are written.</summary>
public static class LedgerEvents
{
    /// <summary>Stored JSON: as over HTTP, but without fields that are null, and open to fields that a newer version adds.</summary>
    public static JsonSerializerOptions JsonOptions { get; } = CreateOptions();

    /// <summary>The registry.</summary>
    public static EventTypes Types { get; } =
        new(JsonOptions, [.. UsersFeature.Events, .. SegmentsFeature.SegmentEvents, .. SegmentsFeature.MembershipEvents, .. ServicesFeature.Events, .. UsageViewsFeature.Events, .. ReportsFeature.Events, .. CampaignsFeature.Events, .. KeysFeature.Events]);

    private static JsonSerializerOptions CreateOptions()
    {
        var options = new JsonSerializerOptions();
        Json.Configure(options);
        options.UnmappedMemberHandling = JsonUnmappedMemberHandling.Skip;
        options.DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull;
        options.RespectRequiredConstructorParameters = false;
        options.AllowDuplicateProperties = true;
        options.MakeReadOnly();
        return options;
    }
}
