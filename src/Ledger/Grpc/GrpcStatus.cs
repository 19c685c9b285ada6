namespace Ledger.Grpc;

/// <summary>gRPC's status codes, https://github.com/grpc/grpc/blob/master/doc/statuscodes.md.</summary>
public enum GrpcCode
{
    /// <summary>It was done.</summary>
    Ok = 0,

    /// <summary>The caller went away.</summary>
    Cancelled = 1,

    /// <summary>Not used.</summary>
    Unknown = 2,

    /// <summary>The request is wrong, whatever is stored.</summary>
    InvalidArgument = 3,

    /// <summary>The time that the caller gave, or the server, is up.</summary>
    DeadlineExceeded = 4,

    /// <summary>What is named does not exist.</summary>
    NotFound = 5,

    /// <summary>What the request would make is there already, or is there as something else.</summary>
    AlreadyExists = 6,

    /// <summary>The credential does not allow it.</summary>
    PermissionDenied = 7,

    /// <summary>Something is full, or too large.</summary>
    ResourceExhausted = 8,

    /// <summary>Not in the state that things are in; the same request will not do later either.</summary>
    FailedPrecondition = 9,

    /// <summary>Somebody else was first: read again, decide again.</summary>
    Aborted = 10,

    /// <summary>Not used.</summary>
    OutOfRange = 11,

    /// <summary>There is no such method, or not in this form.</summary>
    Unimplemented = 12,

    /// <summary>Something is broken: on our side, or in what came over the wire.</summary>
    Internal = 13,

    /// <summary>Not now: the same request may do later.</summary>
    Unavailable = 14,

    /// <summary>Not used.</summary>
    DataLoss = 15,

    /// <summary>A valid credential is needed.</summary>
    Unauthenticated = 16,
}

/// <summary>How a call ended.</summary>
/// <param name="Code">For programs.</param>
/// <param name="Message">For people.</param>
/// <param name="Details">A <c>google.rpc.Status</c>, serialized.</param>
public sealed record GrpcStatus(GrpcCode Code, string Message = "", byte[]? Details = null)
{
    /// <summary>It was done.</summary>
    public static readonly GrpcStatus Ok = new(GrpcCode.Ok);
}

/// <summary>What a method answers: a message, or why there is none.</summary>
public readonly struct GrpcReply<TResponse> where TResponse : class
{
    private GrpcReply(TResponse? message, GrpcStatus status) => (Message, Status) = (message, status);

    /// <summary>The answer; null when there is none.</summary>
    public TResponse? Message { get; }

    /// <summary>How the call ended.</summary>
    public GrpcStatus Status { get; }

    /// <summary>An answer.</summary>
    public static implicit operator GrpcReply<TResponse>(TResponse message) => new(message, GrpcStatus.Ok);

    /// <summary>A refusal.</summary>
    public static implicit operator GrpcReply<TResponse>(GrpcStatus status) => new(null, status);
}
