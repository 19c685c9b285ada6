using System.Diagnostics;

namespace Ledger.Tests.Operations;

/// <summary><c>ledger up</c> in a process of its own.</summary>
internal sealed class UpProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly List<string> _output = [];
    private readonly TaskCompletionSource _up = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _stopped;

    private UpProcess(Process process) => _process = process;

    public HttpClient Client { get; private set; } = null!;

    public Uri GrpcAddress => new(AddressAfter("gRPC is answered on "));

    /// <summary>The lines it has written.</summary>
    public IReadOnlyList<string> Output
    {
        get
        {
            lock (_output)
            {
                return [.. _output];
            }
        }
    }

    public static async Task<UpProcess> Start(string database, params (string Name, string Value)[] environment)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "Ledger.dll"), "up"]) { RedirectStandardOutput = true, RedirectStandardError = true };
        foreach (var (name, value) in ((string, string)[])[
            ("LEDGER_DB", database), ("LEDGER_URLS", "http://127.0.0.1:0"), ("LEDGER_GRPC_URLS", "http://127.0.0.1:0"), .. environment])
        {
            start.Environment[name] = value;
        }

        var up = new UpProcess(new Process { StartInfo = start, EnableRaisingEvents = true });
        up._process.OutputDataReceived += (_, line) => up.Note(line.Data);
        up._process.ErrorDataReceived += (_, line) => up.Note(line.Data);
        up._process.Exited += (_, _) => up._up.TrySetException(new InvalidOperationException(string.Join('\n', up.Output)));
        up._process.Start();
        up._process.BeginOutputReadLine();
        up._process.BeginErrorReadLine();
        await up._up.Task.WaitAsync(TimeSpan.FromSeconds(60), TestContext.Current.CancellationToken);
        up.Client = new HttpClient { BaseAddress = new Uri(up.AddressAfter("Ledger listens on ")) };
        return up;
    }

    /// <summary>Stops it as a terminal or a supervisor would.</summary>
    public async Task Stop()
    {
        if (_stopped)
        {
            return;
        }

        _stopped = true;
        using (var kill = Process.Start("kill", ["-TERM", $"{_process.Id}"]))
        {
            await kill.WaitForExitAsync();
        }

        await _process.WaitForExitAsync();
    }

    public async ValueTask DisposeAsync()
    {
        Client.Dispose();
        await Stop();
        _process.Dispose();
    }

    private string AddressAfter(string words) => Output.Single(l => l.StartsWith(words, StringComparison.Ordinal))[words.Length..];

    private void Note(string? line)
    {
        lock (_output)
        {
            _output.Add(line ?? "");
        }

        if (line?.StartsWith("Try: ", StringComparison.Ordinal) == true)
        {
            _up.TrySetResult();
        }
    }
}
