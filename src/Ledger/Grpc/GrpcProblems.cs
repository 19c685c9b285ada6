using System.Collections.Frozen;
using System.Diagnostics;
using System.Text.RegularExpressions;
using Google.Protobuf;
using Google.Protobuf.WellKnownTypes;
using Ledger.Grpc.Rpc;
using Ledger.Http;

namespace Ledger.Grpc;

/// <summary>The one place where a problem's code gets its gRPC status, and where its details are made.</summary>
public sealed partial class GrpcProblems
{
    /// <summary>The domain of every reason.</summary>
    public const string Domain = "ledger";

    /// <summary>Bytes of the details. What is wrong with further fields is left out.</summary>
    public const int MaxDetailsBytes = 4_096;

    private static readonly FrozenDictionary<string, GrpcCode> Table = new Dictionary<string, GrpcCode>
    {
        ["invalid-request"] = GrpcCode.InvalidArgument,
        ["malformed-json"] = GrpcCode.InvalidArgument,
        ["unknown-field"] = GrpcCode.InvalidArgument,
        ["unknown-parameter"] = GrpcCode.InvalidArgument,
        ["invalid-cursor"] = GrpcCode.InvalidArgument,
        ["unauthorized"] = GrpcCode.Unauthenticated,
        ["forbidden"] = GrpcCode.PermissionDenied,
        ["insufficient-scope"] = GrpcCode.PermissionDenied,
        ["not-found"] = GrpcCode.NotFound,
        ["user-not-found"] = GrpcCode.NotFound,
        ["segment-not-found"] = GrpcCode.NotFound,
        ["service-not-found"] = GrpcCode.NotFound,
        ["price-not-found"] = GrpcCode.NotFound,
        ["call-not-found"] = GrpcCode.NotFound,
        ["campaign-not-found"] = GrpcCode.NotFound,
        ["report-not-found"] = GrpcCode.NotFound,
        ["stream-not-found"] = GrpcCode.NotFound,
        ["projection-not-found"] = GrpcCode.NotFound,
        ["tile-not-found"] = GrpcCode.NotFound,
        ["event-not-found"] = GrpcCode.NotFound,
        ["key-not-found"] = GrpcCode.NotFound,
        ["method-not-allowed"] = GrpcCode.Unimplemented,
        ["not-acceptable"] = GrpcCode.InvalidArgument,
        ["request-timeout"] = GrpcCode.DeadlineExceeded,
        ["segment-exists"] = GrpcCode.AlreadyExists,
        ["service-exists"] = GrpcCode.AlreadyExists,
        ["title-taken"] = GrpcCode.AlreadyExists,
        ["service-retired"] = GrpcCode.FailedPrecondition,
        ["too-many-prices"] = GrpcCode.FailedPrecondition,
        ["call-conflict"] = GrpcCode.AlreadyExists,
        ["campaign-started"] = GrpcCode.FailedPrecondition,
        ["campaign-over"] = GrpcCode.FailedPrecondition,
        ["too-many-keys"] = GrpcCode.FailedPrecondition,
        ["key-expired"] = GrpcCode.FailedPrecondition,
        ["report-failed"] = GrpcCode.FailedPrecondition,
        ["too-many-reports"] = GrpcCode.FailedPrecondition,
        ["version-conflict"] = GrpcCode.Aborted,
        ["precondition-failed"] = GrpcCode.Aborted,
        ["body-too-large"] = GrpcCode.ResourceExhausted,
        ["uri-too-long"] = GrpcCode.ResourceExhausted,
        ["unsupported-media-type"] = GrpcCode.InvalidArgument,
        ["idempotency-key-reused"] = GrpcCode.AlreadyExists,
        ["rate-limited"] = GrpcCode.ResourceExhausted,
        ["headers-too-large"] = GrpcCode.ResourceExhausted,
        ["internal-error"] = GrpcCode.Internal,
        ["checkpoint-behind"] = GrpcCode.Unavailable,
        ["view-behind"] = GrpcCode.Unavailable,
        ["report-not-ready"] = GrpcCode.Unavailable,
        ["queue-full"] = GrpcCode.ResourceExhausted,
        ["issuer-unavailable"] = GrpcCode.Unavailable,
        ["store-unavailable"] = GrpcCode.Unavailable,
        ["timeout"] = GrpcCode.DeadlineExceeded,
        ["too-many-followers"] = GrpcCode.ResourceExhausted,
    }.ToFrozenDictionary(StringComparer.Ordinal);

