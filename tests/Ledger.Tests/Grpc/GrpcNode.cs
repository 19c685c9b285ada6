using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json;
using Ledger.Authentication;
using Ledger.Hosting;
using Ledger.Testing;

namespace Ledger.Tests.Grpc;

/// <summary>A node with a gRPC port, and gRPC's own client for JavaScript beside it.</summary>
public sealed class GrpcNode : IAsyncLifetime
{
    private readonly TestNode _node;
    private GrpcJs? _client;

    /// <summary>One that asks for no credentials.</summary>
    public GrpcNode(PostgresFixture postgres) : this(postgres, AccessMode.Auto)
    {
    }

    internal GrpcNode(PostgresFixture postgres, AccessMode auth) => _node = new(postgres) { GrpcUrls = "http://127.0.0.1:0", Auth = auth };

    public TestNode Http => _node;

    public Uri Address => _node.GrpcAddress;

    public async ValueTask InitializeAsync()
    {
        await _node.InitializeAsync();
        _client = await GrpcJs.Start(Address);
    }

    public async ValueTask DisposeAsync()
    {
        if (_client is not null)
        {
            await _client.DisposeAsync();
        }

        await _node.DisposeAsync();
        Assert.Empty(_node.Errors);
    }

    /// <summary>Calls a method of ledger.v1.UsageService.</summary>
    public Task<Outcome> Call(string method, object request, params (string Name, string Value)[] metadata) =>
        Call(new GrpcCall(method, request) { Metadata = metadata.ToDictionary(m => m.Name, m => m.Value) });

    public Task<Outcome> Call(GrpcCall call) => _client!.Call(call);

    /// <summary>Registers a service with a price per call, in force for long, and gives its id.</summary>
    public async Task<string> Service(string price = "0.01")
    {
        var id = $"s-{Guid.NewGuid():n}";
        (await Call("RegisterService", new { service_id = id, title = id })).IsOk();
        (await Call("SetPrice", new { service_id = id, currency = "USD", components = new[] { new { unit = "call", price } }, effective_from = new { seconds = 0 } })).IsOk();
        return id;
    }
}

/// <summary>A call as the client is told to make it.</summary>
public sealed record GrpcCall(string Method, object Request)
{
    public string Service { get; init; } = "ledger.v1.UsageService";

    public IReadOnlyDictionary<string, string>? Metadata { get; init; }

    public int? DeadlineMs { get; init; }

    public bool Gzip { get; init; }
}

/// <summary>What the client saw.</summary>
public sealed record Outcome(int Code, string? Message, JsonElement? Response, IReadOnlyDictionary<string, string> Headers, JsonElement? Status)
{
    public JsonElement this[string field] => Response!.Value.GetProperty(field);

    public string Text(string field) => this[field].ToString();

    public long Position => long.Parse(Headers["ledger-position"], System.Globalization.CultureInfo.InvariantCulture);

    public bool Replayed => Headers.GetValueOrDefault("idempotency-replayed") == "true";

    public JsonElement Detail(string type) => Status!.Value.GetProperty("details").GetProperty(type);

    /// <summary>The fields that are wrong, each with what is wrong with it.</summary>
    public (string Field, string Rule)[] Violations =>
        [.. Detail("BadRequest").GetProperty("field_violations").EnumerateArray().Select(v => (v.GetProperty("field").GetString()!, v.GetProperty("description").GetString()!))];

    public Outcome IsOk()
    {
        Assert.True(Code == 0, $"{Code}: {Message}");
        return this;
    }

    /// <summary>Checks status and problem code, which must come with all that a refusal carries.</summary>
    public Outcome IsRefused(int code, string reason)
    {
        Assert.True(Code == code, $"Expected {code}, got {Code}: {Message}");
        Assert.Equal(code, Status!.Value.GetProperty("code").GetInt32());
        Assert.Equal(Message, Status.Value.GetProperty("message").GetString());
        var info = Detail("ErrorInfo");
        Assert.Equal((reason, "ledger"), (info.GetProperty("reason").GetString(), info.GetProperty("domain").GetString()));
        Assert.Equal(32, info.GetProperty("metadata").GetProperty("traceId").GetString()!.Length);
        return this;
    }
}

