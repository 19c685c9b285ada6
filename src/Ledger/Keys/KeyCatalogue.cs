using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Keys;

/// <summary>
/// A key, without its secret, which nobody has. <c>status</c> is <c>active</c>, <c>expired</c> or <c>revoked</c>; <c>lastUsedAt</c>
/// is a minute or so behind.
/// </summary>
public sealed record KeyItem(
    string KeyId, string Name, string Tenant, IReadOnlyList<string> Scopes, string Prefix, string Status, DateTimeOffset CreatedAt, string? CreatedBy,
    DateTimeOffset? ExpiresAt, DateTimeOffset? RotatedAt, DateTimeOffset? OldSecretUntil, DateTimeOffset? RevokedAt, DateTimeOffset? LastUsedAt)
{
    internal static KeyItem Of(ApiKey key, DateTimeOffset? lastUsedAt, DateTimeOffset now) => new(
        key.Id, key.Name, key.Tenant, ScopeNames.Of(key.Scopes), key.Prefix, key.RevokedAt is not null ? "revoked" : key.HasExpiredAt(now) ? "expired" : "active",
        key.CreatedAt, key.CreatedBy, key.ExpiresAt, key.RotatedAt, key.OldUntil, key.RevokedAt, lastUsedAt);
}

/// <summary>Answers which keys there are: an operator's caller sees all, another one those of its tenant.</summary>
public static class KeyCatalogue
{
    private static readonly CsvTable<KeyItem> Csv = new(
        ["keyId", "name", "tenant", "scopes", "prefix", "status", "createdAt", "createdBy", "expiresAt", "rotatedAt", "oldSecretUntil", "revokedAt", "lastUsedAt"],
        (csv, key) =>
        {
            csv.Text(key.KeyId);
            csv.Text(key.Name);
            csv.Text(key.Tenant);
            csv.Text(string.Join(' ', key.Scopes));
            csv.Text(key.Prefix);
            csv.Text(key.Status);
            csv.Time(key.CreatedAt);
            csv.Text(key.CreatedBy);
            csv.Time(key.ExpiresAt);
            csv.Time(key.RotatedAt);
            csv.Time(key.OldSecretUntil);
            csv.Time(key.RevokedAt);
            csv.Time(key.LastUsedAt);
        });

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/keys/{keyId}", GetOne)
            .Requires(Scopes.Admin).WithName("GetKey").WithTags("Keys").WithSummary("A key, without its secret; also a revoked one")
            .Produces<KeyItem>().ProducesQueryProblems(404);
        routes.MapGet("/v1/keys", List)
            .Requires(Scopes.Admin).WithName("ListKeys").WithTags("Keys").WithSummary("All keys without their secrets, the newest first; revoked ones when asked for")
            .ProducesList<KeyItem>().ProducesQueryProblems(406);
    }

    internal static Rejection NotFound(string id) => new("key-not-found", $"There is no key '{id}'.");

    private static Task<IResult> GetOne(string keyId, HttpContext http, Queries queries, KeysReader keys, CancellationToken cancellation) =>
        queries.Now(http, KeysReader.Names, async now =>
        {
            var (position, found) = await keys.Find(http.TenantId(), keyId, cancellation);
            http.AnswerPosition(position);
            if (found is not var (key, lastUsedAt))
            {
                return Problems.For(NotFound(keyId));
            }

            ETags.Write(http.Response, key.Version);
            return Results.Ok(KeyItem.Of(key, lastUsedAt, now));
        });

    private static Task<IResult> List(
        [AsParameters] PageQuery page, bool? includeRevoked, HttpContext http, Queries queries, KeysReader keys, CancellationToken cancellation) =>
        queries.Now(http, KeysReader.Names, now => ListAnswers.Answer<KeyItem, long>(
            http, page, "keys", [$"{includeRevoked ?? false}"], Csv,
            async (before, rows) =>
            {
                var (position, found) = await keys.List(http.TenantId(), includeRevoked ?? false, before == 0 ? long.MaxValue : before, rows, cancellation);
                http.AnswerPosition(position);
                return [.. found.Select(k => (KeyItem.Of(k.Key, k.LastUsedAt, now), k.Key.CreatedPosition))];
            }));
}

/// <summary>Reads the view "Keys".</summary>
public sealed class KeysReader(ViewDatabase snapshots, Views views, EventReader log)
{
    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Names = [KeysProjection.View];

    private const string Used = "left join lateral (select u.last_used_at from api_key_uses u where u.tenant_id = k.tenant_id and u.key_id = k.key_id limit 1) u on true";

    /// <summary>One of the keys that a tenant sees.</summary>
    public async Task<(long Position, (ApiKey Key, DateTimeOffset? LastUsedAt)? Found)> Find(string tenantId, string keyId, CancellationToken cancellation)
    {
        var (position, rows) = await Read(
            tenantId,
            Sql.Command(
                $"select {KeyRow.Columns}, u.last_used_at from api_keys k {Used} where k.tenant_id = $1 and k.key_id = $2", Sql.Value(tenantId), Sql.Value(keyId)),
            cancellation);
        return (position, rows.Count == 0 ? null : rows[0]);
    }

    /// <summary>A page of the keys that a tenant sees, the newest first.</summary>
    public Task<(long Position, IReadOnlyList<(ApiKey Key, DateTimeOffset? LastUsedAt)> Rows)> List(
        string tenantId, bool includeRevoked, long before, int limit, CancellationToken cancellation) =>
        Read(
            tenantId,
            Sql.Command(
                $"""
                 select {KeyRow.Columns}, u.last_used_at from api_keys k {Used}
                 where k.tenant_id = $1 and k.created_position < $2 {(includeRevoked ? "" : "and k.revoked_at is null")}
                 order by k.created_position desc limit $3
                 """,
                Sql.Value(tenantId), Sql.Value(before), Sql.Value(limit)),
            cancellation);

    /// <summary>
    /// Why no further key is made for a tenant; null when it may have one. Of several that are made at the same moment, each may be
    /// the last. Costs the tenant's keys that were not revoked.
    /// </summary>
    internal async Task<Rejection?> Refuse(string asker, string tenantId, DateTimeOffset now, CancellationToken cancellation)
    {
        var head = await log.ReadHead(cancellation);
        if (!await views.WaitFor(Names, head, Positions.DefaultWait, cancellation))
        {
            return new Rejection("view-behind", $"How many keys the tenant has is not known up to position {head} yet.");
        }

        var live = await snapshots.Rows(
            asker,
            Sql.Command(
                """
                select count(*) from api_keys k
                where k.tenant_id = $1 and k.revoked_at is null and k.of_tenant = $2 and (k.expires_at is null or k.expires_at > $3)
                """,
                Sql.Value(asker), Sql.Value(tenantId), Sql.Value(now)),
            row => row.GetInt64(0), cancellation);
        return live[0] < KeyRules.MaxLiveKeys ? null
            : new Rejection("too-many-keys", $"The tenant has {KeyRules.MaxLiveKeys} keys that are neither revoked nor expired: revoke some.");
    }

    private async Task<(long Position, IReadOnlyList<(ApiKey Key, DateTimeOffset? LastUsedAt)> Rows)> Read(
        string tenantId, Npgsql.NpgsqlBatchCommand statement, CancellationToken cancellation)
    {
        var rows = new List<(ApiKey, DateTimeOffset?)>();
        var position = await snapshots.Read(
            tenantId, Names, [statement],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add((KeyRow.Read(reader, 0), reader.Maybe<DateTimeOffset?>(KeyRow.ColumnCount)));
                }
            },
            cancellation);
        return (position, rows);
    }
}
