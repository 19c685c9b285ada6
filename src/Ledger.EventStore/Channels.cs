namespace Ledger.EventStore;

/// <summary>The NOTIFY channels. All payloads are empty: a notification is a hint to look, never a message.</summary>
internal static class Channels
{
    /// <summary>Events were appended. The name is Marten's.</summary>
    public const string EventsAppended = "mt_events_appended";

    /// <summary>Views moved on, or a view was paused, resumed, stopped or is to be rebuilt.</summary>
    public const string ViewsMoved = "ledger_views_moved";
}
