using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace Ledger.Campaigns;

/// <summary>Metrics and spans of calls to the gateway.</summary>
internal static class GatewayMetrics
{
    public static readonly ActivitySource Source = new("Ledger");

    private static readonly Meter Meter = new("Ledger");

    public static readonly UpDownCounter<int> InFlight = Meter.CreateUpDownCounter<int>(
        "ledger.gateway.calls.in_flight", "{call}", "Calls to the gateway that are under way on this node");

    private static readonly Counter<long> Calls = Meter.CreateCounter<long>("ledger.gateway.calls", "{call}", "Messages for the gateway, by what became of them");

    private static readonly Histogram<double> Duration = Meter.CreateHistogram(
        "ledger.gateway.call.duration", "s", "From looking for a connection to the gateway to the end of its answer, or until it was given up",
        advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60] });

    private static readonly Counter<long> Openings = Meter.CreateCounter<long>(
        "ledger.gateway.breaker.openings", "{opening}", "Times the breaker before the gateway opened, by why");

    /// <summary>Counts a message. <paramref name="took"/>: how long the call took; null: none was made.</summary>
    public static void Count(SendOutcome outcome, string? errorType, TimeSpan? took)
    {
        var tags = new TagList { { "outcome", NameOf(outcome.Result) } };
        if (errorType is not null)
        {
            tags.Add("error.type", errorType);
        }

        Calls.Add(1, tags);
        if (took is { } time)
        {
            Duration.Record(time.TotalSeconds, tags);
        }
    }

    public static void CountOpening(CallVerdict verdict) => Openings.Add(1, new KeyValuePair<string, object?>("reason", verdict switch
    {
        CallVerdict.Busy => "busy",
        CallVerdict.Misconfigured => "misconfigured",
        _ => "failures",
    }));

    public static string NameOf(SendResult result) => result switch
    {
        SendResult.Sent => "sent",
        SendResult.Refused => "refused",
        SendResult.Failed => "failed",
        SendResult.Unknown => "unknown",
        _ => "not_sent",
    };
}
