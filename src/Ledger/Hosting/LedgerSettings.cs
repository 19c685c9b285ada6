using Ledger.Authentication;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Hosting;

/// <summary>How a node is set up, from environment variables that begin with LEDGER_.</summary>
public sealed record LedgerSettings
{
    /// <summary>Where a node listens when nothing else is said.</summary>
    public const string DefaultUrl = "http://127.0.0.1:8080";

    /// <summary>Where a node listens for gRPC when nothing is said about addresses at all.</summary>
    public const string DefaultGrpcUrl = "http://127.0.0.1:8081";

    /// <summary>Connections of a node to the database, all together.</summary>
    public const int DefaultPoolSize = 40;

    /// <summary>The fewest that a node works with: those that no request is given and a few for requests.</summary>
    public const int MinPoolSize = 24;

    /// <summary>The most that can be set.</summary>
    public const int MaxPoolSize = 1_000;

    /// <summary>LEDGER_DB: an Npgsql connection string; null: a private cluster.</summary>
    public string? Database { get; init; }

    /// <summary>
    /// LEDGER_DB_DIRECT: an Npgsql connection string past the pooler that <see cref="Database"/> leads to; null: there is no pooler.
    /// </summary>
    public string? DirectDatabase { get; init; }

    /// <summary>LEDGER_URLS: where to listen, separated by semicolons.</summary>
    public string Urls { get; init; } = DefaultUrl;

    /// <summary>LEDGER_GRPC_URLS: where to listen for gRPC, separated by semicolons; empty: nowhere.</summary>
    public string GrpcUrls { get; init; } = "";

    /// <summary>LEDGER_HOME: where the private cluster lives.</summary>
    public string Home { get; init; } = ".ledger";

    /// <summary>LEDGER_POOL_SIZE.</summary>
    public int PoolSize { get; init; } = DefaultPoolSize;

    /// <summary>What is left of them for requests.</summary>
    public int RequestPoolSize => PoolSize - BackgroundDatabase.PoolSize - AllTenantsDatabase.PoolSize - OwnerDatabase.PoolSize;

    /// <summary>LEDGER_SWEEP_SECONDS: how often memberships that have run out are recorded as such.</summary>
    public TimeSpan SweepInterval { get; init; } = TimeSpan.FromSeconds(2);

    /// <summary>LEDGER_RATE_PER_SECOND: requests of one caller a second; 0: any number.</summary>
    public int RatePerSecond { get; init; }

    /// <summary>LEDGER_RATE_BURST: requests that a caller may send at once.</summary>
    public int RateBurst { get; init; }

    /// <summary>LEDGER_I_ACCEPT_LOSING_ACKNOWLEDGED_EVENTS=yes.</summary>
    public bool AcceptLosingEvents { get; init; }

    /// <summary>LEDGER_AUTH: when credentials are asked for.</summary>
    public AccessMode Auth { get; init; }

    /// <summary>LEDGER_JWT_ISSUER, LEDGER_JWT_AUDIENCE, LEDGER_JWT_KEYS, LEDGER_JWT_TENANT_CLAIM, LEDGER_JWT_NAME_CLAIM: which tokens are taken; null: none.</summary>
    public TokenSettings? Tokens { get; init; }

    /// <summary>LEDGER_METRICS=open: <c>/metrics</c> asks for no credential.</summary>
    public bool OpenMetrics { get; init; }

    /// <summary>LEDGER_GATEWAY_URL, LEDGER_GATEWAY_TOKEN and the rest of LEDGER_GATEWAY_: through whom campaigns send; null: nobody.</summary>
    public GatewaySettings? MessageGateway { get; init; }

    /// <summary>LEDGER_SUMMARY_…: when the summary of each day is sent, and to whom; null: it is not.</summary>
    public SummarySettings? CampaignSummary { get; init; }

    /// <summary>LEDGER_LOG_KEY: the file with the signing key of the transparency log; null: one of the log's own under <see cref="Home"/>.</summary>
    public string? LogKey { get; init; }

    /// <summary>LEDGER_LOG_ORIGIN: what the transparency log is called; null: a name made of its id.</summary>
    public string? LogOrigin { get; init; }

    /// <summary>Where the transparency log's key lies.</summary>
    public TransparencyOptions Transparency => new() { Folder = Path.Combine(Home, "log"), KeyFile = LogKey, Origin = LogOrigin };

    /// <summary>The event store's own settings; LEDGER_SCHEMA names its schema.</summary>
    public EventStoreOptions Store { get; init; } = new();

