using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Ledger.Http;

/// <summary>
/// A named limit on everything a request can make large. An endpoint that streams raises its own body limit with the
/// metadata <c>RequestSizeLimitAttribute</c> or <c>DisableRequestSizeLimitAttribute</c> and bounds each line instead.
/// </summary>
public static class Limits
{
    /// <summary>The largest body of a command: 1 MiB (1 048 576 bytes). Past it: 413.</summary>
    public const int MaxCommandBodyBytes = 1_048_576;

    /// <summary>The longest line of a streamed body.</summary>
    public const int MaxLineBytes = 65_536;

    /// <summary>The deepest nesting of a JSON body.</summary>
    public const int MaxJsonDepth = 32;

    /// <summary>The longest request line, method and URL together. Past it: a bare 414 from the server.</summary>
    public const int MaxUrlBytes = 16_384;

    /// <summary>All request headers together. Past it: a bare 431 from the server.</summary>
    public const int MaxHeaderBytes = 32_768;

    /// <summary>The number of request headers. Past it: a bare 431 from the server.</summary>
    public const int MaxHeaders = 100;

    /// <summary>The slowest body that is read, after <see cref="BodyGraceSeconds"/>. Slower: 408.</summary>
    public const int MinBodyBytesPerSecond = 240;

    /// <summary>How long a body may be slower than <see cref="MinBodyBytesPerSecond"/>, and an answer than <see cref="MinAnswerBytesPerSecond"/>.</summary>
    public const int BodyGraceSeconds = 10;

    /// <summary>The slowest reader of an answer that is sent to, after <see cref="BodyGraceSeconds"/>. Slower: cut off.</summary>
    public const int MinAnswerBytesPerSecond = 240;

    /// <summary>How long the headers of a request may take to arrive.</summary>
    public const int RequestHeadersTimeoutSeconds = 15;

    /// <summary>How long an idle connection is kept: longer than common load balancers keep theirs, so that it is they who close.</summary>
    public const int KeepAliveTimeoutSeconds = 130;

    /// <summary>How long a request may take that does not stream; longer than the longest wait for a position. Past it: 503.</summary>
    public static readonly TimeSpan RequestTimeout = TimeSpan.FromSeconds(60);

    /// <summary>Connections of a node, of HTTP and of gRPC together. One more is closed at once.</summary>
    public const int MaxConnections = 10_000;

    /// <summary>Requests at a time on one connection of HTTP/2, as gRPC has it.</summary>
    public const int MaxStreamsPerConnection = 100;

    /// <summary>The longest header of HTTP/2, name and value.</summary>
    public const int MaxHeaderFieldBytes = 16_384;

    /// <summary>How long a connection of HTTP/2 may be silent before it is asked whether it lives.</summary>
    public const int PingAfterSeconds = 30;

    /// <summary>How long it may take to answer that.</summary>
    public const int PingTimeoutSeconds = 20;

    /// <summary>Sets the limits on the server, and keeps it from naming itself.</summary>
    public static void Apply(KestrelServerOptions options)
    {
        options.AddServerHeader = false;
        var limits = options.Limits;
        limits.MaxRequestBodySize = MaxCommandBodyBytes;
        limits.MaxRequestLineSize = MaxUrlBytes;
        limits.MaxRequestHeadersTotalSize = MaxHeaderBytes;
        limits.MaxRequestHeaderCount = MaxHeaders;
        limits.MinRequestBodyDataRate = new(MinBodyBytesPerSecond, TimeSpan.FromSeconds(BodyGraceSeconds));
        limits.MinResponseDataRate = new(MinAnswerBytesPerSecond, TimeSpan.FromSeconds(BodyGraceSeconds));
        limits.MaxConcurrentConnections = MaxConnections;
        limits.MaxConcurrentUpgradedConnections = 0; // nothing here speaks another protocol on a connection of HTTP's
        limits.Http2.MaxStreamsPerConnection = MaxStreamsPerConnection;
        limits.Http2.MaxRequestHeaderFieldSize = MaxHeaderFieldBytes;
        limits.Http2.KeepAlivePingDelay = TimeSpan.FromSeconds(PingAfterSeconds);
        limits.Http2.KeepAlivePingTimeout = TimeSpan.FromSeconds(PingTimeoutSeconds);
        limits.RequestHeadersTimeout = TimeSpan.FromSeconds(RequestHeadersTimeoutSeconds);
        limits.KeepAliveTimeout = TimeSpan.FromSeconds(KeepAliveTimeoutSeconds);
    }
}
