using System.Diagnostics.Metrics;

namespace Ledger.Events;

/// <summary>Metrics of the feature.</summary>
internal static class EventMetrics
{
    private static readonly Meter Meter = new("Ledger");

    public static readonly UpDownCounter<int> Followers = Meter.CreateUpDownCounter<int>(
        "ledger.events.followers", "{follower}", "Requests that follow the log on this node");

    public static readonly Counter<long> Sent = Meter.CreateCounter<long>("ledger.events.sent", "{event}", "Events sent to followers");
}
