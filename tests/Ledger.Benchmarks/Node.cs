using System.Diagnostics;
using System.Net.Http.Json;
using System.Text;
using Ledger.Hosting;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>A process <c>Ledger up</c>, and where it listens.</summary>
internal sealed class LedgerProcess : IAsyncDisposable
{
    /// <summary>How long it may take until it listens: as long as PostgreSQL's own start, which may have to recover, and some more.</summary>
    public static readonly TimeSpan StartTimeout = PrivateCluster.StartTimeout + TimeSpan.FromMinutes(1);

    /// <summary>How long it may take to stop before it is killed; longer than what a stopping node waits for.</summary>
    public static readonly TimeSpan StopTimeout = TimeSpan.FromSeconds(40);

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly TaskCompletionSource _listening = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lazy<Task> _stop;
    private volatile bool _hasExited;

    private LedgerProcess(Process process)
    {
        _process = process;
        _stop = new Lazy<Task>(Stop);
    }

    public int Id { get; private set; }

    public int Port { get; private set; }

    public bool HasExited => _hasExited;

    public HttpClient Http { get; } = new() { Timeout = Timeout.InfiniteTimeSpan };

    /// <summary>Where the private cluster keeps its data.</summary>
    public string DataFolder { get; private set; } = "";

    public string Output
    {
        get
        {
            lock (_output)
            {
                return _output.ToString();
            }
        }
    }

    /// <summary>Starts it; it can be used once <see cref="UntilItListens"/> is over.</summary>
    public static LedgerProcess Launch(IReadOnlyDictionary<string, string> environment)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "Ledger.dll"), "up"])
        {
            RedirectStandardOutput = true, RedirectStandardError = true,
        };
        start.Environment["LEDGER_URLS"] = "http://127.0.0.1:0";
        foreach (var (name, value) in environment)
        {
            start.Environment[name] = value;
        }

        var ledger = new LedgerProcess(new Process { StartInfo = start, EnableRaisingEvents = true });
        ledger._process.OutputDataReceived += (_, line) => ledger.Note(line.Data);
        ledger._process.ErrorDataReceived += (_, line) => ledger.Note(line.Data);
        ledger._process.Exited += (_, _) =>
        {
            ledger._hasExited = true;
            ledger._listening.TrySetException(new BenchFailedException($"Ledger did not start: {ledger.Output}"));
        };
        ledger._process.Start();
        ledger.Id = ledger._process.Id;
        ledger._process.BeginOutputReadLine();
        ledger._process.BeginErrorReadLine();
        return ledger;
    }

    /// <summary>Waits until it listens; fails when it ends before, or takes too long.</summary>
    public async Task UntilItListens(CancellationToken cancellation)
    {
        try
        {
            await _listening.Task.WaitAsync(StartTimeout, cancellation);
        }
        catch (TimeoutException)
        {
            throw new BenchFailedException($"Ledger did not start within {StartTimeout.TotalMinutes} minutes: {Output}");
        }

        Http.BaseAddress = new Uri($"http://127.0.0.1:{Port}");
    }

    /// <summary>Asks it to stop, and does not wait until it has.</summary>
    public void Terminate()
    {
        if (!_hasExited)
        {
            using var kill = Process.Start("kill", ["-TERM", $"{Id}"]);
        }
    }

    /// <summary>Stops it. Whoever comes second waits for the same end.</summary>
    public ValueTask DisposeAsync() => new(_stop.Value);

    private async Task Stop()
    {
        Http.Dispose();
        if (!_process.HasExited)
        {
            Terminate();
            try
            {
                await _process.WaitForExitAsync().WaitAsync(StopTimeout);
            }
            catch (TimeoutException)
            {
                _process.Kill();
                await _process.WaitForExitAsync();
            }
        }

        _process.Dispose();
    }

    private void Note(string? line)
    {
        const string Listens = "Ledger listens on ";
        const string DataLies = "Data lies in ";
        if (line is null)
        {
            return;
        }

        lock (_output)
        {
            _output.AppendLine(line);
        }

        if (line.StartsWith(Listens, StringComparison.Ordinal))
        {
            Port = new Uri(line[Listens.Length..].Split(',')[0]).Port;
        }
        else if (line.StartsWith(DataLies, StringComparison.Ordinal))
        {
            DataFolder = line[DataLies.Length..];
            _listening.TrySetResult();
        }
    }
}

