using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Microsoft.Net.Http.Headers;

namespace Ledger.Http;

/// <summary>Strong entity tags: the version of the stream behind a resource, <c>"3"</c>.</summary>
public static class ETags
{
    /// <summary>The tag of a version.</summary>
    public static string Format(long version) => string.Create(CultureInfo.InvariantCulture, $"\"{version}\"");

    /// <summary>Says in the answer which version it is of.</summary>
    public static void Write(HttpResponse response, long version) => response.Headers.ETag = Format(version);

    /// <summary>Whether the caller has this version already (<c>If-None-Match</c>), so that 304 is the answer to a GET.</summary>
    public static bool IsKnown(HttpRequest request, long version) =>
        request.Headers.IfNoneMatch.Count > 0
        && EntityTagHeaderValue.TryParseList(request.Headers.IfNoneMatch, out var tags)
        && tags.Any(tag => tag.Equals(EntityTagHeaderValue.Any) || tag.Compare(new(Format(version)), useStrongComparison: false));
}

/// <summary>The versions that a caller's <c>If-Match</c> allows to be changed.</summary>
public readonly struct IfMatch
{
    private readonly long[]? _versions;

    private IfMatch(long[]? versions, bool anyVersion) => (_versions, AnyVersion) = (versions, anyVersion);

    /// <summary>Whether the header was there at all.</summary>
    public bool IsPresent => _versions is not null || AnyVersion;

    /// <summary>Whether it was <c>*</c>: whatever the version, but it must exist.</summary>
    public bool AnyVersion { get; }

    /// <summary>The version, when exactly one is allowed.</summary>
    public long? Only => _versions is [var version] ? version : null;

    /// <summary>Whether a resource in <paramref name="version"/> may be changed; 0 stands for one that does not exist. True without the header.</summary>
    public bool Allows(long version) => Allows(version, version > 0);

    /// <summary>The same for a resource that may exist without a version of its own.</summary>
    public bool Allows(long version, bool exists) => _versions is { } versions ? versions.Contains(version) : !AnyVersion || exists;

    /// <summary>The refusal of a version that is not allowed.</summary>
    public static Rejection Failed(long version) => Failed(version, version > 0);

    /// <summary>The same for a resource that may exist without a version of its own.</summary>
    public static Rejection Failed(long version, bool exists) =>
        new("precondition-failed", exists ? $"The resource is in version {ETags.Format(version)}, which If-Match does not name." : "The resource does not exist.");

    /// <summary>Reads the header. Weak tags and tags that are not ours are well-formed and match nothing.</summary>
    public static bool TryRead(HttpRequest request, out IfMatch ifMatch, [NotNullWhen(false)] out Rejection? rejection)
    {
        ifMatch = default;
        rejection = null;
        var header = request.Headers.IfMatch;
        if (header.Count == 0) return true;
        if (EntityTagHeaderValue.TryParseStrictList(header, out var tags) && tags.Count > 0)
        {
            var anyVersion = tags.Any(tag => tag.Equals(EntityTagHeaderValue.Any));
            if (!anyVersion || tags.Count == 1)
            {
                ifMatch = anyVersion ? new(null, true) : new([.. tags.Select(VersionOf).OfType<long>()], false);
                return true;
            }
        }
        rejection = Validation.Field(HeaderNames.IfMatch, "is not a list of entity tags, such as \"3\", nor *");
        return false;
    }

    private static long? VersionOf(EntityTagHeaderValue tag)
    {
        var text = tag.Tag.AsSpan().Trim('"');
        return !tag.IsWeak && long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var version) && (text[0] != '0' || text.Length == 1)
            ? version
            : null;
    }
}
