using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Campaigns;

/// <summary>Keeps the view "Campaigns": campaigns with their totals, their messages, and what was recorded of them by the quarter of an hour.</summary>
public sealed class CampaignsProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Campaigns";

    /// <summary>Recipients written at once.</summary>
    private const int MaxCopiedRows = 20_000;

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>(CampaignsFeature.Events.Select(e => e.Item1));

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["campaigns", "campaign_messages", "campaign_quarters"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        await CopyRecipients(events, transaction, cancellation);
        var fold = new Fold();
        await fold.Load(events, await transaction.Connection(cancellation), cancellation);
        foreach (var recorded in events)
        {
            fold.Apply(recorded);
        }

        fold.Write(transaction);
    }

    /// <summary>Recipients first, in pieces, so that a batch of a whole audience is never in memory twice: what follows finds them in the table.</summary>
    private static async Task CopyRecipients(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var (rows, count) = (new CopyRows(), 0);
        try
        {
            foreach (var recorded in events)
            {
                if (recorded.Data is not RecipientsPinned pinned)
                {
                    continue;
                }

                foreach (var recipient in pinned.Recipients)
                {
                    rows.BeginRow(columns: 12);
                    rows.Text(recorded.TenantId);
                    rows.Uuid(Guid.ParseExact(pinned.CampaignId, "N"));
                    rows.Text(recipient.UserId);
                    rows.Text(recipient.Phone);
                    rows.Text(recipient.TimeZone ?? "");
                    rows.Jsonb(recipient.Fillings is null ? null : JsonSerializer.Serialize(recipient.Fillings, Json.Options));
                    rows.Text(recipient.Status ?? Message.Pending);
                    rows.Number(0);
                    rows.Number(0);
                    rows.Instant(recipient.Status is null ? recorded.RecordedAt : null);
                    rows.Text(recipient.Reason);
                    rows.Bigint(recorded.Position);
                    count++;
                }

                if (count >= MaxCopiedRows)
                {
                    await Copy();
                    rows.Dispose();
                    (rows, count) = (new CopyRows(), 0);
                }
            }

            if (count > 0)
            {
                await Copy();
            }
        }
        finally
        {
            rows.Dispose();
        }

        async Task Copy() => await rows.CopyTo(
            await transaction.Connection(cancellation),
            """
            copy campaign_messages (
              tenant_id, campaign_id, user_id, phone, time_zone, fillings, status, attempts, base, due_at, error, position) from stdin (format binary)
            """,
            cancellation);
    }

    private readonly record struct CampaignKey(string Tenant, Guid Id);

    private readonly record struct MessageKey(string Tenant, Guid Campaign, string User);

    /// <summary>A campaign while a batch is folded.</summary>
    private sealed class CampaignState(Campaign campaign, long createdPosition)
    {
        public Campaign Campaign { get; set; } = campaign;

        public long CreatedPosition { get; set; } = createdPosition;

        public int Parts { get; set; }

        public string PinnedUpTo { get; set; } = "";

        public int RetryParts { get; set; }

        public string? RetriedUpTo { get; set; }

        public MessageCounts Counts { get; } = new();
    }

    /// <summary>A message while a batch is folded.</summary>
    private sealed class MessageState(string status, int attempts, int from, bool isDue)
    {
        public string Status { get; set; } = status;

        public int Attempts { get; set; } = attempts;

        public int Base { get; set; } = from;

        public DateTimeOffset? DueAt { get; set; }

        public bool IsDue { get; set; } = isDue;

        public string? Error { get; set; }

        public int? StatusCode { get; set; }

        public DateTimeOffset? SentAt { get; set; }

        public long Position { get; set; }

        public bool IsChanged { get; set; }
    }

    private sealed class Quarter
    {
        public long Sent { get; set; }

        public long Deferred { get; set; }

        public long Failed { get; set; }

        public long Unknown { get; set; }

        public long Suppressed { get; set; }
    }

    private sealed class Fold
    {
        private readonly Dictionary<CampaignKey, CampaignState> _campaigns = [];
        private readonly Dictionary<MessageKey, MessageState> _messages = [];
        private readonly Dictionary<(CampaignKey Campaign, DateTimeOffset At), Quarter> _quarters = [];

        public async Task Load(IReadOnlyList<RecordedEvent> events, NpgsqlConnection connection, CancellationToken cancellation)
        {
            var messages = events.SelectMany(MessagesOf).Distinct().ToArray();
            await using (var command = new NpgsqlCommand(
                $"""
                 select c.tenant_id, c.created_position, c.parts, c.pinned_up_to, c.retry_parts, c.retried_up_to,
                        c.pending, c.sent, c.failed, c.unknown, c.suppressed, c.resending, {CampaignRow.Columns}
                 from unnest($1, $2) k (tenant_id, campaign_id)
                 cross join lateral (select * from campaigns o where o.tenant_id = k.tenant_id and o.campaign_id = k.campaign_id limit 1) c
                 """, connection))
            {
                var keys = events.Select(KeyOf).Distinct().ToArray();
                command.Parameters.Add(Sql.Texts(keys.Select(k => k.Tenant)));
                command.Parameters.Add(Sql.Value(keys.Select(k => k.Id).ToArray()));
                await using var reader = await command.ExecuteReaderAsync(cancellation);
                while (await reader.ReadAsync(cancellation))
                {
                    var state = new CampaignState(CampaignRow.Read(reader, 12), reader.GetInt64(1))
                    {
                        Parts = reader.GetInt32(2), PinnedUpTo = reader.GetString(3), RetryParts = reader.GetInt32(4), RetriedUpTo = reader.Maybe<string>(5),
                        Counts =
                        {
                            Pending = reader.GetInt64(6), Sent = reader.GetInt64(7), Failed = reader.GetInt64(8), Unknown = reader.GetInt64(9),
                            Suppressed = reader.GetInt64(10), Resending = reader.GetInt64(11),
                        },
                    };
                    _campaigns[new CampaignKey(reader.GetString(0), state.Campaign.Id)] = state;
                }
            }

            if (messages.Length == 0)
            {
                return;
            }

            await using (var command = new NpgsqlCommand(
                """
                select m.tenant_id, m.campaign_id, m.user_id, m.status, m.attempts, m.base, m.due_at is not null, m.sent_at
                from unnest($1, $2, $3) k (tenant_id, campaign_id, user_id)
                cross join lateral (
                  select * from campaign_messages o
                  where o.tenant_id = k.tenant_id and o.campaign_id = k.campaign_id and o.user_id = k.user_id limit 1) m
                """, connection))
            {
                command.Parameters.AddRange(Keys(messages));
                await using var reader = await command.ExecuteReaderAsync(cancellation);
                while (await reader.ReadAsync(cancellation))
                {
                    _messages[new MessageKey(reader.GetString(0), reader.GetGuid(1), reader.GetString(2))] =
                        new MessageState(reader.GetString(3), reader.GetInt32(4), reader.GetInt32(5), reader.GetBoolean(6)) { SentAt = reader.Maybe<DateTimeOffset?>(7) };
                }
            }
        }

        public void Apply(RecordedEvent recorded)
        {
            var key = KeyOf(recorded);
            if (!_campaigns.TryGetValue(key, out var state))
            {
                state = _campaigns[key] = new CampaignState(Campaign.Initial(key.Id), recorded.Position);
            }

            switch (recorded.Data)
            {
                case RecipientsPinned pinned:
                    foreach (var recipient in pinned.Recipients)
                    {
                        state.Counts.Add(recipient.Status ?? Message.Pending, +1);
                    }

                    (state.Parts, state.PinnedUpTo) = (pinned.Part + 1, pinned.Recipients[^1].UserId);
                    break;

                case MessagesRequeued requeued:
                    foreach (var user in requeued.Users)
                    {
                        var message = _messages[new MessageKey(key.Tenant, key.Id, user)];
                        if (message.Status == Message.Failed)
                        {
                            message.Base = message.Attempts;
                            Become(state, message, Message.Pending, recorded, recorded.RecordedAt);
                        }
                    }

                    if (requeued.Retry == state.Campaign.RetryPosition)
                    {
                        (state.RetryParts, state.RetriedUpTo) = (requeued.Part + 1, requeued.IsLast ? null : requeued.Users[^1]);
                    }

                    break;

                case MessageSent or MessageDeferred or MessageFailed or MessageOutcomeUnknown or MessageSuppressed:
                    ApplyOutcome(state, key, recorded);
                    break;

                default:
                    state.Campaign = Campaign.Evolve(state.Campaign, recorded);
                    if (recorded.Data is FailedMessagesRetried)
                    {
                        (state.RetryParts, state.RetriedUpTo) = (0, "");
                    }

                    break;
            }
        }

        private void ApplyOutcome(CampaignState state, CampaignKey key, RecordedEvent recorded)
        {
            var (_, user, attempt) = Message.OutcomeOf(recorded.Data)!.Value;
            var message = _messages[new MessageKey(key.Tenant, key.Id, user)];
            var at = recorded.RecordedAt;
            var quarterKey = (key, CampaignStats.QuarterOf(at));
            var quarter = _quarters.TryGetValue(quarterKey, out var known) ? known : _quarters[quarterKey] = new Quarter();
            message.Attempts = Math.Max(message.Attempts, attempt);
            switch (recorded.Data)
            {
                case MessageSent:
                    (message.SentAt, message.Error, message.StatusCode) = (at, null, null);
                    quarter.Sent++;
                    Become(state, message, Message.Sent, recorded, null);
                    break;

                case MessageDeferred e:
                    (message.Error, message.StatusCode) = (e.Error, e.StatusCode);
                    quarter.Deferred++;
                    // One that may have been accepted before is not taken for one that was not.
                    Become(state, message, message.Status == Message.Unknown ? Message.Unknown : Message.Pending, recorded, e.DueAt);
                    break;

                case MessageFailed e:
                    (message.Error, message.StatusCode) = (e.Error, e.StatusCode);
                    quarter.Failed++;
                    Become(state, message, Message.Failed, recorded, null);
                    break;

                case MessageOutcomeUnknown e:
                    (message.Error, message.StatusCode) = (e.Error, e.StatusCode);
                    quarter.Unknown++;
                    Become(state, message, Message.Unknown, recorded, e.DueAt);
                    break;

                case MessageSuppressed e:
                    (message.Error, message.StatusCode) = (e.Reason, null);
                    quarter.Suppressed++;
                    Become(state, message, Message.Suppressed, recorded, null);
                    break;
            }
        }

        private static void Become(CampaignState state, MessageState message, string status, RecordedEvent recorded, DateTimeOffset? dueAt)
        {
            state.Counts.Add(message.Status, -1);
            state.Counts.Resending -= message is { Status: Message.Unknown, IsDue: true } ? 1 : 0;
            (message.Status, message.DueAt, message.IsDue, message.Position, message.IsChanged) = (status, dueAt, dueAt is not null, recorded.Position, true);
            state.Counts.Add(status, +1);
            state.Counts.Resending += message is { Status: Message.Unknown, IsDue: true } ? 1 : 0;
        }

        public void Write(ViewTransaction transaction)
        {
            var (campaigns, messages) = (_campaigns.ToArray(), _messages.Where(m => m.Value.IsChanged).ToArray());
            transaction.Add(CampaignRow.Upsert(
                [.. campaigns.Select(c => (c.Key.Tenant, c.Value.Campaign, c.Value.CreatedPosition, c.Value.Parts, c.Value.PinnedUpTo, c.Value.RetryParts, c.Value.RetriedUpTo, c.Value.Counts))]));
            if (messages.Length > 0)
            {
                transaction.Add(Sql.Command(
                    """
                    update campaign_messages m set
                      status = k.status, attempts = k.attempts, base = k.base, due_at = k.due_at, error = k.error, status_code = k.status_code,
                      sent_at = k.sent_at, position = k.position
                    from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
                      k (tenant_id, campaign_id, user_id, status, attempts, base, due_at, error, status_code, sent_at, position)
                    cross join lateral (
                      select ctid from campaign_messages o
                      where o.tenant_id = k.tenant_id and o.campaign_id = k.campaign_id and o.user_id = k.user_id limit 1) o
                    where m.ctid = o.ctid
                    """,
                    [
                        .. Keys([.. messages.Select(m => m.Key)]), Sql.Texts(messages.Select(m => m.Value.Status)),
                        Sql.Value(messages.Select(m => m.Value.Attempts).ToArray()), Sql.Value(messages.Select(m => m.Value.Base).ToArray()),
                        Sql.InstantsOrNull(messages.Select(m => m.Value.DueAt)), Sql.Texts(messages.Select(m => m.Value.Error)),
                        Sql.Value(messages.Select(m => m.Value.StatusCode).ToArray()), Sql.InstantsOrNull(messages.Select(m => m.Value.SentAt)),
                        Sql.Longs(messages.Select(m => m.Value.Position)),
                    ]));
            }

            if (_quarters.Count > 0)
            {
                var quarters = _quarters.ToArray();
                transaction.Add(Sql.Command(
                    """
                    insert into campaign_quarters (tenant_id, campaign_id, quarter, sent, deferred, failed, unknown, suppressed)
                    select * from unnest($1, $2, $3, $4, $5, $6, $7, $8)
                    on conflict (tenant_id, campaign_id, quarter) do update set
                      sent = campaign_quarters.sent + excluded.sent, deferred = campaign_quarters.deferred + excluded.deferred,
                      failed = campaign_quarters.failed + excluded.failed, unknown = campaign_quarters.unknown + excluded.unknown,
                      suppressed = campaign_quarters.suppressed + excluded.suppressed
                    """,
                    Sql.Texts(quarters.Select(q => q.Key.Campaign.Tenant)), Sql.Value(quarters.Select(q => q.Key.Campaign.Id).ToArray()),
                    Sql.Instants(quarters.Select(q => q.Key.At)), Sql.Longs(quarters.Select(q => q.Value.Sent)), Sql.Longs(quarters.Select(q => q.Value.Deferred)),
                    Sql.Longs(quarters.Select(q => q.Value.Failed)), Sql.Longs(quarters.Select(q => q.Value.Unknown)), Sql.Longs(quarters.Select(q => q.Value.Suppressed))));
            }
        }

        private static CampaignKey KeyOf(RecordedEvent recorded) => new(
            recorded.TenantId,
            recorded.Data switch
            {
                RecipientsPinned e => Guid.ParseExact(e.CampaignId, "N"),
                MessagesRequeued e => Guid.ParseExact(e.CampaignId, "N"),
                var data when Message.OutcomeOf(data) is { } outcome => Guid.ParseExact(outcome.CampaignId, "N"),
                _ => Campaign.IdOf(recorded.StreamId),
            });

        private static IEnumerable<MessageKey> MessagesOf(RecordedEvent recorded)
        {
            if (recorded.Data is MessagesRequeued requeued)
            {
                return requeued.Users.Select(u => new MessageKey(recorded.TenantId, Guid.ParseExact(requeued.CampaignId, "N"), u));
            }

            return Message.OutcomeOf(recorded.Data) is { } outcome ? [new MessageKey(recorded.TenantId, Guid.ParseExact(outcome.CampaignId, "N"), outcome.UserId)] : [];
        }

        private static NpgsqlParameter[] Keys(MessageKey[] keys) =>
            [Sql.Texts(keys.Select(k => k.Tenant)), Sql.Value(keys.Select(k => k.Campaign).ToArray()), Sql.Texts(keys.Select(k => k.User))];
    }
}

