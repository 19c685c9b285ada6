namespace Ledger.EventStore;

/// <summary>The NOTIFY channels. All payloads are empty: a notification is a hint to look, never a message.</summary>
internal static class Channels
{
    /// <summary>Events were appended. The name is Marten's.</summary>
    public const string EventsAppended = "mt_events_appended";

    /// <summary>A view is to be paused, resumed or rebuilt: for the node that keeps them.</summary>
    public const string ViewsAsked = "ledger_views_asked";
}
