using System.Diagnostics;
using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger;

/// <summary>What a request says of itself, and what every answer says, beside the feature's own business.</summary>
public static class Requests
{
    /// <summary>The tenant of everything where there is only one, and of the operator where there are more.</summary>
    public const string DefaultTenant = "*DEFAULT*";

    /// <summary>The actor of a request without credentials.</summary>
    public const string Anonymous = "anonymous";

    /// <summary>The tenant whose data a request is about. It leads every key and every query.</summary>
    public static string TenantId(this HttpContext http) => http.Caller().TenantId;

    /// <summary>Who makes a request that a credential is asked for, as its endpoint declares.</summary>
    public static Caller Caller(this HttpContext http) =>
        http.Features.Get<Caller>() ?? throw new InvalidOperationException("Nobody was asked who they are.");

    /// <summary>
    /// A command's context. Its fingerprint covers method, path and body, so that a key can't be used for something else.
    /// </summary>
    /// <exception cref="RefusedRequestException">The idempotency key is none.</exception>
    public static CommandContext Command<TBody>(this HttpContext http, TBody body) =>
        http.Command(body, $"{http.Request.Method} {http.Request.PathBase + http.Request.Path}");

    /// <summary>
    /// The context of a command that comes another way. <paramref name="operation"/> is its method and path over HTTP, so that it
    /// is the same command under a key, whichever way it comes.
    /// </summary>
    /// <exception cref="RefusedRequestException">The idempotency key is none.</exception>
    public static CommandContext Command<TBody>(this HttpContext http, TBody body, string operation)
    {
        if (!IdempotencyKeys.TryRead(http.Request, out var key, out var rejection))
        {
            throw new RefusedRequestException(rejection);
        }

        var caller = http.Caller();
        return new CommandContext(
            caller.TenantId, caller.Name, Activity.Current?.TraceId.ToString() ?? http.TraceIdentifier, key,
            key is null ? null : IdempotencyKeys.Fingerprint(operation, body));
    }

    /// <summary>The versions a command may change.</summary>
    /// <exception cref="RefusedRequestException">The header is malformed.</exception>
    public static IfMatch IfMatch(this HttpContext http) =>
        Http.IfMatch.TryRead(http.Request, out var ifMatch, out var rejection) ? ifMatch : throw new RefusedRequestException(rejection);

    /// <summary>Says where a command's outcome lies, and whether it is an earlier one's.</summary>
    public static void Answer(this HttpContext http, CommandResult result)
    {
        http.AnswerPosition(result.Position);
        if (result.Replayed)
        {
            IdempotencyKeys.MarkReplayed(http.Response);
        }
    }

    /// <summary>Says which position an answer is of; of a streamed answer, the position its first page is of.</summary>
    public static void AnswerPosition(this HttpContext http, long position)
    {
        if (!http.Response.HasStarted)
        {
            Positions.Write(http.Response, position);
        }
    }
}

/// <summary>A request that can't be answered as it was asked, such as for a header that is none; the answer is the rejection.</summary>
public sealed class RefusedRequestException(Rejection rejection) : Exception(rejection.Detail)
{
    /// <summary>What is wrong.</summary>
    public Rejection Rejection { get; } = rejection;

    /// <summary>Whether the database was away.</summary>
    public static bool IsUnavailable(Exception exception) =>
        exception is EventStoreUnavailableException || (exception is NpgsqlException && DatabaseErrors.IsUnavailable(exception));

    /// <summary>The database went away in the midst of a stream. What was stored stays.</summary>
    public static RefusedRequestException OfStream(long items, long position) => new(new Rejection(
        "store-unavailable",
        $"The database went away in the midst of the request. What was stored stays: {items} items, up to position {position}, are answered for, and later ones may be stored. Send it again."));
}
