using System.Globalization;
using Ledger.EventStore;
using EventId = Ledger.EventStore.EventId;

namespace Ledger.Usage;

// These names and shapes are stored, in the stream usage-{serviceId}-{yyyy-MM-dd}: the journal of a service for one UTC day of
// the calls' own time. Each event says all that is needed to add it to a total or to take it out, so no view reads another.

/// <summary>
/// A service was called. <paramref name="Quantities"/> always has the unit <c>call</c>. Priced when it has an amount; otherwise
/// <paramref name="UnpricedReason"/> says why not.
/// </summary>
public sealed record CallRecorded(
    string Source, string CallId, string UserId, string ServiceId, DateTimeOffset OccurredAt,
    IReadOnlyDictionary<string, decimal> Quantities, IReadOnlyDictionary<string, string>? Tags,
    decimal? Amount, string? Currency, int? PriceVersion, string? UnpricedReason);

/// <summary>A call that was recorded without a price, at <paramref name="CallPosition"/>, got one.</summary>
public sealed record CallPriced(
    string Source, string CallId, long CallPosition, string UserId, string ServiceId, DateTimeOffset OccurredAt,
    IReadOnlyDictionary<string, decimal> Quantities, decimal Amount, string Currency, int PriceVersion, string UnpricedReason);

/// <summary>A call, recorded at <paramref name="CallPosition"/>, was taken back, with what it counted until then.</summary>
public sealed record CallVoided(
    string Source, string CallId, long CallPosition, string Reason, string UserId, string ServiceId, DateTimeOffset OccurredAt,
    IReadOnlyDictionary<string, decimal> Quantities, decimal? Amount, string? Currency, string? UnpricedReason);

/// <summary>What a call is known by: its source and the id the source gave it, within a tenant, for ever.</summary>
public static class Call
{
    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "usage";

    /// <summary>Characters (scalar values) of a call's id, and of its source.</summary>
    public const int MaxIdCharacters = 256;

    /// <summary>What to say of an id or source that is none.</summary>
    public const string IdRule = "must be 1 to 256 characters, none of them a control character, no space at either end, and not '.' or '..'";

    /// <summary>Units of one call.</summary>
    public const int MaxQuantities = 32;

    /// <summary>Characters of all units of one call together: their names are part of the key of the totals.</summary>
    public const int MaxUnitCharsTogether = 1_024;

    /// <summary>Tags of one call.</summary>
    public const int MaxTags = 16;

    /// <summary>Characters of a tag's name.</summary>
    public const int MaxTagNameChars = 64;

    /// <summary>Characters of a tag's value.</summary>
    public const int MaxTagValueChars = 256;

    /// <summary>The earliest instant a call may have happened.</summary>
    public static readonly DateTimeOffset MinOccurredAt = DateTimeOffset.UnixEpoch;

    /// <summary>How far ahead of the clock a call may have happened.</summary>
    public static readonly TimeSpan MaxAhead = TimeSpan.FromMinutes(5);

    /// <summary>The journal a call belongs to.</summary>
    public static string StreamOf(string serviceId, DateTimeOffset occurredAt) =>
        string.Create(CultureInfo.InvariantCulture, $"usage-{serviceId}-{occurredAt.UtcDateTime:yyyy-MM-dd}");

    /// <summary>The id of the event that records it.</summary>
    public static Guid IdOf(string tenantId, string source, string callId) => EventId.From(tenantId, "call", source, callId);

    /// <summary>The id of the event that prices it later: at most one.</summary>
    public static Guid PricingIdOf(string tenantId, string source, string callId) => EventId.From(tenantId, "call-priced", source, callId);

    /// <summary>The id of the event that takes it back: at most one.</summary>
    public static Guid VoidIdOf(string tenantId, string source, string callId) => EventId.From(tenantId, "call-voided", source, callId);
}
