using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Ledger.DemoGateway;

/// <summary>What is done with a message.</summary>
public enum Treatment
{
    /// <summary>It is accepted and answered with 200 and code 0.</summary>
    Accept,

    /// <summary>Answered with 200 and code 2, whenever it comes.</summary>
    Refuse,

    /// <summary>Answered with 500 and code 1; not accepted.</summary>
    Error,

    /// <summary>Answered with 429; not accepted.</summary>
    Busy,

    /// <summary>Answered with 500 and no body.</summary>
    Broken,

    /// <summary>Answered with 200 and no JSON.</summary>
    Garbage,

    /// <summary>Not answered.</summary>
    Hang,

    /// <summary>The connection is cut.</summary>
    Reset,
}

/// <summary>What the gateway does wrong, in percent of what it receives.</summary>
public sealed record Faults
{
    /// <summary>What each is, for people.</summary>
    public const string Help =
        """
          errorPercent             answered with 500 and code 1, not accepted
          busyPercent              answered with 429 and Retry-After: <retryAfterSeconds>, not accepted
          refusePercent            answered with 200 and code 2, at every attempt
          brokenPercent            answered with 500 and no body
          garbagePercent           answered with 200 and something that is no JSON
          hangPercent              not answered, until the caller gives up
          resetPercent             the connection is reset instead of an answer
          acceptedAnywayPercent    of broken, garbage, hang and reset, those that are accepted before they go wrong (50)
          retryAfterSeconds        what 429 says (1)
          latencyMilliseconds      how long each answer takes
          deduplicate              true: what was accepted is answered with code 0 when it comes again, and not accepted twice (false)
          seed                     what chance begins with (1)
        """;

    private static readonly JsonSerializerOptions s_json = new(JsonSerializerDefaults.Web) { UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow };

    public double ErrorPercent { get; init; }

    public double BusyPercent { get; init; }

    public double RefusePercent { get; init; }

    public double BrokenPercent { get; init; }

    public double GarbagePercent { get; init; }

    public double HangPercent { get; init; }

    public double ResetPercent { get; init; }

    public double AcceptedAnywayPercent { get; init; } = 50;

    public int RetryAfterSeconds { get; init; } = 1;

    public int LatencyMilliseconds { get; init; }

    public bool Deduplicate { get; init; }

    public long Seed { get; init; } = 1;

    /// <summary>Reads JSON; <paramref name="wrong"/> says what is wrong with it.</summary>
    public static bool TryRead(string json, out Faults faults, out string wrong)
    {
        (faults, wrong) = (new Faults(), "");
        try
        {
            faults = JsonSerializer.Deserialize<Faults>(json, s_json) ?? throw new JsonException("It must be an object.");
        }
        catch (JsonException exception)
        {
            wrong = exception.Message;
            return false;
        }

        double[] shares = [faults.ErrorPercent, faults.BusyPercent, faults.BrokenPercent, faults.GarbagePercent, faults.HangPercent, faults.ResetPercent];
        wrong = shares.Append(faults.RefusePercent).Append(faults.AcceptedAnywayPercent).Any(p => p is not (>= 0 and <= 100)) ? "A percentage is from 0 to 100."
            : shares.Sum() > 100 ? "All but refusePercent and acceptedAnywayPercent must be at most 100 together."
            : faults.RetryAfterSeconds is < 0 or > 86_400 || faults.LatencyMilliseconds is < 0 or > 600_000 ? "A time is from 0 to a day of seconds, or ten minutes of milliseconds."
            : "";
        return wrong.Length == 0;
    }

    /// <summary>What happens to a message at its first, second … attempt, and whether it is accepted then.</summary>
    public (Treatment Treatment, bool IsAccepted) Of(string id, int attempt)
    {
        if (Chance(id, 0) < RefusePercent)
        {
            return (Treatment.Refuse, false);
        }

        var left = Chance(id, attempt);
        foreach (var (share, treatment, mayBeAccepted) in ((double, Treatment, bool)[])[
            (ErrorPercent, Treatment.Error, false), (BusyPercent, Treatment.Busy, false), (BrokenPercent, Treatment.Broken, true),
            (GarbagePercent, Treatment.Garbage, true), (HangPercent, Treatment.Hang, true), (ResetPercent, Treatment.Reset, true)])
        {
            if (left < share)
            {
                return (treatment, mayBeAccepted && Chance(id, -attempt) < AcceptedAnywayPercent);
            }

            left -= share;
        }

        return (Treatment.Accept, true);
    }

    public override string ToString() => JsonSerializer.Serialize(this, s_json);

    private double Chance(string id, int draw) =>
        BinaryPrimitives.ReadUInt64BigEndian(SHA256.HashData(Encoding.UTF8.GetBytes($"{Seed} {draw} {id}"))) / Math.Pow(2, 64) * 100;
}
