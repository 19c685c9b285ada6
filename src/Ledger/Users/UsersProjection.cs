using System.Text.Json;
using Ledger.EventStore;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Users;

/// <summary>Keeps the view "Users". A user's first event makes the row, whichever feature it belongs to.</summary>
public sealed class UsersProjection(IEnumerable<Type> eventsOfUserStreams) : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Users";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type>(eventsOfUserStreams);

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["users"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, NpgsqlConnection connection, CancellationToken cancellation)
    {
        var registered = new Dictionary<StreamKey, User>();
        var changed = new Dictionary<StreamKey, User>();
        foreach (var recorded in events)
        {
            var key = new StreamKey(recorded.TenantId, User.IdOf(recorded.StreamId));
            if (recorded.Version == 1)
            {
                registered[key] = User.Evolve(User.Unknown, recorded);
            }
            else if (recorded.Data is UserRegistered or UserAttributesSet)
            {
                var rows = registered.ContainsKey(key) ? registered : changed;
                rows[key] = User.Evolve(rows.GetValueOrDefault(key) ?? User.Unknown, recorded);
            }
        }

        await using var batch = new NpgsqlBatch(connection);
        if (registered.Count > 0)
        {
            batch.BatchCommands.Add(Sql.Command(
                """
                insert into users (tenant_id, user_id, attributes, version, registered_at)
                select * from unnest($1, $2, $3, $4, $5)
                """,
                [.. Rows(registered), Sql.Instants(registered.Values.Select(u => u.RegisteredAt!.Value))]));
        }

        if (changed.Count > 0)
        {
            batch.BatchCommands.Add(Sql.Command(
                """
                update users u set attributes = c.attributes, version = c.version
                from unnest($1, $2, $3, $4) c (tenant_id, user_id, attributes, version)
                cross join lateral (select ctid from users o where o.tenant_id = c.tenant_id and o.user_id = c.user_id limit 1) o
                where u.ctid = o.ctid
                """,
                [.. Rows(changed)]));
        }

        if (batch.BatchCommands.Count > 0)
        {
            await batch.ExecuteNonQueryAsync(cancellation);
        }
    }

    private static NpgsqlParameter[] Rows(Dictionary<StreamKey, User> users) =>
    [
        Sql.Texts(users.Keys.Select(k => k.TenantId)),
        Sql.Texts(users.Keys.Select(k => k.StreamId)),
        new NpgsqlParameter<string[]>
        {
            TypedValue = [.. users.Values.Select(u => JsonSerializer.Serialize(u.Attributes))],
            NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb,
        },
        Sql.Longs(users.Values.Select(u => u.Version)),
    ];
}
