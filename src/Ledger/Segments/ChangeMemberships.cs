using Ledger.EventStore;
using Ledger.Http;
using Ledger.Users;

namespace Ledger.Segments;

/// <summary>For how long one joins: unsaid, for good, for a time to live, or until an instant.</summary>
public readonly record struct Term(bool Said, TimeSpan? Ttl, DateTimeOffset? ExpiresAt)
{
    /// <summary>Nothing was said: the segment's default for who joins, no change for who is in already.</summary>
    public static readonly Term Unsaid;

    /// <summary>
    /// Reads the two fields of a request, of which at most one may have a value. Naming one as null means: for good.
    /// </summary>
    public static Term From(Patch<TimeSpan?> ttl, Patch<DateTimeOffset?> expiresAt, Validation errors, string path)
    {
        errors.Check(ttl.Value is null || expiresAt.Value is null, $"{path}ttl", "can't be given together with expiresAt");
        errors.Check(ttl.Value is null || ttl.Value > TimeSpan.Zero, $"{path}ttl", "must be longer than zero");
        errors.Check(ttl.Value is null || ttl.Value <= Segment.MaxTtl, $"{path}ttl", $"must be at most P{Segment.MaxTtl.Days}D");
        return new Term(ttl.IsSet || expiresAt.IsSet, ttl.Value, expiresAt.Value);
    }
}

/// <summary>One segment to join.</summary>
public readonly record struct Join(string Segment, Term Term);

/// <summary>Lets a user join and leave segments, all or nothing.</summary>
public sealed record ChangeMemberships(string UserId, IReadOnlyList<Join> Join, IReadOnlyList<string> Leave)
{
    /// <summary>Segments named in one command.</summary>
    public const int MaxSegments = 500;

    private const string OnlyJoin = "join[0].";

    /// <summary>The segments named, each once.</summary>
    public IReadOnlyList<string> Slugs => [.. Join.Select(j => j.Segment), .. Leave];

    /// <summary>Decides on a user's memberships and the segments named (in the order of <see cref="Slugs"/>).</summary>
    public Decision Decide(UserMemberships user, IReadOnlyList<Segment> segments, DateTimeOffset now, string source = Membership.Explicit)
    {
        if (segments.FirstOrDefault(s => !s.IsLive) is { } missing)
        {
            return SegmentRejections.NotFound(missing.Slug);
        }

        for (var i = 0; i < Join.Count; i++)
        {
            if (Join[i].Term.ExpiresAt <= now)
            {
                return Validation.Field($"join[{i}].expiresAt", "must lie in the future");
            }
        }

        var events = new List<object>();
        for (var i = 0; i < Join.Count; i++)
        {
            JoinOrRenew(events, user, segments[i], Join[i].Term, now, source);
        }

        foreach (var segment in segments.Skip(Join.Count))
        {
            if (user.In(segment, now) is not null)
            {
                events.Add(new UserLeftSegment(segment.Slug, segment.Id));
            }
        }

        return Decision.Of(events);
    }

    /// <summary>A refusal to join the only segment, for a request whose fields are those of that join.</summary>
    public static Rejection OfOnlyJoin(Rejection rejection)
    {
        return rejection with { Detail = Own(rejection.Detail), Errors = rejection.Errors?.ToDictionary(e => Own(e.Key), e => e.Value) };

        static string Own(string text) => text.StartsWith(OnlyJoin, StringComparison.Ordinal) ? text[OnlyJoin.Length..] : text;
    }

    private static void JoinOrRenew(List<object> events, UserMemberships user, Segment segment, Term term, DateTimeOffset now, string source)
    {
        if (user.In(segment, now) is { } membership)
        {
            var changes = term.Ttl is not null || term.ExpiresAt != membership.ExpiresAt;
            if (term.Said && changes)
            {
                events.Add(new MembershipRenewed(segment.Slug, segment.Id, term.Ttl, term.ExpiresAt));
            }

            return;
        }

        if (user.Open.GetValueOrDefault(segment.Id) is { ExpiresAt: { } ranOutAt })
        {
            events.Add(new MembershipExpired(segment.Slug, segment.Id, ranOutAt)); // the sweeper has not come by yet
        }

        var ttl = term.Said ? term.Ttl : segment.DefaultTtl;
        events.Add(new UserJoinedSegment(segment.Slug, segment.Id, ttl, term.ExpiresAt, source));
    }

    /// <summary>The body of the request.</summary>
    public sealed record Body(IReadOnlyList<JoinBody>? Join = null, IReadOnlyList<string>? Leave = null);

