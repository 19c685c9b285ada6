using System.Diagnostics;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Ledger.Http;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;

namespace Ledger.Hosting;

/// <summary>
/// The log on the console: a line for each entry, of <c>name=value</c> pairs (logfmt), with the values that its message names
/// and the ids of the trace it belongs to. Nothing that is logged can make a line of its own.
/// </summary>
public sealed class LogLine() : ConsoleFormatter(Format)
{
    /// <summary>The format's name.</summary>
    public const string Format = "ledger";

    /// <inheritdoc/>
    public override void Write<TState>(in LogEntry<TState> logEntry, IExternalScopeProvider? scopeProvider, TextWriter textWriter)
    {
        var line = new StringBuilder();
        Add(line, "time", Rfc3339.Format(TimeProvider.System.GetUtcNow()));
        Add(line, "level", NameOf(logEntry.LogLevel));
        Add(line, "msg", logEntry.Formatter(logEntry.State, logEntry.Exception));
        Add(line, "logger", logEntry.Category);
        foreach (var (name, value) in logEntry.State as IEnumerable<KeyValuePair<string, object?>> ?? [])
        {
            if (name != "{OriginalFormat}")
            {
                Add(line, name, Convert.ToString(value, CultureInfo.InvariantCulture));
            }
        }

        if (Activity.Current is { IdFormat: ActivityIdFormat.W3C } span)
        {
            Add(line, "trace_id", span.TraceId.ToHexString());
            Add(line, "span_id", span.SpanId.ToHexString());
        }

        if (logEntry.Exception is { } exception)
        {
            Add(line, "exception", exception.ToString());
        }

        textWriter.WriteLine(line.ToString());
    }

    private static void Add(StringBuilder line, string name, string? value)
    {
        _ = line.Length > 0 ? line.Append(' ') : line;
        foreach (var c in name)
        {
            line.Append(c is <= ' ' or '=' or '"' or '\x7f' ? '_' : c);
        }

        line.Append('=');
        var text = value ?? "";
        var isPlain = text.Length > 0 && !text.Any(c => c is <= ' ' or '"' or '=' or '\\' || char.IsControl(c) || char.IsSurrogate(c));
        _ = isPlain ? line.Append(text) : line.Append('"').Append(JsonEncodedText.Encode(text, JavaScriptEncoder.UnsafeRelaxedJsonEscaping).Value).Append('"');
    }

    private static string NameOf(LogLevel level) => level switch
    {
        LogLevel.Trace => "trace",
        LogLevel.Debug => "debug",
        LogLevel.Information => "info",
        LogLevel.Warning => "warn",
        LogLevel.Error => "error",
        _ => "critical",
    };
}
