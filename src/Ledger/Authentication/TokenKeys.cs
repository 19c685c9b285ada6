using System.Text.Json;
using Ledger.EventStore;
using Ledger.Hosting;

namespace Ledger.Authentication;

/// <summary>Which tokens are taken, and what is read from them.</summary>
/// <param name="Issuer">What <c>iss</c> must be.</param>
/// <param name="Audience">What <c>aud</c> must be or hold.</param>
/// <param name="Keys">Where the issuer's keys are, a JSON Web Key Set: a file, or the address of one.</param>
public sealed record TokenSettings(string Issuer, string Audience, string Keys)
{
    /// <summary>The claim with the tenant; empty: all tokens are of the tenant <c>*DEFAULT*</c>.</summary>
    public string TenantClaim { get; init; } = "tenant";

    /// <summary>The claim with the caller's name.</summary>
    public string NameClaim { get; init; } = "sub";
}

/// <summary>Keys as they were at an instant.</summary>
public sealed record TokenKeySet(IReadOnlyList<VerificationKey> Keys, DateTimeOffset FetchedAt);

/// <summary>The keys of the issuer of tokens: from a file, read at start, or from an address, fetched now and then.</summary>
public sealed partial class TokenKeys : IDisposable
{
    /// <summary>Keys of a set that are looked at.</summary>
    public const int MaxKeys = 100;

    /// <summary>Bytes of a set.</summary>
    public const int MaxBytes = 131_072;

    /// <summary>The age from which on keys are fetched again, beside the request.</summary>
    public static readonly TimeSpan RefreshInterval = TimeSpan.FromMinutes(5);

    /// <summary>How soon they are fetched again for a token that names a key they do not have, or when fetching has failed.</summary>
    public static readonly TimeSpan MinFetchInterval = TimeSpan.FromSeconds(10);

    /// <summary>How long keys serve when they can't be fetched.</summary>
    public static readonly TimeSpan MaxAge = TimeSpan.FromHours(1);

    /// <summary>How long fetching may take.</summary>
    public static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    private readonly Uri? _address;
    private readonly LedgerClock _clock;
    private readonly ILogger<TokenKeys> _logger;
    private readonly HttpClient? _client;
    private readonly Lock _lock = new();
    private volatile TokenKeySet? _current;
    private DateTimeOffset _triedAt = DateTimeOffset.MinValue;
    private Task _fetching = Task.CompletedTask;

    /// <summary>Reads the file, or gets ready to fetch.</summary>
    /// <exception cref="SettingsException">The file is none that can be used.</exception>
    public TokenKeys(TokenSettings settings, LedgerClock clock, ILogger<TokenKeys> logger)
    {
        (_clock, _logger) = (clock, logger);
        if (IsAddress(settings.Keys, out _address))
        {
            _client = new HttpClient(new SocketsHttpHandler { AllowAutoRedirect = false, ConnectTimeout = Patience, PooledConnectionLifetime = RefreshInterval })
            {
                Timeout = Patience, MaxResponseContentBufferSize = MaxBytes,
            };
            return;
        }

        try
        {
            var (keys, unusable) = Read(File.ReadAllBytes(settings.Keys), takeSecrets: true);
            if (unusable.Count > 0 || keys.Count == 0)
            {
                throw new SettingsException($"LEDGER_JWT_KEYS: {settings.Keys} {(unusable.Count > 0 ? string.Join(", ", unusable) : "holds no key")}.");
            }

            _current = new TokenKeySet(keys, DateTimeOffset.MaxValue);
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException or JsonException or InvalidOperationException)
        {
            throw new SettingsException($"LEDGER_JWT_KEYS: {settings.Keys} can't be read as a JSON Web Key Set: {exception.Message}");
        }
    }

    /// <summary>The address of keys: with TLS, but on loopback.</summary>
    public static bool IsAddress(string keys, out Uri? address) =>
        Uri.TryCreate(keys, UriKind.Absolute, out address) && (address.Scheme == "https" || (address.Scheme == "http" && address.IsLoopback));

    /// <summary>The keys; null when they have never been fetched, or can't be for so long that they serve no more.</summary>
    public async ValueTask<TokenKeySet?> Get(CancellationToken cancellation)
    {
        var age = _current is { } current ? _clock.GetUtcNow() - current.FetchedAt : TimeSpan.MaxValue;
        if (age >= RefreshInterval)
        {
            var fetching = Fetch();
            if (age >= MaxAge)
            {
                await fetching.WaitAsync(cancellation);
            }
        }

        return _current is { } known && _clock.GetUtcNow() - known.FetchedAt < MaxAge ? known : null;
    }

    /// <summary>The keys, fetched since <paramref name="set"/> was, unless that was just now: for a token that names a key which it does not have.</summary>
    public async Task<TokenKeySet?> GetNewer(TokenKeySet set, CancellationToken cancellation)
    {
        if (ReferenceEquals(_current, set))
        {
            await Fetch().WaitAsync(cancellation);
        }

        return await Get(cancellation);
    }

    /// <inheritdoc/>
    public void Dispose() => _client?.Dispose();

    /// <summary>Reads a JSON Web Key Set: the keys that are of use, and why the others are not.</summary>
    internal static (IReadOnlyList<VerificationKey> Keys, IReadOnlyList<string> Unusable) Read(byte[] json, bool takeSecrets)
    {
        using var document = JsonDocument.Parse(json, JsonWebSignature.StrictJson);
        if (document.RootElement.ValueKind != JsonValueKind.Object || !document.RootElement.TryGetProperty("keys", out var listed) || listed.ValueKind != JsonValueKind.Array)
        {
            throw new JsonException("It must be an object with an array of keys.");
        }

        var (keys, unusable) = (new List<VerificationKey>(), new List<string>());
        foreach (var (i, jwk) in listed.EnumerateArray().Take(MaxKeys).Index())
        {
            if (VerificationKey.TryRead(jwk, takeSecrets, out var key, out var wrong))
            {
                keys.Add(key);
            }
            else
            {
                unusable.Add($"keys[{i}] {wrong}");
            }
        }

        return (keys, unusable);
    }

    /// <summary>Once at a time, and not before the floor is over.</summary>
    private Task Fetch()
    {
        lock (_lock)
        {
            var now = _clock.GetUtcNow();
            if (_client is null || !_fetching.IsCompleted || now - _triedAt < MinFetchInterval)
            {
                return _fetching;
            }

            _triedAt = now;
            return _fetching = Task.Run(() => FetchNow(now));
        }
    }

    private async Task FetchNow(DateTimeOffset now)
    {
        try
        {
            using var response = await _client!.GetAsync(_address, HttpCompletionOption.ResponseContentRead);
            if (response.StatusCode != System.Net.HttpStatusCode.OK)
            {
                throw new HttpRequestException($"The answer is {(int)response.StatusCode}.");
            }

            var (keys, _) = Read(await response.Content.ReadAsByteArrayAsync(), takeSecrets: false);
            if (keys.Count == 0)
            {
                throw new JsonException("It holds no key that is of use.");
            }

            _current = new TokenKeySet(keys, now);
        }
        catch (Exception exception) when (exception is HttpRequestException or OperationCanceledException or JsonException or InvalidOperationException)
        {
            LogFailed(_address!, exception.Message);
        }
    }

    [LoggerMessage(LogLevel.Warning, "The keys of the issuer of tokens can't be fetched from {Address}: {Reason}")]
    private partial void LogFailed(Uri address, string reason);
}
