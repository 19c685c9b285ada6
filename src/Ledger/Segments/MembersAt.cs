using Ledger.EventStore;
using Npgsql;

namespace Ledger.Segments;

/// <summary>A life of a segment, with the share of all users that it took in.</summary>
public sealed record SegmentAt(string Slug, long Id, string Salt, decimal Percent)
{
    /// <summary>Whether its roll-out takes a user in.</summary>
    public bool RollsIn(string userId) => Percent > 0 && Rollout.Includes(Percent, Rollout.BucketOf(Salt, userId));
}

/// <summary>
/// Who was in segments at an instant, as far as was known at a position, for other features that work through many users in the
/// background. Pages are ranges of the primary keys of stays; what a page costs does not depend on how many there are or were.
/// </summary>
public sealed class MembersAt(BackgroundDatabase background)
{
    /// <summary>The views it rests on.</summary>
    public static readonly IReadOnlyList<string> Views = SegmentCatalogueReader.Views;

    /// <summary>The segments that had these slugs then, with their percentages; a slug that had none is left out.</summary>
    public async Task<IReadOnlyList<SegmentAt>> Segments(string tenantId, IReadOnlyCollection<string> slugs, AsOf asOf, CancellationToken cancellation)
    {
        await using var command = background.Source.Command(
            $"""
             select s.slug, s.segment_id, s.salt, r.percent
             from unnest($4) k (slug)
             cross join lateral (
               select * from segments s where s.tenant_id = $1 and s.slug = k.slug and {SegmentMembersReader.KnownSegment}
               order by s.segment_id desc limit 1) s
             cross join lateral (
               select percent from rollouts r
               where r.tenant_id = s.tenant_id and r.segment_id = s.segment_id and r.since <= $2 and r.position <= $3
               order by r.position desc limit 1) r
             """,
            Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Texts(slugs));
        var segments = new List<SegmentAt>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            segments.Add(new SegmentAt(reader.GetString(0), reader.GetInt64(1), reader.GetString(2), reader.GetDecimal(3)));
        }

        return segments;
    }

    /// <summary>The next users with a stay in one of the segments, by id. Roll-outs are a rule and have no list.</summary>
    public async Task<IReadOnlyList<string>> Next(
        string tenantId, IReadOnlyCollection<SegmentAt> segments, AsOf asOf, string after, int limit, CancellationToken cancellation)
    {
        await using var batch = background.Source.CreateBatch();
        batch.BatchCommands.Add(NextOf(tenantId, [.. segments.Select(s => s.Id)], asOf, after, limit));
        var users = new List<string>(limit);
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            users.Add(reader.GetString(0));
        }

        return users;
    }

    /// <summary>The statement that reads such a page.</summary>
    internal static NpgsqlBatchCommand NextOf(string tenantId, IReadOnlyCollection<long> segmentIds, AsOf asOf, string after, int limit) => Sql.Command(
        $"""
         with recursive {SegmentMembersReader.Ended("$4")}
         select distinct m.user_id
         from (select $1::varchar as tenant_id, k.segment_id from unnest($4) k (segment_id)) s
         cross join lateral ({SegmentMembersReader.KnownStays("and m.user_id > $5 order by m.user_id limit $6")}) m
         order by m.user_id limit $6
         """,
        Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Longs(segmentIds), Sql.Value(after), Sql.Value(limit));

    /// <summary>Which of the users were in the segment, by a stay or by its roll-out: a look into the primary key each.</summary>
    public async Task<IReadOnlySet<string>> Among(
        string tenantId, SegmentAt segment, IReadOnlyCollection<string> userIds, AsOf asOf, CancellationToken cancellation)
    {
        var members = new HashSet<string>(userIds.Where(segment.RollsIn), StringComparer.Ordinal);
        await using var command = background.Source.Command(
            $"""
             select k.user_id
             from (select $1::varchar as tenant_id, $4::bigint as segment_id) s
             cross join unnest($5) k (user_id)
             where exists ({SegmentMembersReader.KnownStaysOf("k.user_id")})
             """,
            Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(segment.Id), Sql.Texts(userIds.Where(u => !members.Contains(u))));
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            members.Add(reader.GetString(0));
        }

        return members;
    }
}
