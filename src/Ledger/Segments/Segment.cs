using Ledger.EventStore;

namespace Ledger.Segments;

// These names and shapes are stored, in the stream segment-{slug}.

/// <summary>A segment came to be. A roll-out takes in the users whose bucket, under <paramref name="Salt"/>, lies below the percentage.</summary>
public sealed record SegmentCreated(string Slug, string? Description, decimal RolloutPercent, string Salt, TimeSpan? DefaultTtl);

/// <summary>A segment got another description.</summary>
public sealed record SegmentDescribed(string? Description);

/// <summary>Who joins from now on without saying for how long stays for this long; null: for good.</summary>
public sealed record DefaultTtlChanged(TimeSpan? DefaultTtl);

/// <summary>From now on this share of all users is in the segment.</summary>
public sealed record RolloutChanged(decimal RolloutPercent);

/// <summary>A segment was deleted: every membership of it ended at that instant.</summary>
public sealed record SegmentDeleted;

/// <summary>A segment as its stream tells it. A slug can live several times; <paramref name="Id"/> names the life: the position of its SegmentCreated.</summary>
public sealed record Segment(
    string Slug, long Id, string? Description, decimal RolloutPercent, string Salt, TimeSpan? DefaultTtl,
    DateTimeOffset CreatedAt, DateTimeOffset? DeletedAt, long Version)
{
    /// <summary>The longest time to live, whether default or of one membership: 100 years.</summary>
    public static readonly TimeSpan MaxTtl = TimeSpan.FromDays(36_525);

    /// <summary>Characters of a description.</summary>
    public const int MaxDescriptionLength = 1_000;

    /// <summary>No segment has this slug: its address belongs to the list of sizes.</summary>
    public const string ReservedSlug = "counts";

    /// <summary>The kind of stream, as in <c>mt_streams.type</c>.</summary>
    public const string StreamType = "segment";

    /// <summary>Whether it can be joined.</summary>
    public bool IsLive => Id != 0 && DeletedAt is null;

    /// <summary>A slug that no segment ever had.</summary>
    public static Segment Initial(string slug) => new(slug, 0, null, 0, slug, null, default, null, 0);

    /// <summary>The stream of a slug.</summary>
    public static string StreamOf(string slug) => $"segment-{slug}";

    /// <summary>The slug a stream belongs to.</summary>
    public static string SlugOf(string streamId) => streamId["segment-".Length..];

    /// <summary>Folds one event of the stream.</summary>
    public static Segment Evolve(Segment segment, RecordedEvent recorded)
    {
        segment = segment with { Version = recorded.Version };
        return recorded.Data switch
        {
            SegmentCreated created => new Segment(
                created.Slug, recorded.Position, created.Description, created.RolloutPercent, created.Salt, created.DefaultTtl,
                recorded.RecordedAt, null, recorded.Version),
            SegmentDescribed described => segment with { Description = described.Description },
            DefaultTtlChanged changed => segment with { DefaultTtl = changed.DefaultTtl },
            RolloutChanged changed => segment with { RolloutPercent = changed.RolloutPercent },
            SegmentDeleted => segment with { DeletedAt = recorded.RecordedAt },
            _ => throw new InvalidOperationException($"{recorded.Type} does not belong into the stream of a segment."),
        };
    }
}