    /// <summary>Reads the environment; a variable that can't be understood is named.</summary>
    /// <exception cref="SettingsException">A value is none.</exception>
    public static LedgerSettings FromEnvironment(Func<string, string?> environment)
    {
        var settings = new LedgerSettings
        {
            Database = Text("LEDGER_DB", null),
            DirectDatabase = Text("LEDGER_DB_DIRECT", null),
            Urls = Text("LEDGER_URLS", DefaultUrl)!,
            // Who chooses an address may start several nodes on one machine; they can't all have the default one.
            GrpcUrls = environment("LEDGER_GRPC_URLS") ?? (Text("LEDGER_URLS", null) is null ? DefaultGrpcUrl : ""),
            Home = Path.GetFullPath(Text("LEDGER_HOME", ".ledger")!),
            PoolSize = Number("LEDGER_POOL_SIZE", DefaultPoolSize, MinPoolSize, MaxPoolSize),
            SweepInterval = TimeSpan.FromSeconds(Number("LEDGER_SWEEP_SECONDS", 2, 1, 3_600)),
            LogKey = Text("LEDGER_LOG_KEY", null) is { } key ? Path.GetFullPath(key) : null,
            LogOrigin = Text("LEDGER_LOG_ORIGIN", null),
            AcceptLosingEvents = Text("LEDGER_I_ACCEPT_LOSING_ACKNOWLEDGED_EVENTS", null) == "yes",
            Auth = Text("LEDGER_AUTH", "auto") switch
            {
                "auto" => AccessMode.Auto,
                "required" => AccessMode.Required,
                "off" => AccessMode.Off,
                var other => throw new SettingsException($"LEDGER_AUTH must be auto, required or off; it is '{other}'."),
            },
            Tokens = ReadTokens(),
            OpenMetrics = Text("LEDGER_METRICS", "operator") switch
            {
                "operator" => false,
                "open" => true,
                var other => throw new SettingsException($"LEDGER_METRICS must be operator or open; it is '{other}'."),
            },
            MessageGateway = GatewayFeature.ReadSettings(name => Text(name, null), Number),
            CampaignSummary = SummaryFeature.ReadSettings(name => Text(name, null)),
            Store = new EventStoreOptions
            {
                Schema = Text("LEDGER_SCHEMA", EventStoreOptions.DefaultSchema)!,
                RolePrefix = Text("LEDGER_ROLES", null),
                AcceptOneWall = Text("LEDGER_I_ACCEPT_ONE_WALL_BETWEEN_TENANTS", null) == "yes",
            },
        };
        if (!IsName(settings.Store.Schema))
        {
            throw new SettingsException("LEDGER_SCHEMA must be 1 to 40 of a-z, 0-9 and '_'.");
        }

        if (settings.Store.RolePrefix is { } prefix && !IsName(prefix))
        {
            throw new SettingsException("LEDGER_ROLES must be 1 to 40 of a-z, 0-9 and '_'.");
        }

        if (settings is { DirectDatabase: not null, Database: null })
        {
            throw new SettingsException("LEDGER_DB_DIRECT leads past the pooler that LEDGER_DB names, but LEDGER_DB is not set.");
        }

        if (settings.LogOrigin is { } origin && !Checkpoint.IsOrigin(origin))
        {
            throw new SettingsException(
                $"LEDGER_LOG_ORIGIN must be a name such as ledger.example.com/log: at most {Checkpoint.MaxOriginChars} visible ASCII characters, "
                + $"no scheme, no '+', no '/' at its end; '{origin}' is none.");
        }

        foreach (var (variable, url) in Listening.Split(settings.Urls).Select(u => ("LEDGER_URLS", u))
            .Concat(Listening.Split(settings.GrpcUrls).Select(u => ("LEDGER_GRPC_URLS", u))))
        {
            if (!Listening.TryRead(url, out var uri) || uri.Scheme != "http")
            {
                throw new SettingsException($"{variable} must hold addresses such as {DefaultUrl}; '{url}' is none.");
            }
        }

        var isReachable = Listening.Split($"{settings.Urls};{settings.GrpcUrls}").Any(url => !IsLoopback(url));
        var rate = Number("LEDGER_RATE_PER_SECOND", isReachable ? CallRates.DefaultPerSecond : 0, 0, CallRates.MaxPerSecond);
        return settings with
        {
            RatePerSecond = rate,
            RateBurst = Number("LEDGER_RATE_BURST", Math.Max(1, rate * CallRates.DefaultBurstSeconds), 1, CallRates.MaxPerSecond * CallRates.DefaultBurstSeconds),
        };

        static bool IsName(string text) => text.Length <= 40 && text.All(c => char.IsAsciiLetterLower(c) || char.IsAsciiDigit(c) || c == '_');

        static bool IsLoopback(string url) => Uri.TryCreate(url, UriKind.Absolute, out var uri) && uri.IsLoopback;

        TokenSettings? ReadTokens()
        {
            var (issuer, audience, keys) = (Text("LEDGER_JWT_ISSUER", null), Text("LEDGER_JWT_AUDIENCE", null), Text("LEDGER_JWT_KEYS", null));
            var (tenant, name) = (environment("LEDGER_JWT_TENANT_CLAIM") ?? "tenant", Text("LEDGER_JWT_NAME_CLAIM", "sub")!);
            if (issuer is null && audience is null && keys is null)
            {
                return null;
            }

            if (issuer is null || audience is null || keys is null)
            {
                throw new SettingsException("LEDGER_JWT_ISSUER, LEDGER_JWT_AUDIENCE and LEDGER_JWT_KEYS go together: tokens are taken of one issuer, for one audience, by its keys.");
            }

            if (keys.Contains("://", StringComparison.Ordinal) && !TokenKeys.IsAddress(keys, out _))
            {
                throw new SettingsException($"LEDGER_JWT_KEYS must be a file or an https address (http only on loopback); '{keys}' is neither.");
            }

            return new TokenSettings(issuer, audience, keys) { TenantClaim = tenant, NameClaim = name };
        }

        string? Text(string name, string? otherwise) => environment(name) is { Length: > 0 } value ? value : otherwise;

        int Number(string name, int otherwise, int min, int max) =>
            Text(name, null) is not { } value ? otherwise
            : int.TryParse(value, out var number) && number >= min && number <= max ? number
            : throw new SettingsException($"{name} must be a whole number from {min} to {max}; it is '{value}'.");
    }
}

/// <summary>A setting that can't be worked with; the message says which and why.</summary>
public sealed class SettingsException(string message) : Exception(message);