/// <summary>A node under test: the process, and a look into its database.</summary>
internal sealed class Node(string name, LedgerProcess process, NpgsqlDataSource database, int postmaster, bool owned = true) : IAsyncDisposable
{
    /// <summary>The database's name.</summary>
    public string Name => name;

    public LedgerProcess Process => process;

    public NpgsqlDataSource Database => database;

    public int Postmaster => postmaster;

    /// <summary>Calls that are not measured.</summary>
    public async Task Post(string path, object? body = null)
    {
        using var response = await process.Http.PostAsJsonAsync(path, body);
        if (!response.IsSuccessStatusCode)
        {
            throw new BenchFailedException($"POST {path}: {(int)response.StatusCode} {await response.Content.ReadAsStringAsync()}");
        }
    }

    public Task CreateSegment(string slug) => Post("/v1/segments", new { slug });

    public async Task<T> Scalar<T>(string sql) => await database.Scalar<T>(sql);

    public Task<long> Head() => Scalar<long>("select coalesce(max(seq_id), 0) from mt_events");

    /// <summary>Waits until every view has reached a position, by looking at the table itself.</summary>
    public async Task WaitForViews(long position)
    {
        while (await Scalar<long>("select coalesce(min(last_seq_id), 0) from mt_event_progression") < position)
        {
            ExpectRunning();
            await Task.Delay(5);
        }
    }

    /// <summary>Waits until a signed checkpoint covers the log up to a position; they come once a second at most.</summary>
    public async Task WaitForCheckpoint(long position)
    {
        while (await Scalar<long>("select coalesce(max(size), 0) from log_checkpoint") < position)
        {
            if (await Scalar<string>("select coalesce(max(refusal), '') from log_state") is { Length: > 0 } refusal)
            {
                throw new BenchFailedException($"The log is not signed any more: {refusal}");
            }

            ExpectRunning();
            await Task.Delay(20);
        }
    }

    /// <summary>Waits until there is nothing left to do for the events up to a position, which would weigh on what is measured next.</summary>
    public async Task Settle(long position)
    {
        await WaitForViews(position);
        await WaitForCheckpoint(position);
    }

    /// <summary>Fails unless the log holds exactly the acknowledged joins after a position, each of another user.</summary>
    public Task Verify(long afterPosition, long acknowledged) => database.Verify(afterPosition, acknowledged);

    /// <summary>Fails unless the log holds exactly the acknowledged calls after a position, and nothing else.</summary>
    public async Task VerifyCalls(long afterPosition, long acknowledged)
    {
        await database.Verify(afterPosition, acknowledged, newStreams: false);
        var calls = await Scalar<long>($"select count(*) from mt_events where seq_id > {afterPosition} and type = 'call_recorded'");
        if (calls != acknowledged)
        {
            throw new BenchFailedException($"{acknowledged} calls were acknowledged after position {afterPosition}, but {calls} are stored.");
        }
    }

    /// <summary>Fails when the process has ended: then nothing comes that is waited for.</summary>
    public void ExpectRunning()
    {
        if (process.HasExited)
        {
            throw new BenchFailedException($"Ledger has ended: {process.Output}");
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (owned)
        {
            await process.DisposeAsync();
            await database.DisposeAsync();
        }
    }
}

internal static class DatabaseExtensions
{
    public static async Task<T> Scalar<T>(this NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        command.CommandTimeout = 0;
        return (T)(await command.ExecuteScalarAsync())!;
    }

    public static async Task Execute(this NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        command.CommandTimeout = 0;
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>Fails unless the log holds exactly the acknowledged events after a position, in a dense row of positions.</summary>
    public static async Task Verify(this NpgsqlDataSource database, long afterPosition, long acknowledged, bool newStreams = true)
    {
        await using var command = database.CreateCommand(
            "select count(*), count(distinct (stream_id, version)), count(*) filter (where version = 1), coalesce(max(seq_id), 0) from mt_events where seq_id > $1");
        command.CommandTimeout = 0;
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = afterPosition });
        await using var reader = await command.ExecuteReaderAsync();
        await reader.ReadAsync();
        var (stored, distinct, firsts, head) = (reader.GetInt64(0), reader.GetInt64(1), reader.GetInt64(2), reader.GetInt64(3));
        if (stored != acknowledged || distinct != acknowledged || (newStreams && firsts != acknowledged) || (acknowledged > 0 && head != afterPosition + acknowledged))
        {
            throw new BenchFailedException(
                $"{acknowledged} events were acknowledged after position {afterPosition}, but {stored} are stored ({firsts} first ones of a stream), up to {head}.");
        }
    }
}
