using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Json;
using Ledger.Authentication;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Testing;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.Tests;

/// <summary>
/// A node on a real socket with a database of its own and a clock that stands still. It reads its own writes: every query
/// waits for the last position a command was answered with.
/// </summary>
public sealed class TestNode(PostgresFixture postgres) : IAsyncLifetime
{
    private readonly List<string> _errors = [];
    private WebApplication? _app;
    private long _position;

    public TestClock Clock { get; init; } = new();

    public TimeProvider? WallClock { get; init; }

    public string GrpcUrls { get; init; } = "";

    /// <summary>When it asks for credentials; on loopback with no key it asks for none.</summary>
    public AccessMode Auth { get; init; }

    /// <summary>More of its settings.</summary>
    public Func<LedgerSettings, LedgerSettings> Settings { get; init; } = settings => settings;

    /// <summary>Puts other services in the place of the node's own.</summary>
    public Action<IServiceCollection>? Configure { get; init; }

    public string Database { get; set; } = "";

    public HttpClient Client { get; private set; } = null!;

    /// <summary>Where it listens for gRPC.</summary>
    public Uri GrpcAddress => new(_app!.GrpcUrls().Single());

    public IServiceProvider Services => _app!.Services;

    /// <summary>The last position that a command of this node was answered with.</summary>
    public long Position => Volatile.Read(ref _position);

    /// <summary>What the node has logged as errors; no test may cause one.</summary>
    public IReadOnlyList<string> Errors
    {
        get
        {
            lock (_errors)
            {
                return [.. _errors];
            }
        }
    }

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        if (Database.Length == 0)
        {
            Database = await postgres.CreateDatabase();
        }

