using System.Diagnostics;
using System.Net;
using System.Text;
using System.Text.Json;
using Ledger.DemoGateway;

namespace Ledger.Tests.Campaigns;

/// <summary>The gateway of tests as a process of its own, on a port of its own.</summary>
internal sealed class GatewayProcess : IAsyncDisposable
{
    public const string Token = "gateway-t0ken-0815";

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly TaskCompletionSource<Uri> _up = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _ended;

    private GatewayProcess(Process process) => _process = process;

    public Uri Address { get; private set; } = null!;

    public HttpClient Client { get; private set; } = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Starts one; with the address of one that was there before, in its place.</summary>
    public static async Task<GatewayProcess> Start(object? faults = null, string? journal = null, Uri? address = null)
    {
        string[] arguments =
        [
            Path.Combine(AppContext.BaseDirectory, "Ledger.Gateway.dll"), "--urls", address?.GetLeftPart(UriPartial.Authority) ?? "http://127.0.0.1:0",
            .. faults is null ? (string[])[] : ["--faults", JsonSerializer.Serialize(faults)], .. journal is null ? (string[])[] : ["--journal", journal],
        ];
        var start = new ProcessStartInfo("dotnet", arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment[GatewayServer.TokenVariable] = Token;
        var gateway = new GatewayProcess(new Process { StartInfo = start, EnableRaisingEvents = true });
        gateway._process.OutputDataReceived += (_, line) => gateway.Note(line.Data);
        gateway._process.ErrorDataReceived += (_, line) => gateway.Note(line.Data);
        gateway._process.Exited += (_, _) => gateway._up.TrySetException(new InvalidOperationException($"The gateway ended: {gateway._output}"));
        gateway._process.Start();
        gateway._process.BeginOutputReadLine();
        gateway._process.BeginErrorReadLine();
        gateway.Address = await gateway._up.Task.WaitAsync(TimeSpan.FromSeconds(60), Cancellation);
        gateway.Client = new HttpClient { BaseAddress = gateway.Address };
        return gateway;
    }

    /// <summary>Changes what it does wrong.</summary>
    public async Task SetFaults(object faults)
    {
        using var body = new StringContent(JsonSerializer.Serialize(faults), Encoding.UTF8, "application/json");
        using var response = await Client.PutAsync(new Uri("/faults", UriKind.Relative), body, Cancellation);
        Assert.True(response.IsSuccessStatusCode, await response.Content.ReadAsStringAsync(Cancellation));
    }

    /// <summary>What it received, in order.</summary>
    public async Task<IReadOnlyList<Call>> Received() =>
        [.. (await Client.GetStringAsync(new Uri("/received", UriKind.Relative), Cancellation)).Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => JsonSerializer.Deserialize<Call>(line, Call.Json)!)];

    /// <summary>The same in numbers.</summary>
    public async Task<Summary> Summarise() =>
        JsonSerializer.Deserialize<Summary>(await Client.GetStringAsync(new Uri("/received/summary", UriKind.Relative), Cancellation), Call.Json)!;

    /// <summary>Posts a message by hand.</summary>
    public async Task<(HttpStatusCode Status, string Body)> Post(string id, string body, string? token = Token)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, $"/send/{id}") { Content = new StringContent(body, Encoding.UTF8, "application/json") };
        request.Headers.TryAddWithoutValidation("Authorization", token is null ? null : $"Bearer {token}");
        using var response = await Client.SendAsync(request, Cancellation);
        return (response.StatusCode, await response.Content.ReadAsStringAsync(Cancellation));
    }

    /// <summary>Ends it as a power cut would.</summary>
    public async Task Kill()
    {
        _ended = true;
        _process.Kill();
        await _process.WaitForExitAsync(Cancellation);
    }

    /// <summary>Ends it as a supervisor would; returns its exit code.</summary>
    public async Task<int> Stop()
    {
        _ended = true;
        using var kill = Process.Start("kill", ["-TERM", $"{_process.Id}"]);
        await _process.WaitForExitAsync(Cancellation);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        Client?.Dispose();
        if (!_ended)
        {
            _process.Kill();
            await _process.WaitForExitAsync(CancellationToken.None);
        }

        _process.Dispose();
    }

    private void Note(string? line)
    {
        const string Listening = "Gateway listens on ";
        lock (_output)
        {
            _output.AppendLine(line);
        }

        if (line?.StartsWith(Listening, StringComparison.Ordinal) == true)
        {
            _up.TrySetResult(new Uri(line[Listening.Length..]));
        }
    }
}
