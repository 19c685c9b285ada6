using System.Text;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Segments;

/// <summary>
/// The receipt of an import. It balances: received = joined + renewed + alreadyMembers + rejected. Line numbers count from 1.
/// </summary>
public sealed record ImportReceipt(
    long Received, long Joined, long Renewed, long AlreadyMembers, long Rejected, IReadOnlyList<RejectedLine> Rejections);

/// <summary>
/// Lets many users join a segment, one a line, streamed: what is stored stays stored, line by line, and sending the same file
/// again adds nothing.
/// </summary>
public static class ImportMembers
{
    /// <summary>Lines that are loaded, decided and stored together.</summary>
    public const int ChunkLines = 2_000;

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/segments/{slug}/members", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(ImportMembers)).WithTags("Segments").WithSummary("Bulk join, streamed: userId[,ttl|expiresAt] a line")
        .Accepts<string>("text/csv", "application/x-ndjson").Produces<ImportReceipt>().ProducesCommandProblems(404)
        .WithMetadata(new DisableRequestSizeLimitAttribute());

    private static async Task<IResult> Handle(string slug, HttpContext http, MembersImport import, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckSlug(slug, "slug");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        http.LetStream();
        var isCsv = http.Request.ContentType?.StartsWith("text/csv", StringComparison.OrdinalIgnoreCase) ?? false;
        var (receipt, position, rejection) = await import.Run(
            http.Command<object?>(null), slug, LineReader.Read(http.Request.BodyReader, ChunkLines, cancellation), isCsv, cancellation);
        if (rejection is not null)
        {
            return Problems.For(rejection);
        }

        http.AnswerPosition(position);
        return Results.Ok(receipt);
    }
}

/// <summary>One line of an import, read.</summary>
internal readonly record struct ImportLine(long Number, string UserId, Term Term, Rejection? Rejection)
{
    private const string Code = "invalid-request";

    /// <summary>The line as NDJSON.</summary>
    public sealed record Body(string UserId, Patch<TimeSpan?> Ttl, Patch<DateTimeOffset?> ExpiresAt);

    public static ImportLine Read(Line line, bool isCsv)
    {
        if (line.TooLong)
        {
            return new(line.Number, "", default, RejectedLine.TooLong);
        }

        return isCsv ? ReadCsv(line) : ReadJson(line);
    }

    /// <summary>Whether a CSV's first line names its columns.</summary>
    public static bool IsHeader(Line line) =>
        line is { Number: 1, TooLong: false } && Csv.TrySplit(Encoding.UTF8.GetString(line.Text.Span)) is ["userId", ..];

    private static ImportLine ReadJson(Line line)
    {
        if (!Json.TryRead<Body>(line.Text.Span, out var body, out var rejection))
        {
            return new(line.Number, "", default, rejection);
        }

        var errors = new Validation();
        errors.CheckUserId(body.UserId, "userId");
        var term = Term.From(body.Ttl, body.ExpiresAt, errors, "");
        return new(line.Number, body.UserId, term, errors.Rejection);
    }

    private static ImportLine ReadCsv(Line line)
    {
        string text;
        try
        {
            text = StrictUtf8.GetString(line.Text.Span);
        }
        catch (DecoderFallbackException)
        {
            return new(line.Number, "", default, new Rejection(Code, "The line is not UTF-8."));
        }

        if (Csv.TrySplit(text) is not { Count: 1 or 2 } cells)
        {
            return new(line.Number, "", default, new Rejection(Code, "The line is not userId[,ttl|expiresAt]."));
        }

        var errors = new Validation();
        errors.CheckUserId(cells[0], "userId");
        var term = Term.Unsaid;
        if (cells.Count == 2 && cells[1].Length > 0)
        {
            if (cells[1][0] == 'P' && Iso8601Duration.TryParse(cells[1], out var ttl, out var problem))
            {
                term = Term.From(new Patch<TimeSpan?>(ttl), default, errors, "");
            }
            else if (Rfc3339.TryParse(cells[1], out var expiresAt))
            {
                term = Term.From(default, new Patch<DateTimeOffset?>(expiresAt), errors, "");
            }
            else
            {
                errors.Add("ttl|expiresAt", "is neither a duration such as P14D nor a time such as 2026-11-20T12:00:00Z");
            }
        }

        return new(line.Number, cells[0], term, errors.Rejection);
    }

    private static readonly UTF8Encoding StrictUtf8 = new(false, throwOnInvalidBytes: true);
}
