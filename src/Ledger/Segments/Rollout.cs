using System.Buffers.Binary;
using System.Text;
using Ledger.EventStore;

namespace Ledger.Segments;

/// <summary>
/// Deterministic percentage roll-outs: a user is in when its bucket lies below the percentage. The bucket depends on salt and
/// user alone, so the same user is always in, raising the percentage keeps everyone who was in, and nothing is stored per user.
/// </summary>
public static class Rollout
{
    /// <summary>Buckets: a percentage has two decimals.</summary>
    public const int Buckets = 10_000;

    /// <summary>
    /// The user's bucket, 0 to 9999: the first four bytes, big-endian, of SHA-256 over the salt, a zero byte and the user id
    /// (both UTF-8), modulo 10 000.
    /// </summary>
    public static int BucketOf(string salt, string userId)
    {
        var length = Encoding.UTF8.GetByteCount(salt) + 1 + Encoding.UTF8.GetByteCount(userId);
        Span<byte> input = length <= 1024 ? stackalloc byte[length] : new byte[length];
        var saltLength = Encoding.UTF8.GetBytes(salt, input);
        input[saltLength] = 0;
        Encoding.UTF8.GetBytes(userId, input[(saltLength + 1)..]);
        Span<byte> digest = stackalloc byte[Sha256.Bytes];
        Sha256.Hash(input, digest);
        return (int)(BinaryPrimitives.ReadUInt32BigEndian(digest) % Buckets);
    }

    /// <summary>Whether a bucket is in at a percentage from 0 to 100.</summary>
    public static bool Includes(decimal percent, int bucket) => bucket < percent * (Buckets / 100);

    /// <summary>Whether a percentage is one: 0 to 100 with at most two decimals.</summary>
    public static bool IsPercent(decimal percent) => percent is >= 0 and <= 100 && decimal.Round(percent, 2) == percent;
}
