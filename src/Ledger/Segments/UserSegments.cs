using Ledger.EventStore;
using Ledger.Http;
using Ledger.Users;
using Npgsql;

namespace Ledger.Segments;

/// <summary>A segment a user is in. By a roll-out one is in since the percentage took the user's bucket in, and for good.</summary>
public sealed record UserSegment(string Segment, string Source, DateTimeOffset? JoinedAt, DateTimeOffset? ExpiresAt);

/// <summary>The segments a user is in at an instant, by slug.</summary>
public sealed record UserSegmentsAnswer(string UserId, DateTimeOffset At, IReadOnlyList<UserSegment> Segments);

/// <summary>Answers which segments a user is, was or will be in.</summary>
public static class UserSegments
{
    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/users/{userId}/segments", Handle)
        .Requires(Scopes.SegmentsRead).WithName("GetUserSegments").WithTags("Memberships").WithSummary("The segments a user is in, now, at an instant or as known at a position")
        .Produces<UserSegmentsAnswer>().ProducesQueryProblems();

    private static async Task<IResult> Handle(
        string userId, [AsParameters] AsOfQuery query, HttpContext http, Queries queries, UserSegmentsReader reader, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckUserId(userId, "userId");
        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        return await queries.AsOf(http, UserSegmentsReader.Names, query, async asOf =>
        {
            if (!asOf.IsNow)
            {
                http.AnswerPosition(await reader.Reached(cancellation));
                return Results.Ok(await reader.AsOf(http.TenantId(), userId, asOf, cancellation));
            }

            var (reached, answer) = await reader.Now(http.TenantId(), userId, asOf.At, cancellation);
            http.AnswerPosition(reached);
            return Results.Ok(answer);
        });
    }
}

