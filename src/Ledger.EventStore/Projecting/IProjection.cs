namespace Ledger.EventStore;

/// <summary>
/// Keeps one view: which events it folds, and how a batch of them changes its tables. It has no clock and no randomness, so
/// that a rebuild gives the same rows. Its SQL names tables without a schema: a rebuild runs it on tables elsewhere.
/// </summary>
public interface IProjection
{
    /// <summary>The view's name; its progress is the row <c>Name:All</c> of <c>mt_event_progression</c>.</summary>
    string Name { get; }

    /// <summary>The kinds of events it folds.</summary>
    IReadOnlyCollection<Type> Events { get; }

    /// <summary>Its tables; each is made by the migrations of its name.</summary>
    IReadOnlyList<string> Tables { get; }

    /// <summary>Those indexes of its tables that only readers use: a rebuild makes them last, a replay not at all.</summary>
    IReadOnlyList<string> ReaderIndexes => [];

    /// <summary>
    /// Folds the events, in order of position, and writes the changed rows through <paramref name="transaction"/>, the
    /// daemon's: rows and progress are committed together. What it throws stops this view at that event.
    /// </summary>
    Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation);
}
