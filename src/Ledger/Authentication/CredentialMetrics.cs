using System.Diagnostics.Metrics;

namespace Ledger.Authentication;

/// <summary>Metrics of who was refused.</summary>
internal static class CredentialMetrics
{
    private static readonly Meter Meter = new("Ledger");

    private static readonly Counter<long> Refused = Meter.CreateCounter<long>(
        "ledger.credentials.refused", "{refusal}", "Requests refused for who made them, by reason");

    /// <summary>Shows that nobody was refused yet: so an alert sees the first refusal as an increase.</summary>
    public static void Begin() => Refused.Add(0, new KeyValuePair<string, object?>("reason", "invalid"));

    /// <summary>Counts a refusal: a handful of reasons, and nothing of who it was.</summary>
    public static void Count(Rejection refusal) => Refused.Add(1, new KeyValuePair<string, object?>("reason", refusal.CountedAs ?? refusal.Code switch
    {
        "insufficient-scope" => "scope",
        "forbidden" => "operator",
        "invalid-request" => "malformed",
        "rate-limited" => "too_many",
        "unauthorized" => "invalid",
        _ => "unavailable",
    }));
}
