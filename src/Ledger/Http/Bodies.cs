using System.Buffers;
using System.IO.Compression;

namespace Ledger.Http;

/// <summary>Bodies as they come: compressed or not, read whole within a limit.</summary>
public static class Bodies
{
    /// <summary>What <c>Content-Encoding</c> may say.</summary>
    public const string Encodings = "br, gzip, deflate";

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

        try
        {
            await next(context);
        }
        catch (Exception exception) when (exception is InvalidDataException || exception.Source == typeof(BrotliStream).Assembly.GetName().Name)
        {
            throw new RefusedRequestException(new Rejection("invalid-request", $"The body is not in the encoding '{encoding}'."));
        }
    }
}
