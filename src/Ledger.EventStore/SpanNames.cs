using System.Diagnostics;
using System.Text.RegularExpressions;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Names the spans of statements by what they do to what, such as <c>select mt_events</c>: few names, for every statement is
/// written down in the code. Statements that nobody asked for, such as the daemon's heartbeat, leave no span.
/// </summary>
internal static partial class SpanNames
{
    private const int MaxStatementsNamed = 3;

    public static NpgsqlDataSourceBuilder NameSpans(this NpgsqlDataSourceBuilder builder) => builder.ConfigureTracing(tracing => tracing
        .ConfigureCommandFilter(_ => Activity.Current is not null)
        .ConfigureBatchFilter(_ => Activity.Current is not null)
        .ConfigureCopyOperationFilter(_ => Activity.Current is not null)
        .ConfigureCommandSpanNameProvider(command => Of(command.CommandText))
        .ConfigureBatchSpanNameProvider(batch => OfAll(batch.BatchCommands.Cast<NpgsqlBatchCommand>().Select(c => c.CommandText)))
        .ConfigureCopyOperationSpanNameProvider(Of)
        .EnableFirstResponseEvent(false)
        .EnablePhysicalOpenTracing(false));

    /// <summary>The name of a batch: what its first few statements do, but for those that only begin or end a transaction.</summary>
    public static string OfAll(IEnumerable<string> statements)
    {
        var names = statements.Select(Of).Where(n => n is not ("begin" or "commit" or "rollback" or "set")).Distinct().ToArray();
        return names.Length == 0 ? "batch" : string.Join(", ", names.Take(MaxStatementsNamed)) + (names.Length > MaxStatementsNamed ? ", …" : "");
    }

    /// <summary>The name of a statement: its verb, and the first table it is about. A query that also writes is named by what it writes.</summary>
    public static string Of(string statement)
    {
        var verb = Verb().Match(statement).Value.ToLowerInvariant();
        if (verb is "with" or "insert" or "update" or "delete" && Write().Match(statement) is { Success: true } write)
        {
            return $"{write.Groups["verb"].Value.ToLowerInvariant()} {write.Groups["table"].Value}";
        }

        var table = verb switch
        {
            "select" or "with" => Source().Match(statement).Groups["table"].Value,
            "copy" => Copied().Match(statement).Groups["table"].Value,
            _ => "",
        };
        verb = verb switch { "with" => "select", "" => "statement", _ => verb };
        return table.Length == 0 ? verb : $"{verb} {table}";
    }

    [GeneratedRegex(@"[A-Za-z]+")]
    private static partial Regex Verb();

    [GeneratedRegex(@"\b(?<verb>insert|update|delete)\s+(?:into\s+|from\s+)?(?<table>[a-z_][\w.]*)", RegexOptions.IgnoreCase)]
    private static partial Regex Write();

    [GeneratedRegex(@"\b(?:from|join)\s+(?:lateral\s+)?(?!unnest\b|lateral\b|generate_series\b)(?<table>[a-z_][\w.]*)", RegexOptions.IgnoreCase)]
    private static partial Regex Source();

    [GeneratedRegex(@"\bcopy\s+(?<table>[a-z_][\w.]*)", RegexOptions.IgnoreCase)]
    private static partial Regex Copied();
}
