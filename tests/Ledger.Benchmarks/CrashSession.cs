using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Net.Sockets;
using Ledger.EventStore;
using Ledger.Hosting;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>
/// Steps against a real process on a private cluster of its own, which can be ended by <c>kill -9</c> and started again. Every
/// step says PASS or FAIL.
/// </summary>
internal abstract class CrashSession(CancellationToken stopping) : IAsyncDisposable
{
    protected const int Connections = 64;

    private readonly string _home = Bench.TempFolder();
    private LedgerProcess? _ledger;
    private NpgsqlDataSource? _database;
    private bool _passed = true;

    protected HttpClient Http => _ledger!.Http;

    protected NpgsqlDataSource Database => _database!;

    /// <summary>Runs all steps; false when one of them failed.</summary>
    public async Task<bool> Run()
    {
        Console.WriteLine("step                                                                      seconds");
        // What waits for the service or for its database fails once they end.
        using var interrupting = stopping.Register(() => _ledger?.Terminate());
        try
        {
            await RunSteps();
        }
        catch (Exception exception) when (exception is BenchFailedException or HttpRequestException or NpgsqlException or IOException or SocketException or OperationCanceledException)
        {
            Console.WriteLine($"FAIL  {exception.Message}");
            _passed = false;
        }

        Console.WriteLine(_passed ? "PASS" : "FAIL");
        return _passed;
    }

    public async ValueTask DisposeAsync()
    {
        if (_ledger is not null)
        {
            await _ledger.DisposeAsync();
        }

        if (_database is not null)
        {
            await _database.DisposeAsync();
        }

        Directory.Delete(_home, recursive: true);
    }

    protected abstract Task RunSteps();

    protected async Task Step(string name, Func<Task> run, TimeSpan? limit = null)
    {
        stopping.ThrowIfCancellationRequested();
        var started = Stopwatch.GetTimestamp();
        string? failure = null;
        try
        {
            await run();
        }
        catch (BenchFailedException exception)
        {
            failure = exception.Message;
        }

        var elapsed = Stopwatch.GetElapsedTime(started);
        failure ??= elapsed > limit ? $"took longer than {limit.Value.TotalSeconds} s" : null;
        _passed &= failure is null;
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{(failure is null ? "PASS" : "FAIL")}  {name,-68}{elapsed.TotalSeconds,9:0.00}{(failure is null ? "" : $"\n      {failure}")}"));
    }

    /// <summary>Starts service and PostgreSQL on the session's folder, whatever state it is in.</summary>
    protected async Task Start()
    {
        _ledger = LedgerProcess.Launch(new Dictionary<string, string> { ["LEDGER_HOME"] = _home, ["LEDGER_SWEEP_SECONDS"] = "1", ["LEDGER_DB"] = "" });
        await _ledger.UntilItListens(stopping);
        var connection = await PrivateCluster.FindRunningAsync(new PrivateClusterOptions(_home), default);
        _database = EventStoreDatabase.Connect(connection!, new EventStoreOptions(), "session", 4);
    }

    /// <summary>Does something for each item, over as many connections as there are, each one thing after another.</summary>
    protected async Task<TResult[]> OverConnections<T, TResult>(IEnumerable<T> items, Func<HttpConnection, T, Task<TResult>> work)
    {
        var queue = new ConcurrentQueue<T>(items);
        var port = _ledger!.Port;
        var results = await Task.WhenAll(Enumerable.Range(0, Connections).Select(_ => Task.Run(async () =>
        {
            using var connection = await HttpConnection.Connect(port);
            var done = new List<TResult>();
            while (queue.TryDequeue(out var item))
            {
                done.Add(await work(connection, item));
            }

            return done;
        })));
        return [.. results.SelectMany(r => r)];
    }

    /// <summary>
    /// Sends each item over the connections and kills everything once half of them are acknowledged; what is under way then, and
    /// what comes after, is not. Returns how many were.
    /// </summary>
    protected async Task<int> SendAndKill<T>(IReadOnlyCollection<T> items, Func<HttpConnection, T, Task> send)
    {
        var acknowledged = 0;
        var enough = new TaskCompletionSource();
        var sending = OverConnections(items, async (connection, item) =>
        {
            try
            {
                await send(connection, item);
            }
            catch (Exception exception) when (exception is IOException or SocketException)
            {
                return false; // the service is gone
            }

            if (Interlocked.Increment(ref acknowledged) == items.Count / 2)
            {
                enough.TrySetResult();
            }

            return true;
        });
        await Task.WhenAny(enough.Task, sending);
        await KillEverything();
        await sending;
        Expect(acknowledged > 0 && acknowledged < items.Count, $"The crash was not in their midst: {acknowledged} of {items.Count} were acknowledged.");
        return acknowledged;
    }

