using Ledger.Http;

namespace Ledger.Segments;

/// <summary>
/// Whether a user is in a segment, and why or why not. <c>reason</c> is one of explicit, import, rollout, expired, left,
/// never-joined, segment-deleted. <c>bucket</c> (0 to 9999) is in when it lies below <c>rolloutPercent</c> × 100.
/// </summary>
public sealed record MembershipReason(
    string UserId, string Segment, DateTimeOffset At, bool Member, string Reason, int Bucket, decimal RolloutPercent,
    DateTimeOffset? JoinedAt, DateTimeOffset? ExpiresAt, DateTimeOffset? LeftAt);

/// <summary>Explains one user's membership of one segment.</summary>
public static class WhyMember
{
    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/users/{userId}/segments/{slug}", Handle)
        .Requires(Scopes.SegmentsRead).WithName("ExplainMembership").WithTags("Memberships").WithSummary("Why a user is, was or is not in a segment")
        .Produces<MembershipReason>().ProducesQueryProblems(404);

    private static Task<IResult> Handle(
        string userId, string slug, [AsParameters] AsOfQuery query, HttpContext http, Queries queries, WhyMemberReader reader,
        CancellationToken cancellation) =>
        queries.AsOf(http, UserSegmentsReader.Names, query, async asOf =>
        {
                var errors = new Validation();
            errors.CheckUserId(userId, "userId");
            errors.CheckSlug(slug, "slug");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var (reached, answer) = await reader.Explain(http.TenantId(), userId, slug, asOf, cancellation);
            http.AnswerPosition(reached);
            return answer is null ? Problems.For(SegmentRejections.NotFound(slug)) : Results.Ok(answer);
        });
}

/// <summary>Reads what an explanation needs.</summary>
public sealed class WhyMemberReader(ViewDatabase views, UserSegmentsReader segments)
{
    private sealed record Life(long Id, string Salt, decimal Percent, DateTimeOffset? DeletedAt);

    private sealed record Stay(string Source, DateTimeOffset JoinedAt, DateTimeOffset? ExpiresAt, DateTimeOffset? EndedAt, string? EndReason);

    /// <summary>Explains, or null when no segment had the slug by then. Reads the slug's last life and the user's last stay in it.</summary>
    public async Task<(long Position, MembershipReason? Answer)> Explain(
        string tenantId, string userId, string slug, AsOf asOf, CancellationToken cancellation)
    {
        Life? life = null;
        Stay? stay = null;
        var position = await views.Read(
            tenantId, UserSegmentsReader.Names,
            [
                Sql.Command(
                    $"""
                     select s.segment_id, s.salt, r.percent, case when s.deleted_at <= $2 and s.deleted_position <= $3 then s.deleted_at end
                     {LastLife}
                     """,
                    Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(slug)),
                Sql.Command(
                    $"""
                     select k.source, k.joined_at, case when t.renewed then t.term else k.expires_at end, k.ended_at, k.end_reason
                     from (select s.tenant_id, s.segment_id {LastLife}) s
                     cross join lateral (
                       select m.source, m.joined_at, m.joined_position, m.expires_at, null::timestamptz as ended_at, null::varchar as end_reason
                       from memberships m
                       where m.tenant_id = s.tenant_id and m.segment_id = s.segment_id and m.user_id = $5
                         and m.joined_position <= $3 and m.joined_at <= $2
                       union all
                       (select p.source, p.joined_at, p.joined_position, p.expires_at,
                               case when p.ended_position <= $3 and p.ended_at <= $2 then p.ended_at end,
                               case when p.ended_position <= $3 and p.ended_at <= $2 then p.end_reason end
                        from past_memberships p
                        where p.tenant_id = s.tenant_id and p.segment_id = s.segment_id and p.user_id = $5
                          and p.joined_position <= $3 and p.joined_at <= $2
                        order by p.joined_position desc limit 1)
                     ) k
                     left join lateral (
                       select true as renewed, t.expires_at as term from membership_terms t
                       where t.tenant_id = s.tenant_id and t.segment_id = s.segment_id and t.user_id = $5 and t.joined_position = k.joined_position
                         and (t.until_position > $3 or t.until_at > $2)
                       order by t.until_position limit 1) t on true
                     order by k.joined_position desc limit 1
                     """,
                    Sql.Value(tenantId), Sql.Value(asOf.At), Sql.Value(asOf.KnownAt), Sql.Value(slug), Sql.Value(userId)),
            ],
            async reader =>
            {
                if (await reader.ReadAsync(cancellation))
                {
                    life = new Life(reader.GetInt64(0), reader.GetString(1), reader.GetDecimal(2), reader.Maybe<DateTimeOffset?>(3));
                }

                await reader.NextResultAsync(cancellation);
                if (await reader.ReadAsync(cancellation))
                {
                    stay = new Stay(
                        reader.GetString(0), reader.GetFieldValue<DateTimeOffset>(1), reader.Maybe<DateTimeOffset?>(2),
                        reader.Maybe<DateTimeOffset?>(3), reader.Maybe<string>(4));
                }
            },
            cancellation);
        return (position, life is null ? null : await Explain(tenantId, userId, slug, asOf, life, stay, cancellation));
    }

    private async Task<MembershipReason> Explain(
        string tenantId, string userId, string slug, AsOf asOf, Life life, Stay? stay, CancellationToken cancellation)
    {
        var bucket = Rollout.BucketOf(life.Salt, userId);
        var rolledOut = life.DeletedAt is null && Rollout.Includes(life.Percent, bucket);
        var ranOut = stay is { EndedAt: null, ExpiresAt: { } expiresAt } && expiresAt <= asOf.At;
        var holds = stay is { EndedAt: null } && !ranOut && life.DeletedAt is null;
        var reason =
            life.DeletedAt is not null ? "segment-deleted"
            : holds ? stay!.Source
            : rolledOut ? Membership.ByRollout
            : stay is null ? "never-joined"
            : ranOut ? "expired"
            : stay.EndReason!;
        var joinedAt = holds || !rolledOut ? stay?.JoinedAt : await segments.RolloutSince(
            tenantId, new RolledOutSegment(slug, life.Id, life.Salt, life.Percent), bucket, asOf, cancellation);
        return new MembershipReason(
            userId, slug, asOf.At, holds || rolledOut, reason, bucket, life.Percent, joinedAt,
            holds || !rolledOut ? stay?.ExpiresAt : null,
            holds || rolledOut || stay is null ? null : stay.EndedAt ?? Earlier(ranOut ? stay.ExpiresAt : null, life.DeletedAt));
    }

    private static DateTimeOffset? Earlier(DateTimeOffset? one, DateTimeOffset? other) => one is null || other < one ? other : one;

    /// <summary>The last life of slug $4 that had begun by $2 and position $3, with the percentage in force then.</summary>
    private const string LastLife =
        """
        from segments s
        cross join lateral (
          select percent from rollouts r
          where r.tenant_id = s.tenant_id and r.segment_id = s.segment_id and r.since <= $2 and r.position <= $3
          order by r.position desc limit 1) r
        where s.tenant_id = $1 and s.slug = $4 and s.segment_id <= $3 and s.created_at <= $2
        order by s.segment_id desc limit 1
        """;
}
