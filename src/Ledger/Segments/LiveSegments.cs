namespace Ledger.Segments;

/// <summary>Whether segments are there, for the commands of other features: from their streams, so that who has just made one finds it.</summary>
public sealed class LiveSegments(SegmentLoader segments)
{
    /// <summary>The first of the slugs that is no live segment's; null when all are.</summary>
    public async Task<string?> FirstMissing(string tenantId, IReadOnlyList<string> slugs, CancellationToken cancellation) =>
        (await segments.Load(tenantId, slugs, fresh: true, cancellation)).FirstOrDefault(s => !s.IsLive)?.Slug;
}
