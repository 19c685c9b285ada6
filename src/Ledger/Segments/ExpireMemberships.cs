using Ledger.EventStore;
using Ledger.Users;

namespace Ledger.Segments;

/// <summary>How often the sweeper looks for memberships that have run out.</summary>
public sealed record SweepInterval(TimeSpan Value);

/// <summary>
/// Records that memberships have run out. A membership holds until its expires_at whether or not this has run; this brings the
/// fact into the history. It decides on the user's stream and makes its version a condition, so it can't expire what was renewed.
/// </summary>
public sealed partial class ExpireMemberships(
    AllTenantsDatabase database, Appender appender, MembershipLoader users, Daemon daemon, Views views, LedgerClock clock, SweepInterval interval,
    ILogger<ExpireMemberships> logger) : BackgroundService
{
    /// <summary>Memberships expired in one go.</summary>
    public const int BatchSize = 2_000;

    /// <summary>How long it is waited between two of them for the view, which knows what has not been expired yet.</summary>
    public static readonly TimeSpan ViewWait = TimeSpan.FromSeconds(10);

    /// <summary>The actor of what the sweeper records.</summary>
    public const string Actor = "ledger-sweeper";

    /// <summary>Decides for one membership.</summary>
    public static Decision Decide(UserMemberships user, long segmentId, DateTimeOffset now)
    {
        if (user.Open.GetValueOrDefault(segmentId) is not { ExpiresAt: { } expiresAt } membership || membership.HoldsAt(now))
        {
            return Decision.Nothing;
        }

        return Decision.Of(new MembershipExpired(membership.Segment, segmentId, expiresAt));
    }

    /// <summary>Expires what has run out by now, batch by batch, as long as the view keeps up; returns how many.</summary>
    public async Task<int> Sweep(CancellationToken cancellation)
    {
        var total = 0;
        while (true)
        {
            var now = clock.GetUtcNow();
            var due = await FindDue(now, cancellation);
            var (expired, last) = (0, 0L);
            foreach (var group in due.GroupBy(d => (d.Tenant, d.SegmentId, d.Slug)))
            {
                var userIds = group.Select(d => d.UserId).ToArray();
                var loaded = await users.Load(group.Key.Tenant, userIds, group.Key.SegmentId, cancellation);
                var appends = new List<Task<AppendResult>>();
                for (var i = 0; i < userIds.Length; i++)
                {
                    if (Decide(loaded[i].State, group.Key.SegmentId, now) is { Events: [MembershipExpired expiry] })
                    {
                        appends.Add(appender.Append(Request(group.Key.Tenant, userIds[i], loaded[i].Version, expiry with { Segment = group.Key.Slug }), cancellation));
                    }
                }

                foreach (var result in await Task.WhenAll(appends))
                {
                    if (result.Outcome == AppendOutcome.Appended)
                    {
                        (expired, last) = (expired + 1, Math.Max(last, result.LastPosition));
                    }
                }
            }

            SegmentMetrics.Expired.Add(expired);
            total += expired;
            if (due.Count < BatchSize || expired == 0 || !await views.WaitFor([MembershipsProjection.View], last, ViewWait, cancellation))
            {
                return total;
            }
        }
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(interval.Value);
        var (swept, next) = (-1L, DateTimeOffset.MinValue);
        while (await Tick(timer, stoppingToken))
        {
            // As long as the view stands still, nothing runs out before what was seen to run out next.
            var position = views.Latest.FirstOrDefault(v => v.Name == MembershipsProjection.View)?.Position ?? 0;
            if (!daemon.IsLeader || (position == swept && clock.GetUtcNow() < next))
            {
                continue;
            }

            try
            {
                await Sweep(stoppingToken);
                (swept, next) = (position, await FindNext(stoppingToken));
            }
            catch (Exception exception) when (exception is EventStoreUnavailableException or AppendQueueFullException || DatabaseErrors.IsUnavailable(exception))
            {
                LogPostponed(exception);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
        }
    }

    private static async ValueTask<bool> Tick(PeriodicTimer timer, CancellationToken cancellation)
    {
        try
        {
            return await timer.WaitForNextTickAsync(cancellation);
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }

    /// <summary>One look into the index on (tenant, segment, expires_at) a live segment; what is due lies at its left edge.</summary>
    private async Task<List<(string Tenant, long SegmentId, string Slug, string UserId)>> FindDue(DateTimeOffset now, CancellationToken cancellation)
    {
        await using var command = database.Source.Command(
            """
            select s.tenant_id, s.segment_id, s.slug, m.user_id
            from segments s
            cross join lateral (
              select user_id from memberships m
              where m.tenant_id = s.tenant_id and m.segment_id = s.segment_id and m.expires_at <= $1
              order by m.expires_at limit $2) m
            where s.deleted_at is null
            limit $2
            """,
            Sql.Value(now), Sql.Value(BatchSize));
        var due = new List<(string, long, string, string)>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            due.Add((reader.GetString(0), reader.GetInt64(1), reader.GetString(2), reader.GetString(3)));
        }

        return due;
    }

    /// <summary>When the next membership runs out.</summary>
    private async Task<DateTimeOffset> FindNext(CancellationToken cancellation)
    {
        await using var command = database.Source.Command(
            """
            select min(m.expires_at)
            from segments s
            cross join lateral (
              select expires_at from memberships m
              where m.tenant_id = s.tenant_id and m.segment_id = s.segment_id and m.expires_at is not null
              order by m.expires_at limit 1) m
            where s.deleted_at is null
            """);
        return await command.ExecuteScalarAsync(cancellation) is DateTime next ? next : DateTimeOffset.MaxValue;
    }

    private static AppendRequest Request(string tenantId, string userId, long version, MembershipExpired expired) => new()
    {
        TenantId = tenantId,
        Appends = [new StreamAppend(User.StreamOf(userId), User.StreamType, [expired])],
        Conditions = [new StreamCondition(User.StreamOf(userId), version)],
        Actor = Actor,
    };

    [LoggerMessage(LogLevel.Warning, "Expiring memberships is postponed: the event store can't be reached")]
    private partial void LogPostponed(Exception exception);
}
