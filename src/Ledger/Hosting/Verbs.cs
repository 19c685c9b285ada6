using System.CommandLine;
using Ledger.Authentication;
using Ledger.EventStore;
using Ledger.Keys;
using Microsoft.AspNetCore.Connections;
using Npgsql;

namespace Ledger.Hosting;

/// <summary>What the program can do, by its first argument.</summary>
public static class Verbs
{
    private const string Environment =
        """
        Settings come from the environment:
          LEDGER_DB             an Npgsql connection string; without it a private PostgreSQL runs under .ledger/
          LEDGER_DB_DIRECT      the same past the pooler, where LEDGER_DB leads to one that hands out connections by the transaction
          LEDGER_URLS           where to listen (http://127.0.0.1:8080)
          LEDGER_GRPC_URLS      where to listen for gRPC (http://127.0.0.1:8081, or nowhere when LEDGER_URLS is set)
          LEDGER_HOME           where the private PostgreSQL lives (.ledger)
          LEDGER_SCHEMA         the schema of all tables (ledger)
          LEDGER_ROLES          what the roles in the database begin with, followed by _reader and _writer (the schema)
          LEDGER_POOL_SIZE      connections of this node to the database (40)
          LEDGER_SWEEP_SECONDS  how often memberships that ran out are recorded (2)
          LEDGER_RATE_PER_SECOND
                                requests of one caller a second (5000; on loopback any number, which is 0)
          LEDGER_RATE_BURST     requests that a caller may send at once (those of two seconds)
          LEDGER_LOG_KEY        the file with the signing key of the transparency log (one under LEDGER_HOME)
          LEDGER_LOG_ORIGIN     what the transparency log is called (ledger.local/ and 12 digits)
          LEDGER_POSTGRES_BIN   the folder with postgres, initdb and pg_ctl
          LEDGER_AUTH           auto: ask for credentials, but not on loopback while there are none; required; off (auto)
          LEDGER_JWT_ISSUER     whose JSON Web Tokens are taken: their iss (none are)
          LEDGER_JWT_AUDIENCE   what they must be for: their aud
          LEDGER_JWT_KEYS       the issuer's keys, a JSON Web Key Set: a file, or an https address
          LEDGER_JWT_TENANT_CLAIM
                                the claim with the tenant; set to nothing: all are of *DEFAULT* (tenant)
          LEDGER_JWT_NAME_CLAIM the claim with the caller's name (sub)
          LEDGER_GATEWAY_URL    the gateway through which campaigns send: https, or http on loopback (they send nothing)
          LEDGER_GATEWAY_TOKEN  its bearer token
          LEDGER_GATEWAY_CONCURRENCY
                                calls to it at once (32)
          LEDGER_GATEWAY_RATE_PER_SECOND
                                calls to it a second (any number, which is 0)
          LEDGER_GATEWAY_TIMEOUT_SECONDS
                                how long a call may take (10)
          LEDGER_I_ACCEPT_SENDING_THE_GATEWAY_TOKEN_UNENCRYPTED=yes
                                take http for a gateway elsewhere
          LEDGER_SUMMARY_AT     when the summary of the day before is sent (08:00)
          LEDGER_SUMMARY_TIME_ZONE
                                whose days these are (UTC)
          LEDGER_SUMMARY_SMTP   the mail server: smtp:// with STARTTLS, or smtps:// (no mail is sent)
          LEDGER_SUMMARY_SMTP_USER, LEDGER_SUMMARY_SMTP_PASSWORD
                                who is asked for there (nobody is)
          LEDGER_SUMMARY_FROM, LEDGER_SUMMARY_TO
                                the sender, and the recipients, separated by commas
          LEDGER_SUMMARY_WEBHOOK
                                an https address that the summary is posted to (it is not)
          LEDGER_SUMMARY_WEBHOOK_TOKEN
                                its bearer token (none is sent)
          LEDGER_METRICS        who may read /metrics: operator, or open to everybody (operator)
          LEDGER_I_ACCEPT_LOSING_ACKNOWLEDGED_EVENTS=yes
                                work on a server with fsync, full_page_writes or synchronous_commit off
          LEDGER_I_ACCEPT_ONE_WALL_BETWEEN_TENANTS=yes
                                work without roles and row-level security in the database
        """;

