using System.Text.Json;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Campaigns;

/// <summary>A campaign that something may still come of, as nodes that work on it look at it.</summary>
/// <param name="TenantId">Its tenant.</param>
/// <param name="Campaign">What it is, by its stream where the view is behind.</param>
/// <param name="Counts">Its messages, as the view knows them.</param>
/// <param name="IsFolded">Whether the view knows all of its stream.</param>
/// <param name="Parts">Parts of its audience recorded so far.</param>
/// <param name="PinnedUpTo">The last user recorded.</param>
/// <param name="RetryParts">Parts of the retry recorded so far.</param>
/// <param name="RetriedUpTo">The last user of them; null: no retry is under way.</param>
/// <param name="IsUnderWay">Whether a message of it is taken, or its outcome has not been folded yet.</param>
internal sealed record CampaignAtWork(
    string TenantId, Campaign Campaign, MessageCounts Counts, bool IsFolded, int Parts, string PinnedUpTo, int RetryParts, string? RetriedUpTo, bool IsUnderWay)
{
    public (string TenantId, Guid Id) Key => (TenantId, Campaign.Id);

    public CampaignPlan Plan => Campaign.Plan!;
}

/// <summary>What a look at all campaigns has shown.</summary>
/// <param name="Campaigns">Those that something may still come of, but for those whose time has not come.</param>
/// <param name="NextStart">When the next one begins.</param>
/// <param name="IsAnythingTaken">Whether any message is taken, of any campaign.</param>
internal sealed record Look(IReadOnlyList<CampaignAtWork> Campaigns, DateTimeOffset? NextStart, bool IsAnythingTaken);

/// <summary>Messages taken of a campaign, and in how long it is worth asking again where there were none.</summary>
internal sealed record Taking(IReadOnlyList<TakenMessage> Messages, TimeSpan Wait, DateTimeOffset? OldestDueAt = null)
{
    public static Taking Nothing(TimeSpan wait) => new([], wait);
}

/// <summary>
/// The queue of messages, durable and shared by all nodes. What waits are rows of <c>campaign_messages</c> with a due_at; what a
/// node has taken are rows of <c>campaign_sends</c> beside them, for as long as the lease is, by the database's clock. Whoever takes
/// messages of a campaign holds its row of <c>campaign_rates</c> meanwhile, and nobody waits for it. A row of campaign_sends goes once the
/// view has folded the outcome, so that a message is in the queue only by what is known of it.
/// </summary>
public sealed class WaitingMessages(BackgroundDatabase background, EventReader log) : IDisposable
{
    /// <summary>Campaigns that are worked on at once, over all tenants; of more, those that end first come first.</summary>
    public const int MaxCampaigns = 1_000;

    /// <summary>Messages of a campaign that are taken, or whose outcome is not folded yet; at more, no further ones are taken.</summary>
    public const int MaxTaken = 5_000;

    /// <summary>The messages that a rate lets run ahead when none was sent for a while, in seconds of it.</summary>
    private const double BurstSeconds = 0.25;

    private static readonly TimeSpan s_busy = TimeSpan.FromMilliseconds(20), s_rate = TimeSpan.FromMilliseconds(50), s_notDue = TimeSpan.FromMilliseconds(200),
        s_closed = TimeSpan.FromSeconds(1);

    /// <summary>What lets go of messages takes its turn, so that it needs one connection however many there are.</summary>
    private readonly SemaphoreSlim _lettingGo = new(1, 1);

    private const string View = "select last_seq_id from mt_event_progression where name = 'Campaigns:All'";

