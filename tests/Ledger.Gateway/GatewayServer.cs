using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Ledger.DemoGateway;

/// <summary>The gateway on its sockets.</summary>
public sealed class GatewayServer : IAsyncDisposable
{
    /// <summary>The variable with the token that is asked for.</summary>
    public const string TokenVariable = "GATEWAY_TOKEN";

    /// <summary>Bytes of a body.</summary>
    public const int MaxBodyBytes = 131_072;

    private const string SendPath = "/send/";

    private static readonly JsonSerializerOptions s_json = new(JsonSerializerDefaults.Web)
    {
        UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow, RespectNullableAnnotations = true, RespectRequiredConstructorParameters = true,
    };

    private readonly WebApplication _app;
    private readonly Received _received;
    private readonly string? _authorization;
    private volatile Faults _faults = new();

    public GatewayServer(string? token, Received received)
    {
        (_received, _authorization) = (received, string.IsNullOrEmpty(token) ? null : $"Bearer {token}");
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions { ApplicationName = "Ledger.Gateway" });
        builder.WebHost.UseKestrelCore().ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            kestrel.Limits.MaxRequestBodySize = MaxBodyBytes;
        });
        // What hangs is cut off when it stops.
        builder.Services.Configure<HostOptions>(o => o.ShutdownTimeout = TimeSpan.FromMilliseconds(200));
        _app = builder.Build();
        _app.Run(Answer);
    }

    /// <summary>What it does wrong.</summary>
    public Faults Faults
    {
        get => _faults;
        set => _faults = value;
    }

    /// <summary>Listens; the addresses, with their ports.</summary>
    public async Task<IReadOnlyList<string>> Start(string urls, CancellationToken cancellation)
    {
        foreach (var url in urls.Split(';', StringSplitOptions.RemoveEmptyEntries))
        {
            _app.Urls.Add(url);
        }

        await _app.StartAsync(cancellation);
        return [.. _app.Urls];
    }

    /// <summary>Until it is told to stop.</summary>
    public async Task WaitForShutdown(CancellationToken cancellation)
    {
        try
        {
            await Task.Delay(Timeout.Infinite, cancellation);
        }
        catch (OperationCanceledException)
        {
            await _app.StopAsync(CancellationToken.None);
        }
    }

    public ValueTask DisposeAsync() => _app.DisposeAsync();

    private Task Answer(HttpContext http)
    {
        // The path as it was sent: an id may have a slash in it.
        var target = http.Features.Get<IHttpRequestFeature>()!.RawTarget;
        return (http.Request.Method, target) switch
        {
            ("POST", _) when target.LastIndexOf(SendPath, StringComparison.Ordinal) is >= 0 and var at => Send(http, Uri.UnescapeDataString(target[(at + SendPath.Length)..])),
            ("GET", "/faults") => Write(http, 200, _faults.ToString()),
            ("PUT", "/faults") => SetFaults(http),
            ("GET", "/received") => List(http),
            ("GET", "/received/summary") => Write(http, 200, JsonSerializer.Serialize(_received.Summarise(), Call.Json)),
            ("DELETE", "/received") => Clear(http),
            ("GET", "/health") => Write(http, 200, "{}"),
            _ => Write(http, 404, ""),
        };
    }

    private async Task Send(HttpContext http, string id)
    {
        var at = DateTimeOffset.UtcNow;
        var faults = _faults;
        if (_authorization is not null && http.Request.Headers.Authorization != _authorization)
        {
            _received.CountRefused();
            await Reply(http, 401, 401, "The token is not known.");
            return;
        }

        Message? message;
        try
        {
            message = await JsonSerializer.DeserializeAsync<Message>(http.Request.Body, s_json, http.RequestAborted);
        }
        catch (JsonException)
        {
            message = null;
        }

        if (message is null || message.Id != id || message.Phone.Length == 0)
        {
            _received.CountRefused();
            await Reply(http, 400, 3, "That is no message, or another one than the address says.");
            return;
        }

        var call = _received.Take(id, message.Phone, message.Text, at, faults);
        if (faults.LatencyMilliseconds > 0)
        {
            await Task.Delay(faults.LatencyMilliseconds, http.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default);
        }

        switch (call.Answer)
        {
            case Treatment.Accept:
                await Reply(http, 200, 0, call.IsAccepted ? "accepted" : "accepted before");
                break;
            case Treatment.Refuse:
                await Reply(http, 200, 2, "The number is not in service.");
                break;
            case Treatment.Error:
                await Reply(http, 500, 1, "Something went wrong.");
                break;
            case Treatment.Busy:
                http.Response.Headers.RetryAfter = faults.RetryAfterSeconds.ToString(CultureInfo.InvariantCulture);
                await Reply(http, 429, 4, "Too many messages.");
                break;
            case Treatment.Broken:
                await Write(http, 500, "");
                break;
            case Treatment.Garbage:
                await Write(http, 200, "<html>It works!</html>");
                break;
            case Treatment.Reset:
                http.Abort();
                break;
            default:
                await Task.Delay(Timeout.Infinite, http.RequestAborted).ContinueWith(_ => { }, TaskScheduler.Default);
                http.Abort();
                break;
        }
    }

    private async Task SetFaults(HttpContext http)
    {
        using var reader = new StreamReader(http.Request.Body);
        if (!Faults.TryRead(await reader.ReadToEndAsync(http.RequestAborted), out var faults, out var wrong))
        {
            await Write(http, 400, JsonSerializer.Serialize(new { wrong }));
            return;
        }

        _faults = faults;
        await Write(http, 200, faults.ToString());
    }

    private async Task List(HttpContext http)
    {
        http.Response.ContentType = "application/x-ndjson";
        foreach (var call in _received.Calls())
        {
            await http.Response.Body.WriteAsync((byte[])[.. JsonSerializer.SerializeToUtf8Bytes(call, Call.Json), (byte)'\n'], http.RequestAborted);
        }
    }

    private Task Clear(HttpContext http)
    {
        _received.Clear();
        return Write(http, 204, "");
    }

    private static Task Reply(HttpContext http, int status, int code, string message) => Write(http, status, $$"""{"code":{{code}},"message":"{{message}}"}""");

    private static Task Write(HttpContext http, int status, string body)
    {
        http.Response.StatusCode = status;
        if (body.Length == 0)
        {
            return Task.CompletedTask;
        }

        http.Response.ContentType = body.StartsWith('{') ? "application/json" : "text/html";
        return http.Response.WriteAsync(body, http.RequestAborted);
    }

    private sealed record Message(string Id, string Phone, string Text);
}
