using System.Buffers.Binary;
using System.Buffers.Text;
using System.Collections.ObjectModel;
using System.Text;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Services;

namespace Ledger.Usage;

/// <summary>A call as a service reports it.</summary>
/// <param name="UserId">Who called.</param>
/// <param name="ServiceId">What was called.</param>
/// <param name="Id">What the source knows the call by. One is made when there is none, and the call is not deduplicated.</param>
/// <param name="Source">Who reports it; the credential's name unless given.</param>
/// <param name="OccurredAt">When it happened; now unless given.</param>
/// <param name="Quantities">How much of each unit it used; <c>call</c> is 1 unless given.</param>
/// <param name="Tags">Whatever else it should be found by.</param>
public sealed record CallBody(
    string UserId, string ServiceId, string? Id = null, string? Source = null, DateTimeOffset? OccurredAt = null,
    IReadOnlyDictionary<string, decimal>? Quantities = null, IReadOnlyDictionary<string, string>? Tags = null);

/// <summary>A reported call that is well-formed, its quantities and tags in order of their names, and a digest of what was reported.</summary>
public sealed record ReportedCall(
    string? Id, string? Source, string UserId, string ServiceId, DateTimeOffset? OccurredAt,
    IReadOnlyDictionary<string, decimal> Quantities, IReadOnlyDictionary<string, string>? Tags)
{
    private const int FingerprintBytes = 16;

    /// <summary>What its fields are called where it was read, for what is found wrong with it later.</summary>
    public CallFields Fields { get; init; } = CallFields.Plain;

    /// <summary>Checks a body; null when something is wrong with it, which <paramref name="errors"/> then says, field by field.</summary>
    /// <param name="body">The call.</param>
    /// <param name="errors">Where what is wrong is noted.</param>
    /// <param name="path">What stands before the names of its fields.</param>
    /// <param name="fields">Their names; those of a plain call unless given.</param>
    public static ReportedCall? From(CallBody body, Validation errors, string path = "", CallFields? fields = null)
    {
        fields ??= CallFields.Plain;
        var valid = body.Id is null || TextId.IsValid(body.Id, Call.MaxIdCharacters) || Wrong(fields.Id, Call.IdRule);
        valid &= body.Source is null || TextId.IsValid(body.Source, Call.MaxIdCharacters) || Wrong(fields.Source, Call.IdRule);
        valid &= Ledger.UserId.IsValid(body.UserId) || Wrong(fields.UserId, Ledger.UserId.Rule);
        valid &= Slug.IsValid(body.ServiceId) || Wrong(fields.ServiceId, Slug.Rule);
        valid &= body.OccurredAt is null || body.OccurredAt >= Call.MinOccurredAt || Wrong(fields.OccurredAt, $"must not be before {Rfc3339.Format(Call.MinOccurredAt)}");
        valid &= body.Quantities is not { Count: > Call.MaxQuantities } || Wrong(fields.Quantities, $"must be at most {Call.MaxQuantities}");
        foreach (var (unit, quantity) in body.Quantities ?? Nothing<decimal>())
        {
            valid &= Unit.IsValid(unit) || Wrong($"{fields.Quantities}.{unit}", Unit.Rule);
            valid &= Quantity.IsValid(quantity) || Wrong($"{fields.Quantities}.{unit}", Quantity.Rule);
        }

        valid &= (body.Quantities?.Keys.Sum(unit => unit.Length) ?? 0) <= Call.MaxUnitCharsTogether
            || Wrong(fields.Quantities, $"must have names of at most {Call.MaxUnitCharsTogether} characters together");
        valid &= body.Tags is not { Count: > Call.MaxTags } || Wrong(fields.Tags, $"must be at most {Call.MaxTags}");
        foreach (var (name, value) in body.Tags ?? Nothing<string>())
        {
            valid &= name.Length is > 0 and <= Call.MaxTagNameChars || Wrong($"{fields.Tags}.{name}", $"must have a name of 1 to {Call.MaxTagNameChars} characters");
            valid &= value.Length <= Call.MaxTagValueChars || Wrong($"{fields.Tags}.{name}", $"must have at most {Call.MaxTagValueChars} characters");
        }

        return valid ? new ReportedCall(body.Id, body.Source, body.UserId, body.ServiceId, body.OccurredAt, WithCall(body.Quantities), Sorted(body.Tags)) { Fields = fields } : null;

        // A field gets its whole name only when it is wrong: every call comes by here.
        bool Wrong(string field, string message) => errors.Check(false, path + field, message);
    }

    /// <summary>
    /// The first half of SHA-256 over what was reported, its identity apart, in base64url: whatever the order of the keys, the
    /// spelling of numbers and times, and whether the one call was named. When it happened counts only when that was said.
    /// </summary>
    public string Fingerprint()
    {
        var length = Size(UserId) + Size(ServiceId) + 3 * sizeof(long);
        foreach (var (unit, _) in Quantities)
        {
            length += Size(unit) + sizeof(int) + Decimals.MaxChars;
        }

        foreach (var (name, value) in Tags ?? Nothing<string>())
        {
            length += Size(name) + Size(value);
        }

        var buffer = length <= 1_024 ? stackalloc byte[1_024] : new byte[length];
        var written = 0;
        Write(buffer, ref written, UserId);
        Write(buffer, ref written, ServiceId);
        Write(buffer, ref written, OccurredAt?.UtcTicks ?? -1);
        Write(buffer, ref written, Quantities.Count);
        Span<byte> number = stackalloc byte[Decimals.MaxChars];
        foreach (var (unit, quantity) in Quantities)
        {
            Write(buffer, ref written, unit);
            var digits = Decimals.Format(quantity, number);
            BinaryPrimitives.WriteInt32BigEndian(buffer[written..], digits);
            number[..digits].CopyTo(buffer[(written + sizeof(int))..]);
            written += sizeof(int) + digits;
        }

        Write(buffer, ref written, Tags?.Count ?? 0);
        foreach (var (name, value) in Tags ?? Nothing<string>())
        {
            Write(buffer, ref written, name);
            Write(buffer, ref written, value);
        }

        Span<byte> digest = stackalloc byte[Sha256.Bytes];
        Sha256.Hash(buffer[..written], digest);
        return Base64Url.EncodeToString(digest[..FingerprintBytes]);
    }

    /// <summary>The fields in which it differs from what was recorded under its identity; none when only one of the two said when it happened.</summary>
    public IEnumerable<string> DifferencesFrom(CallRecorded recorded)
    {
        if (UserId != recorded.UserId)
        {
            yield return Fields.UserId;
        }

        if (ServiceId != recorded.ServiceId)
        {
            yield return Fields.ServiceId;
        }

        if (OccurredAt is { } occurredAt && occurredAt != recorded.OccurredAt)
        {
            yield return Fields.OccurredAt;
        }

        foreach (var unit in Differing(Quantities, recorded.Quantities))
        {
            yield return $"{Fields.Quantities}.{unit}";
        }

        foreach (var tag in Differing(Tags ?? Nothing<string>(), recorded.Tags ?? Nothing<string>()))
        {
            yield return $"{Fields.Tags}.{tag}";
        }
    }

    private static IEnumerable<string> Differing<T>(IReadOnlyDictionary<string, T> one, IReadOnlyDictionary<string, T> other) =>
        one.Keys.Union(other.Keys).Order(StringComparer.Ordinal)
            .Where(k => one.ContainsKey(k) != other.ContainsKey(k) || !EqualityComparer<T>.Default.Equals(one[k], other[k]));

    private static int Size(string text) => sizeof(int) + Encoding.UTF8.GetMaxByteCount(text.Length);

    private static void Write(Span<byte> buffer, ref int written, string text)
    {
        var length = Encoding.UTF8.GetBytes(text, buffer[(written + sizeof(int))..]);
        BinaryPrimitives.WriteInt32BigEndian(buffer[written..], length);
        written += sizeof(int) + length;
    }

    private static void Write(Span<byte> buffer, ref int written, long number)
    {
        BinaryPrimitives.WriteInt64BigEndian(buffer[written..], number);
        written += sizeof(long);
    }

    private static Dictionary<string, decimal> WithCall(IReadOnlyDictionary<string, decimal>? quantities)
    {
        var names = new List<string>(quantities?.Keys ?? []);
        if (quantities is null || !quantities.ContainsKey(Unit.Call))
        {
            names.Add(Unit.Call);
        }

        names.Sort(StringComparer.Ordinal);
        var sorted = new Dictionary<string, decimal>(names.Count, StringComparer.Ordinal);
        foreach (var name in names)
        {
            sorted.Add(name, quantities is not null && quantities.TryGetValue(name, out var quantity) ? quantity : 1);
        }

        return sorted;
    }

    private static Dictionary<string, string>? Sorted(IReadOnlyDictionary<string, string>? tags) =>
        tags is not { Count: > 0 } ? null : new Dictionary<string, string>(tags.OrderBy(t => t.Key, StringComparer.Ordinal), StringComparer.Ordinal);

    private static ReadOnlyDictionary<string, T> Nothing<T>() => ReadOnlyDictionary<string, T>.Empty;
}