    /// <summary>The command line.</summary>
    public static RootCommand Root(TextWriter output, TextWriter errors)
    {
        var rolesOnly = new Option<bool>("--roles") { Description = "Change nothing; show what an administrator has to run where the account may not make roles." };
        var view = new Argument<string>("view") { Description = "A view's name, as 'status' lists it." };
        var replayed = new Option<string?>("--view") { Description = "One view; all unless given." };
        var to = new Option<string?>("--to") { Description = "A position or a time; the end of the log unless given." };
        var exportTo = new Option<string>("--out") { Description = "A new or empty folder.", Required = true };
        var importFrom = new Option<string>("--from") { Description = "The folder of an export.", Required = true };
        var rows = new Option<string?>("--out") { Description = "The file to write, .ndjson or .csv; a folder for all views." };
        var compare = new Option<bool>("--compare") { Description = "Say whether the live views are the same, row by row." };
        var key = new Option<string?>("--key") { Description = "A verification key, or a file of them; those listed beside the log unless given." };
        var since = new Option<string?>("--since") { Description = "A file with a checkpoint that was kept: the log must have grown from it." };
        var verifyExport = new Option<string?>("--export") { Description = "The folder of an export to verify, with no database at all." };
        var verifyViews = new Option<bool>("--views") { Description = "Compare the views with a replay of the log as well." };
        var keyName = new Option<string>("--name") { Description = "Who will use it: the actor of what it does.", Required = true };
        var keyTenant = new Option<string?>("--tenant") { Description = $"Whose data it gives access to; {Requests.DefaultTenant} unless given." };
        var keyScopes = new Option<string[]>("--scope")
        {
            Description = $"What it allows: {string.Join(", ", ScopeNames.All)}.", Required = true, AllowMultipleArgumentsPerToken = true,
        };
        var keyExpires = new Option<string?>("--expires") { Description = "A time or a duration, such as P90D; never unless given." };
        var keyOverlap = new Option<string>("--overlap") { Description = "How long the old secret holds on, such as PT1H.", Required = true };
        var keyId = new Argument<string>("keyId") { Description = "The key's id, as 'keys list' has it." };
        return new RootCommand($"Ledger: segments, memberships and usage as an event-sourced ledger on PostgreSQL.\n\n{Environment}")
        {
            Verb(new Command("up", "Start a node: bring the schema up to date and serve until stopped."), async (_, settings, cancellation) =>
                await Up(settings, output, cancellation)),
            Verb(new Command("migrate", "Bring the schema up to date and exit.") { rolesOnly }, (parsed, settings, cancellation) =>
                WithoutServing(
                    settings, output,
                    services => parsed.GetValue(rolesOnly) ? ShowRoles(services, settings, output, cancellation) : MigrateVerb(services, settings, output, cancellation), cancellation)),
            Verb(new Command("status", "Show positions, lag and sizes."), (_, settings, cancellation) =>
                WithoutServing(settings, output, services => StatusVerb.Run(services, output, cancellation), cancellation)),
            Verb(new Command("rebuild", "Fold a view anew from the first event; the live view serves on until it is replaced.") { view }, (parsed, settings, cancellation) =>
                WithoutServing(settings, output, services => RebuildVerb.Run(services, parsed.GetValue(view)!, output, errors, cancellation), cancellation)),
            Verb(new Command("replay", "Fold the log anew beside the live views; write the rows, or compare them.") { replayed, to, rows, compare }, (parsed, settings, cancellation) =>
                WithoutServing(settings, output, services => ReplayVerb.Run(
                    services, new ReplayRequest(parsed.GetValue(replayed), parsed.GetValue(to), parsed.GetValue(rows), parsed.GetValue(compare)), output, errors, cancellation), cancellation)),
            Verb(new Command("export", "Write the log, as it is now, into a folder of files with checksums.") { exportTo }, (parsed, settings, cancellation) =>
                WithoutServing(settings, output, services => ExportVerb.Export(services, parsed.GetValue(exportTo)!, output, errors, cancellation), cancellation)),
            Verb(new Command("import", "Read an export into an empty database, to the same positions.") { importFrom }, (parsed, settings, cancellation) =>
                WithoutServing(settings, output, services => ExportVerb.Import(services, settings, parsed.GetValue(importFrom)!, output, errors, cancellation), cancellation)),
            Verb(
                new Command("verify", "Compute the transparency log anew from the events and compare it with what was signed.") { key, since, verifyExport, verifyViews },
                (parsed, settings, cancellation) => Verify(
                    settings, new VerifyRequest(parsed.GetValue(key), parsed.GetValue(since), parsed.GetValue(verifyExport), parsed.GetValue(verifyViews)), cancellation)),
            Verb(
                new Command("psql", "Run psql on the database; what follows is for psql.") { TreatUnmatchedTokensAsErrors = false },
                async (parsed, settings, cancellation) =>
                {
                    var database = settings.DirectDatabase ?? settings.Database ?? await PrivateCluster.FindRunningAsync(new PrivateClusterOptions(settings.Home), cancellation);
                    await using var cluster = database is null ? await StartCluster(settings, errors, cancellation) : null;
                    return await PsqlVerb.Run(database ?? cluster!.ConnectionString, settings.Store, parsed.UnmatchedTokens, errors);
                }),
            new Command("keys", "Make, list, rotate and revoke API keys, as the operator.")
            {
                Verb(new Command("create", "Make a key; standard output gets its secret, this once.") { keyName, keyTenant, keyScopes, keyExpires }, (parsed, settings, cancellation) =>
                    WithoutServing(settings, errors, services => KeysFeature.Create(
                        services, parsed.GetValue(keyName)!, parsed.GetValue(keyTenant), parsed.GetValue(keyScopes)!, parsed.GetValue(keyExpires), output, errors, cancellation), cancellation)),
                Verb(new Command("list", "List the keys, without their secrets."), (_, settings, cancellation) =>
                    WithoutServing(settings, errors, services => KeysFeature.List(services, output, cancellation), cancellation)),
                Verb(new Command("rotate", "Give a key another secret; standard output gets it, this once.") { keyId, keyOverlap }, (parsed, settings, cancellation) =>
                    WithoutServing(settings, errors, services => KeysFeature.Rotate(
                        services, parsed.GetValue(keyId)!, parsed.GetValue(keyOverlap)!, output, errors, cancellation), cancellation)),
                Verb(new Command("revoke", "Revoke a key.") { keyId }, (parsed, settings, cancellation) =>
                    WithoutServing(settings, errors, services => KeysFeature.Revoke(services, parsed.GetValue(keyId)!, output, errors, cancellation), cancellation)),
            },
            Verb(
                new Command("key", "Show the verification keys of the transparency log, the current one first.")
                {
                    Verb(new Command("show", "The same."), ShowKeys),
                    Verb(new Command("rotate", "Sign with a new key from now on; the old one stays listed."), (_, settings, cancellation) =>
                        WithoutServing(settings, errors, services => KeyVerb.Rotate(services, output, cancellation), cancellation)),
                }, ShowKeys),
        };

        async Task<int> Verify(LedgerSettings settings, VerifyRequest request, CancellationToken cancellation)
        {
            if (request.Export is null)
            {
                return await WithoutServing(settings, errors, services => VerifyVerb.Run(services, request, output, errors, cancellation), cancellation);
            }

            if (request.Views)
            {
                await errors.WriteLineAsync("An export holds no views: leave out --views or --export.");
                return 1;
            }

            return await VerifyVerb.RunExport(request.Export, request.Key, request.Since, output, errors, cancellation);
        }

        Task<int> ShowKeys(ParseResult parsed, LedgerSettings settings, CancellationToken cancellation) =>
            WithoutServing(settings, errors, services => KeyVerb.Show(services, output, cancellation), cancellation);

        Command Verb(Command command, Func<ParseResult, LedgerSettings, CancellationToken, Task<int>> run)
        {
            command.SetAction(async (parsed, cancellation) =>
            {
                try
                {
                    return await run(parsed, LedgerSettings.FromEnvironment(System.Environment.GetEnvironmentVariable), cancellation);
                }
                catch (Exception exception) when (exception is SettingsException or SchemaMismatchException or UnsafeServerException or DatabaseRolesException
                    or PostgresNotFoundException or PrivateClusterException or SigningKeyException)
                {
                    await errors.WriteLineAsync(exception.Message);
                    return 1;
                }
                catch (IOException exception) when (exception.InnerException is AddressInUseException)
                {
                    await errors.WriteLineAsync($"{exception.Message.TrimEnd('.')}. LEDGER_URLS and LEDGER_GRPC_URLS name other addresses.");
                    return 1;
                }
                catch (Exception exception) when (DatabaseErrors.IsUnavailable(exception))
                {
                    await errors.WriteLineAsync($"The database can't be reached: {exception.Message}");
                    return 1;
                }
            });
            return command;
        }
    }

