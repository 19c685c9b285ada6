using System.Buffers;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.AspNetCore.RequestDecompression;
using Microsoft.Net.Http.Headers;

namespace Ledger.Http;

/// <summary>Bodies as they come: compressed or not, read whole within a limit.</summary>
public static class Bodies
{
    /// <summary>What <c>Content-Encoding</c> may say.</summary>
    public const string Encodings = "br, gzip, deflate";

    /// <summary>Lets every body come compressed. What is read of it counts for the limits, not what was sent.</summary>
    public static IServiceCollection AddCompressedBodies(this IServiceCollection services) => services.AddRequestDecompression();

    /// <summary>Unpacks bodies. Call it after routing, because the limit is the endpoint's.</summary>
    public static WebApplication UseCompressedBodies(this WebApplication app)
    {
        app.Use((context, next) =>
        {
            var encodings = context.Request.Headers.ContentEncoding;
            if (encodings.Count == 0 || (encodings is [{ } encoding] && encoding.ToLowerInvariant() is "br" or "gzip" or "deflate"))
            {
                return next(context);
            }

            context.Response.Headers.AcceptEncoding = Encodings;
            return Problems.Result("unsupported-media-type", $"The body is encoded as '{encodings}'; it may be: {Encodings}.").ExecuteAsync(context);
        });
        app.UseRequestDecompression();
        app.Use(async (context, next) =>
        {
            try
            {
                await next(context);
            }
            catch (InvalidDataException exception) when (exception.TargetSite?.DeclaringType?.Namespace == "System.IO.Compression")
            {
                throw new RefusedRequestException(new Rejection("invalid-request", "The body is not what its Content-Encoding says."));
            }
        });
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
}