    protected async Task<long> Send(HttpMethod method, string path, object? body)
    {
        using var request = new HttpRequestMessage(method, path) { Content = body is null ? null : JsonContent.Create(body) };
        using var response = await Http.SendAsync(request);
        Expect(response.IsSuccessStatusCode, $"{method} {path}: {(int)response.StatusCode} {await response.Content.ReadAsStringAsync()}");
        return long.Parse(response.Headers.GetValues("Ledger-Position").Single(), CultureInfo.InvariantCulture);
    }

    protected async Task WaitForViews()
    {
        while (await Database.Scalar<long>("select (select max(seq_id) from mt_events) - min(last_seq_id) from mt_event_progression") > 0)
        {
            await Task.Delay(20);
        }
    }

    /// <summary>Fails unless the tables hold the same rows when every view has been folded anew.</summary>
    protected async Task RebuildAll(params string[] tables)
    {
        await WaitForViews();
        await Dump(tables, "live");
        await using var node = new Node("ledger", _ledger!, Database, postmaster: 0, owned: false);
        foreach (var view in await Database.Scalar<string[]>("select array_agg(name) from projections"))
        {
            await RebuildScenario.Rebuild(node, view);
        }

        await WaitForViews();
        await Dump(tables, "rebuilt");
        foreach (var table in tables)
        {
            var rows = 0;
            foreach (var (live, rebuilt) in Lines(table, "live").Zip(Lines(table, "rebuilt")))
            {
                Expect(live == rebuilt, $"{table}: '{live}' was rebuilt as '{rebuilt}'.");
                rows++;
            }

            var (before, after) = (Lines(table, "live").Count(), Lines(table, "rebuilt").Count());
            Expect(before == after, $"{table} had {before} rows and has {after}.");
            Console.WriteLine($"      {table}: {rows} rows are equal");
        }

        IEnumerable<string> Lines(string table, string state) => File.ReadLines(Path.Combine(_home, $"{table}.{state}"));
    }

    protected static void Expect(bool condition, string failure)
    {
        if (!condition)
        {
            throw new BenchFailedException(failure);
        }
    }

    /// <summary>Writes each table, in the order of its primary key, which takes no sorting, to a file.</summary>
    private async Task Dump(string[] tables, string state)
    {
        foreach (var table in tables)
        {
            var key = await Database.Scalar<string>(
                $"""
                 select string_agg(quote_ident(a.attname), ', ' order by k.place)
                 from pg_index i
                 cross join lateral unnest(i.indkey) with ordinality k (number, place)
                 join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.number
                 where i.indrelid = '{table}'::regclass and i.indisprimary
                 """);
            await using var connection = await Database.OpenConnectionAsync();
            using var rows = await connection.BeginTextExportAsync($"copy (select * from {table} order by {key}) to stdout");
            await using var file = File.CreateText(Path.Combine(_home, $"{table}.{state}"));
            while (await rows.ReadLineAsync() is { } line)
            {
                await file.WriteLineAsync(line);
            }
        }
    }

    /// <summary>
    /// Ends service and PostgreSQL, all of its processes, at once. The service is stopped first, so that it can't say that the
    /// database is away; and the postmaster dies before its children, so that it can't end them in its own way.
    /// </summary>
    private async Task KillEverything()
    {
        var postmaster = int.Parse(File.ReadLines(Path.Combine(_ledger!.DataFolder, "postmaster.pid")).First(), CultureInfo.InvariantCulture);
        await Kill("-STOP", [_ledger.Id]);
        await Kill("-9", [postmaster, .. CpuTimes.ProcessesUnder(postmaster), _ledger.Id]);
        await _ledger.DisposeAsync();
        await Database.DisposeAsync();
        (_ledger, _database) = (null, null);
    }

    private static async Task Kill(string signal, IEnumerable<int> processes)
    {
        using var kill = Process.Start("kill", [signal, .. processes.Select(p => $"{p}")]);
        await kill.WaitForExitAsync();
    }
}