/// <summary>Reads a user's segments.</summary>
public sealed class UserSegmentsReader(NpgsqlDataSource database, ViewDatabase snapshots, Views views, EventReader log)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Names = [MembershipsProjection.View, SegmentsProjection.View];

    /// <summary>The present: the user's open stays, out of their index alone, and the roll-outs.</summary>
    public async Task<(long Position, UserSegmentsAnswer Answer)> Now(
        string tenantId, string userId, DateTimeOffset now, CancellationToken cancellation)
    {
        var open = new Dictionary<long, Membership>();
        var rollouts = new List<RolledOutSegment>();
        var position = await snapshots.Read(
            tenantId, Names,
            [
                OpenOf(tenantId, userId),
                Sql.Command(
                    """
                    select slug, segment_id, salt, rollout_percent from segments
                    where tenant_id = $1 and deleted_at is null and rollout_percent > 0
                    """,
                    Sql.Value(tenantId)),
            ],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    open[reader.GetInt64(1)] = new Membership(
                        reader.GetString(0), reader.GetInt64(1), reader.GetInt64(2), reader.GetFieldValue<DateTimeOffset>(3),
                        reader.Maybe<DateTimeOffset?>(4), reader.GetString(5));
                }

                await reader.NextResultAsync(cancellation);
                while (await reader.ReadAsync(cancellation))
                {
                    rollouts.Add(new RolledOutSegment(reader.GetString(0), reader.GetInt64(1), reader.GetString(2), reader.GetDecimal(3)));
                }
            },
            cancellation);
        return (position, await Compose(tenantId, userId, new UserMemberships(open), rollouts, now, cancellation));
    }

    /// <summary>The statement that reads a user's open stays in live segments.</summary>
    internal static NpgsqlBatchCommand OpenOf(string tenantId, string userId) => Sql.Command(
        """
        select s.slug, m.segment_id, m.joined_position, m.joined_at, m.expires_at, m.source
        from memberships m
        cross join lateral (
          select * from segments s where s.tenant_id = m.tenant_id and s.segment_id = m.segment_id limit 1) s
        where m.tenant_id = $1 and m.user_id = $2 and s.deleted_at is null
        """,
        Sql.Value(tenantId), Sql.Value(userId));

    /// <summary>
    /// The past: the user's stream folded up to then (so it costs that user's events), with the segments and percentages of then.
    /// </summary>
    public async Task<UserSegmentsAnswer> AsOf(string tenantId, string userId, AsOf asOf, CancellationToken cancellation)
    {
        var state = await Fold(tenantId, userId, asOf, cancellation);
        var live = new HashSet<long>();
        var rollouts = new List<RolledOutSegment>();
        await using var batch = database.For(
            tenantId,
            """
            select s.slug, s.segment_id, s.salt, r.percent
            from segments s
            cross join lateral (
              select percent from rollouts r
              where r.tenant_id = s.tenant_id and r.segment_id = s.segment_id and r.since <= $2 and r.position <= $3
              order by r.position desc limit 1) r
            where s.tenant_id = $1 and s.created_at <= $2 and s.segment_id <= $3
              and (s.deleted_at is null or s.deleted_at > $2 or s.deleted_position > $3)
            """,
            Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt));
        await using (var reader = await batch.Read(cancellation))
        {
            while (await reader.ReadAsync(cancellation))
            {
                live.Add(reader.GetInt64(1));
                if (reader.GetDecimal(3) > 0)
                {
                    rollouts.Add(new RolledOutSegment(reader.GetString(0), reader.GetInt64(1), reader.GetString(2), reader.GetDecimal(3)));
                }
            }
        }

        state = new UserMemberships(state.Open.Where(m => live.Contains(m.Key)).ToDictionary());
        return await Compose(tenantId, userId, state, rollouts, asOf.At, cancellation, asOf.KnownAt);
    }

    /// <summary>A user's stays that had not ended by an event by then, straight from the log.</summary>
    public async Task<UserMemberships> Fold(string tenantId, string userId, AsOf asOf, CancellationToken cancellation)
    {
        var state = UserMemberships.None;
        await foreach (var recorded in log.ReadStream(new StreamKey(tenantId, User.StreamOf(userId)), cancellation: cancellation))
        {
            if (recorded.RecordedAt > asOf.At || recorded.Position > asOf.KnownAt)
            {
                break;
            }

            state = UserMemberships.Evolve(state, recorded);
        }

        return state;
    }

    /// <summary>
    /// The answer to a command: made of the state it has led to, or, when it had been stored before, of what was known right
    /// after it then, for which the views are waited for.
    /// </summary>
    public async Task<UserSegmentsAnswer> After(
        string tenantId, string userId, CommandResult result, MembershipsAfter? after, CancellationToken cancellation)
    {
        if (after is not null)
        {
            return await Compose(tenantId, userId, after.State, after.Rollouts, after.At, cancellation);
        }

        if (!await views.WaitFor(Names, result.Position, Positions.DefaultWait, cancellation))
        {
            throw new RefusedRequestException(new Rejection("view-behind", $"The command was stored at position {result.Position}, which its views have not reached yet."));
        }

        return await AsOf(tenantId, userId, new AsOf(result.RecordedAt, result.Position), cancellation);
    }

    /// <summary>The position that the views of a past answer have reached.</summary>
    public Task<long> Reached(CancellationToken cancellation) => snapshots.Position(Names, cancellation);

    /// <summary>Puts together what holds at an instant: explicit memberships first, then the roll-outs that take the user in.</summary>
    public async Task<UserSegmentsAnswer> Compose(
        string tenantId, string userId, UserMemberships state, IReadOnlyList<RolledOutSegment> rollouts, DateTimeOffset at,
        CancellationToken cancellation, long knownAt = long.MaxValue)
    {
        var segments = state.Open.Values.Where(m => m.HoldsAt(at)).ToDictionary(
            m => m.SegmentId, m => new UserSegment(m.Segment, m.Source, m.JoinedAt, m.ExpiresAt));
        var rolledOut = new List<(RolledOutSegment Segment, int Bucket)>();
        foreach (var rollout in rollouts)
        {
            var bucket = Rollout.BucketOf(rollout.Salt, userId);
            if (Rollout.Includes(rollout.Percent, bucket) && !segments.ContainsKey(rollout.SegmentId))
            {
                rolledOut.Add((rollout, bucket));
            }
        }

        if (rolledOut.Count > 0)
        {
            var since = await RolloutsSince(tenantId, rolledOut, at, knownAt, cancellation);
            foreach (var (rollout, _) in rolledOut)
            {
                segments[rollout.SegmentId] = new UserSegment(rollout.Slug, Membership.ByRollout, since.GetValueOrDefault(rollout.SegmentId), null);
            }
        }

        return new UserSegmentsAnswer(userId, at, [.. segments.Values.OrderBy(s => s.Segment, StringComparer.Ordinal)]);
    }

    /// <summary>Since when a roll-out takes a bucket in without a break.</summary>
    public async Task<DateTimeOffset?> RolloutSince(
        string tenantId, RolledOutSegment segment, int bucket, AsOf asOf, CancellationToken cancellation) =>
        (await RolloutsSince(tenantId, [(segment, bucket)], asOf.At, asOf.KnownAt, cancellation)).GetValueOrDefault(segment.SegmentId);

    /// <summary>Since when each roll-out takes a bucket in without a break: the first change after the last one that left it out.</summary>
    private async Task<Dictionary<long, DateTimeOffset?>> RolloutsSince(
        string tenantId, List<(RolledOutSegment Segment, int Bucket)> rollouts, DateTimeOffset at, long knownAt, CancellationToken cancellation)
    {
        await using var batch = database.For(
            tenantId,
            """
            select k.segment_id, (
              select min(r.since) from rollouts r
              where r.tenant_id = $1 and r.segment_id = k.segment_id and r.since <= $4 and r.position <= $5 and r.position > (
                select coalesce(max(o.position), 0) from rollouts o
                where o.tenant_id = $1 and o.segment_id = k.segment_id and o.since <= $4 and o.position <= $5 and o.percent * 100 <= k.bucket))
            from unnest($2, $3) k (segment_id, bucket)
            """,
            Sql.Value(tenantId), Sql.Longs(rollouts.Select(r => r.Segment.SegmentId)), Sql.Value(rollouts.Select(r => r.Bucket).ToArray()),
            Sql.Value(at), Sql.Value(knownAt));
        var since = new Dictionary<long, DateTimeOffset?>();
        await using var reader = await batch.Read(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            since[reader.GetInt64(0)] = reader.Maybe<DateTimeOffset?>(1);
        }

        return since;
    }
}