    private static async Task<int> Up(LedgerSettings settings, TextWriter output, CancellationToken cancellation)
    {
        await using var cluster = await StartCluster(settings, output, cancellation);
        cluster?.Keep(output.WriteLine);
        await using var app = LedgerHost.Build(settings, cluster?.ConnectionString ?? settings.Database!);
        await app.StartAsync(cancellation);
        var open = app.Services.GetRequiredService<Access>().IsOpen;
        await output.WriteLineAsync(
            $"""
             Ledger listens on {string.Join(", ", app.Urls.Except(app.GrpcUrls()))}
             gRPC is answered {(app.GrpcUrls() is { Count: > 0 } grpc ? $"on {string.Join(", ", grpc)}" : "nowhere: LEDGER_GRPC_URLS is not set")}
             Data lies in {(cluster is null ? $"{new NpgsqlConnectionStringBuilder(settings.Database).Host}, schema {settings.Store.Schema}" : cluster.DataDirectory)}
             {(open ? $"No credentials are asked for: who calls is {Requests.Anonymous}, and may do everything in the tenant {Requests.DefaultTenant}"
                 : "Credentials are asked for: './ledger keys create' makes one")}
             Try: curl -i -X PUT {app.Urls.First()}/v1/users/u1 {(open ? "" : "-H \"Authorization: Bearer $KEY\" ")}-H 'Content-Type: application/json' -d '{"{"}"attributes":{"{"}"country":"DE"{"}"}{"}"}'
             """);
        await app.WaitForShutdownAsync(cancellation);
        await output.WriteLineAsync("Ledger has stopped");
        return 0;
    }