        var settings = new LedgerSettings { Urls = "http://127.0.0.1:0", GrpcUrls = GrpcUrls, SweepInterval = TimeSpan.FromHours(1), PoolSize = 24, Home = postgres.Home, Auth = Auth };
        _app = LedgerHost.Build(Settings(settings), Database, WallClock ?? Clock, builder =>
        {
            builder.Logging.ClearProviders().AddProvider(new ErrorLog(_errors));
            Configure?.Invoke(builder.Services);
        });
        await _app.StartAsync();
        Client = new HttpClient { BaseAddress = new Uri(_app.Urls.First().Replace("0.0.0.0", "127.0.0.1", StringComparison.Ordinal)), Timeout = TimeSpan.FromSeconds(60) };
    }

    public async ValueTask DisposeAsync()
    {
        Client?.Dispose();
        if (_app is not null)
        {
            await _app.DisposeAsync();
        }
    }

    /// <summary>Stops the node as a signal would; what was asked of it before can still be read.</summary>
    public Task Stop() => _app!.StopAsync(Cancellation);

    /// <summary>Another node over the same database, with the same clock.</summary>
    public async Task<TestNode> StartBeside(TimeProvider? wallClock = null, Func<LedgerSettings, LedgerSettings>? settings = null)
    {
        var node = new TestNode(postgres)
        {
            Clock = Clock, WallClock = wallClock ?? WallClock, Configure = Configure, Database = Database, Auth = Auth, Settings = settings ?? Settings,
        };
        await node.InitializeAsync();
        return node;
    }

    /// <summary>A node with a database and a clock of its own.</summary>
    public async Task<TestNode> StartAnew(Action<IServiceCollection>? configure = null)
    {
        var node = new TestNode(postgres) { Configure = configure };
        await node.InitializeAsync();
        return node;
    }

    public Task<Answer> Get(string path, params (string Name, string Value)[] headers) =>
        Send(HttpMethod.Get, path, null, [("Ledger-Min-Position", $"{Position}"), ("Prefer", "wait=30"), .. headers]);

    /// <summary>Asks without waiting for any position.</summary>
    public Task<Answer> GetAsIs(string path, params (string Name, string Value)[] headers) => Send(HttpMethod.Get, path, null, headers);

    public Task<Answer> Post(string path, object? body, params (string Name, string Value)[] headers) => Send(HttpMethod.Post, path, body, headers);

    public Task<Answer> Put(string path, object? body, params (string Name, string Value)[] headers) => Send(HttpMethod.Put, path, body, headers);

    public Task<Answer> Patch(string path, object? body, params (string Name, string Value)[] headers) => Send(HttpMethod.Patch, path, body, headers);

    public Task<Answer> Delete(string path, params (string Name, string Value)[] headers) => Send(HttpMethod.Delete, path, null, headers);

    public Task<Answer> Import(string slug, string lines, string mediaType = "text/csv") =>
        Import(slug, Encoding.UTF8.GetBytes(lines), mediaType);

    public async Task<Answer> Import(string slug, byte[] lines, string mediaType = "text/csv")
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, $"/v1/segments/{slug}/members") { Content = new ByteArrayContent(lines) };
        request.Content.Headers.TryAddWithoutValidation("Content-Type", mediaType);
        return await Send(request);
    }

    /// <summary>Sends a body that is a string as it is, anything else as JSON.</summary>
    public async Task<Answer> Send(HttpMethod method, string path, object? body, params (string Name, string Value)[] headers)
    {
        using var request = new HttpRequestMessage(method, path);
        if (body is not null)
        {
            request.Content = new StringContent(body as string ?? JsonSerializer.Serialize(body, JsonSerializerOptions.Web), Encoding.UTF8, "application/json");
        }

        // A body that is too large is refused while it is being sent, which a client may take for a broken connection.
        request.Headers.ExpectContinue = body is string { Length: > Limits.MaxCommandBodyBytes };
        foreach (var (name, value) in headers)
        {
            request.Headers.TryAddWithoutValidation(name, value);
        }

        return await Send(request);
    }

    public async Task<Answer> Send(HttpRequestMessage request)
    {
        using var response = await Client.SendAsync(request, Cancellation);
        var answer = new Answer(
            response.StatusCode,
            response.Headers.Concat(response.Content.Headers).ToDictionary(h => h.Key, h => string.Join(", ", h.Value), StringComparer.OrdinalIgnoreCase),
            await response.Content.ReadAsStringAsync(Cancellation));
        if (request.Method != HttpMethod.Get && answer.Position is { } position)
        {
            long seen;
            while (position > (seen = Position) && Interlocked.CompareExchange(ref _position, position, seen) != seen)
            {
            }
        }

        return answer;
    }

    /// <summary>Waits until a report is made, which is an event: none comes of it later.</summary>
    public async Task<Answer> ReportMade(string location, params (string Name, string Value)[] headers)
    {
        var begun = DateTimeOffset.UtcNow;
        Answer report;
        while ((report = (await Get(location, headers)).Is(HttpStatusCode.OK)).Json.GetProperty("status").GetString() == "pending")
        {
            Assert.True(DateTimeOffset.UtcNow - begun < TimeSpan.FromSeconds(20), "The report is still being made.");
            await Task.Delay(20, Cancellation);
        }

        return report;
    }

    /// <summary>Records what has run out by now.</summary>
    public async Task<int> Sweep()
    {
        await CatchUp();
        return await Services.GetRequiredService<ExpireMemberships>().Sweep(Cancellation);
    }

    /// <summary>Waits until every view has folded the whole log; later queries see at least that.</summary>
    public async Task<long> CatchUp()
    {
        var head = await Services.GetRequiredService<EventReader>().ReadHead(Cancellation);
        var views = Services.GetRequiredService<Views>();
        Assert.True(await views.WaitFor(views.Names, head, TimeSpan.FromSeconds(30), Cancellation), $"The views did not reach position {head}.");
        Interlocked.Exchange(ref _position, Math.Max(Position, head));
        return head;
    }

    /// <summary>The log from a position on.</summary>
    public async Task<IReadOnlyList<RecordedEvent>> Log(long after = 0)
    {
        var log = new List<RecordedEvent>();
        var whole = new EventReader(Services.GetRequiredService<OwnerDatabase>().Source, LedgerEvents.Types);
        await foreach (var recorded in whole.ReadLog(after, cancellation: Cancellation))
        {
            log.Add(recorded);
        }

        return log;
    }

    /// <summary>Folds a view anew and waits until it has taken the live one's place.</summary>
    public async Task Rebuild(string view)
    {
        await CatchUp();
        var asked = DateTimeOffset.UtcNow;
        Assert.Equal(HttpStatusCode.Accepted, (await Post($"/v1/projections/{view}/rebuild", null)).Status);
        while (true)
        {
            var status = (await Services.GetRequiredService<Views>().Refresh(Cancellation)).Single(v => v.Name == view);
            Assert.NotEqual("failed", status.Rebuild);
            if (status.Rebuild is null)
            {
                return;
            }

            Assert.True(DateTimeOffset.UtcNow - asked < TimeSpan.FromSeconds(30), $"{view} is still being rebuilt.");
            await Task.Delay(20, Cancellation);
        }
    }

    /// <summary>All rows of a view's tables, as text, sorted.</summary>
    public async Task<string> Rows(string view)
    {
        var rows = new StringBuilder();
        var database = Services.GetRequiredService<OwnerDatabase>().Source;
        foreach (var table in Services.GetServices<IProjection>().Single(p => p.Name == view).Tables)
        {
            rows.AppendLine(CultureInfo.InvariantCulture, $"# {table}");
            await using var command = database.CreateCommand($"select t::text from {table} t order by 1");
            await using var reader = await command.ExecuteReaderAsync(Cancellation);
            while (await reader.ReadAsync(Cancellation))
            {
                rows.AppendLine(reader.GetString(0));
            }
        }

        return rows.ToString();
    }

    private sealed class ErrorLog(List<string> errors) : ILoggerProvider, ILogger
    {
        public ILogger CreateLogger(string categoryName) => this;

        public void Dispose()
        {
        }

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Error;

        public void Log<TState>(LogLevel logLevel, Microsoft.Extensions.Logging.EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (logLevel >= LogLevel.Error)
            {
                lock (errors)
                {
                    errors.Add($"{formatter(state, exception)} {exception}");
                }
            }
        }
    }
}

