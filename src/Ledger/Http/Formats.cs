using System.Diagnostics.CodeAnalysis;
using System.Text.Json;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.Extensions.Options;
using Microsoft.Extensions.Primitives;
using Microsoft.Net.Http.Headers;

namespace Ledger.Http;

/// <summary>The formats that a list can be had in.</summary>
public enum ListFormat
{
    /// <summary>A page, <c>application/json</c>: the default.</summary>
    Json,

    /// <summary>Everything, streamed, one JSON value a line: <c>application/x-ndjson</c>.</summary>
    Ndjson,

    /// <summary>Everything, streamed, as <c>text/csv</c>.</summary>
    Csv,

    /// <summary>Server-sent events, <c>text/event-stream</c>: what there is and then what comes. Only where it is offered by name.</summary>
    EventStream,
}

/// <summary>Which format a caller gets, by <c>Accept</c>, and the writers of those that are streamed.</summary>
public static class Formats
{
    /// <summary>Newline-delimited JSON.</summary>
    public const string NdjsonType = "application/x-ndjson";

    /// <summary>CSV, as <see cref="CsvWriter"/> writes it.</summary>
    public const string CsvType = "text/csv";

    /// <summary>Server-sent events.</summary>
    public const string EventStreamType = "text/event-stream";

    /// <summary>So much is gathered before it is sent on, unless the rows make us wait.</summary>
    public const int FlushBytes = 32_768;

    private static readonly ListFormat[] Everything = [ListFormat.Json, ListFormat.Ndjson, ListFormat.Csv];

    /// <summary>The format's media type.</summary>
    public static string MediaType(this ListFormat format) => format switch
    {
        ListFormat.Ndjson => NdjsonType,
        ListFormat.Csv => CsvType,
        ListFormat.EventStream => EventStreamType,
        _ => "application/json",
    };

    /// <summary>
    /// Chooses among the offered formats, all unless given: the one the caller gives the highest weight to, then the one
    /// named most precisely, then the first offered.
    /// </summary>
    public static bool TryNegotiate(HttpRequest request, out ListFormat format, [NotNullWhen(false)] out Rejection? rejection, params ListFormat[] offered)
    {
        if (offered.Length == 0) offered = Everything;
        format = offered[0];
        rejection = null;
        request.HttpContext.Response.Headers.Append(HeaderNames.Vary, HeaderNames.Accept);
        var accept = request.Headers.Accept;
        if (accept.All(string.IsNullOrWhiteSpace)) return true;
        if (MediaTypeHeaderValue.TryParseList(accept, out var ranges))
        {
            var best = offered.Select(f => (Format: f, Rank: RankOf(f, ranges))).Where(f => f.Rank.Weight > 0).ToList();
            if (best.Count > 0)
            {
                // MaxBy keeps the first of equals.
                format = best.MaxBy(f => f.Rank).Format;
                return true;
            }
        }
        rejection = new("not-acceptable", $"This can be had as {string.Join(", ", offered.Select(MediaType))}, not as '{accept}'.");
        return false;
    }

    /// <summary>All rows in one of the streamed formats. An error before the first bytes left is a problem; later the connection breaks off.</summary>
    public static IResult Stream<T>(ListFormat format, IAsyncEnumerable<T> rows, CsvTable<T> table) => format switch
    {
        ListFormat.Ndjson => Ndjson(rows),
        ListFormat.Csv => Csv(rows, table),
        _ => throw new ArgumentOutOfRangeException(nameof(format), format, "A page of JSON is not streamed."),
    };

    /// <summary>All rows as newline-delimited JSON.</summary>
    public static IResult Ndjson<T>(IAsyncEnumerable<T> rows) => new StreamResult<T>(NdjsonType, rows, (context, output) =>
    {
        var options = context.RequestServices.GetRequiredService<IOptions<JsonOptions>>().Value.SerializerOptions;
        // Rows are well-formed by construction, so the writer need not check; it is reset for each line.
        var writer = new Utf8JsonWriter(output, new() { Encoder = options.Encoder, SkipValidation = true });
        return row =>
        {
            JsonSerializer.Serialize(writer, row, options);
            writer.Flush();
            writer.Reset();
            output.Write("\n"u8);
        };
    });

    /// <summary>All rows as CSV.</summary>
    public static IResult Csv<T>(IAsyncEnumerable<T> rows, CsvTable<T> table) => new StreamResult<T>($"{CsvType}; charset=utf-8; header=present", rows, (_, output) =>
    {
        var writer = new CsvWriter(output, table.Separator);
        foreach (var name in table.Header) writer.Text(name);
        writer.EndRow();
        return row =>
        {
            table.WriteCells(writer, row);
            writer.EndRow();
        };
    });

    // The most precise range that fits decides; none that fits weighs nothing.
    private static (double Weight, int Precision) RankOf(ListFormat format, IList<MediaTypeHeaderValue> ranges)
    {
        var type = new MediaTypeHeaderValue(format.MediaType());
        return ranges
            .Where(range => range.MatchesAllTypes || (Same(range.Type, type.Type) && (range.MatchesAllSubTypes || Same(range.SubType, type.SubType))))
            .Select(range => (Weight: range.Quality ?? 1, Precision: range.MatchesAllTypes ? 0 : range.MatchesAllSubTypes ? 1 : 2))
            .OrderByDescending(rank => rank.Precision)
            .FirstOrDefault();
    }

    private static bool Same(StringSegment one, StringSegment other) => one.Equals(other, StringComparison.OrdinalIgnoreCase);

    private sealed class StreamResult<T>(string contentType, IAsyncEnumerable<T> rows, Func<HttpContext, PooledBuffer, Action<T>> open)
        : IResult, IContentTypeHttpResult, IStatusCodeHttpResult
    {
        public string ContentType => contentType;

        public int? StatusCode => StatusCodes.Status200OK;

        public async Task ExecuteAsync(HttpContext httpContext)
        {
            var (response, aborted) = (httpContext.Response, httpContext.RequestAborted);
            // A buffer of our own, because what once is in the response's cannot be taken back when a row fails.
            httpContext.LetStream();
            using var buffer = new PooledBuffer(2 * FlushBytes);
            var write = open(httpContext, buffer);
            await using var all = rows.GetAsyncEnumerator(aborted);
            var next = all.MoveNextAsync();
            response.StatusCode = StatusCodes.Status200OK;
            response.ContentType = contentType;
            if (!httpContext.WantsBody())
            {
                await next; // what fails at once is a problem all the same
                return;
            }
            while (await next)
            {
                write(all.Current);
                next = all.MoveNextAsync();
                // Whoever waits for rows sends what there is meanwhile; sending waits for a slow reader.
                if (buffer.Written.Length < FlushBytes && next.IsCompleted) continue;
                try
                {
                    await response.BodyWriter.WriteAsync(buffer.Written, aborted);
                }
                catch
                {
                    // The rows may not be let go of while they are being read.
                    await ((Task)next.AsTask()).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                    throw;
                }
                buffer.Clear();
            }
            await response.BodyWriter.WriteAsync(buffer.Written, aborted);
        }
    }
}