    private static async Task<int> MigrateVerb(IServiceProvider services, LedgerSettings settings, TextWriter output, CancellationToken cancellation)
    {
        var migrator = services.GetRequiredService<SchemaMigrator>();
        await migrator.CheckServer(settings.AcceptLosingEvents, cancellation);
        var ran = await migrator.Migrate(cancellation);
        await output.WriteLineAsync(ran.Count == 0 ? "The schema is up to date." : $"Ran {ran.Count} migrations: {string.Join(", ", ran)}.");
        return 0;
    }

    private static async Task<int> ShowRoles(IServiceProvider services, LedgerSettings settings, TextWriter output, CancellationToken cancellation)
    {
        await using var command = services.GetRequiredService<OwnerDatabase>().Source.CreateCommand("select session_user::text");
        await output.WriteLineAsync(DatabaseRoles.Script(settings.Store with { AcceptOneWall = false }, (string)(await command.ExecuteScalarAsync(cancellation))!));
        return 0;
    }

    /// <summary>Works on the database beside a node that may be running, or with no node at all, and past a pooler.</summary>
    private static async Task<int> WithoutServing(
        LedgerSettings settings, TextWriter output, Func<IServiceProvider, Task<int>> work, CancellationToken cancellation)
    {
        settings = settings with { Database = settings.DirectDatabase ?? settings.Database, DirectDatabase = null };
        var database = settings.Database ?? await PrivateCluster.FindRunningAsync(new PrivateClusterOptions(settings.Home), cancellation);
        await using var cluster = database is null ? await StartCluster(settings, output, cancellation) : null;
        await using var app = LedgerHost.Build(settings, database ?? cluster!.ConnectionString);
        return await work(app.Services);
    }

    /// <summary>The private cluster, when no database is named.</summary>
    private static async Task<PrivateCluster?> StartCluster(LedgerSettings settings, TextWriter output, CancellationToken cancellation) =>
        settings.Database is not null ? null : await PrivateCluster.StartAsync(new PrivateClusterOptions(settings.Home), output.WriteLine, cancellation);
}
