namespace Ledger.Campaigns;

/// <summary>
/// A message that a node has taken to send. <paramref name="Status"/> is what was stored of it by then: pending, or unknown when it may have
/// been accepted before. <paramref name="Attempt"/> is the number of the attempt made of it, from 1; <paramref name="Base"/> that of the last
/// one before it was asked for again.
/// </summary>
internal sealed record TakenMessage(
    string TenantId, Guid CampaignId, string UserId, string Phone, string TimeZone, IReadOnlyDictionary<string, string>? Fillings, string Status, int Attempt, int Base)
{
    public string Id { get; } = Message.IdOf(TenantId, CampaignId, UserId);

    public string Campaign => $"{CampaignId:N}";
}

/// <summary>What the outcome of a call comes to. Pure.</summary>
public static class AttemptRules
{
    /// <summary>How often a message is tried before it has failed, or stays unknown.</summary>
    public const int MaxAttempts = 12;

    /// <summary>The event that tells of an attempt; null: there was none, and the message waits as before.</summary>
    internal static object? Decide(TakenMessage message, SendOutcome outcome, OnUnknown onUnknown, DateTimeOffset now, double random)
    {
        var tries = message.Attempt - message.Base;
        var error = outcome.Error ?? "";
        switch (outcome.Result)
        {
            case SendResult.Sent:
                return new MessageSent(message.Campaign, message.UserId, message.Id, message.Attempt);

            case SendResult.Refused:
                return new MessageFailed(message.Campaign, message.UserId, message.Id, message.Attempt, error, outcome.StatusCode);

            case SendResult.Failed when tries < MaxAttempts:
                return new MessageDeferred(
                    message.Campaign, message.UserId, message.Id, message.Attempt, error, outcome.StatusCode, Due(tries, now, random, outcome.RetryAfter));

            case SendResult.Failed when message.Status == Message.Unknown:
                // It was not accepted this time; whether it was before is as unknown as it was.
                return new MessageOutcomeUnknown(message.Campaign, message.UserId, message.Id, message.Attempt, error, outcome.StatusCode, null);

            case SendResult.Failed:
                return new MessageFailed(message.Campaign, message.UserId, message.Id, message.Attempt, error, outcome.StatusCode);

            case SendResult.Unknown:
                return UnknownOutcome(message, error, outcome.StatusCode, onUnknown, now, random, outcome.RetryAfter);

            default:
                return null;
        }
    }

    /// <summary>The event of an attempt of which nobody can say what came of it.</summary>
    internal static MessageOutcomeUnknown UnknownOutcome(
        TakenMessage message, string error, int? statusCode, OnUnknown onUnknown, DateTimeOffset now, double random, TimeSpan? retryAfter = null)
    {
        var tries = message.Attempt - message.Base;
        return new MessageOutcomeUnknown(
            message.Campaign, message.UserId, message.Id, message.Attempt, error, statusCode,
            onUnknown == OnUnknown.Retry && tries < MaxAttempts ? Due(tries, now, random, retryAfter) : null);
    }

    private static DateTimeOffset Due(int tries, DateTimeOffset now, double random, TimeSpan? retryAfter)
    {
        var due = now + RetryDelays.After(Math.Max(1, tries), random, retryAfter);
        return due.AddTicks(-(due.Ticks % TimeSpan.TicksPerMicrosecond));
    }
}