/// <summary>An answer, read whole.</summary>
public sealed record Answer(HttpStatusCode Status, IReadOnlyDictionary<string, string> Headers, string Text)
{
    public JsonElement Json => JsonElement.Parse(Text);

    private string Start => Text.Length <= 500 ? Text : $"{Text[..500]}…";

    public long? Position => Headers.TryGetValue("Ledger-Position", out var text) ? long.Parse(text, CultureInfo.InvariantCulture) : null;

    public string? ETag => Headers.GetValueOrDefault("ETag");

    public bool Replayed => Headers.GetValueOrDefault("Idempotency-Replayed") == "true";

    /// <summary>A problem's code.</summary>
    public string? Code => Json.GetProperty("code").GetString();

    /// <summary>The fields a problem names.</summary>
    public string[] Fields => Json.TryGetProperty("errors", out var errors) ? [.. errors.EnumerateObject().Select(e => e.Name)] : [];

    public IEnumerable<JsonElement> Items => Json.GetProperty("items").EnumerateArray();

    /// <summary>The text of each item's field.</summary>
    public string[] Each(string field, string list = "items") => [.. Json.GetProperty(list).EnumerateArray().Select(i => i.GetProperty(field).ToString())];

    /// <summary>The answer itself when it has the status; else the test fails and shows it.</summary>
    public Answer Is(HttpStatusCode status)
    {
        Assert.True(status == Status, $"Expected {(int)status}, got {(int)Status}: {Start}");
        return this;
    }

    /// <summary>A problem with a status and a code.</summary>
    public Answer IsProblem(int status, string code)
    {
        Assert.True(status == (int)Status, $"Expected {status} {code}, got {(int)Status}: {Start}");
        Assert.Equal("application/problem+json", Headers["Content-Type"]);
        Assert.Equal(code, Code);
        Assert.Equal(status, Json.GetProperty("status").GetInt32());
        return this;
    }
}
