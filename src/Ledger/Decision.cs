namespace Ledger;

/// <summary>What a command comes to: events, nothing to do, or a refusal. Pure: made of state, command and the time given.</summary>
public sealed record Decision
{
    private Decision(IReadOnlyList<object> events, Rejection? rejection) => (Events, Rejection) = (events, rejection);

    /// <summary>The command asks for what is so already.</summary>
    public static Decision Nothing { get; } = new([], null);

    /// <summary>The facts to store, in order.</summary>
    public IReadOnlyList<object> Events { get; }

    /// <summary>The rule that refuses the command; then there are no events.</summary>
    public Rejection? Rejection { get; }

    /// <summary>The facts to store; none means <see cref="Nothing"/>.</summary>
    public static Decision Of(params IReadOnlyList<object> events) => events.Count == 0 ? Nothing : new(events, null);

    /// <summary>A refusal.</summary>
    public static implicit operator Decision(Rejection rejection) => new([], rejection);
}
