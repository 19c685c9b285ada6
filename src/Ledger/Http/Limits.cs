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

    /// <summary>How long a body may be slower than <see cref="MinBodyBytesPerSecond"/>.</summary>
    public const int BodyGraceSeconds = 10;

    /// <summary>How long the headers of a request may take to arrive.</summary>
    public const int RequestHeadersTimeoutSeconds = 15;

    /// <summary>How long an idle connection is kept: longer than common load balancers keep theirs, so that it is they who close.</summary>
    public const int KeepAliveTimeoutSeconds = 130;

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
        limits.RequestHeadersTimeout = TimeSpan.FromSeconds(RequestHeadersTimeoutSeconds);
        limits.KeepAliveTimeout = TimeSpan.FromSeconds(KeepAliveTimeoutSeconds);
    }
}
