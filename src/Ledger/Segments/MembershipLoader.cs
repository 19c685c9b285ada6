using Ledger.EventStore;
using Ledger.Users;
using Npgsql;

namespace Ledger.Segments;

/// <summary>A user's memberships as they are now, with the version of the user's stream they rest on.</summary>
public sealed record LoadedMemberships(UserMemberships State, long Version);

/// <summary>A live segment that takes in a share of all users.</summary>
public sealed record RolledOutSegment(string Slug, long SegmentId, string Salt, decimal Percent);

/// <summary>
/// Memberships for decisions: what the view knows and the events it does not know yet, in one snapshot and one round trip. So
/// it is exact however far the view is behind, and costs the user's open memberships, not the user's history.
/// </summary>
public sealed class MembershipLoader(NpgsqlDataSource database, EventReader reader)
{
    /// <summary>Loads of single users that are in the database at once; users asked for meanwhile share the next one.</summary>
    public const int MaxLoads = 2;

    /// <summary>Users that share a load.</summary>
    public const int MaxUsersOfLoad = 500;

    private readonly Lock _lock = new();
    private readonly Queue<Waiting> _waiting = [];
    private int _loads;

    /// <summary>
    /// One user's memberships, and the roll-outs of the tenant: as they are after this call begins, or later. Calls that come
    /// while others are being answered go to the database together, as their events do afterwards.
    /// </summary>
    public async Task<(LoadedMemberships User, IReadOnlyList<RolledOutSegment> Rollouts)> Load(
        string tenantId, string userId, CancellationToken cancellation)
    {
        var waiting = new Waiting(tenantId, userId);
        bool begin;
        lock (_lock)
        {
            _waiting.Enqueue(waiting);
            begin = _loads < MaxLoads;
            _loads += begin ? 1 : 0;
        }

        if (begin)
        {
            _ = LoadWaiting();
        }

        return await waiting.Done.Task.WaitAsync(cancellation);
    }

    /// <summary>
    /// Many users' memberships of one segment; memberships of others are left out. It is one snapshot of two round trips: of who
    /// has no stream, nothing more is asked.
    /// </summary>
    public async Task<LoadedMemberships[]> Load(string tenantId, string[] userIds, long onlySegment, CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        StreamTail[] tails;
        await using (var batch = new NpgsqlBatch(connection))
        {
            EventReader.BeginSnapshot(batch, tenantId);
            AddTails(batch, tenantId, userIds);
            await using var results = await batch.Read(cancellation);
            tails = await reader.ReadTails(results, userIds.Length, cancellation);
        }

        var there = Enumerable.Range(0, userIds.Length).Where(i => tails[i].Version > 0).ToArray();
        var open = new Dictionary<long, Membership>?[userIds.Length];
        await using (var batch = new NpgsqlBatch(connection))
        {
            if (there.Length > 0)
            {
                batch.BatchCommands.Add(OpenOf(tenantId, Array.ConvertAll(there, i => userIds[i]), onlySegment));
            }

            EventReader.EndSnapshot(batch);
            await using var results = await batch.ExecuteReaderAsync(cancellation);
            if (there.Length > 0)
            {
                await ReadOpen(results, ordinal => open[there[ordinal]] ??= [], cancellation);
            }

            await ReadToEnd(results, cancellation);
        }

        return Evolve(open, tails, e => IsOf(onlySegment, e.Data));
    }

    /// <summary>Loads for those who wait until nobody does.</summary>
    private async Task LoadWaiting()
    {
        while (TakeWaiting() is { Count: > 0 } batch)
        {
            try
            {
                var users = batch.Select(w => w.UserId).Distinct().ToArray();
                var rollouts = new List<RolledOutSegment>();
                var loaded = await Load(batch[0].TenantId, users, rollouts, CancellationToken.None);
                var byUser = users.Zip(loaded).ToDictionary(u => u.First, u => u.Second);
                batch.ForEach(w => w.Done.TrySetResult((byUser[w.UserId], rollouts)));
            }
            catch (Exception exception)
            {
                batch.ForEach(w => w.Done.TrySetException(exception));
            }
        }
    }

    /// <summary>Those of one tenant at the head of the queue; none, and this load's place is free again, when nobody waits.</summary>
    private List<Waiting> TakeWaiting()
    {
        var batch = new List<Waiting>();
        lock (_lock)
        {
            while (batch.Count < MaxUsersOfLoad && _waiting.TryPeek(out var next) && (batch.Count == 0 || next.TenantId == batch[0].TenantId))
            {
                batch.Add(_waiting.Dequeue());
            }

            _loads -= batch.Count == 0 ? 1 : 0;
        }

        return batch;
    }

