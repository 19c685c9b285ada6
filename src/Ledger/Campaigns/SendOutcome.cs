namespace Ledger.Campaigns;

/// <summary>What became of a message that was to be sent. Its name in lower case is the <c>outcome</c> of metrics.</summary>
public enum SendResult
{
    /// <summary>The gateway accepted it.</summary>
    Sent,

    /// <summary>The gateway will never accept it.</summary>
    Refused,

    /// <summary>The gateway did not accept it this time; it can be tried again.</summary>
    Failed,

    /// <summary>It left, and there is no answer that says whether it was accepted.</summary>
    Unknown,

    /// <summary>
    /// It was not accepted, through no fault of the message: it did not leave, or the gateway lets nobody in. It can be tried
    /// again and should not count as an attempt.
    /// </summary>
    NotSent,
}

/// <summary>The outcome of one call.</summary>
/// <param name="Result">What became of the message.</param>
/// <param name="StatusCode">The status of the gateway's answer; null: there was none.</param>
/// <param name="Error">Why it was not sent, in a sentence for people; null when it was. It holds no secret and no address.</param>
/// <param name="RetryAfter">In how long the gateway, or the breaker before it, wants to be asked again; null: nothing was said.</param>
public sealed record SendOutcome(SendResult Result, int? StatusCode, string? Error, TimeSpan? RetryAfter);
