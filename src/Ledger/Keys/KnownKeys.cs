using System.Collections.Concurrent;
using System.Diagnostics;
using System.Security.Cryptography;
using System.Threading.RateLimiting;
using Ledger.Authentication;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Keys;

/// <summary>
/// API keys as credentials, folded from their streams and kept in memory. What is known of a key is asked for again when it is
/// older than <see cref="RefreshAfter"/>, beside the request, and before it is answered when it is older than
/// <see cref="MaxAge"/>: so a revocation holds everywhere within a second, and a key that is in use makes nobody wait.
/// </summary>
public sealed class KnownKeys(EventReader log, LedgerClock clock, KeyUses uses) : ICredentials, IDisposable
{
    /// <summary>Keys kept in memory; past that the memory starts anew.</summary>
    public const int MaxKnown = 10_000;

    /// <summary>Ids kept in memory that no key has; past that the memory starts anew.</summary>
    public const int MaxUnknown = 10_000;

    /// <summary>Ids not in memory that are looked for in a second. A guess costs no more than that; beyond it the answer is 429.</summary>
    public const int MaxSearchesPerSecond = 50;

    /// <summary>The age from which on what is known of a key is asked for again, beside the request.</summary>
    public static readonly TimeSpan RefreshAfter = TimeSpan.FromMilliseconds(400);

    /// <summary>The age from which on a request waits for that.</summary>
    public static readonly TimeSpan MaxAge = TimeSpan.FromMilliseconds(800);

    /// <summary>How soon a secret that a known key does not have makes its stream be looked at again.</summary>
    public static readonly TimeSpan WrongSecretPause = TimeSpan.FromMilliseconds(100);

    /// <summary>How long what is known of a key serves while the database is away, as long as commands wait for it and somewhat more.</summary>
    public static readonly TimeSpan Grace = TimeSpan.FromSeconds(10);

    /// <summary>How long an id that no key has is not looked for again.</summary>
    public static readonly TimeSpan UnknownFor = TimeSpan.FromSeconds(10);

    /// <summary>How long a look at a key's stream may take.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(2);

    private static readonly Rejection s_unknown = Authenticator.Invalid("The credential is no valid one.");
    private static readonly Rejection s_expired = Authenticator.Invalid("The key has expired.") with { CountedAs = "expired" };
    private static readonly Rejection s_revoked = Authenticator.Invalid("The key was revoked.") with { CountedAs = "revoked" };
    private static readonly Rejection s_replaced = Authenticator.Invalid("The key was rotated, and this secret of it has run out.") with { CountedAs = "expired" };
    private static readonly Rejection s_away = new("store-unavailable", "The database can't be reached to look for the key.");
    private static readonly Rejection s_tooMany = new("rate-limited", "Too many keys are looked for that this node does not know yet.");

    private readonly ConcurrentDictionary<string, Known> _known = new(StringComparer.Ordinal);
    private readonly ConcurrentDictionary<string, long> _unknown = new(StringComparer.Ordinal);
    private readonly FixedWindowRateLimiter _searches =
        new(new() { PermitLimit = MaxSearchesPerSecond, Window = TimeSpan.FromSeconds(1), AutoReplenishment = true });

    /// <inheritdoc/>
    public bool Recognises(ReadOnlySpan<char> token) => KeySecret.Recognises(token);

    /// <inheritdoc/>
    public Task<bool> AreConfigured(CancellationToken cancellation) => ApiKey.WereEverMade(log, cancellation); // not by the view, which may be far behind

    /// <inheritdoc/>
    public ValueTask<Authentication.Authentication> Authenticate(ReadOnlyMemory<char> token, CancellationToken cancellation)
    {
        if (!KeySecret.TryReadId(token.Span, out var keyId))
        {
            return ValueTask.FromResult<Authentication.Authentication>(s_unknown);
        }

        if (_known.GetAlternateLookup<ReadOnlySpan<char>>().TryGetValue(keyId, out var known))
        {
            var age = known.Knowledge is { } knowledge ? Stopwatch.GetElapsedTime(knowledge.AskedAt) : TimeSpan.MaxValue;
            if (age < MaxAge)
            {
                if (age >= RefreshAfter)
                {
                    _ = known.Refresh(this);
                }

                // A secret that is not known may be newer than what is known.
                var judged = Judge(known, known.Knowledge!, token.Span);
                if (judged.Refusal != s_unknown)
                {
                    return ValueTask.FromResult(judged);
                }

                return AskAgain(known, token, cancellation);
            }
        }
        else
        {
            var lookup = _unknown.GetAlternateLookup<ReadOnlySpan<char>>();
            if (lookup.TryGetValue(keyId, out var since))
            {
                if (Stopwatch.GetElapsedTime(since) < UnknownFor)
                {
                    return ValueTask.FromResult<Authentication.Authentication>(s_unknown);
                }

                lookup.TryRemove(keyId, out _);
            }

            using var search = _searches.AttemptAcquire();
            if (!search.IsAcquired)
            {
                return ValueTask.FromResult<Authentication.Authentication>(s_tooMany);
            }

            if (_known.Count >= MaxKnown)
            {
                _known.Clear();
            }

            var id = keyId.ToString();
            known = _known.GetOrAdd(id, static i => new Known(i));
        }

        return Ask(known, token, cancellation);
    }