    private async Task<LoadedMemberships[]> Load(string tenantId, string[] userIds, List<RolledOutSegment> rollouts, CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var batch = new NpgsqlBatch(connection);
        EventReader.BeginSnapshot(batch, tenantId);
        AddTails(batch, tenantId, userIds);
        batch.BatchCommands.Add(OpenOf(tenantId, userIds, onlySegment: null));
        batch.BatchCommands.Add(Sql.Command(
            "select slug, segment_id, salt, rollout_percent from segments where tenant_id = $1 and deleted_at is null and rollout_percent > 0 order by slug",
            Sql.Value(tenantId)));
        EventReader.EndSnapshot(batch);
        await using var results = await batch.Read(cancellation);
        var tails = await reader.ReadTails(results, userIds.Length, cancellation);
        await results.NextResultAsync(cancellation);
        var open = new Dictionary<long, Membership>?[userIds.Length];
        await ReadOpen(results, ordinal => open[ordinal] ??= [], cancellation);
        await results.NextResultAsync(cancellation);
        while (await results.ReadAsync(cancellation))
        {
            rollouts.Add(new RolledOutSegment(results.GetString(0), results.GetInt64(1), results.GetString(2), results.GetDecimal(3)));
        }

        await ReadToEnd(results, cancellation);
        return Evolve(open, tails, _ => true);
    }

    private static void AddTails(NpgsqlBatch batch, string tenantId, string[] userIds)
    {
        var tenants = new string[userIds.Length];
        Array.Fill(tenants, tenantId);
        EventReader.AddTails(batch, MembershipsProjection.View, tenants, Array.ConvertAll(userIds, User.StreamOf));
    }

    /// <summary>The statement that reads users' open stays, of one segment or of all.</summary>
    internal static NpgsqlBatchCommand OpenOf(string tenantId, string[] userIds, long? onlySegment) =>
        Sql.Command(
            $"""
             select k.ordinal, m.segment_id, m.joined_position, m.joined_at, m.expires_at, m.source,
                    coalesce(s.slug, (select e.data ->> 'slug' from mt_events e where e.seq_id = m.segment_id)) -- its view may be behind
             from unnest($2) with ordinality k (user_id, ordinal)
             cross join lateral (
               select * from memberships m where m.tenant_id = $1 and m.user_id = k.user_id {(onlySegment is null ? "offset 0" : "and m.segment_id = $3 limit 1")}) m
             left join lateral (
               select * from segments s where s.tenant_id = m.tenant_id and s.segment_id = m.segment_id limit 1) s on true
             where s.deleted_at is null
             """,
            [Sql.Value(tenantId), Sql.Texts(userIds), .. onlySegment is { } only ? [Sql.Value(only)] : Array.Empty<NpgsqlParameter>()]);

    private static async Task ReadOpen(NpgsqlDataReader results, Func<long, Dictionary<long, Membership>> ofOrdinal, CancellationToken cancellation)
    {
        while (await results.ReadAsync(cancellation))
        {
            var segmentId = results.GetInt64(1);
            ofOrdinal(results.GetInt64(0) - 1)[segmentId] = new Membership(
                results.GetString(6), segmentId, results.GetInt64(2), results.GetFieldValue<DateTimeOffset>(3),
                results.Maybe<DateTimeOffset?>(4), results.GetString(5));
        }
    }

    /// <summary>An error of a later statement shows here.</summary>
    private static async Task ReadToEnd(NpgsqlDataReader results, CancellationToken cancellation)
    {
        while (await results.NextResultAsync(cancellation))
        {
        }
    }

    private static LoadedMemberships[] Evolve(Dictionary<long, Membership>?[] open, StreamTail[] tails, Func<RecordedEvent, bool> counts) =>
        [.. tails.Zip(open, (tail, known) => new LoadedMemberships(
            tail.Events.Where(counts).Aggregate(known is null ? UserMemberships.None : new UserMemberships(known), UserMemberships.Evolve), tail.Version))];

    private static bool IsOf(long segmentId, object? data) => data switch
    {
        UserJoinedSegment e => e.SegmentId == segmentId,
        MembershipRenewed e => e.SegmentId == segmentId,
        UserLeftSegment e => e.SegmentId == segmentId,
        MembershipExpired e => e.SegmentId == segmentId,
        _ => false,
    };

    private sealed record Waiting(string TenantId, string UserId)
    {
        public TaskCompletionSource<(LoadedMemberships, IReadOnlyList<RolledOutSegment>)> Done { get; } =
            new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
