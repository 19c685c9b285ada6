using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;

namespace Ledger.Campaigns;

/// <summary>
/// The gateway's own answer, <c>{ code, message }</c>; code 0: accepted. What it means together with the status of HTTP is
/// decided here, and set out in docs/campaigns.md.
/// </summary>
/// <param name="Code">0: accepted.</param>
/// <param name="Message">Why not.</param>
public sealed record GatewayAnswer(long Code, string? Message)
{
    /// <summary>Bytes of an answer that are read; a longer one is none.</summary>
    public const int MaxBytes = 16_384;

    /// <summary>Unicode characters of the gateway's message that are kept.</summary>
    public const int MaxMessageCharacters = 200;

    /// <summary>The longest wait that the gateway is granted.</summary>
    public static readonly TimeSpan MaxRetryAfter = TimeSpan.FromHours(1);

    private const int MaxDepth = 8;

    /// <summary>Reads a body; null: it is no answer of a gateway. What <paramref name="secret"/> occurs in is shown without it.</summary>
    public static GatewayAnswer? Read(ReadOnlyMemory<byte> body, string secret)
    {
        try
        {
            using var document = JsonDocument.Parse(body, new JsonDocumentOptions { MaxDepth = MaxDepth, AllowDuplicateProperties = false });
            return document.RootElement is { ValueKind: JsonValueKind.Object } answer
                && answer.TryGetProperty("code", out var code) && code.ValueKind == JsonValueKind.Number && code.TryGetInt64(out var number)
                ? new GatewayAnswer(number, answer.TryGetProperty("message", out var message) && message.ValueKind == JsonValueKind.String ? Clean(message.GetString()!, secret) : null)
                : null;
        }
        catch (Exception exception) when (exception is JsonException or InvalidOperationException)
        {
            return null; // a text with half a character is an InvalidOperationException
        }
    }

    /// <summary>What an answer says of the message and of the gateway.</summary>
    /// <param name="status">The status of HTTP.</param>
    /// <param name="answer">The body, if it was one.</param>
    /// <param name="retryAfter">What the header Retry-After said.</param>
    public static (SendOutcome Outcome, CallVerdict Verdict) Judge(int status, GatewayAnswer? answer, TimeSpan? retryAfter)
    {
        var isBusy = status is 408 or 425 or 429 or 503;
        var (result, verdict) = (status, answer) switch
        {
            ( >= 200 and < 300, { Code: 0 }) => (SendResult.Sent, CallVerdict.Healthy),
            ( >= 200 and < 300, not null) => (SendResult.Refused, CallVerdict.Healthy),
            ( >= 200 and < 300, null) => (SendResult.Unknown, CallVerdict.Faulty),
            (_, { Code: 0 }) => (SendResult.Unknown, CallVerdict.Faulty), // accepted and not accepted
            (401 or 402 or 403 or 405 or 406 or 407 or 411 or 415 or 421 or 426 or 431 or 501 or 505, _) => (SendResult.NotSent, CallVerdict.Misconfigured),
            (404 or 410, null) => (SendResult.NotSent, CallVerdict.Misconfigured), // something else lives at this address
            ( >= 300 and < 400, _) => (SendResult.NotSent, CallVerdict.Misconfigured),
            (409, _) => (SendResult.Unknown, CallVerdict.Healthy), // it knows the id: what has become of that message?
            _ when isBusy => (SendResult.Failed, retryAfter > TimeSpan.Zero ? CallVerdict.Busy : CallVerdict.Faulty),
            ( >= 400 and < 500, _) => (SendResult.Refused, CallVerdict.Healthy),
            ( >= 500 and < 600, not null) => (SendResult.Failed, CallVerdict.Faulty),
            _ => (SendResult.Unknown, CallVerdict.Faulty),
        };
        return (new SendOutcome(result, status, result == SendResult.Sent ? null : Say(status, answer, result, verdict), isBusy ? retryAfter : null), verdict);
    }

    /// <summary>What the header Retry-After says, seconds or a time, at most <see cref="MaxRetryAfter"/>; null: nothing that can be understood.</summary>
    public static TimeSpan? RetryAfterOf(HttpResponseHeaders headers, DateTimeOffset now)
    {
        if (!headers.NonValidated.TryGetValues("Retry-After", out var values) || values.ToString() is not { Length: > 0 } value)
        {
            return null;
        }

        if (value.All(char.IsAsciiDigit))
        {
            return long.TryParse(value, CultureInfo.InvariantCulture, out var seconds) && seconds < MaxRetryAfter.TotalSeconds ? TimeSpan.FromSeconds(seconds) : MaxRetryAfter;
        }

        if (!RetryConditionHeaderValue.TryParse(value, out var parsed) || parsed.Date is not { } date)
        {
            return null;
        }

        // By the gateway's own clock, where it says what that shows.
        var wait = date - (headers.Date ?? now);
        return wait < TimeSpan.Zero ? TimeSpan.Zero : wait > MaxRetryAfter ? MaxRetryAfter : wait;
    }

    private static string Say(int status, GatewayAnswer? answer, SendResult result, CallVerdict verdict)
    {
        var said = answer is null ? "" : $", code {answer.Code}{(string.IsNullOrEmpty(answer.Message) ? "" : $": {answer.Message}")}";
        var meaning = (result, verdict) switch
        {
            (_, CallVerdict.Misconfigured) => " The address or the token of the gateway is wrong, or the account behind it.",
            (SendResult.Unknown, _) when status is >= 200 and < 300 => " That is no answer of the gateway's.",
            (SendResult.Unknown, _) => " Whether it accepted the message is not known.",
            _ => "",
        };
        return $"The gateway answered {status}{said}{(said.EndsWith('.') ? "" : ".")}{meaning}";
    }

    /// <summary>Makes a text of somebody else's fit to be kept and shown: without the secret, in one line, cut.</summary>
    private static string Clean(string text, string secret)
    {
        var cleaned = new StringBuilder();
        var characters = 0;
        foreach (var rune in text.Replace(secret, "***", StringComparison.OrdinalIgnoreCase).EnumerateRunes())
        {
            var category = Rune.GetUnicodeCategory(rune);
            var isSpace = Rune.IsWhiteSpace(rune) || category is UnicodeCategory.Control or UnicodeCategory.Format or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator;
            if (isSpace && (cleaned.Length == 0 || cleaned[^1] == ' '))
            {
                continue;
            }

            if (characters++ == MaxMessageCharacters)
            {
                return cleaned.ToString().TrimEnd() + "…";
            }

            cleaned.Append(isSpace ? " " : rune.ToString());
        }

        return cleaned.ToString().TrimEnd();
    }
}