    /// <inheritdoc/>
    public void Dispose() => _searches.Dispose();

    /// <summary>However fast wrong secrets of a key come, its stream is looked at now and then only, and they wait for it.</summary>
    private async ValueTask<Authentication.Authentication> AskAgain(Known known, ReadOnlyMemory<char> token, CancellationToken cancellation)
    {
        if (known.Knowledge is { } knowledge && WrongSecretPause - Stopwatch.GetElapsedTime(knowledge.AskedAt) is { Ticks: > 0 } pause)
        {
            await Task.Delay(pause, cancellation);
        }

        return await Ask(known, token, cancellation);
    }

    private async ValueTask<Authentication.Authentication> Ask(Known known, ReadOnlyMemory<char> token, CancellationToken cancellation)
    {
        var asked = Stopwatch.GetTimestamp();
        try
        {
            await known.Refresh(this).WaitAsync(cancellation);
            if (known.Knowledge!.AskedAt < asked)
            {
                await known.Refresh(this).WaitAsync(cancellation); // that one had begun before
            }
        }
        catch (Exception exception) when (IsAway(exception) && !cancellation.IsCancellationRequested)
        {
            // What is known serves for a while.
        }

        if (known.Knowledge is not { } knowledge || Stopwatch.GetElapsedTime(knowledge.AskedAt) > Grace)
        {
            Forget(known);
            return s_away;
        }

        if (!knowledge.Key.Exists)
        {
            Forget(known);
            if (_unknown.Count >= MaxUnknown)
            {
                _unknown.Clear();
            }

            _unknown[known.Id] = knowledge.AskedAt;
            return s_unknown;
        }

        return Judge(known, knowledge, token.Span);
    }

    /// <summary>Judges a secret by what is known of its key. Nobody learns anything of a key whose secret they don't have.</summary>
    private Authentication.Authentication Judge(Known known, Knowledge knowledge, ReadOnlySpan<char> token)
    {
        Span<byte> sha256 = stackalloc byte[SHA256.HashSizeInBytes];
        KeySecret.Sha256(token, sha256);
        var key = knowledge.Key;
        var isCurrent = CryptographicOperations.FixedTimeEquals(sha256, key.Sha256);
        var isOld = CryptographicOperations.FixedTimeEquals(sha256, key.OldSha256);
        if (!isCurrent && !isOld)
        {
            return s_unknown;
        }

        var now = clock.GetUtcNow();
        var wrong = key.RevokedAt is not null ? s_revoked : key.HasExpiredAt(now) ? s_expired : !isCurrent && key.OldUntil <= now ? s_replaced : null;
        if (wrong is not null)
        {
            return wrong;
        }

        if (now.UtcTicks - known.NotedTicks >= KeyUses.NoteInterval.Ticks)
        {
            known.NotedTicks = now.UtcTicks;
            uses.Note(key, now);
        }

        return knowledge.Caller;
    }

    private void Forget(Known known) => _known.TryRemove(KeyValuePair.Create(known.Id, known));

    private static bool IsAway(Exception exception) =>
        exception is OperationCanceledException or TimeoutException or EventStoreUnavailableException || (exception is NpgsqlException && DatabaseErrors.IsUnavailable(exception));

    /// <summary>What the key's stream says now. Of one that is known, only what has been added, and that its last event still stands there.</summary>
    private async Task<Knowledge> Look(string keyId, Knowledge? before)
    {
        var askedAt = Stopwatch.GetTimestamp();
        using var patience = new CancellationTokenSource(Patience);
        var (key, lastEvent, confirmed) = (before?.Key ?? new ApiKey(keyId), before?.LastEvent ?? default, before is null || !before.Key.Exists);
        await foreach (var recorded in log.ReadStream(ApiKey.StreamOf(keyId), Math.Max(1, key.Version), cancellation: patience.Token))
        {
            if (recorded.Version > key.Version)
            {
                (key, lastEvent) = (ApiKey.Evolve(key, recorded), recorded.Id);
            }
            else
            {
                confirmed = recorded.Id == lastEvent;
                if (!confirmed)
                {
                    break;
                }
            }
        }

        return !confirmed ? await Look(keyId, before: null)
            : before is not null && ReferenceEquals(key, before.Key) ? before with { AskedAt = askedAt }
            : new Knowledge(key, lastEvent, new Caller(key.Tenant, key.Name, key.Scopes), askedAt);
    }

    /// <summary>A key as its stream told it when it was asked.</summary>
    private sealed record Knowledge(ApiKey Key, Guid LastEvent, Caller Caller, long AskedAt);

    /// <summary>A key in memory. However many requests want to know of it, its stream is asked once at a time.</summary>
    private sealed class Known(string id)
    {
        private readonly Lock _lock = new();
        private volatile Knowledge? _knowledge;
        private Task? _refreshing;
        private long _notedTicks;

        public string Id => id;

        public Knowledge? Knowledge => _knowledge;

        public long NotedTicks
        {
            get => Volatile.Read(ref _notedTicks);
            set => Volatile.Write(ref _notedTicks, value);
        }

        public Task Refresh(KnownKeys keys)
        {
            lock (_lock)
            {
                return _refreshing is { IsCompleted: false } ? _refreshing : _refreshing = Task.Run(async () => _knowledge = await keys.Look(id, _knowledge));
            }
        }
    }
}
