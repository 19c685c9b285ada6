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

    public int ProcessId => _process.Id;

    public Uri Address => new(AddressAfter("Ledger listens on "));

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
        up.Client = new HttpClient { BaseAddress = up.Address };
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
        await Signal("TERM");
        await Signal("CONT"); // one that is frozen would not hear it
        await _process.WaitForExitAsync();
    }

    /// <summary>Nothing it has logged is an error.</summary>
    public void AssertNoErrors()
    {
        var errors = Output.Where(line => line.Contains(" level=error ", StringComparison.Ordinal) || line.Contains(" level=critical ", StringComparison.Ordinal));
        Assert.True(!errors.Any(), string.Join('\n', errors.Take(5).Select(e => e[..Math.Min(e.Length, 1_000)])));
    }

    /// <summary>Ends it as a power cut would.</summary>
    public async Task Kill()
    {
        _stopped = true;
        await Signal("KILL");
        await _process.WaitForExitAsync();
    }

    /// <summary>Stops it from running, as a paused machine or a long swap does, until <see cref="Thaw"/>.</summary>
    public Task Freeze() => Signal("STOP");

    public Task Thaw() => Signal("CONT");

    private async Task Signal(string name)
    {
        using var kill = Process.Start("kill", [$"-{name}", $"{_process.Id}"]);
        await kill.WaitForExitAsync();
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