/// <summary>The messages of a campaign by what is stored of them.</summary>
internal sealed class MessageCounts
{
    public long Pending { get; set; }

    public long Sent { get; set; }

    public long Failed { get; set; }

    public long Unknown { get; set; }

    public long Suppressed { get; set; }

    /// <summary>Of the unknown, those that will be sent again.</summary>
    public long Resending { get; set; }

    /// <summary>All of them.</summary>
    public long Sum => Pending + Sent + Failed + Unknown + Suppressed;

    public void Add(string status, int count) => _ = status switch
    {
        Message.Pending => Pending += count,
        Message.Sent => Sent += count,
        Message.Failed => Failed += count,
        Message.Unknown => Unknown += count,
        Message.Suppressed => Suppressed += count,
        _ => throw new InvalidOperationException($"'{status}' is not a status that is stored."),
    };
}

/// <summary>A row of <c>campaigns</c>, under the alias c.</summary>
internal static class CampaignRow
{
    public const string Columns =
        """
        c.campaign_id, c.phase, c.is_paused, c.plan, c.created_at, c.started_at, c.audience_position, c.recipients, c.ended_at, c.error, c.error_users,
        c.retry_position, c.version
        """;

    public const int Count = 13;

    public static Campaign Read(NpgsqlDataReader reader, int first) => new(
        reader.GetGuid(first), reader.GetString(first + 1), reader.GetBoolean(first + 2),
        JsonSerializer.Deserialize<CampaignPlan>(reader.GetFieldValue<byte[]>(first + 3), Json.Options), reader.GetFieldValue<DateTimeOffset>(first + 4),
        reader.Maybe<DateTimeOffset?>(first + 5), reader.Maybe<long?>(first + 6), reader.Maybe<long?>(first + 7), reader.Maybe<DateTimeOffset?>(first + 8),
        reader.Maybe<string>(first + 9), reader.Maybe<string[]>(first + 10), reader.Maybe<long?>(first + 11), reader.GetInt64(first + 12));

