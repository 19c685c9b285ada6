using Ledger.EventStore;
using Ledger.Users;
using Npgsql;

namespace Ledger.Segments;

/// <summary>Keeps the view "Memberships": open and past stays, the terms before renewals, and how sizes change over time.</summary>
public sealed class MembershipsProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Memberships";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>
    {
        typeof(UserJoinedSegment), typeof(MembershipRenewed), typeof(UserLeftSegment), typeof(MembershipExpired),
    };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["memberships", "past_memberships", "membership_terms", "segment_size_changes"];

    /// <inheritdoc/>
    public IReadOnlyList<string> ReaderIndexes => ["memberships_of_user", "memberships_expiring", "past_memberships_by_end"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var fold = new Fold();
        await fold.Load(events, transaction, cancellation);
        foreach (var recorded in events)
        {
            fold.Apply(recorded);
        }

        await fold.Write(transaction, cancellation);
    }

    private readonly record struct StayKey(string Tenant, string User, long SegmentId);

    /// <summary>A stay while a batch is folded. One that was loaded has a row; one that has ended belongs to the past.</summary>
    private sealed class Stay(StayKey key, long joinedPosition, DateTimeOffset joinedAt, DateTimeOffset? expiresAt, string source, bool loaded)
    {
        public StayKey Key => key;

        public long JoinedPosition => joinedPosition;

        public DateTimeOffset JoinedAt => joinedAt;

        public DateTimeOffset? ExpiresAt { get; set; } = expiresAt;

        public string Source => source;

        public bool Loaded => loaded;

        public bool Renewed { get; set; }

        public long EndedPosition { get; set; }

        public DateTimeOffset EndedAt { get; set; }

        public string EndReason { get; set; } = "";
    }

    private sealed class Fold
    {
        private readonly Dictionary<StayKey, Stay> _open = [];
        private readonly List<Stay> _ended = [];
        private readonly List<(Stay Stay, RecordedEvent Until, DateTimeOffset? ExpiresAt)> _terms = [];
        private readonly SizeChangeTotals _sizes = new();

        /// <summary>Loads the open stays that the batch continues: those whose first event in it is not a join.</summary>
        public async Task Load(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
        {
            var seen = new HashSet<StayKey>();
            var continued = events.Where(e => seen.Add(KeyOf(e)) && e.Data is not UserJoinedSegment).Select(KeyOf).ToArray();
            if (continued.Length == 0)
            {
                return;
            }

            await using var command = new NpgsqlCommand(
                """
                select m.tenant_id, m.user_id, m.segment_id, m.joined_position, m.joined_at, m.expires_at, m.source
                from unnest($1, $2, $3) k (tenant_id, user_id, segment_id)
                cross join lateral (
                  select * from memberships m
                  where m.tenant_id = k.tenant_id and m.user_id = k.user_id and m.segment_id = k.segment_id limit 1) m
                """, await transaction.Connection(cancellation))
            {
                Parameters =
                {
                    Sql.Texts(continued.Select(k => k.Tenant)), Sql.Texts(continued.Select(k => k.User)), Sql.Longs(continued.Select(k => k.SegmentId)),
                },
            };
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                var key = new StayKey(reader.GetString(0), reader.GetString(1), reader.GetInt64(2));
                _open[key] = new Stay(
                    key, reader.GetInt64(3), reader.GetFieldValue<DateTimeOffset>(4), reader.Maybe<DateTimeOffset?>(5), reader.GetString(6), loaded: true);
            }
        }

        public void Apply(RecordedEvent recorded)
        {
            var key = KeyOf(recorded);
            switch (recorded.Data)
            {
                case UserJoinedSegment joined:
                    var stay = new Stay(
                        key, recorded.Position, recorded.RecordedAt,
                        Membership.ExpiryOf(recorded.RecordedAt, joined.Ttl, joined.ExpiresAt), joined.Source, loaded: false);
                    _open.Add(key, stay);
                    _sizes.Add(key.Tenant, key.SegmentId, stay.JoinedAt, +1);
                    _sizes.Add(key.Tenant, key.SegmentId, stay.ExpiresAt, -1);
                    break;

                case MembershipRenewed renewed:
                    stay = _open[key];
                    _terms.Add((stay, recorded, stay.ExpiresAt));
                    // Decided while it held, recorded perhaps a moment after it had run out: then it holds again from that moment.
                    _sizes.Add(key.Tenant, key.SegmentId, stay.ExpiresAt < recorded.RecordedAt ? recorded.RecordedAt : stay.ExpiresAt, +1);
                    stay.ExpiresAt = Membership.ExpiryOf(recorded.RecordedAt, renewed.Ttl, renewed.ExpiresAt);
                    stay.Renewed = true;
                    _sizes.Add(key.Tenant, key.SegmentId, stay.ExpiresAt, -1);
                    break;

                case UserLeftSegment:
                    stay = _open[key];
                    // Decided while it held, recorded perhaps a moment after it had run out.
                    var leftAt = stay.ExpiresAt < recorded.RecordedAt ? stay.ExpiresAt.Value : recorded.RecordedAt;
                    _sizes.Add(key.Tenant, key.SegmentId, leftAt, -1);
                    _sizes.Add(key.Tenant, key.SegmentId, stay.ExpiresAt, +1);
                    End(stay, recorded, leftAt, "left");
                    break;

                case MembershipExpired expired:
                    End(_open[key], recorded, expired.ExpiresAt, "expired");
                    break;
            }
        }

        public async Task Write(ViewTransaction transaction, CancellationToken cancellation)
        {
            var gone = _ended.Where(s => s.Loaded).ToList();
            var renewed = _open.Values.Where(s => s.Loaded && s.Renewed).ToList();
            var begun = _open.Values.Where(s => !s.Loaded).OrderBy(s => s.Key.Tenant, StringComparer.Ordinal).ThenBy(s => s.Key.User, StringComparer.Ordinal).ToList();
            var sizes = _sizes.Rows;
            transaction.AddFor(gone.Count, () => Sql.Command(
                """
                delete from memberships m
                using unnest($1, $2, $3) k (tenant_id, user_id, segment_id)
                cross join lateral (
                  select ctid from memberships o
                  where o.tenant_id = k.tenant_id and o.user_id = k.user_id and o.segment_id = k.segment_id limit 1) o
                where m.ctid = o.ctid
                """,
                [.. Keys(gone)]));
            transaction.AddFor(renewed.Count, () => Sql.Command(
                """
                update memberships m set expires_at = k.expires_at
                from unnest($1, $2, $3, $4) k (tenant_id, user_id, segment_id, expires_at)
                cross join lateral (
                  select ctid from memberships o
                  where o.tenant_id = k.tenant_id and o.user_id = k.user_id and o.segment_id = k.segment_id limit 1) o
                where m.ctid = o.ctid
                """,
                [.. Keys(renewed), Sql.InstantsOrNull(renewed.Select(s => s.ExpiresAt))]));
            transaction.AddFor(_ended.Count, () => Sql.Command(
                """
                insert into past_memberships (
                  tenant_id, user_id, segment_id, joined_position, joined_at, expires_at, source, ended_position, ended_at, end_reason)
                select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
                """,
                [
                    .. Keys(_ended), .. Terms(_ended), Sql.Longs(_ended.Select(s => s.EndedPosition)),
                    Sql.Instants(_ended.Select(s => s.EndedAt)), Sql.Texts(_ended.Select(s => s.EndReason)),
                ]));
            transaction.AddFor(_terms.Count, () => Sql.Command(
                """
                insert into membership_terms (tenant_id, user_id, segment_id, joined_position, until_position, until_at, expires_at)
                select * from unnest($1, $2, $3, $4, $5, $6, $7)
                """,
                [
                    .. Keys([.. _terms.Select(t => t.Stay)]), Sql.Longs(_terms.Select(t => t.Stay.JoinedPosition)),
                    Sql.Longs(_terms.Select(t => t.Until.Position)), Sql.Instants(_terms.Select(t => t.Until.RecordedAt)),
                    Sql.InstantsOrNull(_terms.Select(t => t.ExpiresAt)),
                ]));
            transaction.AddFor(sizes.Count, () => Sql.Command(
                """
                insert into segment_size_changes (tenant_id, segment_id, level, bucket, net) select * from unnest($1, $2, $3, $4, $5)
                on conflict (tenant_id, segment_id, level, bucket) do update set net = segment_size_changes.net + excluded.net
                """,
                Sql.Texts(sizes.Select(s => s.Tenant)), Sql.Longs(sizes.Select(s => s.Segment)), Sql.Value(sizes.Select(s => (short)s.Level).ToArray()),
                Sql.Longs(sizes.Select(s => s.Bucket)), Sql.Longs(sizes.Select(s => s.Net))));
            // Last: who leaves and joins again has had a row until now.
            if (begun.Count < CopyRows.MinRows)
            {
                transaction.AddFor(begun.Count, () => Sql.Command(
                    """
                    insert into memberships (tenant_id, user_id, segment_id, joined_position, joined_at, expires_at, source)
                    select * from unnest($1, $2, $3, $4, $5, $6, $7)
                    """,
                    [.. Keys(begun), .. Terms(begun)]));
            }
            else
            {
                await Copy(begun, await transaction.Connection(cancellation), cancellation);
            }
        }

        private static async Task Copy(IReadOnlyCollection<Stay> stays, NpgsqlConnection connection, CancellationToken cancellation)
        {
            using var rows = new CopyRows();
            foreach (var stay in stays)
            {
                rows.BeginRow(columns: 7);
                rows.Text(stay.Key.Tenant);
                rows.Text(stay.Key.User);
                rows.Bigint(stay.Key.SegmentId);
                rows.Bigint(stay.JoinedPosition);
                rows.Instant(stay.JoinedAt);
                rows.Instant(stay.ExpiresAt);
                rows.Text(stay.Source);
            }

            await rows.CopyTo(
                connection,
                "copy memberships (tenant_id, user_id, segment_id, joined_position, joined_at, expires_at, source) from stdin (format binary)",
                cancellation);
        }

        private void End(Stay stay, RecordedEvent recorded, DateTimeOffset at, string reason)
        {
            _open.Remove(stay.Key);
            (stay.EndedPosition, stay.EndedAt, stay.EndReason) = (recorded.Position, at, reason);
            _ended.Add(stay);
        }

        private static StayKey KeyOf(RecordedEvent recorded) => new(
            recorded.TenantId,
            User.IdOf(recorded.StreamId),
            recorded.Data switch
            {
                UserJoinedSegment e => e.SegmentId,
                MembershipRenewed e => e.SegmentId,
                UserLeftSegment e => e.SegmentId,
                MembershipExpired e => e.SegmentId,
                _ => throw new InvalidOperationException($"{recorded.Type} says nothing of memberships."),
            });

        private static NpgsqlParameter[] Keys(IReadOnlyCollection<Stay> stays) =>
            [Sql.Texts(stays.Select(s => s.Key.Tenant)), Sql.Texts(stays.Select(s => s.Key.User)), Sql.Longs(stays.Select(s => s.Key.SegmentId))];

        private static NpgsqlParameter[] Terms(IReadOnlyCollection<Stay> stays) =>
        [
            Sql.Longs(stays.Select(s => s.JoinedPosition)), Sql.Instants(stays.Select(s => s.JoinedAt)),
            Sql.InstantsOrNull(stays.Select(s => s.ExpiresAt)), Sql.Texts(stays.Select(s => s.Source)),
        ];
    }
}
