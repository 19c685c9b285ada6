using System.Buffers.Binary;
using System.Buffers.Text;
using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Http;

/// <summary>One page of a list.</summary>
/// <param name="Items">At most <c>limit</c> items.</param>
/// <param name="NextCursor">What to send as <c>cursor</c> for the next page; null on the last.</param>
public sealed record Page<T>(IReadOnlyList<T> Items, string? NextCursor);

/// <summary>Where in a list a caller is. Bind it with <c>[AsParameters]</c>.</summary>
/// <param name="Limit">At most so many items: 1 to 1000, 100 unless given.</param>
/// <param name="Cursor">The <c>nextCursor</c> of the page before; opaque.</param>
public readonly record struct PageQuery([FromQuery(Name = "limit")] int? Limit, [FromQuery(Name = "cursor")] string? Cursor);

/// <summary>A page asked for, understood: how many items, and after which key.</summary>
public sealed class ListQuery<TKey> where TKey : notnull
{
    private readonly string _kind;
    private readonly string?[] _filter;

    internal ListQuery(string kind, string?[] filter, int limit, TKey? after, bool isFirst) =>
        (_kind, _filter, Limit, After, IsFirst) = (kind, filter, limit, after, isFirst);

    /// <summary>At most so many items.</summary>
    public int Limit { get; }

    /// <summary>How many rows to read: one more, to know whether there is a next page.</summary>
    public int Fetch => Limit + 1;

    /// <summary>The key of the last item of the page before; default on the first page.</summary>
    public TKey? After { get; }

    /// <summary>Whether there was no cursor.</summary>
    public bool IsFirst { get; }

    /// <summary>The page made of up to <see cref="Fetch"/> rows.</summary>
    public Page<T> Page<T>(IReadOnlyList<T> rows, Func<T, TKey> key) =>
        rows.Count <= Limit
            ? new(rows, null)
            : new([.. rows.Take(Limit)], Lists.Cursor(_kind, _filter, key(rows[Limit - 1])));
}

/// <summary>
/// Pages by key: a cursor holds the key of the last item and a fingerprint of the list and its filter, so that a cursor
/// of another list, or of the same list filtered otherwise, is refused instead of skipping items. It is no secret and no proof.
/// </summary>
public static class Lists
{
    /// <summary>The length of a page unless asked otherwise.</summary>
    public const int DefaultLimit = 100;

    /// <summary>The longest page.</summary>
    public const int MaxLimit = 1000;

    /// <summary>The longest cursor that is looked at.</summary>
    public const int MaxCursorChars = 4096;

    private const int FingerprintBytes = 8;

    /// <summary>
    /// Reads <paramref name="query"/> for the list <paramref name="kind"/>, whose items are ordered by <typeparamref name="TKey"/>
    /// (a number, a string, a record); <paramref name="filter"/> is whatever else decides which items are in it.
    /// </summary>
    public static bool TryRead<TKey>(
        PageQuery query, string kind, string?[] filter, [NotNullWhen(true)] out ListQuery<TKey>? list, [NotNullWhen(false)] out Rejection? rejection)
        where TKey : notnull
    {
        list = null;
        var limit = query.Limit ?? DefaultLimit;
        if (limit is < 1 or > MaxLimit)
        {
            rejection = Validation.Field("limit", $"must be from 1 to {MaxLimit}");
            return false;
        }
        if (string.IsNullOrEmpty(query.Cursor))
        {
            list = new(kind, filter, limit, default, isFirst: true);
            rejection = null;
            return true;
        }
        if (!TryReadCursor<TKey>(query.Cursor, kind, filter, out var after))
        {
            rejection = Validation.Field("cursor", "is not a cursor of this list with this filter: begin again without it", "invalid-cursor");
            return false;
        }
        list = new(kind, filter, limit, after, isFirst: false);
        rejection = null;
        return true;
    }

    /// <summary>The cursor that continues after <paramref name="key"/>.</summary>
    public static string Cursor<TKey>(string kind, string?[] filter, TKey key) =>
        Base64Url.EncodeToString([.. Fingerprint(kind, filter), .. JsonSerializer.SerializeToUtf8Bytes(key, Json.Options)]);

    private static bool TryReadCursor<TKey>(string cursor, string kind, string?[] filter, [NotNullWhen(true)] out TKey? key)
    {
        key = default;
        if (cursor.Length > MaxCursorChars || !Base64Url.IsValid(cursor)) return false;
        var bytes = Base64Url.DecodeFromChars(cursor);
        return bytes.Length > FingerprintBytes
            && bytes.AsSpan(0, FingerprintBytes).SequenceEqual(Fingerprint(kind, filter))
            && Json.TryRead(bytes.AsSpan(FingerprintBytes), out key, out _);
    }

    // Each part with its length before it, so that no two filters run together; -1 is null.
    private static byte[] Fingerprint(string kind, string?[] filter)
    {
        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        Span<byte> length = stackalloc byte[4];
        foreach (var part in (string?[])[kind, .. filter])
        {
            var bytes = part is null ? null : Encoding.UTF8.GetBytes(part);
            BinaryPrimitives.WriteInt32BigEndian(length, bytes?.Length ?? -1);
            hash.AppendData(length);
            hash.AppendData(bytes.AsSpan());
        }
        return hash.GetHashAndReset()[..FingerprintBytes];
    }
}
