namespace Ledger.EventStore;

/// <summary>The NOTIFY channels. All payloads are empty: a notification is a hint to look, never a message.</summary>
internal static class Channels
{
    /// <summary>Events were appended. The name is Marten's.</summary>
    public const string EventsAppended = "mt_events_appended";

    /// <summary>Views moved on: for nodes that wait for them without keeping them.</summary>
    public const string ViewsMoved = "ledger_views_moved";

    /// <summary>A view is to be paused, resumed or rebuilt: for the node that keeps them.</summary>
    public const string ViewsAsked = "ledger_views_asked";
}
