using System.Buffers;
using System.IO.Compression;

namespace Ledger.Http;

/// <summary>Bodies as they come: compressed or not, read whole within a limit.</summary>
public static class Bodies
{
    /// <summary>What <c>Content-Encoding</c> may say.</summary>
    public const string Encodings = "br, gzip, deflate";

    /// <summary>Bytes that a body may unpack to, however few it was packed into.</summary>
    public const int FreeUnpackedBytes = 16 * 1024 * 1024;

    /// <summary>Past those: bytes that a packed byte may unpack to, in the body as a whole. A stream of empty lines packs a thousand times as tight.</summary>
    public const int MaxUnpackedRatio = 200;

    /// <summary>Lets every body come compressed. What is read of it counts for the limits, not what was sent.</summary>
    public static IServiceCollection AddCompressedBodies(this IServiceCollection services)
    {
        // Otherwise .NET takes the end of a file that was cut off for the end of what it holds.
        AppContext.SetSwitch("System.IO.Compression.UseStrictValidation", true);
        return services.AddRequestDecompression();
    }

    /// <summary>Unpacks bodies. Call it after routing, because the limit is the endpoint's.</summary>
    public static WebApplication UseCompressedBodies(this WebApplication app)
    {
        app.Use(RefuseUnreadable);
        app.UseRequestDecompression();
        app.Use(BoundRatio);
        return app;
    }

    /// <summary>The whole body; null when it is longer than <paramref name="maxBytes"/>.</summary>
    public static async Task<byte[]?> ReadWhole(HttpRequest request, int maxBytes, CancellationToken cancellation)
    {
        var body = request.BodyReader;
        while (true)
        {
            var read = await body.ReadAsync(cancellation);
            if (read.Buffer.Length > maxBytes)
            {
                body.AdvanceTo(read.Buffer.End);
                return null;
            }

            if (read.IsCompleted)
            {
                var bytes = read.Buffer.ToArray();
                body.AdvanceTo(read.Buffer.End);
                return bytes;
            }

            body.AdvanceTo(read.Buffer.Start, read.Buffer.End);
        }
    }

    private static async Task RefuseUnreadable(HttpContext context, RequestDelegate next)
    {
        var encodings = context.Request.Headers.ContentEncoding;
        if (encodings.Count == 0)
        {
            await next(context);
            return;
        }

        if (encodings is not [{ } encoding] || encoding.ToLowerInvariant() is not ("br" or "gzip" or "deflate"))
        {
            context.Response.Headers.AcceptEncoding = Encodings;
            await Problems.Result("unsupported-media-type", $"The body is encoded as '{encodings}'; it may be: {Encodings}.").ExecuteAsync(context);
            return;
        }

        var packed = new Packed();
        context.Features.Set(packed);
        context.Request.Body = new ObservedStream(context.Request.Body, count => packed.Bytes += count);
        try
        {
            await next(context);
        }
        catch (Exception exception) when (exception is InvalidDataException || exception.Source == typeof(BrotliStream).Assembly.GetName().Name)
        {
            throw new RefusedRequestException(new Rejection("invalid-request", $"The body is not in the encoding '{encoding}'."));
        }
    }

    // Limits of the whole body, where there is one, come first; this one is for streams, which have none.
    private static Task BoundRatio(HttpContext context, RequestDelegate next)
    {
        if (context.Features.Get<Packed>() is { } packed)
        {
            var unpacked = 0L;
            context.Request.Body = new ObservedStream(context.Request.Body, count =>
            {
                unpacked += count;
                if (unpacked > FreeUnpackedBytes + MaxUnpackedRatio * packed.Bytes)
                {
                    throw new RefusedRequestException(new Rejection("body-too-large", $"The body unpacks to more than {MaxUnpackedRatio} times its size."));
                }
            });
        }

        return next(context);
    }

    /// <summary>What has come of a body as it was sent.</summary>
    private sealed class Packed
    {
        public long Bytes { get; set; }
    }

    /// <summary>Tells of every byte that is read.</summary>
    private sealed class ObservedStream(Stream inner, Action<int> read) : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => throw new NotSupportedException();
            set => throw new NotSupportedException();
        }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            var count = await inner.ReadAsync(buffer, cancellationToken);
            read(count);
            return count;
        }

        public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
