using System.Text.Json;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Users;

/// <summary>Somebody known, with attributes.</summary>
public sealed record KnownUser(string Id, IReadOnlyDictionary<string, JsonElement> Attributes);

/// <summary>Users with their attributes, for other features that work through many of them in the background, by the primary key.</summary>
public sealed class KnownUsers(BackgroundDatabase background)
{
    /// <summary>The view it rests on.</summary>
    public const string View = UsersProjection.View;

    /// <summary>The next users by id who were known at an instant.</summary>
    public async Task<IReadOnlyList<KnownUser>> Next(string tenantId, DateTimeOffset at, string after, int limit, CancellationToken cancellation) => await Read(
        background.Source.Command(
            """
            select u.user_id, u.attributes from users u
            where u.tenant_id = $1 and u.user_id > $2 and u.registered_at <= $3 order by u.user_id limit $4
            """,
            Sql.Value(tenantId), Sql.Value(after), Sql.Value(at), Sql.Value(limit)),
        cancellation);

    /// <summary>Those of the users that are known, in no order.</summary>
    public async Task<IReadOnlyList<KnownUser>> Of(string tenantId, IReadOnlyCollection<string> userIds, CancellationToken cancellation) => await Read(
        background.Source.Command(
            """
            select u.user_id, u.attributes
            from unnest($2) k (user_id)
            cross join lateral (select * from users u where u.tenant_id = $1 and u.user_id = k.user_id limit 1) u
            """,
            Sql.Value(tenantId), Sql.Texts(userIds)),
        cancellation);

    private static async Task<IReadOnlyList<KnownUser>> Read(NpgsqlCommand command, CancellationToken cancellation)
    {
        await using (command)
        {
            var users = new List<KnownUser>();
            await using var reader = await command.ExecuteReaderAsync(cancellation);
            while (await reader.ReadAsync(cancellation))
            {
                users.Add(new KnownUser(reader.GetString(0), JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(reader.GetFieldValue<byte[]>(1))!));
            }

            return users;
        }
    }
}
