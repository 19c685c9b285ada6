using System.Text.Json;
using Ledger.Campaigns;
using Ledger.Keys;
using Ledger.Reports;
using Ledger.Segments;
using Ledger.Services;
using Ledger.Usage;
using Ledger.Users;

namespace Ledger.Tests.Conventions;

/// <summary>One of every kind of event, with every field filled.</summary>
public static class EventSamples
{
    private static readonly DateTimeOffset At = new(2026, 12, 4, 12, 0, 0, 123, 456, TimeSpan.Zero);

    private static readonly Dictionary<string, JsonElement> Attributes = new()
    {
        ["country"] = JsonElement.Parse("\"DE\""), ["age"] = JsonElement.Parse("31"), ["beta"] = JsonElement.Parse("true"),
    };

    private static readonly Dictionary<string, decimal> Quantities = new() { ["call"] = 1, ["inputToken"] = 1200, ["outputToken"] = 340.5m };

    private const string CampaignId = "019ab1c2d3e47f8091a2b3c4d5e6f708", MessageId = "5f0c9d2e4b7a8c318f1e2d3c4b5a6978";

    private static readonly CampaignPlan Plan = new(
        "autumn", "Hello {name}!", new Audience(new AudienceSegments(["vip"], ["S"], ["do-not-disturb"]), Attributes), At, At.AddDays(1), new LocalWindow("09:00", "21:00"), 50,
        OnUnknown.Keep);

    public static IReadOnlyList<object> All { get; } =
    [
        new UserRegistered(Attributes),
        new UserAttributesSet(Attributes),
        new UserJoinedSegment("S", 7, TimeSpan.FromDays(14), At, "explicit"),
        new MembershipRenewed("S", 7, TimeSpan.FromHours(36), At),
        new UserLeftSegment("S", 7),
        new MembershipExpired("S", 7, At),
        new SegmentCreated("S", "what it is for", 12.50m, "S", TimeSpan.FromDays(14)),
        new SegmentDescribed("other words"),
        new DefaultTtlChanged(TimeSpan.FromHours(1)),
        new RolloutChanged(0.01m),
        new SegmentDeleted(),
        new ServiceRegistered("gpt-4o-mini", "GPT-4o mini", "what it is for"),
        new ServiceRenamed("another title"),
        new ServiceDescribed("other words"),
        new PriceSet(3, "USD", At, [new PriceComponent("call", 0.010m), new PriceComponent("inputToken", 0.15m, 1_000_000)]),
        new ServiceRetired(),
        new ServiceTitleClaimed("GPT-4o mini", "gpt-4o-mini"),
        new ServiceTitleReleased("gpt-4o-mini"),
        new CallRecorded("gateway-eu", "req-8f1c", "u1", "gpt-4o-mini", At, Quantities, new Dictionary<string, string> { ["team"] = "search" }, 0.000384m, "USD", 3, "no-price"),
        new CallPriced("gateway-eu", "req-8f1c", 42, "u1", "gpt-4o-mini", At, Quantities, 0.000384m, "USD", 3, "no-price"),
        new CallVoided("gateway-eu", "req-8f1c", 42, "sent twice", "u1", "gpt-4o-mini", At, Quantities, 0.000384m, "USD", "no-price"),
        new ReportRequested("memberships", "2026-11", "u1"),
        new ReportCompleted(42, 3, 180, "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        new ReportFailed("The service's log has the reason."),
        new ReportDeleted(),
        new CampaignCreated(Plan),
        new CampaignChanged(Plan),
        new CampaignStarted(42),
        new AudienceCompleted(10_000),
        new CampaignInvalidated("There is no segment 'S' any more.", ["u1"]),
        new CampaignPaused(),
        new CampaignResumed(),
        new CampaignCancelled(),
        new CampaignCompleted(),
        new CampaignEnded(),
        new FailedMessagesRetried(),
        new RecipientsPinned(CampaignId, 0, [new Recipient("u1", "+79211234567", "Europe/Moscow", new Dictionary<string, string> { ["name"] = "Ann" }), new Recipient("u2", null, null, null, "suppressed", "The user has opted out.")]),
        new MessageSent(CampaignId, "u1", MessageId, 2),
        new MessageDeferred(CampaignId, "u1", MessageId, 1, "The gateway answered 503.", 503, At),
        new MessageFailed(CampaignId, "u1", MessageId, 12, "The gateway refused it.", 400),
        new MessageOutcomeUnknown(CampaignId, "u1", MessageId, 1, "It took too long.", 500, At),
        new MessageSuppressed(CampaignId, "u1", MessageId, 1, "The user has opted out."),
        new MessagesRequeued(CampaignId, 99, 0, ["u1", "u2"], true),
        new KeyCreated("gateway-eu", "acme", ["segments:read", "usage:write"], "ldg_0123456789abcdef", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", At),
        new KeyRotated("60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752", At),
        new KeyRevoked(),
    ];

    public static object Of(Type type) => All.Single(e => e.GetType() == type);
}
