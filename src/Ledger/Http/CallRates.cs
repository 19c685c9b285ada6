using System.Net;
using System.Net.Sockets;
using System.Threading.RateLimiting;

namespace Ledger.Http;

/// <summary>
/// A token bucket a caller: requests a second, and so many more at once when the caller was silent before. A request is one token,
/// however many lines it streams, for these have limits of their own. Each node counts for itself.
/// </summary>
public sealed class CallRates : IAsyncDisposable
{
    /// <summary>Requests of one caller a second on a node that others than this machine can reach, unless set.</summary>
    public const int DefaultPerSecond = 5_000;

    /// <summary>The highest rate that can be set; none is 0.</summary>
    public const int MaxPerSecond = 1_000_000;

    /// <summary>How many seconds' worth of requests a caller may send at once, unless set.</summary>
    public const int DefaultBurstSeconds = 2;

    private readonly PartitionedRateLimiter<HttpContext>? _buckets;

    /// <summary>Buckets that hold <paramref name="burst"/> and are filled by <paramref name="perSecond"/>; with 0 nobody is counted.</summary>
    public CallRates(int perSecond, int burst)
    {
        if (perSecond == 0)
        {
            return;
        }

        var options = new TokenBucketRateLimiterOptions
        {
            TokenLimit = burst,
            TokensPerPeriod = 1,
            ReplenishmentPeriod = TimeSpan.FromSeconds(1.0 / perSecond),
            QueueLimit = 0,
        };
        Func<Counted, TokenBucketRateLimiterOptions> sameForAll = _ => options;
        // A bucket that has been full for a while is let go of, so there are as many as there are callers.
        _buckets = PartitionedRateLimiter.Create<HttpContext, Counted>(http => RateLimitPartition.GetTokenBucketLimiter(Of(http), sameForAll));
    }

    /// <summary>Takes a token for a request; the refusal when the caller has none left.</summary>
    public Rejection? Take(HttpContext http)
    {
        if (_buckets is null)
        {
            return null;
        }

        using var lease = _buckets.AttemptAcquire(http);
        return lease.IsAcquired ? null : new("rate-limited", "There were more requests than this caller may send.")
        {
            RetryAfter = lease.TryGetMetadata(MetadataName.RetryAfter, out var wait) ? wait : null,
        };
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => _buckets?.DisposeAsync() ?? default;

    /// <summary>
    /// Who is counted: the credential where the request has one, else the address it comes from. Of IPv6 it is the network, of
    /// which one machine has all addresses.
    /// </summary>
    internal static Counted Of(HttpContext http)
    {
        if (http.Features.Get<Caller>() is { } caller && caller != Caller.Anonymous)
        {
            return new(caller.TenantId, caller.Name, null);
        }

        var address = http.Connection.RemoteIpAddress;
        if (address is { IsIPv4MappedToIPv6: true })
        {
            address = address.MapToIPv4();
        }
        else if (address is { AddressFamily: AddressFamily.InterNetworkV6 })
        {
            Span<byte> bytes = stackalloc byte[16];
            address.TryWriteBytes(bytes, out _);
            bytes[8..].Clear();
            address = new IPAddress(bytes);
        }

        return new(null, null, address);
    }

    /// <summary>The key of a bucket.</summary>
    internal readonly record struct Counted(string? TenantId, string? Name, IPAddress? Address);
}

/// <summary>Counting over HTTP.</summary>
public static class CallRatesOfRequests
{
    /// <summary>Counts every request but those to <paramref name="free"/>, and refuses what is too many.</summary>
    public static WebApplication UseCallRates(this WebApplication app, PathString free)
    {
        var rates = app.Services.GetRequiredService<CallRates>();
        app.Use((context, next) => !context.Request.Path.StartsWithSegments(free) && rates.Take(context) is { } rejection
            ? Problems.For(rejection).ExecuteAsync(context)
            : next(context));
        return app;
    }
}