    /// <summary>Takes what is due: $3 are the zones, $4 the time, $5 how many, $6 for how long.</summary>
    internal const string TakeStatement =
        """
        with due as materialized (
          select m.user_id, m.phone, m.time_zone, m.fillings, m.status, m.attempts, m.base, m.due_at
          from unnest($3) z (time_zone)
          cross join lateral (
            select * from campaign_messages m
            where m.tenant_id = $1 and m.campaign_id = $2 and m.time_zone = z.time_zone and m.due_at <= $4
              and not exists (
                select from campaign_sends s where s.tenant_id = m.tenant_id and s.campaign_id = m.campaign_id and s.user_id = m.user_id)
            order by m.due_at, m.user_id limit $5) m
          order by m.due_at limit $5
        ),
        taken as (
          insert into campaign_sends (tenant_id, campaign_id, user_id, attempt, leased_until)
          select $1, $2, due.user_id, due.attempts + 1, clock_timestamp() + $6 from due
        )
        select user_id, phone, time_zone, fillings, status, attempts + 1, base, due_at from due
        """;

    /// <inheritdoc/>
    public void Dispose() => _lettingGo.Dispose();

    /// <summary>Looks at all campaigns at work: one range of a small index, and for each a look at the version of its stream.</summary>
    internal async Task<Look> Look(DateTimeOffset now, CancellationToken cancellation)
    {
        var campaigns = new List<(CampaignAtWork Campaign, long StreamVersion)>();
        DateTimeOffset? next;
        bool isAnythingTaken;
        await using (var connection = await background.Source.OpenConnectionAsync(cancellation))
        {
            await using var batch = new NpgsqlBatch(connection)
            {
                BatchCommands =
                {
                    Sql.Command(
                        """
                        select (select min(starts_at) from campaigns where phase in ('scheduled', 'starting', 'running') and phase = 'scheduled' and not is_paused and starts_at > $1),
                               exists (select from campaign_sends)
                        """,
                        Sql.Value(now)),
                    Sql.Command(
                        $"""
                         select c.tenant_id, s.version, c.parts, c.pinned_up_to, c.retry_parts, c.retried_up_to,
                                c.pending, c.sent, c.failed, c.unknown, c.suppressed, c.resending,
                                exists (select from campaign_sends t where t.tenant_id = c.tenant_id and t.campaign_id = c.campaign_id), {CampaignRow.Columns}
                         from campaigns c
                         cross join lateral (
                           select o.version from mt_streams o
                           where o.tenant_id = c.tenant_id and o.id = 'campaign-' || replace(c.campaign_id::text, '-', '') limit 1) s
                         where c.phase in ('scheduled', 'starting', 'running') and (c.phase <> 'scheduled' or c.starts_at <= $1)
                         order by c.ends_at limit $2
                         """,
                        Sql.Value(now), Sql.Value(MaxCampaigns)),
                },
            };
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            await reader.ReadAsync(cancellation);
            (next, isAnythingTaken) = (reader.Maybe<DateTimeOffset?>(0), reader.GetBoolean(1));
            await reader.NextResultAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                var campaign = CampaignRow.Read(reader, 13);
                var counts = new MessageCounts
                {
                    Pending = reader.GetInt64(6), Sent = reader.GetInt64(7), Failed = reader.GetInt64(8), Unknown = reader.GetInt64(9),
                    Suppressed = reader.GetInt64(10), Resending = reader.GetInt64(11),
                };
                campaigns.Add((
                    new CampaignAtWork(
                        reader.GetString(0), campaign, counts, reader.GetInt64(1) == campaign.Version, reader.GetInt32(2), reader.GetString(3), reader.GetInt32(4),
                        reader.Maybe<string>(5), reader.GetBoolean(12)),
                    reader.GetInt64(1)));
            }
        }

        var current = new List<CampaignAtWork>(campaigns.Count);
        foreach (var (campaign, _) in campaigns)
        {
            // The view may lag; that somebody paused a campaign is known at once all the same.
            current.Add(campaign.IsFolded ? campaign : campaign with { Campaign = await Fold(campaign.TenantId, campaign.Campaign.Id, cancellation) });
        }

