using System.Collections.Frozen;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Http.Json;
using Microsoft.Extensions.Options;

namespace Ledger.Http;

/// <summary>
/// Every refusal as it is answered: RFC 9457 <c>application/problem+json</c>. The table below is the one place that
/// says which status and title belong to a code; a code that is not in it is a bug and throws.
/// <c>type</c> is the relative reference <c>/problems/{code}</c>: an identifier that a page may later stand behind.
/// </summary>
public static class Problems
{
    /// <summary>The media type of a problem.</summary>
    public const string ContentType = "application/problem+json";

    private sealed record Entry(int Status, string Title, int? RetryAfterSeconds = null);

    private static readonly FrozenDictionary<string, Entry> Table = new Dictionary<string, Entry>
    {
        ["invalid-request"] = new(400, "The request is not valid"),
        ["malformed-json"] = new(400, "The body is not well-formed JSON"),
        ["unknown-field"] = new(400, "The request has a field that is not known"),
        ["invalid-cursor"] = new(400, "The cursor does not belong to this list"),
        ["unknown-parameter"] = new(400, "The request has a parameter that is not known"),
        ["unauthorized"] = new(401, "A valid credential is needed"),
        ["forbidden"] = new(403, "The credential does not allow this"),
        ["insufficient-scope"] = new(403, "The credential lacks a scope"),
        ["not-found"] = new(404, "There is nothing here"),
        ["user-not-found"] = new(404, "There is no such user"),
        ["segment-not-found"] = new(404, "There is no such segment"),
        ["service-not-found"] = new(404, "There is no such service"),
        ["price-not-found"] = new(404, "There is no such price"),
        ["call-not-found"] = new(404, "There is no such call"),
        ["campaign-not-found"] = new(404, "There is no such campaign"),
        ["report-not-found"] = new(404, "There is no such report"),
        ["stream-not-found"] = new(404, "There is no such stream"),
        ["event-not-found"] = new(404, "There is no such event"),
        ["projection-not-found"] = new(404, "There is no such projection"),
        ["key-not-found"] = new(404, "There is no such key"),
        ["tile-not-found"] = new(404, "There is no such tile"),
        ["method-not-allowed"] = new(405, "The method is not allowed here"),
        ["not-acceptable"] = new(406, "None of the accepted formats can be given"),
        ["request-timeout"] = new(408, "The request came too slowly"),
        ["segment-exists"] = new(409, "The segment exists already"),
        ["service-exists"] = new(409, "The service exists already"),
        ["title-taken"] = new(409, "Another service has the title"),
        ["service-retired"] = new(409, "The service is retired"),
        ["too-many-prices"] = new(409, "The service has as many prices as it may have"),
        ["call-conflict"] = new(409, "The call was recorded with other content"),
        ["too-many-keys"] = new(409, "The tenant has as many keys as it may have"),
        ["key-expired"] = new(409, "The key has expired"),
        ["campaign-started"] = new(409, "The campaign has begun"),
        ["campaign-over"] = new(409, "The campaign is over"),
        ["report-failed"] = new(409, "The report could not be made"),
        ["too-many-reports"] = new(409, "The tenant has as many reports as it may have"),
        ["version-conflict"] = new(409, "Others changed the same thing at the same time"),
        ["precondition-failed"] = new(412, "The resource is not in the expected version"),
        ["body-too-large"] = new(413, "The body is too large"),
        ["uri-too-long"] = new(414, "The URL is too long"),
        ["unsupported-media-type"] = new(415, "The body is in a format that is not read here"),
        ["idempotency-key-reused"] = new(422, "The idempotency key was used for another request"),
        ["rate-limited"] = new(429, "Too many requests", 1),
        ["headers-too-large"] = new(431, "The headers are too large"),
        ["internal-error"] = new(500, "Something went wrong on our side"),
        ["issuer-unavailable"] = new(503, "The issuer of tokens cannot be reached", 5),
        ["checkpoint-behind"] = new(503, "No checkpoint of the log reaches that far yet", 1),
        ["view-behind"] = new(503, "The view has not reached the position yet", 1),
        ["too-many-followers"] = new(503, "As many follow the log as this node serves", 5),
        ["report-not-ready"] = new(503, "The report is still being made", 1),
        ["queue-full"] = new(503, "Too much is waiting to be written", 1),
        ["store-unavailable"] = new(503, "The store cannot be reached", 5),
        ["timeout"] = new(503, "The answer took too long", 1),
    }.ToFrozenDictionary(StringComparer.Ordinal);