    /// <summary>A segment to join, for the segment's default, a time to live, or until an instant; null means for good.</summary>
    public sealed record JoinBody(string Segment, Patch<TimeSpan?> Ttl, Patch<DateTimeOffset?> ExpiresAt);

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapPost("/v1/users/{userId}/segments", Handle)
        .Requires(Scopes.SegmentsWrite).WithName(nameof(ChangeMemberships)).WithTags("Memberships").WithSummary("Join and leave segments, all or nothing")
        .Accepts<Body>("application/json").Produces<UserSegmentsAnswer>().ProducesCommandProblems(404);

    private static async Task<IResult> Handle(
        string userId, Body body, HttpContext http, MembershipCommands commands, UserSegmentsReader reader, CancellationToken cancellation)
    {
        var errors = new Validation();
        errors.CheckUserId(userId, "userId");
        var join = body.Join ?? [];
        var leave = body.Leave ?? [];
        errors.Check(join.Count + leave.Count is > 0 and <= MaxSegments, "join", $"join and leave name 1 to {MaxSegments} segments together");
        var named = new HashSet<string>();
        var joins = new List<Join>();
        for (var i = 0; i < join.Count; i++)
        {
            errors.CheckSlug(join[i].Segment, $"join[{i}].segment");
            errors.Check(named.Add(join[i].Segment), $"join[{i}].segment", "is named twice");
            joins.Add(new Join(join[i].Segment, Term.From(join[i].Ttl, join[i].ExpiresAt, errors, $"join[{i}].")));
        }

        for (var i = 0; i < leave.Count; i++)
        {
            errors.CheckSlug(leave[i], $"leave[{i}]");
            errors.Check(named.Add(leave[i]), $"leave[{i}]", "is named twice");
        }

        if (errors.Rejection is { } invalid)
        {
            return Problems.For(invalid);
        }

        var (result, after) = await commands.Handle(new ChangeMemberships(userId, joins, leave), http.Command(body), cancellation);
        if (result.Rejection is { } rejection)
        {
            return Problems.For(rejection);
        }

        http.Answer(result);
        return Results.Ok(await reader.After(http.TenantId(), userId, result, after, cancellation));
    }
}

/// <summary>A user's memberships after a command, for its answer.</summary>
public sealed record MembershipsAfter(UserMemberships State, IReadOnlyList<RolledOutSegment> Rollouts, DateTimeOffset At);

/// <summary>Runs <see cref="ChangeMemberships"/>, for its own endpoint and for those that join or leave a single segment.</summary>
public sealed class MembershipCommands(CommandHandler handler, MembershipLoader users, SegmentLoader segments, LedgerClock clock)
{
    /// <summary>
    /// Loads, decides, appends. The state afterwards is null when the command was refused or had been stored before.
    /// A join rests on the segment's version too: it comes before the segment's deletion, or is refused.
    /// </summary>
    public async Task<(CommandResult Result, MembershipsAfter? After)> Handle(
        ChangeMemberships command, CommandContext context, CancellationToken cancellation)
    {
        LoadedMemberships? before = null;
        IReadOnlyList<RolledOutSegment> rollouts = [];
        IReadOnlyList<object> events = [];
        DateTimeOffset now = default;
        var result = await handler.Handle(
            context,
            async attempt =>
            {
                var named = await segments.Load(context.TenantId, command.Slugs, fresh: attempt > 0, cancellation);
                (before, rollouts) = await users.Load(context.TenantId, command.UserId, cancellation);
                now = clock.GetUtcNow();
                var decision = command.Decide(before.State, named, now);
                if (attempt == 0 && decision is { Rejection: null, Events.Count: 0 })
                {
                    // Nothing will be stored, so no condition would find that a segment is not what it was when last read.
                    named = await segments.Load(context.TenantId, command.Slugs, fresh: true, cancellation);
                    decision = command.Decide(before.State, named, now);
                }

                events = decision.Events;
                return new Decided(
                    decision, User.StreamOf(command.UserId), User.StreamType,
                    [new(User.StreamOf(command.UserId), before.Version), .. named.Select(s => new StreamCondition(Segment.StreamOf(s.Slug), s.Version))]);
            },
            cancellation);
        if (result.Rejection is not null || result.Replayed)
        {
            return (result, null);
        }

        var state = before!.State;
        for (var i = 0; i < events.Count; i++)
        {
            state = UserMemberships.Evolve(state, Recorded(events[i], result, i));
        }

        return (result, new MembershipsAfter(state, rollouts, result.Changed ? result.RecordedAt : now));

        RecordedEvent Recorded(object data, CommandResult stored, int index) => new()
        {
            Position = stored.FirstPosition + index, Version = stored.Version - events.Count + 1 + index, RecordedAt = stored.RecordedAt,
            TenantId = context.TenantId, StreamId = User.StreamOf(command.UserId), Type = "", Id = default, Json = default, Data = data,
        };
    }
}
