namespace Ledger.Segments;

/// <summary>Why commands on segments are refused.</summary>
public static class SegmentRejections
{
    /// <summary>The slug never was a segment's, or is a deleted one's.</summary>
    public static Rejection NotFound(string slug) => new("segment-not-found", $"There is no segment '{slug}'.");

    /// <summary>The slug is a live segment's.</summary>
    public static Rejection Exists(string slug) => new("segment-exists", $"There is a segment '{slug}' already.");
}