    private readonly IReadOnlyList<Func<Exception, Rejection?>> _maps;
    private readonly ILogger<GrpcProblems> _logger;

    /// <summary>Exceptions are understood as over HTTP.</summary>
    public GrpcProblems(IEnumerable<Func<Exception, Rejection?>> maps, ILogger<GrpcProblems> logger) => (_maps, _logger) = ([.. maps], logger);

    /// <summary>Every problem's code with its status.</summary>
    public static IReadOnlyDictionary<string, GrpcCode> All => Table;

    /// <summary>A refusal. Its fields lie in <paramref name="root"/> of the message.</summary>
    public static GrpcStatus Of(Rejection rejection, HttpContext http, string root = "")
    {
        var code = Table[rejection.Code];
        var message = rejection.Errors?.Keys.First() is { } first && rejection.Detail.StartsWith(first, StringComparison.Ordinal)
            ? FieldOf(first, root) + rejection.Detail[first.Length..]
            : rejection.Detail;
        var details = new Status { Code = (int)code, Message = message.Length <= GrpcTransport.MaxStatusChars ? message : rejection.Code };
        var info = new ErrorInfo { Reason = rejection.Code, Domain = Domain };
        info.Metadata["traceId"] = Activity.Current?.TraceId.ToHexString() ?? http.TraceIdentifier;
        details.Details.Add(Any.Pack(info));
        if (Problems.RetryAfterSecondsOf(rejection) is { } seconds)
        {
            details.Details.Add(Any.Pack(new RetryInfo { RetryDelay = new Duration { Seconds = seconds } }));
        }

        if (rejection.Errors is { } errors)
        {
            var wrong = new BadRequest();
            foreach (var (field, rules) in errors)
            {
                var violation = new BadRequest.Types.FieldViolation { Field = FieldOf(field, root), Description = string.Join("; ", rules) };
                wrong.FieldViolations.Add(violation);
                if (details.CalculateSize() + Any.Pack(wrong).CalculateSize() > MaxDetailsBytes)
                {
                    wrong.FieldViolations.Remove(violation);
                }
            }

            details.Details.Add(Any.Pack(wrong));
        }

        return new GrpcStatus(code, message, details.ToByteArray());
    }

    /// <summary>What was thrown. Only what is our fault is logged as an error.</summary>
    public GrpcStatus Of(Exception exception, HttpContext http)
    {
        foreach (var map in _maps)
        {
            if (map(exception) is { } rejection)
            {
                return Of(rejection, http);
            }
        }

        if (exception is TimeoutException or OperationCanceledException)
        {
            LogTimeout(exception, http.Request.Path);
            return Of(new Rejection("timeout", "The answer took too long. Nothing is known to be wrong with the request."), http);
        }

        LogFailure(exception, http.Request.Path);
        return Of(new Rejection("internal-error", ProblemHandling.InternalDetail), http);
    }

    /// <summary>A JSON path, or the name of a header, as the path of a field in the message, or the name of a metadata entry.</summary>
    private static string FieldOf(string path, string root)
    {
        path = root.Length == 0 ? path : path == JsonErrors.Root ? root : path[0] == '[' ? root + path : $"{root}.{path}";
        var names = CallersOwn().Match(path) is { Success: true } match ? match.Index + match.Length : path.Length;
        return Hump().Replace(path[..names], "_").ToLowerInvariant() + path[names..];
    }

    /// <summary>What follows is a key that the caller chose.</summary>
    [GeneratedRegex(@"(?<![a-zA-Z])(quantities|tags)\.")]
    private static partial Regex CallersOwn();

    [GeneratedRegex("(?<=[a-z])(?=[A-Z])")]
    private static partial Regex Hump();

    [LoggerMessage(Level = LogLevel.Error, Message = "gRPC {Path} failed")]
    private partial void LogFailure(Exception exception, PathString path);

    [LoggerMessage(Level = LogLevel.Warning, Message = "gRPC {Path} timed out")]
    private partial void LogTimeout(Exception exception, PathString path);
}
