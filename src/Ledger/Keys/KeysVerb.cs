using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Keys;

/// <summary>Makes, lists, rotates and revokes keys as the operator, straight in the database: how a first key is made.</summary>
internal static class KeysVerb
{
    private static readonly CommandContext s_operator = new(Requests.DefaultTenant, "command line", null);

    /// <summary>Standard output gets the secret and nothing else, so that a script can keep it.</summary>
    public static async Task<int> Create(
        IServiceProvider services, string name, string? tenant, string[] scopes, string? expires, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        await Prepare(services, cancellation);
        DateTimeOffset? expiresAt = null;
        if (expires is not null)
        {
            var clock = services.GetRequiredService<LedgerClock>();
            if (Rfc3339.TryParse(expires, out var at))
            {
                expiresAt = at;
            }
            else if (Iso8601Duration.TryParse(expires, out var after, out _) && after > TimeSpan.Zero)
            {
                expiresAt = clock.GetUtcNow() + after;
            }
            else
            {
                await errors.WriteLineAsync($"--expires must be a time such as 2027-01-01T00:00:00Z or a duration such as P90D; '{expires}' is neither.");
                return 1;
            }
        }

        var (result, key) = await new CreateKey(name, scopes, tenant, expiresAt).Run(
            s_operator, services.GetRequiredService<CommandHandler>(), services.GetRequiredService<EventReader>(), services.GetRequiredService<LedgerClock>(), cancellation);
        return await Tell(result, key, output, errors);
    }

    public static async Task<int> Rotate(
        IServiceProvider services, string keyId, string overlap, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        await Prepare(services, cancellation);
        if (!Iso8601Duration.TryParse(overlap, out var holds, out _))
        {
            await errors.WriteLineAsync($"--overlap must be a duration such as PT1H; '{overlap}' is none.");
            return 1;
        }

        var (result, key) = await new RotateKey(holds).Run(
            keyId, s_operator, default, services.GetRequiredService<CommandHandler>(), services.GetRequiredService<EventReader>(),
            services.GetRequiredService<LedgerClock>(), cancellation);
        return await Tell(result, key, output, errors);
    }

    public static async Task<int> Revoke(IServiceProvider services, string keyId, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        await Prepare(services, cancellation);
        var result = await RevokeKey.Run(
            keyId, s_operator, default, services.GetRequiredService<CommandHandler>(), services.GetRequiredService<EventReader>(), cancellation);
        if (result.Rejection is { } rejection)
        {
            await errors.WriteLineAsync(rejection.Detail);
            return 1;
        }

        await output.WriteLineAsync($"The key {keyId} is revoked.");
        return 0;
    }

    /// <summary>From the view, which is as far as a node has brought it.</summary>
    public static async Task<int> List(IServiceProvider services, TextWriter output, CancellationToken cancellation)
    {
        await Prepare(services, cancellation);
        var (keys, now) = (services.GetRequiredService<KeysReader>(), services.GetRequiredService<LedgerClock>().GetUtcNow());
        var before = long.MaxValue;
        IReadOnlyList<(ApiKey Key, DateTimeOffset? LastUsedAt)> rows;
        do
        {
            (_, rows) = await keys.List(Requests.DefaultTenant, includeRevoked: true, before, Lists.MaxLimit, cancellation);
            foreach (var (key, lastUsedAt) in rows)
            {
                var item = KeyItem.Of(key, lastUsedAt, now);
                await output.WriteLineAsync(
                    $"{item.KeyId}  {item.Status,-7}  {item.Tenant}  {item.Name}  [{string.Join(' ', item.Scopes)}]"
                    + $"{(item.ExpiresAt is { } ends ? $"  expires {Rfc3339.Format(ends)}" : "")}{(lastUsedAt is { } used ? $"  last used {Rfc3339.Format(used)}" : "")}");
                before = key.CreatedPosition;
            }
        }
        while (rows.Count == Lists.MaxLimit);
        return 0;
    }

    private static async Task Prepare(IServiceProvider services, CancellationToken cancellation)
    {
        await services.GetRequiredService<SchemaMigrator>().Migrate(cancellation);
        await services.GetRequiredService<Views>().Register(cancellation);
    }

    private static async Task<int> Tell(CommandResult result, KeyAnswer? key, TextWriter output, TextWriter errors)
    {
        if (result.Rejection is { } rejection)
        {
            await errors.WriteLineAsync(rejection.Detail);
            foreach (var (field, messages) in rejection.Errors?.Skip(1) ?? [])
            {
                await errors.WriteLineAsync($"{field} {string.Join(", ", messages)}.");
            }

            return 1;
        }

        await errors.WriteLineAsync(
            $"The key {key!.KeyId}, '{key.Name}', of the tenant {key.Tenant}: {string.Join(", ", key.Scopes)}. Its secret is shown this once:");
        await output.WriteLineAsync(key.Secret);
        return 0;
    }
}
