using Ledger.EventStore;
using Npgsql;

namespace Ledger.Keys;

/// <summary>Keeps the view "Keys": a row of each key for each tenant that sees it. Nothing that keys are checked with is in it.</summary>
public sealed class KeysProjection : IProjection
{
    /// <summary>The view's name.</summary>
    public const string View = "Keys";

    /// <inheritdoc/>
    public string Name => View;

    /// <inheritdoc/>
    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type> { typeof(KeyCreated), typeof(KeyRotated), typeof(KeyRevoked) };

    /// <inheritdoc/>
    public IReadOnlyList<string> Tables => ["api_keys"];

    /// <inheritdoc/>
    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        // Of another tenant's stream of this name, which nothing of Ledger's own writes, no key is made.
        var told = events.Where(e => e.TenantId == Requests.DefaultTenant).ToArray();
        var ids = told.Select(e => ApiKey.IdOf(e.StreamId)).Distinct().ToArray();
        var keys = await Load(ids, await transaction.Connection(cancellation), cancellation);
        foreach (var recorded in told)
        {
            var id = ApiKey.IdOf(recorded.StreamId);
            keys[id] = ApiKey.Evolve(keys.GetValueOrDefault(id) ?? new ApiKey(id), recorded);
        }

        if (keys.Count == 0)
        {
            return;
        }

        var rows = keys.Values.SelectMany(k => ApiKey.AudienceOf(k.Tenant).Select(seenBy => (SeenBy: seenBy, Key: k))).ToArray();
        transaction.Add(Sql.Command(
            """
            insert into api_keys (
              tenant_id, key_id, name, of_tenant, scopes, prefix, created_at, created_by, created_position, expires_at, rotated_at, old_until, revoked_at, version)
            select * from unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
            on conflict (tenant_id, key_id) do update set
              rotated_at = excluded.rotated_at, old_until = excluded.old_until, revoked_at = excluded.revoked_at, version = excluded.version
            """,
            Sql.Texts(rows.Select(r => r.SeenBy)), Sql.Texts(rows.Select(r => r.Key.Id)), Sql.Texts(rows.Select(r => r.Key.Name)),
            Sql.Texts(rows.Select(r => r.Key.Tenant)), Sql.Texts(rows.Select(r => string.Join(' ', ScopeNames.Of(r.Key.Scopes)))),
            Sql.Texts(rows.Select(r => r.Key.Prefix)), Sql.Instants(rows.Select(r => r.Key.CreatedAt)), Sql.Texts(rows.Select(r => r.Key.CreatedBy)),
            Sql.Longs(rows.Select(r => r.Key.CreatedPosition)), Sql.InstantsOrNull(rows.Select(r => r.Key.ExpiresAt)),
            Sql.InstantsOrNull(rows.Select(r => r.Key.RotatedAt)), Sql.InstantsOrNull(rows.Select(r => r.Key.OldUntil)),
            Sql.InstantsOrNull(rows.Select(r => r.Key.RevokedAt)), Sql.Longs(rows.Select(r => r.Key.Version))));
    }

    private static async Task<Dictionary<string, ApiKey>> Load(string[] ids, NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            $"""
             select {KeyRow.Columns} from unnest($2) i (key_id)
             cross join lateral (select * from api_keys o where o.tenant_id = $1 and o.key_id = i.key_id limit 1) k
             """, connection)
        {
            Parameters = { Sql.Value(Requests.DefaultTenant), Sql.Texts(ids) },
        };
        var keys = new Dictionary<string, ApiKey>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            var key = KeyRow.Read(reader, 0);
            keys[key.Id] = key;
        }

        return keys;
    }
}

/// <summary>A row of <c>api_keys</c>, under the alias k.</summary>
internal static class KeyRow
{
    public const int ColumnCount = 13;

    public const string Columns =
        "k.key_id, k.name, k.of_tenant, k.scopes, k.prefix, k.created_at, k.created_by, k.created_position, k.expires_at, k.rotated_at, k.old_until, k.revoked_at, k.version";

    public static ApiKey Read(NpgsqlDataReader reader, int first) => new(reader.GetString(first))
    {
        Name = reader.GetString(first + 1), Tenant = reader.GetString(first + 2), Scopes = ScopeNames.Parse(reader.GetString(first + 3).Split(' ')),
        Prefix = reader.GetString(first + 4), CreatedAt = reader.GetFieldValue<DateTimeOffset>(first + 5), CreatedBy = reader.Maybe<string>(first + 6),
        CreatedPosition = reader.GetInt64(first + 7), ExpiresAt = reader.Maybe<DateTimeOffset?>(first + 8), RotatedAt = reader.Maybe<DateTimeOffset?>(first + 9),
        OldUntil = reader.Maybe<DateTimeOffset?>(first + 10), RevokedAt = reader.Maybe<DateTimeOffset?>(first + 11), Version = reader.GetInt64(first + 12),
    };
}
