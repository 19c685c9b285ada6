using System.Buffers;
using System.Globalization;
using System.Text.Unicode;

namespace Ledger.Benchmarks;

/// <summary>
/// A call of an AI service as a gateway reports it. All but its time follows from its number, so it can be made again: users by
/// Zipf's law, services evenly.
/// </summary>
internal readonly record struct GatewayCall(string Id, string UserId, int Service, DateTime OccurredAt, long InputTokens, long OutputTokens, int Team)
{
    /// <summary>Users there are.</summary>
    public const int Users = 10_000;

    /// <summary>Who reports them.</summary>
    public const string Source = "gateway-eu";

    private const int MaxBytes = 512;
    private static long _next;

    /// <summary>Seconds of speech, in thousandths; 0: none.</summary>
    public long AudioMilliseconds { get; init; }

    /// <summary>Pictures, which have no price; 0: none.</summary>
    public int Images { get; init; }

    /// <summary>A number never given before in this process.</summary>
    public static long NewNumber() => Interlocked.Increment(ref _next);

    /// <summary>The call of a number.</summary>
    public static GatewayCall Of(long number, DateTime occurredAt)
    {
        var bits = UserIds.Scatter(number);
        return new GatewayCall(
            $"req-{bits:x16}", UserOf(UserIds.Scatter(~number)), (int)(bits % GatewayServices.Count), occurredAt,
            1 + (long)((bits >> 8) & 0xFFF), 1 + (long)((bits >> 20) & 0x3FF), (int)((bits >> 30) & 0x7));
    }

    /// <summary>A user as frequent as those of calls are.</summary>
    public static string AUser() => UserOf((ulong)Random.Shared.NextInt64());

    /// <summary>Writes it as JSON.</summary>
    public void Write(IBufferWriter<byte> output)
    {
        var audio = AudioMilliseconds == 0 ? "" : $",\"audioSecond\":\"{Fixed.Text(AudioMilliseconds, 3)}\"";
        var images = Images == 0 ? "" : $",\"image\":{Images}";
        if (!Utf8.TryWrite(
            output.GetSpan(MaxBytes), CultureInfo.InvariantCulture,
            $$$"""{"id":"{{{Id}}}","source":"{{{Source}}}","userId":"{{{UserId}}}","serviceId":"{{{GatewayServices.IdOf(Service)}}}","occurredAt":"{{{OccurredAt:yyyy-MM-dd'T'HH:mm:ss.fff'Z'}}}","quantities":{"inputToken":{{{InputTokens}}},"outputToken":{{{OutputTokens}}}{{{audio}}}{{{images}}}},"tags":{"team":"team-{{{Team}}}"}}""",
            out var written))
        {
            throw new BenchFailedException($"A call takes more than {MaxBytes} bytes.");
        }

        output.Advance(written);
    }

    /// <summary>One call a line.</summary>
    public static byte[] Lines(IEnumerable<GatewayCall> calls)
    {
        var output = new ArrayBufferWriter<byte>(1 << 20);
        foreach (var call in calls)
        {
            call.Write(output);
            output.Write("\n"u8);
        }

        return output.WrittenSpan.ToArray();
    }

    /// <summary>One call, or a list of several.</summary>
    public static string Json(IReadOnlyList<GatewayCall> calls)
    {
        var output = new ArrayBufferWriter<byte>(MaxBytes * calls.Count);
        foreach (var call in calls)
        {
            output.Write(output.WrittenCount == 0 ? "["u8 : ","u8);
            call.Write(output);
        }

        output.Write("]"u8);
        var json = output.WrittenSpan;
        return System.Text.Encoding.UTF8.GetString(calls.Count == 1 ? json[1..^1] : json);
    }

    /// <summary>The user of a rank is as frequent as 1 / rank: the ranks' logarithms are spread evenly.</summary>
    private static string UserOf(ulong bits)
    {
        var rank = Math.Pow(Users + 1, (bits >> 11) / (double)(1UL << 53));
        return UserIds.Of(Math.Min(Users, (long)rank) - 1);
    }
}
