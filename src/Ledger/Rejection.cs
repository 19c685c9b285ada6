namespace Ledger;

/// <summary>What a decision returns when a rule refuses: a stable kebab-case code and a sentence for people.</summary>
/// <param name="Code">Stable, kebab-case; how it is answered is listed in one place, <c>Http/Problems.cs</c>.</param>
/// <param name="Detail">What is wrong this time, in a sentence a caller understands.</param>
public sealed record Rejection(string Code, string Detail)
{
    /// <summary>What is wrong with which field: JSON paths (<c>join[0].segment</c>) to messages.</summary>
    public IReadOnlyDictionary<string, string[]>? Errors { get; init; }

    /// <summary>What a refused credential is counted as, where the code alone tells too little.</summary>
    public string? CountedAs { get; init; }

    /// <summary>When it is worth another try, where that is known better than for the code in general.</summary>
    public TimeSpan? RetryAfter { get; init; }
}
