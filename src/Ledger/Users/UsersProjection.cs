using System.Text.Json;
using Ledger.EventStore;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Users;

/// <summary>
/// Keeps the view "Users". The first event that names a user makes the row, whichever feature it belongs to: one of the user's
/// own stream, or one of <paramref name="otherEvents"/>, whose user <paramref name="userOf"/> tells.
/// </summary>
public sealed class UsersProjection(IEnumerable<Type> eventsOfUserStreams, IEnumerable<Type> otherEvents, Func<object, string> userOf) : IProjection
{
    /// <summary>Of so many new users it is looked up whether calls have named them before. Where one was, others will have been.</summary>
    private const int Probes = 16;

    private readonly HashSet<Type> _otherEvents = [.. otherEvents];

    /// <summary>The view's name.</summary>
    public const string View = "Users";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>([.. eventsOfUserStreams, .. otherEvents]);

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["users"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        var named = new Dictionary<StreamKey, User>(); // who may have no row yet
        var changed = new Dictionary<StreamKey, User>(); // whose attributes were set
        foreach (var recorded in events)
        {
            if (_otherEvents.Contains(recorded.Data!.GetType()))
            {
                named.TryAdd(new StreamKey(recorded.TenantId, userOf(recorded.Data)), User.Unknown with { RegisteredAt = recorded.RecordedAt });
                continue;
            }

            var key = new StreamKey(recorded.TenantId, User.IdOf(recorded.StreamId));
            if (recorded.Version == 1)
            {
                named.TryAdd(key, User.Evolve(User.Unknown, recorded));
            }

            if (recorded.Data is UserRegistered or UserAttributesSet)
            {
                changed[key] = User.Evolve(User.Unknown, recorded);
            }
        }

        // Who is new in this batch gets the row with the attributes it ends with.
        var plain = named.Where(u => !changed.ContainsKey(u.Key)).ToArray();
        var described = named.Where(u => changed.ContainsKey(u.Key))
            .Select(u => KeyValuePair.Create(u.Key, changed[u.Key] with { RegisteredAt = u.Value.RegisteredAt })).ToArray();
        var redescribed = changed.Where(u => !named.ContainsKey(u.Key)).ToArray();
        plain = await TryCopy(plain, transaction, cancellation) ? [] : plain;
        Insert(plain, "nothing");
        Insert(described, "update set attributes = excluded.attributes, version = excluded.version");
        if (redescribed.Length > 0)
        {
            transaction.Add(Sql.Command(
                """
                update users u set attributes = c.attributes, version = c.version
                from unnest($1, $2, $3, $4) c (tenant_id, user_id, attributes, version)
                cross join lateral (select ctid from users o where o.tenant_id = c.tenant_id and o.user_id = c.user_id limit 1) o
                where u.ctid = o.ctid
                """,
                [.. Rows(redescribed)]));
        }

        void Insert(KeyValuePair<StreamKey, User>[] users, string whenKnown)
        {
            if (users.Length > 0)
            {
                transaction.Add(Sql.Command(
                    $"""
                     insert into users (tenant_id, user_id, attributes, version, registered_at)
                     select * from unnest($1, $2, $3, $4, $5)
                     on conflict (tenant_id, user_id) do {whenKnown}
                     """,
                    [.. Rows(users), Sql.Instants(users.Select(u => u.Value.RegisteredAt!.Value))]));
            }
        }
    }

    /// <summary>
    /// Copies many users who are all new, as in an import: half of what an insert costs that looks for each whether it is there.
    /// Where one is there after all, nothing was done.
    /// </summary>
    private static async Task<bool> TryCopy(KeyValuePair<StreamKey, User>[] users, ViewTransaction transaction, CancellationToken cancellation)
    {
        if (users.Length < CopyRows.MinRows)
        {
            return false;
        }

        var connection = await transaction.Connection(cancellation);
        if (await IsAnyKnown([.. users.Where((_, i) => i % (users.Length / Probes) == 0)], connection, cancellation))
        {
            return false;
        }

        using var rows = new CopyRows();
        foreach (var (key, user) in users.OrderBy(u => u.Key.TenantId, StringComparer.Ordinal).ThenBy(u => u.Key.StreamId, StringComparer.Ordinal))
        {
            rows.BeginRow(columns: 5);
            rows.Text(key.TenantId);
            rows.Text(key.StreamId);
            rows.Jsonb("{}"u8);
            rows.Bigint(user.Version);
            rows.Instant(user.RegisteredAt!.Value);
        }

        await Execute("savepoint copying");
        try
        {
            await rows.CopyTo(
                connection, "copy users (tenant_id, user_id, attributes, version, registered_at) from stdin (format binary)", cancellation);
        }
        catch (PostgresException exception) when (exception.SqlState == PostgresErrorCodes.UniqueViolation)
        {
            await Execute("rollback to copying");
            return false;
        }

        await Execute("release copying");
        return true;

        async Task Execute(string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync(cancellation);
        }
    }

    private static async Task<bool> IsAnyKnown(KeyValuePair<StreamKey, User>[] users, NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select exists (
              select from unnest($1, $2) k (tenant_id, user_id)
              cross join lateral (select from users u where u.tenant_id = k.tenant_id and u.user_id = k.user_id limit 1) u)
            """, connection)
        {
            Parameters = { Sql.Texts(users.Select(u => u.Key.TenantId)), Sql.Texts(users.Select(u => u.Key.StreamId)) },
        };
        return (bool)(await command.ExecuteScalarAsync(cancellation))!;
    }

    private static NpgsqlParameter[] Rows(KeyValuePair<StreamKey, User>[] users) =>
    [
        Sql.Texts(users.Select(u => u.Key.TenantId)),
        Sql.Texts(users.Select(u => u.Key.StreamId)),
        new NpgsqlParameter<string[]>
        {
            TypedValue = [.. users.Select(u => u.Value.Attributes.Count == 0 ? "{}" : JsonSerializer.Serialize(u.Value.Attributes))],
            NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb,
        },
        Sql.Longs(users.Select(u => u.Value.Version)),
    ];
}