    public static NpgsqlBatchCommand Upsert(
        IReadOnlyList<(string Tenant, Campaign Campaign, long CreatedPosition, int Parts, string PinnedUpTo, int RetryParts, string? RetriedUpTo, MessageCounts Counts)> rows) =>
        Sql.Command(
            """
            insert into campaigns (
              tenant_id, campaign_id, phase, is_paused, plan, starts_at, ends_at, created_position, created_at, started_at, audience_position, recipients,
              ended_at, error, version, parts, pinned_up_to, retry_position, retry_parts, retried_up_to, pending, sent, failed, unknown, suppressed,
              resending, error_users)
            select k.tenant_id, k.campaign_id, k.phase, k.is_paused, k.plan, k.starts_at, k.ends_at, k.created_position, k.created_at, k.started_at,
                   k.audience_position, k.recipients, k.ended_at, k.error, k.version, k.parts, k.pinned_up_to, k.retry_position, k.retry_parts,
                   k.retried_up_to, k.pending, k.sent, k.failed, k.unknown, k.suppressed, k.resending,
                   (select array_agg(u) from jsonb_array_elements_text(k.error_users) u)
            from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27)
              k (tenant_id, campaign_id, phase, is_paused, plan, starts_at, ends_at, created_position, created_at, started_at, audience_position, recipients,
                 ended_at, error, version, parts, pinned_up_to, retry_position, retry_parts, retried_up_to, pending, sent, failed, unknown, suppressed,
                 resending, error_users)
            on conflict (tenant_id, campaign_id) do update set
              phase = excluded.phase, is_paused = excluded.is_paused, plan = excluded.plan, starts_at = excluded.starts_at, ends_at = excluded.ends_at,
              started_at = excluded.started_at, audience_position = excluded.audience_position, recipients = excluded.recipients,
              ended_at = excluded.ended_at, error = excluded.error, version = excluded.version, parts = excluded.parts,
              pinned_up_to = excluded.pinned_up_to, retry_position = excluded.retry_position, retry_parts = excluded.retry_parts,
              retried_up_to = excluded.retried_up_to, pending = excluded.pending, sent = excluded.sent, failed = excluded.failed,
              unknown = excluded.unknown, suppressed = excluded.suppressed, resending = excluded.resending, error_users = excluded.error_users
            """,
            Sql.Texts(rows.Select(r => r.Tenant)), Sql.Value(rows.Select(r => r.Campaign.Id).ToArray()), Sql.Texts(rows.Select(r => r.Campaign.Phase)),
            Sql.Value(rows.Select(r => r.Campaign.IsPaused).ToArray()), Jsons(rows.Select(r => JsonSerializer.Serialize(r.Campaign.Plan, Json.Options))),
            Sql.Instants(rows.Select(r => r.Campaign.Plan!.StartsAt)), Sql.Instants(rows.Select(r => r.Campaign.Plan!.EndsAt)),
            Sql.Longs(rows.Select(r => r.CreatedPosition)), Sql.Instants(rows.Select(r => r.Campaign.CreatedAt)),
            Sql.InstantsOrNull(rows.Select(r => r.Campaign.StartedAt)), Sql.Value(rows.Select(r => r.Campaign.AudiencePosition).ToArray()),
            Sql.Value(rows.Select(r => r.Campaign.Recipients).ToArray()), Sql.InstantsOrNull(rows.Select(r => r.Campaign.EndedAt)),
            Sql.Texts(rows.Select(r => r.Campaign.Error)), Sql.Longs(rows.Select(r => r.Campaign.Version)), Sql.Value(rows.Select(r => r.Parts).ToArray()),
            Sql.Texts(rows.Select(r => r.PinnedUpTo)), Sql.Value(rows.Select(r => r.Campaign.RetryPosition).ToArray()),
            Sql.Value(rows.Select(r => r.RetryParts).ToArray()), Sql.Texts(rows.Select(r => r.RetriedUpTo)), Sql.Longs(rows.Select(r => r.Counts.Pending)),
            Sql.Longs(rows.Select(r => r.Counts.Sent)), Sql.Longs(rows.Select(r => r.Counts.Failed)), Sql.Longs(rows.Select(r => r.Counts.Unknown)),
            Sql.Longs(rows.Select(r => r.Counts.Suppressed)), Sql.Longs(rows.Select(r => r.Counts.Resending)),
            Jsons(rows.Select(r => JsonSerializer.Serialize(r.Campaign.ErrorUsers ?? [], Json.Options))));

    private static NpgsqlParameter<string[]> Jsons(IEnumerable<string> values) =>
        new() { TypedValue = [.. values], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb };
}
