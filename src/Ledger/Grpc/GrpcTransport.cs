using System.Diagnostics;
using System.Globalization;
using System.Text;
using Google.Protobuf;
using Ledger.Http;
using Microsoft.AspNetCore.Http.Features;
using ServiceDescriptor = Google.Protobuf.Reflection.ServiceDescriptor;

namespace Ledger.Grpc;

/// <summary>
/// Unary gRPC over HTTP/2, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md. It knows methods and messages, and
/// nothing of what they are about. Every answer to what is gRPC at all is a 200 with the outcome in the trailers.
/// </summary>
/// <param name="statusOf">The status of what a method threw.</param>
/// <param name="refuse">The status of a call that is not even looked at, for its caller or for what the method needs; null: go on.</param>
/// <param name="watch">Ends with the answering of a call, and sees to it that the call ends when its caller may no longer make it.</param>
public sealed class GrpcTransport(
    Func<Exception, HttpContext, GrpcStatus> statusOf, Func<HttpContext, Requirement, ValueTask<GrpcStatus?>> refuse,
    Func<HttpContext, Requirement, Task, Task> watch)
{
    /// <summary>The media type; behind it may stand <c>+proto</c>.</summary>
    public const string ContentType = "application/grpc";

    /// <summary>Characters of <c>grpc-message</c>. With the details it stays below the 8 KiB of metadata that clients take.</summary>
    public const int MaxStatusChars = 1_024;

    private const string Encodings = "identity,gzip";

    private readonly Dictionary<string, Method> _methods = new(StringComparer.Ordinal);

    private sealed record Method(Requirement Needed, Func<HttpContext, CancellationToken, Task<GrpcStatus>> Answer);

    /// <summary>Adds a method of a service, for callers that meet a requirement.</summary>
    public GrpcTransport Add<TRequest, TResponse>(
        ServiceDescriptor service, string name, Requirement needed, int maxBytes, Func<TRequest, HttpContext, CancellationToken, Task<GrpcReply<TResponse>>> answer)
        where TRequest : IMessage<TRequest>, new()
        where TResponse : class, IMessage
    {
        var method = service.FindMethodByName(name);
        if (method?.InputType.ClrType != typeof(TRequest) || method.OutputType.ClrType != typeof(TResponse) || method.IsClientStreaming || method.IsServerStreaming)
        {
            throw new ArgumentException($"{service.FullName} has no method {name} of this kind.", nameof(name));
        }

        _methods.Add($"/{service.FullName}/{name}", new Method(needed, async (http, cancellation) =>
        {
            var bytes = await GrpcMessages.ReadOne(http.Request.BodyReader, EncodingOf(http.Request), maxBytes, cancellation);
            var reply = await answer(GrpcMessages.Parse<TRequest>(method.InputType, bytes), http, cancellation);
            if (reply.Message is { } message)
            {
                GrpcMessages.Write(http.Response.BodyWriter, message);
            }

            return reply.Status;
        }));
        return this;
    }

    /// <summary>The paths of all methods, with what each asks of its caller.</summary>
    public IEnumerable<(string Path, Requirement Needed)> Methods => _methods.Select(m => (m.Key, m.Value.Needed));

    /// <summary>Answers a call.</summary>
    public async Task Answer(HttpContext http)
    {
        var status = await Run(http);
        http.Response.AppendTrailer("grpc-status", ((int)status.Code).ToString(CultureInfo.InvariantCulture));
        if (status.Message.Length > 0)
        {
            http.Response.AppendTrailer("grpc-message", Encode(status.Message));
        }

        if (status.Details is { } details)
        {
            http.Response.AppendTrailer("grpc-status-details-bin", Convert.ToBase64String(details).TrimEnd('='));
        }

        if (Activity.Current is { } span)
        {
            span.SetTag("rpc.grpc.status_code", (int)status.Code);
            if (status.Code is GrpcCode.Unknown or GrpcCode.DeadlineExceeded or GrpcCode.Unimplemented or GrpcCode.Internal or GrpcCode.Unavailable or GrpcCode.DataLoss)
            {
                span.SetTag("error.type", $"{(int)status.Code}").SetStatus(ActivityStatusCode.Error);
            }
        }
    }

    private async Task<GrpcStatus> Run(HttpContext http)
    {
        var (request, response, aborted) = (http.Request, http.Response, http.RequestAborted);
        response.ContentType = ContentType;
        response.Headers["grpc-accept-encoding"] = Encodings;
        if (!HttpMethods.IsPost(request.Method) || !IsGrpc(request.ContentType))
        {
            response.StatusCode = StatusCodes.Status415UnsupportedMediaType;
            return new GrpcStatus(GrpcCode.InvalidArgument, $"This port answers gRPC only: POST with the content type {ContentType}.");
        }

        if (!_methods.TryGetValue(request.Path.Value ?? "", out var method))
        {
            return new GrpcStatus(GrpcCode.Unimplemented, $"There is no method {request.Path}.");
        }

        Describe(Activity.Current, request.Path.Value!);
        if (EncodingOf(request) is not (null or "identity" or "gzip"))
        {
            return new GrpcStatus(GrpcCode.Unimplemented, $"The encoding must be one of {Encodings}.");
        }

        if (!TryReadTimeout(request.Headers["grpc-timeout"], out var timeout))
        {
            return new GrpcStatus(GrpcCode.InvalidArgument, "grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u, n.");
        }

        using var deadline = CancellationTokenSource.CreateLinkedTokenSource(aborted);
        deadline.CancelAfter(timeout < Limits.RequestTimeout && timeout != Timeout.InfiniteTimeSpan ? timeout : Limits.RequestTimeout);
        http.RequestAborted = deadline.Token;
        http.Features.Get<IHttpMaxRequestBodySizeFeature>()!.MaxRequestBodySize = null; // the length of the message is what counts
        try
        {
            if (await refuse(http, method.Needed) is { } refusal)
            {
                return refusal;
            }

            var answering = method.Answer(http, deadline.Token);
            await watch(http, method.Needed, answering);
            return await answering;
        }
        catch (UnreadableMessageException unreadable)
        {
            return unreadable.Status;
        }
        catch (Exception) when (aborted.IsCancellationRequested)
        {
            return new GrpcStatus(GrpcCode.Cancelled, "The caller went away.");
        }
        catch (OperationCanceledException) when (deadline.IsCancellationRequested)
        {
            return new GrpcStatus(GrpcCode.DeadlineExceeded, $"The time is up that grpc-timeout gave, or {Limits.RequestTimeout.TotalSeconds} s.");
        }
        catch (Exception exception)
        {
            return statusOf(exception, http);
        }
        finally
        {
            http.RequestAborted = aborted;
        }
    }

    private static bool IsGrpc(string? contentType) =>
        contentType?.Split(';')[0].Trim().ToLowerInvariant() is ContentType or ContentType + "+proto";

    private static string? EncodingOf(HttpRequest request) => request.Headers["grpc-encoding"] is [{ } encoding] ? encoding : null;

    /// <summary>Names the server's span by the semantic conventions for RPC.</summary>
    private static void Describe(Activity? span, string path)
    {
        if (span is null)
        {
            return;
        }

        var slash = path.LastIndexOf('/');
        span.DisplayName = path[1..];
        span.SetTag("rpc.system", "grpc").SetTag("rpc.service", path[1..slash]).SetTag("rpc.method", path[(slash + 1)..]);
    }

    /// <summary>Infinite when there is none.</summary>
    private static bool TryReadTimeout(string? text, out TimeSpan timeout)
    {
        timeout = Timeout.InfiniteTimeSpan;
        if (text is null)
        {
            return true;
        }

        long? ticks = text.Length is >= 2 and <= 9 && long.TryParse(text.AsSpan(..^1), NumberStyles.None, CultureInfo.InvariantCulture, out var number)
            ? text[^1] switch
            {
                'H' => number * TimeSpan.TicksPerHour,
                'M' => number * TimeSpan.TicksPerMinute,
                'S' => number * TimeSpan.TicksPerSecond,
                'm' => number * TimeSpan.TicksPerMillisecond,
                'u' => number * TimeSpan.TicksPerMicrosecond,
                'n' => number / TimeSpan.NanosecondsPerTick,
                _ => null,
            }
            : null;
        timeout = TimeSpan.FromTicks(Math.Min(ticks ?? 0, (uint.MaxValue - 1L) * TimeSpan.TicksPerMillisecond));
        return ticks is not null;
    }

    /// <summary>UTF-8 with everything but visible ASCII and the space percent-encoded, cut at a character.</summary>
    private static string Encode(string message)
    {
        var text = new StringBuilder();
        Span<byte> utf8 = stackalloc byte[4];
        foreach (var rune in message.EnumerateRunes())
        {
            var before = text.Length;
            foreach (var value in utf8[..rune.EncodeToUtf8(utf8)])
            {
                _ = value is >= 0x20 and <= 0x7e and not (byte)'%' ? text.Append((char)value) : text.Append('%').Append(value.ToString("X2", CultureInfo.InvariantCulture));
            }

            if (text.Length > MaxStatusChars)
            {
                text.Length = before;
                break;
            }
        }

        return text.ToString();
    }
}