        return new Look(current, next, isAnythingTaken);
    }

    /// <summary>A campaign by its stream, which is short.</summary>
    internal async Task<Campaign> Fold(string tenantId, Guid id, CancellationToken cancellation) =>
        (await log.Fold(new StreamKey(tenantId, Campaign.StreamOf(id)), Campaign.Initial(id), Campaign.Evolve, cancellation)).State;

    /// <summary>
    /// Takes messages of a campaign that are due, of zones whose window is open, as many as its rate allows. They are this node's
    /// when it returns. Costs two round trips, a look into the index for each zone that anybody waits in, and the rows it takes.
    /// </summary>
    internal async Task<Taking> Take(CampaignAtWork campaign, int atMost, TimeSpan lease, DateTimeOffset now, CancellationToken cancellation)
    {
        await using var connection = await background.Source.OpenConnectionAsync(cancellation);
        await using var transaction = await connection.BeginTransactionAsync(System.Data.IsolationLevel.ReadCommitted, cancellation);
        NpgsqlParameter[] Key() => [Sql.Value(campaign.TenantId), Sql.Value(campaign.Campaign.Id)];
        var zones = new List<string>();
        double tokens;
        await using (var batch = new NpgsqlBatch(connection, transaction)
        {
            BatchCommands =
            {
                Sql.Command(
                    "insert into campaign_rates (tenant_id, campaign_id, tokens, filled_at) values ($1, $2, $3, clock_timestamp()) on conflict do nothing",
                    [.. Key(), Sql.Value(Math.Max(1, (campaign.Plan.RatePerSecond ?? 0) * BurstSeconds))]),
                Sql.Command(
                    """
                    select r.tokens, extract(epoch from clock_timestamp() - r.filled_at)::float8,
                           (select count(*) from (select from campaign_sends s where s.tenant_id = $1 and s.campaign_id = $2 limit $3) s)
                    from campaign_rates r where r.tenant_id = $1 and r.campaign_id = $2
                    for update skip locked
                    """,
                    [.. Key(), Sql.Value(MaxTaken)]),
                Sql.Command(
                    """
                    with recursive z (time_zone) as (
                      (select m.time_zone from campaign_messages m
                       where m.tenant_id = $1 and m.campaign_id = $2 and m.due_at is not null order by m.time_zone limit 1)
                      union all
                      select n.time_zone from z cross join lateral (
                        select m.time_zone from campaign_messages m
                        where m.tenant_id = $1 and m.campaign_id = $2 and m.due_at is not null and m.time_zone > z.time_zone
                        order by m.time_zone limit 1) n
                    )
                    select time_zone from z
                    """,
                    Key()),
            },
        })
        {
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            if (!await reader.ReadAsync(cancellation))
            {
                return Taking.Nothing(s_busy); // another node is taking some of it right now
            }

            var rate = campaign.Plan.RatePerSecond;
            tokens = rate is null ? atMost : Math.Min(Math.Max(1, rate.Value * BurstSeconds), reader.GetDouble(0) + (Math.Max(0, reader.GetDouble(1)) * rate.Value));
            if (reader.GetInt64(2) >= MaxTaken)
            {
                return Taking.Nothing(s_notDue);
            }

            await reader.NextResultAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                zones.Add(reader.GetString(0));
            }
        }

        var count = (int)Math.Min(atMost, Math.Floor(tokens));
        var window = CampaignRules.WindowOf(campaign.Plan);
        var open = zones.Where(z => IsOpen(window, z, now)).ToArray();
        if (count < 1 || open.Length == 0)
        {
            return Taking.Nothing(open.Length > 0 ? s_rate : zones.Count > 0 ? s_closed : s_notDue);
        }

        var taken = new List<TakenMessage>(count);
        DateTimeOffset? oldest = null;
        await using (var batch = new NpgsqlBatch(connection, transaction)
        {
            BatchCommands =
            {
                Sql.Command(
                    TakeStatement,
                    [.. Key(), Sql.Texts(open), Sql.Value(now), Sql.Value(count), Sql.Value(lease)]),
            },
        })
        {
            await using var reader = await batch.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                taken.Add(new TakenMessage(
                    campaign.TenantId, campaign.Campaign.Id, reader.GetString(0), reader.GetString(1), reader.GetString(2),
                    reader.IsDBNull(3) ? null : JsonSerializer.Deserialize<Dictionary<string, string>>(reader.GetFieldValue<byte[]>(3)), reader.GetString(4),
                    reader.GetInt32(5), reader.GetInt32(6)));
                oldest = oldest is { } so && so < reader.GetFieldValue<DateTimeOffset>(7) ? so : reader.GetFieldValue<DateTimeOffset>(7);
            }
        }

        if (taken.Count == 0)
        {
            return Taking.Nothing(s_notDue);
        }

        if (campaign.Plan.RatePerSecond is not null)
        {
            await using var fill = new NpgsqlCommand(
                "update campaign_rates set tokens = $3, filled_at = clock_timestamp() where tenant_id = $1 and campaign_id = $2", connection, transaction);
            fill.Parameters.AddRange(Key());
            fill.Parameters.Add(Sql.Value(tokens - taken.Count));
            await fill.ExecuteNonQueryAsync(cancellation);
        }

        await transaction.CommitAsync(cancellation);
        return new Taking(taken, TimeSpan.Zero, oldest);
    }

    /// <summary>Whether a zone's window is open; a message without a zone has none to keep to.</summary>
    internal static bool IsOpen(SendWindow? window, string zone, DateTimeOffset now) =>
        window is null || (TimeZones.TryFind(zone, out var found) && window.IsOpen(now, found));

    /// <summary>Gives messages back, or lets go of those whose outcome the view has folded.</summary>
    internal async Task Remove(IReadOnlyCollection<TakenMessage> messages, CancellationToken cancellation)
    {
        await _lettingGo.WaitAsync(cancellation);
        try
        {
            await using var command = background.Source.Command(
                """
                delete from campaign_sends s
                using unnest($1, $2, $3, $4) k (tenant_id, campaign_id, user_id, attempt)
                cross join lateral (
                  select ctid from campaign_sends o
                  where o.tenant_id = k.tenant_id and o.campaign_id = k.campaign_id and o.user_id = k.user_id and o.attempt = k.attempt limit 1) o
                where s.ctid = o.ctid
                """,
                Keys(messages));
            await command.ExecuteNonQueryAsync(cancellation);
        }
        finally
        {
            _lettingGo.Release();
        }
    }

    /// <summary>Notes where the outcomes of messages are recorded, which the view has not folded yet.</summary>
    internal async Task NoteRecorded(IReadOnlyCollection<(TakenMessage Message, long Position)> messages, CancellationToken cancellation)
    {
        await _lettingGo.WaitAsync(cancellation);
        try
        {
            await using var command = background.Source.Command(
                """
                update campaign_sends s set recorded_position = k.position
                from unnest($1, $2, $3, $4, $5) k (tenant_id, campaign_id, user_id, attempt, position)
                cross join lateral (
                  select ctid from campaign_sends o
                  where o.tenant_id = k.tenant_id and o.campaign_id = k.campaign_id and o.user_id = k.user_id and o.attempt = k.attempt limit 1) o
                where s.ctid = o.ctid
                """,
                [.. Keys([.. messages.Select(m => m.Message)]), Sql.Longs(messages.Select(m => m.Position))]);
            await command.ExecuteNonQueryAsync(cancellation);
        }
        finally
        {
            _lettingGo.Release();
        }
    }

    /// <summary>Lets go of all messages whose outcome was noted and has been folded since.</summary>
    internal async Task RemoveFolded(CancellationToken cancellation)
    {
        await using var command = background.Source.Command($"delete from campaign_sends where recorded_position <= ({View})");
        await command.ExecuteNonQueryAsync(cancellation);
    }

    /// <summary>Messages whose lease has run out: whoever took them has died, or cannot reach the database.</summary>
    internal async Task<IReadOnlyList<(TakenMessage Message, OnUnknown OnUnknown)>> FindLost(int limit, CancellationToken cancellation)
    {
        await using var command = background.Source.Command(
            """
            select s.tenant_id, s.campaign_id, s.user_id, m.time_zone, m.status, s.attempt, m.base, c.plan ->> 'onUnknown', c.phase
            from campaign_sends s
            cross join lateral (
              select * from campaign_messages o where o.tenant_id = s.tenant_id and o.campaign_id = s.campaign_id and o.user_id = s.user_id limit 1) m
            cross join lateral (select * from campaigns o where o.tenant_id = s.tenant_id and o.campaign_id = s.campaign_id limit 1) c
            where s.recorded_position is null and s.leased_until < clock_timestamp()
            order by s.leased_until limit $1
            """,
            Sql.Value(limit));
        var lost = new List<(TakenMessage, OnUnknown)>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            lost.Add((
                new TakenMessage(
                    reader.GetString(0), reader.GetGuid(1), reader.GetString(2), "", reader.GetString(3), null, reader.GetString(4), reader.GetInt32(5), reader.GetInt32(6)),
                reader.GetString(7) == "retry" && reader.GetString(8) == Campaign.Running ? OnUnknown.Retry : OnUnknown.Keep));
        }

        return lost;
    }

    /// <summary>How long the message that waits longest has been due; zones are looked at one by one.</summary>
    internal async Task<TimeSpan> OldestAge(IReadOnlyCollection<CampaignAtWork> campaigns, DateTimeOffset now, CancellationToken cancellation)
    {
        await using var command = background.Source.Command(
            """
            select min(d.due_at)
            from unnest($1, $2) k (tenant_id, campaign_id)
            cross join lateral (
              with recursive z (time_zone, due_at) as (
                (select m.time_zone, m.due_at from campaign_messages m
                 where m.tenant_id = k.tenant_id and m.campaign_id = k.campaign_id and m.due_at is not null order by m.time_zone, m.due_at limit 1)
                union all
                select n.time_zone, n.due_at from z cross join lateral (
                  select m.time_zone, m.due_at from campaign_messages m
                  where m.tenant_id = k.tenant_id and m.campaign_id = k.campaign_id and m.due_at is not null and m.time_zone > z.time_zone
                  order by m.time_zone, m.due_at limit 1) n
              )
              select due_at from z) d
            """,
            Sql.Texts(campaigns.Select(c => c.TenantId)), Sql.Value(campaigns.Select(c => c.Campaign.Id).ToArray()));
        return await command.ExecuteScalarAsync(cancellation) is DateTime oldest && new DateTimeOffset(oldest) < now ? now - new DateTimeOffset(oldest) : TimeSpan.Zero;
    }

    /// <summary>The next users whose messages had failed when a retry was asked for.</summary>
    internal async Task<IReadOnlyList<string>> FindFailed(CampaignAtWork campaign, string after, int limit, CancellationToken cancellation)
    {
        await using var command = background.Source.Command(
            """
            select m.user_id from campaign_messages m
            where m.tenant_id = $1 and m.campaign_id = $2 and m.status = 'failed' and m.phone is not null and m.user_id > $3 and m.position < $4
            order by m.user_id limit $5
            """,
            Sql.Value(campaign.TenantId), Sql.Value(campaign.Campaign.Id), Sql.Value(after), Sql.Value(campaign.Campaign.RetryPosition!.Value), Sql.Value(limit));
        var users = new List<string>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            users.Add(reader.GetString(0));
        }

        return users;
    }

    private static NpgsqlParameter[] Keys(IReadOnlyCollection<TakenMessage> messages) =>
    [
        Sql.Texts(messages.Select(m => m.TenantId)), Sql.Value(messages.Select(m => m.CampaignId).ToArray()), Sql.Texts(messages.Select(m => m.UserId)),
        Sql.Value(messages.Select(m => m.Attempt).ToArray()),
    ];
}
