using System.Text;
using System.Text.Json;
using Ledger.Http;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Mvc;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Ledger.Tests.Http;

/// <summary>A few endpoints on the real foundation, on a real socket.</summary>
public sealed class HttpApp : IAsyncLifetime
{
    private WebApplication? _app;
    private int _open;

    /// <summary>Requests that are being answered.</summary>
    public int Open => Volatile.Read(ref _open);

    public HttpClient Client { get; private set; } = null!;

    public Uri Address => Client.BaseAddress!;

    public List<string> Errors { get; } = [];

    public async ValueTask InitializeAsync()
    {
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(Limits.Apply).UseUrls("http://127.0.0.1:0");
        builder.Services.AddRoutingCore().AddLedgerJson().AddLedgerProblems()
            .AddRejectionOf(e => e is QueueFull ? new("queue-full", "Too much is waiting.") : null);
        builder.Logging.AddProvider(new Recorder(Errors));
        _app = builder.Build();
        _app.Use(async (context, next) =>
        {
            Interlocked.Increment(ref _open);
            try
            {
                await next(context);
            }
            finally
            {
                Interlocked.Decrement(ref _open);
            }
        });
        _app.UseLedgerProblems();
        _app.UseLedgerRouting();
        Map(_app);
        await _app.StartAsync();
        Client = new() { BaseAddress = new(_app.Urls.Single()) };
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await _app!.DisposeAsync();
    }

    public Task<HttpResponseMessage> PostAsync(string path, string json, string contentType = "application/json") =>
        SendAsync(HttpMethod.Post, path, new StringContent(json, Encoding.UTF8), contentType);

    public Task<HttpResponseMessage> PatchAsync(string path, string json) =>
        SendAsync(HttpMethod.Patch, path, new StringContent(json, Encoding.UTF8), "application/json");

    public Task<HttpResponseMessage> GetAsync(string path, params (string Name, string Value)[] headers)
    {
        var request = new HttpRequestMessage(HttpMethod.Get, path);
        foreach (var (name, value) in headers) request.Headers.TryAddWithoutValidation(name, value);
        return Client.SendAsync(request, TestContext.Current.CancellationToken);
    }

    private Task<HttpResponseMessage> SendAsync(HttpMethod method, string path, HttpContent content, string contentType)
    {
        content.Headers.Remove("Content-Type");
        content.Headers.TryAddWithoutValidation("Content-Type", contentType);
        return Client.SendAsync(new(method, path) { Content = content }, TestContext.Current.CancellationToken);
    }

    private static void Map(IEndpointRouteBuilder app)
    {
        app.MapPost("/things", (Thing thing) => TypedResults.Ok(thing));
        app.MapGet("/things", ([AsParameters] PageQuery page, string? name) =>
        {
            if (!Lists.TryRead<string>(page, "things", [name], out var list, out var rejection)) return Problems.For(rejection);
            var all = Enumerable.Range(0, 250).Select(i => $"t{i:000}");
            var rows = all.Where(t => list.IsFirst || string.CompareOrdinal(t, list.After) > 0).Take(list.Fetch).ToList();
            return Results.Ok(list.Page(rows, t => t));
        });
        app.MapGet("/things/{id}", (string id) => id);
        app.MapGet("/things/{id}/parts/{part}", (string id, string part, string? x) => new[] { id, part, x });
        app.MapPatch("/things/{id}", (string id, ThingPatch patch) => TypedResults.Ok(patch));
        app.MapGet("/at", (QueryTime? at, [FromQuery(Name = "how-many")] int howMany, [FromHeader(Name = "X-Depth")] long? depth) =>
            $"{at} {howMany} {depth}");
        app.MapPost("/free", (JsonElement free) => Results.Text(free.GetRawText()));
        app.MapPost("/raw", async (HttpRequest request) =>
        {
            using var reader = new StreamReader(request.Body);
            return (await reader.ReadToEndAsync()).Length;
        });
        app.MapGet("/fails", string () => throw new InvalidOperationException("the secret is 42"));
        app.MapGet("/full", string () => throw new QueueFull());
        app.MapGet("/times-out", string () => throw new TimeoutException("the secret is 42"));
        app.MapGet("/rows", (HttpRequest request, int count, int? failAt) =>
            Formats.TryNegotiate(request, out var format, out var rejection)
                ? format == ListFormat.Json ? Results.Ok(new Page<int>([count], null)) : Formats.Stream(format, Rows(count, failAt), RowsAsCsv)
                : Problems.For(rejection));
        app.MapPost("/once", (HttpRequest request, Thing thing) =>
        {
            if (!IdempotencyKeys.TryRead(request, out var key, out var rejection)) return Problems.For(rejection);
            if (key == "again") IdempotencyKeys.MarkReplayed(request.HttpContext.Response);
            return Results.Text($"{key} {IdempotencyKeys.Fingerprint(request, thing)}");
        });
        app.MapPut("/versioned", (HttpRequest request) =>
        {
            if (!IfMatch.TryRead(request, out var ifMatch, out var rejection)) return Problems.For(rejection);
            if (!ifMatch.Allows(3)) return Problems.For(IfMatch.Failed(3));
            ETags.Write(request.HttpContext.Response, 4);
            return Results.Ok();
        });
        app.MapGet("/waits", () => "seen").WaitsForPosition((position, _, _) => ValueTask.FromResult(position <= 10));
    }

    public sealed record Row(int Id, string Text, decimal Price, DateTimeOffset At);

    private static readonly CsvTable<Row> RowsAsCsv = new(["id", "text", "price", "at"], (csv, row) =>
    {
        csv.Number(row.Id);
        csv.Text(row.Text);
        csv.Number(row.Price);
        csv.Time(row.At);
    });

    private static async IAsyncEnumerable<Row> Rows(int count, int? failAt)
    {
        for (var i = 0; i < count; i++)
        {
            if (i == failAt) throw new QueueFull();
            if (i % 1000 == 999) await Task.Yield();
            yield return new(i, i % 2 == 0 ? "=ä, \"x\"" : "plain", i / 4m, DateTimeOffset.UnixEpoch.AddSeconds(i));
        }
    }

    private sealed class QueueFull : Exception;

    private sealed class Recorder(List<string> errors) : ILoggerProvider, ILogger
    {
        public ILogger CreateLogger(string categoryName) => this;

        public void Dispose() { }

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Error;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (logLevel < LogLevel.Error) return;
            lock (errors) errors.Add($"{formatter(state, exception)} {exception}");
        }
    }
}

public enum Colour { Red, DarkBlue }

public sealed record Part(string Segment, TimeSpan? Ttl = null, DateTimeOffset? ExpiresAt = null);

public sealed record Thing(
    string Name, int Count = 1, decimal? Price = null, bool Big = false, Colour Colour = Colour.Red, IReadOnlyList<Part>? Join = null,
    IReadOnlyDictionary<string, decimal>? Quantities = null, IReadOnlyDictionary<string, string>? Tags = null, JsonElement? Free = null);

public sealed record ThingPatch(Patch<string> Description, Patch<decimal?> Percent, Patch<int> Count, Patch<TimeSpan?> Ttl);