    /// <summary>Every code with its status, for the documentation and its tests.</summary>
    public static IEnumerable<(string Code, int Status, string Title)> All =>
        Table.Select(e => (e.Key, e.Value.Status, e.Value.Title)).OrderBy(e => e.Status).ThenBy(e => e.Key, StringComparer.Ordinal);

    /// <summary>The status that a code is answered with.</summary>
    public static int StatusOf(string code) => Find(code).Status;

    /// <summary>The seconds after which it is worth another try; null when it is not.</summary>
    public static int? RetryAfterSecondsOf(string code) => Find(code).RetryAfterSeconds;

    /// <summary>The same of this very refusal, in whole seconds.</summary>
    public static int? RetryAfterSecondsOf(Rejection rejection) =>
        rejection.RetryAfter is { } wait ? Math.Max(1, (int)Math.Ceiling(wait.TotalSeconds)) : RetryAfterSecondsOf(rejection.Code);

    /// <summary>The answer to a refused request.</summary>
    public static IResult For(Rejection rejection) => new ProblemResult(rejection, Find(rejection.Code));

    /// <summary>The answer to a refused request, with no rejection at hand.</summary>
    public static IResult Result(string code, string detail, IReadOnlyDictionary<string, string[]>? errors = null) =>
        For(new Rejection(code, detail) { Errors = errors });

    private static Entry Find(string code) =>
        Table.TryGetValue(code, out var entry) ? entry : throw new ArgumentException($"'{code}' is not in the table of problems.", nameof(code));

    private sealed class ProblemResult(Rejection rejection, Entry entry) : IResult, IStatusCodeHttpResult
    {
        public int? StatusCode => entry.Status;

        public Task ExecuteAsync(HttpContext httpContext)
        {
            var (request, response) = (httpContext.Request, httpContext.Response);
            response.StatusCode = entry.Status;
            response.Headers.CacheControl = "no-store";
            if (RetryAfterSecondsOf(rejection) is { } seconds && response.Headers.RetryAfter.Count == 0)
                response.Headers.RetryAfter = seconds.ToString(CultureInfo.InvariantCulture);
            var problem = new Problem(
                $"/problems/{rejection.Code}", entry.Title, entry.Status, rejection.Detail,
                (request.PathBase + request.Path).ToUriComponent(), rejection.Code,
                Activity.Current?.TraceId.ToHexString() ?? httpContext.TraceIdentifier, rejection.Errors);
            var options = httpContext.RequestServices.GetRequiredService<IOptions<JsonOptions>>().Value.SerializerOptions;
            // Written whole, also when the time of the request is up: it may be what says so.
            return response.WriteAsJsonAsync(problem, options, ContentType, CancellationToken.None);
        }
    }
}

/// <summary>The body of a refusal, RFC 9457.</summary>
/// <param name="Type">Identifies the kind of problem: <c>/problems/{code}</c>.</param>
/// <param name="Title">The kind of problem in words, always the same for a code.</param>
/// <param name="Status">The HTTP status.</param>
/// <param name="Detail">What is wrong this time.</param>
/// <param name="Instance">The path that was asked for.</param>
/// <param name="Code">Stable, kebab-case: what programs should look at.</param>
/// <param name="TraceId">To find this request in traces and logs.</param>
/// <param name="Errors">What is wrong with which field: JSON paths, or names of parameters and headers, to messages.</param>
public sealed record Problem(
    string Type, string Title, int Status, string Detail, string Instance, string Code, string TraceId,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyDictionary<string, string[]>? Errors = null);
