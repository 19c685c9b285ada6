using System.Text.Json.Serialization;

namespace Ledger.Http;

/// <summary>A line of a streamed body that was not taken: its number from 1, why, and what is wrong with which field.</summary>
public sealed record RejectedLine(
    long Line, string Code, string Detail,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyDictionary<string, string[]>? Errors = null)
{
    /// <summary>Rejected lines that a receipt names.</summary>
    public const int MaxNamed = 100;

    /// <summary>A line refused for a reason.</summary>
    public static RejectedLine Of(long line, Rejection rejection) => new(line, rejection.Code, rejection.Detail, rejection.Errors);

    /// <summary>A line longer than a line may be.</summary>
    public static Rejection TooLong { get; } = new("line-too-long", $"A line has at most {Limits.MaxLineBytes} bytes.");
}
