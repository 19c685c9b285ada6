using System.Collections.Concurrent;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Keys;

/// <summary>Notes when keys were last used: in memory at a use, in the database now and then, and never in a request's way.</summary>
public sealed partial class KeyUses(AllTenantsDatabase database, ILogger<KeyUses> logger) : BackgroundService
{
    /// <summary>A key that is used all the time is noted this often by a node.</summary>
    public static readonly TimeSpan NoteInterval = TimeSpan.FromMinutes(1);

    /// <summary>How often what was noted is written.</summary>
    public static readonly TimeSpan WriteInterval = TimeSpan.FromSeconds(5);

    private readonly ConcurrentDictionary<string, (string Tenant, DateTimeOffset At)> _noted = [];

    /// <summary>Notes that a key was used.</summary>
    public void Note(ApiKey key, DateTimeOffset at) => _noted[key.Id] = (key.Tenant, at);

    /// <summary>Writes what was noted. When the database is away it stays noted.</summary>
    public async Task Write(CancellationToken cancellation)
    {
        var uses = _noted.ToArray();
        if (uses.Length == 0)
        {
            return;
        }

        // In one order, so that two nodes don't wait for each other.
        var rows = uses.SelectMany(u => ApiKey.AudienceOf(u.Value.Tenant).Select(seenBy => (SeenBy: seenBy, KeyId: u.Key, u.Value.At)))
            .OrderBy(r => r.SeenBy, StringComparer.Ordinal).ThenBy(r => r.KeyId, StringComparer.Ordinal).ToArray();
        await using var command = database.Source.Command(
            """
            insert into api_key_uses as u (tenant_id, key_id, last_used_at) select * from unnest($1, $2, $3)
            on conflict (tenant_id, key_id) do update set last_used_at = greatest(u.last_used_at, excluded.last_used_at)
            """,
            Sql.Texts(rows.Select(r => r.SeenBy)), Sql.Texts(rows.Select(r => r.KeyId)), Sql.Instants(rows.Select(r => r.At)));
        await command.ExecuteNonQueryAsync(cancellation);
        foreach (var use in uses)
        {
            _noted.TryRemove(use);
        }
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var pause = new PeriodicTimer(WriteInterval);
        try
        {
            while (await pause.WaitForNextTickAsync(stoppingToken))
            {
                await TryWrite(stoppingToken);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // What is noted is written once more below.
        }

        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(1));
        await TryWrite(patience.Token);
    }

    private async Task TryWrite(CancellationToken cancellation)
    {
        try
        {
            await Write(cancellation);
        }
        catch (Exception exception) when (exception is NpgsqlException or TimeoutException or OperationCanceledException)
        {
            if (!cancellation.IsCancellationRequested && !DatabaseErrors.IsUnavailable(exception))
            {
                LogFailed(exception);
            }
        }
    }

    [LoggerMessage(LogLevel.Warning, "When keys were last used could not be written")]
    private partial void LogFailed(Exception exception);
}
