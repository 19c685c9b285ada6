namespace Ledger.EventStore;

/// <summary>
/// How many positions the next page is asked for. What is too much for a page the database has sent in vain: after one that was cut
/// it is as many as that one covered, and then a quarter more with each that was not.
/// </summary>
internal sealed class PageLength
{
    private readonly int _most;

    /// <summary>For pages of at most so many.</summary>
    public PageLength(int most) => Positions = _most = most;

    /// <summary>So many.</summary>
    public int Positions { get; private set; }

    /// <summary>Whether there may be more after a page that was asked for as many.</summary>
    public bool IsMore(EventPage page) => page.IsCut || page.Events.Count >= Positions;

    /// <summary>Takes note of a page of what lies after a position.</summary>
    public void Learn(EventPage page, long after) =>
        Positions = page.IsCut ? (int)(page.Events[^1].Position - after) : Math.Min(_most, Positions + (Positions / 4) + 1);
}
