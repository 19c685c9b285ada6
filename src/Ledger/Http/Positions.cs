using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Microsoft.Extensions.Primitives;

namespace Ledger.Http;

/// <summary>
/// Positions in headers: <c>Ledger-Position</c> on every answer, and <c>Ledger-Min-Position</c> with
/// <c>Prefer: wait=S</c> on a query that wants to read what was written before.
/// </summary>
public static class Positions
{
    /// <summary>The response header: the position of the command's last event, or the one the view has reached.</summary>
    public const string Header = "Ledger-Position";

    /// <summary>The request header: the position that the view must have reached.</summary>
    public const string MinHeader = "Ledger-Min-Position";

    /// <summary>How long a query waits for its view unless asked otherwise.</summary>
    public static readonly TimeSpan DefaultWait = TimeSpan.FromSeconds(5);

    /// <summary>The longest wait; asking for more gets this.</summary>
    public static readonly TimeSpan MaxWait = TimeSpan.FromSeconds(30);

    /// <summary>Says in the answer which position it stands for.</summary>
    public static void Write(HttpResponse response, long position) => response.Headers[Header] = position.ToString(CultureInfo.InvariantCulture);

    /// <summary>Reads the position to wait for; null when none is asked for.</summary>
    public static bool TryReadMin(HttpRequest request, out long? position, [NotNullWhen(false)] out Rejection? rejection)
    {
        position = null;
        rejection = null;
        var header = request.Headers[MinHeader];
        if (header.Count == 0) return true;
        if (header is [{ } text] && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value))
        {
            position = value;
            return true;
        }
        rejection = Validation.Field(MinHeader, "must be a position: a whole number, 0 or more");
        return false;
    }

    /// <summary>How long the caller prefers to wait (RFC 7240). A preference that is not understood is no preference.</summary>
    public static TimeSpan WaitOf(HttpRequest request)
    {
        foreach (var line in request.Headers["Prefer"])
        {
            foreach (var preference in (line ?? "").Split([',', ';'], StringSplitOptions.TrimEntries))
            {
                if (preference.Split('=', 2, StringSplitOptions.TrimEntries) is not [var name, var value] || !name.Equals("wait", StringComparison.OrdinalIgnoreCase)) continue;
                if (!long.TryParse(value.Trim('"'), NumberStyles.None, CultureInfo.InvariantCulture, out var seconds)) break;
                return TimeSpan.FromSeconds(Math.Min(seconds, (long)MaxWait.TotalSeconds));
            }
        }
        return DefaultWait;
    }

    /// <summary>
    /// Waits until the view has reached the position that the request asks for, if it asks. <paramref name="reached"/> gets the
    /// position and the longest wait and says whether it was reached. The rejection when it was not, or the header is bad.
    /// </summary>
    public static async ValueTask<Rejection?> AwaitAsync(HttpContext context, Func<long, TimeSpan, CancellationToken, ValueTask<bool>> reached)
    {
        if (!TryReadMin(context.Request, out var position, out var rejection)) return rejection;
        if (position is not { } min) return null;
        var wait = WaitOf(context.Request);
        if (!StringValues.IsNullOrEmpty(context.Request.Headers["Prefer"]))
            context.Response.Headers["Preference-Applied"] = string.Create(CultureInfo.InvariantCulture, $"wait={wait.TotalSeconds}");
        return await reached(min, wait, context.RequestAborted)
            ? null
            : new("view-behind", string.Create(CultureInfo.InvariantCulture, $"The view did not reach position {min} within {wait.TotalSeconds} s."));
    }

    /// <summary>Makes the endpoints wait as <see cref="AwaitAsync"/> does, before they run.</summary>
    public static TBuilder WaitsForPosition<TBuilder>(this TBuilder builder, Func<long, TimeSpan, CancellationToken, ValueTask<bool>> reached)
        where TBuilder : IEndpointConventionBuilder =>
        builder.AddEndpointFilter(async (context, next) =>
            await AwaitAsync(context.HttpContext, reached) is { } rejection ? Problems.For(rejection) : await next(context));
}