/// <summary>@grpc/grpc-js in a process of its own, installed by npm once a build folder.</summary>
internal sealed class GrpcJs : IAsyncDisposable
{
    private static readonly Lazy<Task<string>> Installed = new(Install);

    private readonly Process _process;
    private readonly ConcurrentDictionary<int, TaskCompletionSource<Outcome>> _calls = [];
    private readonly Task _reading;
    private int _number;

    private GrpcJs(Process process)
    {
        _process = process;
        _reading = Read();
    }

    public static string Protos => Conventions.Repository.PathOf("src/Ledger/Grpc");

    public static async Task<GrpcJs> Start(Uri address)
    {
        var folder = await Installed.Value;
        var process = new Process
        {
            StartInfo = new("node", [Path.Combine(folder, "client.mjs"), address.Authority, Protos]) { RedirectStandardInput = true, RedirectStandardOutput = true },
        };
        process.Start();
        return new GrpcJs(process);
    }

    /// <summary>Runs a program with the client's packages, and gives what it wrote.</summary>
    public static async Task<string> Run(string program, IReadOnlyDictionary<string, string> files)
    {
        var folder = await Installed.Value;
        foreach (var (name, text) in files)
        {
            await File.WriteAllTextAsync(Path.Combine(folder, name), text);
        }

        var (exitCode, output) = await Tool.RunAsync(["sh", "-c", $"cd '{folder}' && node {program}"], TestContext.Current.CancellationToken);
        Assert.True(exitCode == 0, output);
        return output;
    }

    public async Task<Outcome> Call(GrpcCall call)
    {
        var number = Interlocked.Increment(ref _number);
        var outcome = _calls[number] = new(TaskCreationOptions.RunContinuationsAsynchronously);
        var line = JsonSerializer.Serialize(
            new { number, call.Service, call.Method, call.Request, call.Metadata, call.DeadlineMs, call.Gzip },
            JsonSerializerOptions.Web);
        lock (_process)
        {
            _process.StandardInput.WriteLine(line);
            _process.StandardInput.Flush();
        }

        return await outcome.Task.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        _process.StandardInput.Close();
        await _reading;
        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    private async Task Read()
    {
        while (await _process.StandardOutput.ReadLineAsync() is { } line)
        {
            var outcome = JsonElement.Parse(line);
            _calls[outcome.GetProperty("number").GetInt32()].SetResult(outcome.Deserialize<Outcome>(JsonSerializerOptions.Web)!);
        }

        foreach (var call in _calls.Values)
        {
            call.TrySetException(new InvalidOperationException("The client has ended."));
        }
    }

    private static async Task<string> Install()
    {
        var folder = Path.Combine(AppContext.BaseDirectory, "grpc-client");
        Directory.CreateDirectory(folder);
        foreach (var file in Directory.EnumerateFiles(Path.Combine(SourceFolder(), "client")))
        {
            File.Copy(file, Path.Combine(folder, Path.GetFileName(file)), overwrite: true);
        }

        var (stamp, wanted) = (Path.Combine(folder, "installed"), await File.ReadAllTextAsync(Path.Combine(folder, "package-lock.json")));
        if (!File.Exists(stamp) || await File.ReadAllTextAsync(stamp) != wanted)
        {
            await Run("npm --version || { apt-get update && apt-get install -y --no-install-recommends nodejs npm; }");
            await Run($"cd '{folder}' && npm ci --ignore-scripts --no-audit --no-fund");
            await File.WriteAllTextAsync(stamp, wanted);
        }

        return folder;

        static async Task Run(string script)
        {
            using var patience = new CancellationTokenSource(TimeSpan.FromMinutes(5));
            var (exitCode, output) = await Tool.RunAsync(["sh", "-c", script], patience.Token);
            Assert.True(exitCode == 0, $"gRPC's client for Node.js can't be installed: {output}");
        }
    }

    private static string SourceFolder([CallerFilePath] string file = "") => Path.GetDirectoryName(file)!;
}
