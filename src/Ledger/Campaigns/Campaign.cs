using System.Text.Json;
using Ledger.EventStore;

namespace Ledger.Campaigns;

// These names and shapes are stored, in the stream campaign-{id}.

/// <summary>A campaign was planned.</summary>
public sealed record CampaignCreated(CampaignPlan Plan);

/// <summary>A campaign's plan was replaced by this one.</summary>
public sealed record CampaignChanged(CampaignPlan Plan);

/// <summary>A campaign began: who is in its audience is what was known at <paramref name="Position"/>.</summary>
public sealed record CampaignStarted(long Position);

/// <summary>Everybody in the audience is recorded, and how many they are; from now on messages are sent.</summary>
public sealed record AudienceCompleted(long Recipients);

/// <summary>A campaign could not be begun, and why; nothing of it was sent. <paramref name="Users"/> are the first of those it failed for.</summary>
public sealed record CampaignInvalidated(string Reason, IReadOnlyList<string>? Users);

/// <summary>No message leaves until the campaign is resumed.</summary>
public sealed record CampaignPaused;

/// <summary>Messages are sent again.</summary>
public sealed record CampaignResumed;

/// <summary>No message leaves any more.</summary>
public sealed record CampaignCancelled;

/// <summary>Nothing is left to be sent.</summary>
public sealed record CampaignCompleted;

/// <summary>The end came before everything was sent; what had not left has expired.</summary>
public sealed record CampaignEnded;

/// <summary>Somebody asked for the failed messages to be tried again.</summary>
public sealed record FailedMessagesRetried;

/// <summary>What to do with a message that left and was not answered.</summary>
public enum OnUnknown
{
    /// <summary>Send it again under the same id.</summary>
    Retry,

    /// <summary>Leave it at that.</summary>
    Keep,
}

/// <summary>The time of day, in the recipient's zone, in which messages may leave; it may cross midnight.</summary>
/// <param name="From">The first minute, HH:mm.</param>
/// <param name="To">The minute after the last one, HH:mm.</param>
public sealed record LocalWindow(string From, string To);

/// <summary>Who is in which segments: in any of the first, in all of the second, in none of the third.</summary>
public sealed record AudienceSegments(IReadOnlyList<string>? Any = null, IReadOnlyList<string>? All = null, IReadOnlyList<string>? None = null)
{
    /// <summary>Every slug that is named.</summary>
    internal IEnumerable<string> Slugs => [.. Any ?? [], .. All ?? [], .. None ?? []];
}

/// <summary>Whom a campaign is for: users in segments, with attributes that have these values.</summary>
public sealed record Audience(AudienceSegments? Segments = null, IReadOnlyDictionary<string, JsonElement>? Attributes = null);

/// <summary>What a campaign is to do.</summary>
public sealed record CampaignPlan(
    string Name, string Text, Audience Audience, DateTimeOffset StartsAt, DateTimeOffset EndsAt, LocalWindow? Window, int? RatePerSecond, OnUnknown OnUnknown);

/// <summary>A campaign as its stream tells it.</summary>
public sealed record Campaign(
    Guid Id, string Phase, bool IsPaused, CampaignPlan? Plan, DateTimeOffset CreatedAt, DateTimeOffset? StartedAt, long? AudiencePosition, long? Recipients,
    DateTimeOffset? EndedAt, string? Error, IReadOnlyList<string>? ErrorUsers, long? RetryPosition, long Version)
{
    /// <summary>What a campaign is at.</summary>
    public const string Scheduled = "scheduled", Starting = "starting", Running = "running", Completed = "completed", Ended = "ended", Cancelled = "cancelled",
        Invalid = "invalid";

    /// <summary>The state of one that is paused.</summary>
    public const string Paused = "paused";

    /// <summary>Characters of a name.</summary>
    public const int MaxNameLength = 200;

    /// <summary>Segments that an audience names.</summary>
    public const int MaxSegments = 20;

    /// <summary>Attributes that an audience asks for.</summary>
    public const int MaxAttributes = 20;

    /// <summary>Bytes of those attributes together, as JSON: beside the longest name, text and segments an event has room for them.</summary>
    public const int MaxAttributesBytes = 8_192;

    /// <summary>Messages a second that a campaign may ask for.</summary>
    public const int MaxRatePerSecond = 100_000;

    /// <summary>From its beginning to its end.</summary>
    public static readonly TimeSpan MaxDuration = TimeSpan.FromDays(366);

    /// <summary>Users that are named when a campaign can't be begun because of them.</summary>
    public const int MaxErrorUsers = 10;

    /// <summary>Who is in a segment of this slug, if there is one, is sent nothing.</summary>
    public const string SuppressionSegment = "do-not-contact";

    /// <summary>Who has an attribute of this name that is true is sent nothing.</summary>
    public const string OptOutAttribute = "optedOut";

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "campaign";

    private const string StreamPrefix = "campaign-";

    /// <summary>Whether there is such a campaign.</summary>
    public bool Exists => Plan is not null;

    /// <summary>Whether something may still come of it by itself.</summary>
    public bool IsActive => Phase is Scheduled or Starting or Running;

    /// <summary>What it is at, as callers see it.</summary>
    public string State => IsPaused && IsActive ? Paused : Phase;

    /// <summary>Whether messages may leave, as far as its stream tells.</summary>
    public bool MaySend => Phase == Running && !IsPaused;

    /// <summary>A campaign that nobody has planned.</summary>
    public static Campaign Initial(Guid id) => new(id, "", false, null, default, null, null, null, null, null, null, null, 0);

    /// <summary>The stream of a campaign.</summary>
    public static string StreamOf(Guid id) => $"{StreamPrefix}{id:N}";

    /// <summary>The campaign a stream belongs to.</summary>
    public static Guid IdOf(string streamId) => Guid.ParseExact(streamId.AsSpan(StreamPrefix.Length), "N");

    /// <summary>Folds one event of the stream.</summary>
    public static Campaign Evolve(Campaign campaign, RecordedEvent recorded)
    {
        campaign = campaign with { Version = recorded.Version };
        return recorded.Data switch
        {
            CampaignCreated e => campaign with { Phase = Scheduled, Plan = e.Plan, CreatedAt = recorded.RecordedAt },
            CampaignChanged e => campaign with { Plan = e.Plan },
            CampaignStarted e => campaign with { Phase = Starting, StartedAt = recorded.RecordedAt, AudiencePosition = e.Position },
            AudienceCompleted e => campaign with { Phase = Running, Recipients = e.Recipients },
            CampaignInvalidated e => campaign with { Phase = Invalid, EndedAt = recorded.RecordedAt, Error = e.Reason, ErrorUsers = e.Users },
            CampaignPaused => campaign with { IsPaused = true },
            CampaignResumed => campaign with { IsPaused = false },
            CampaignCancelled => campaign with { Phase = Cancelled, EndedAt = recorded.RecordedAt },
            CampaignCompleted => campaign with { Phase = Completed, EndedAt = recorded.RecordedAt },
            CampaignEnded => campaign with { Phase = Ended, EndedAt = recorded.RecordedAt },
            FailedMessagesRetried => campaign with { Phase = Running, EndedAt = null, RetryPosition = recorded.Position },
            _ => throw new InvalidOperationException($"{recorded.Type} does not belong into the stream of a campaign."),
        };
    }
}
