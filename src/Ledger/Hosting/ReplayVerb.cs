using System.Globalization;
using System.Text;
using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Hosting;

/// <summary>What is to be replayed.</summary>
/// <param name="View">One view; all unless given.</param>
/// <param name="To">A position or a time; the end of the log unless given.</param>
/// <param name="Out">The file to write, or a folder for all views.</param>
/// <param name="Compare">Whether to compare with the live views.</param>
public sealed record ReplayRequest(string? View, string? To, string? Out, bool Compare);

/// <summary>Folds the log anew beside the live views, writes what comes out, and says whether the live views are the same.</summary>
internal static class ReplayVerb
{
    private const int EventsBetweenReports = 500_000;

    public static async Task<int> Run(IServiceProvider services, ReplayRequest request, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        var all = services.GetRequiredService<IReadOnlyList<IProjection>>();
        var views = request.View is null ? all : [.. all.Where(v => v.Name == request.View)];
        var (to, wrong) = await Resolve(services, request, views, cancellation);
        if (wrong is not null)
        {
            await errors.WriteLineAsync(wrong);
            return 1;
        }

        var (database, options) = (services.GetRequiredService<OwnerDatabase>().Source, services.GetRequiredService<EventStoreOptions>());
        try
        {
            await using var replay = await Replay.Begin(
                database, services.GetRequiredService<EventReader>(), services.GetRequiredService<Migrations>(), options, views, cancellation);
            if (request.Compare)
            {
                return await Compare(replay, services.GetRequiredService<Views>(), database, options, views, request, output, errors, cancellation);
            }

            await replay.FoldTo(to, views, Progress(to, output), cancellation);
            await Write(replay, views, request, to, output, cancellation);
            return 0;
        }
        catch (ReplayFailedException failure)
        {
            await errors.WriteLineAsync(failure.Message);
            return 1;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            await errors.WriteLineAsync(exception.Message);
            return 1;
        }
    }

    private static async Task<(long To, string? Wrong)> Resolve(
        IServiceProvider services, ReplayRequest request, IReadOnlyList<IProjection> views, CancellationToken cancellation)
    {
        if (!await services.GetRequiredService<SchemaMigrator>().IsUpToDate(cancellation))
        {
            return (0, "The schema is not up to date: run 'migrate' or 'up'.");
        }

        if (views.Count == 0)
        {
            return (0, $"There is no view '{request.View}'. There are: {string.Join(", ", services.GetRequiredService<Views>().Names)}.");
        }

        if (request is { Out: null, Compare: false })
        {
            return (0, "Say where to write with --out, or --compare with the live views.");
        }

        if (request is { To: not null, Compare: true })
        {
            return (0, "A live view can be compared only where it stands: leave out --to.");
        }

        if (request is { View: null, Out: not null } && File.Exists(request.Out))
        {
            return (0, $"'{request.Out}' is a file: all views are written into a folder. Name one with --view.");
        }

        if (request is { View: not null, Out: not null } && FormatOf(request.Out) is null)
        {
            return (0, $"'{request.Out}' must end with .ndjson or .csv.");
        }

        var log = services.GetRequiredService<EventReader>();
        var head = await log.ReadHead(cancellation);
        if (request.To is null)
        {
            return (head, null);
        }

        if (Rfc3339.TryParse(request.To, out var time))
        {
            return (await log.PositionAt(time, cancellation), null);
        }

        return long.TryParse(request.To, NumberStyles.None, CultureInfo.InvariantCulture, out var to) && to <= head
            ? (to, null)
            : (0, $"--to must be a position from 0 to {head}, or a time such as 2026-11-20T12:00:00Z.");
    }

    /// <summary>
    /// Most is folded first; then the live views are looked at in one snapshot, what they know beyond that is folded, and row after
    /// row of both is compared. The snapshot is held that long only.
    /// </summary>
    private static async Task<int> Compare(
        Replay replay, Views live, NpgsqlDataSource database, EventStoreOptions options, IReadOnlyList<IProjection> views, ReplayRequest request,
        TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        var reached = (await live.Refresh(cancellation)).Where(s => views.Any(v => v.Name == s.Name)).Min(s => s.Position);
        await replay.FoldTo(reached, views, Progress(reached, output), cancellation);
        var differing = 0;
        await using var connection = await database.OpenConnectionAsync(cancellation);
        var positions = await BeginSnapshot(connection, cancellation);
        try
        {
            foreach (var view in views)
            {
                await replay.FoldTo(positions[view.Name], [view], cancellation: cancellation);
            }

            var (replayed, transaction) = await replay.BeginReading(cancellation);
            await using (transaction)
            {
                foreach (var view in views)
                {
                    var difference = await Difference(view, connection, options.Schema, replayed, replay.Schema, cancellation);
                    await (difference is null ? output : errors).WriteLineAsync(
                        difference ?? $"{view.Name} is what a replay of the log gives, at position {positions[view.Name]}.");
                    differing += difference is null ? 0 : 1;
                }
            }
        }
        finally
        {
            await using var end = new NpgsqlCommand("rollback", connection);
            await end.ExecuteNonQueryAsync(CancellationToken.None);
        }

        if (request.Out is not null)
        {
            await Write(replay, views, request, null, output, cancellation);
        }

        return differing == 0 ? 0 : 1;
    }

    private static async Task<Dictionary<string, long>> BeginSnapshot(NpgsqlConnection connection, CancellationToken cancellation)
    {
        var positions = new Dictionary<string, long>();
        await using var batch = new NpgsqlBatch(connection);
        EventReader.BeginSnapshotOfAny(batch);
        batch.BatchCommands.Add(new NpgsqlBatchCommand("set local idle_in_transaction_session_timeout = 0"));
        foreach (var setting in ViewRows.Settings.Split("; "))
        {
            batch.BatchCommands.Add(new NpgsqlBatchCommand(setting));
        }

        batch.BatchCommands.Add(new NpgsqlBatchCommand("select left(name, -length(':All')), last_seq_id from mt_event_progression"));
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            positions[reader.GetString(0)] = reader.GetInt64(1);
        }

        return positions;
    }

    /// <summary>Names the first row that is not the same, or null.</summary>
    private static async Task<string?> Difference(
        IProjection view, NpgsqlConnection live, string liveSchema, NpgsqlConnection replayed, string replaySchema, CancellationToken cancellation)
    {
        foreach (var table in view.Tables)
        {
            await using var ours = ViewRows.ReadJson(live, liveSchema, table, cancellation).GetAsyncEnumerator(cancellation);
            await using var theirs = ViewRows.ReadJson(replayed, replaySchema, table, cancellation).GetAsyncEnumerator(cancellation);
            while (true)
            {
                var one = await ours.MoveNextAsync() ? ours.Current : null;
                var other = await theirs.MoveNextAsync() ? theirs.Current : null;
                if (one != other)
                {
                    return $"{view.Name} is not what a replay of the log gives. The first row of {table} that differs:\n  live:   {one ?? "none"}\n  replay: {other ?? "none"}";
                }

                if (one is null)
                {
                    break;
                }
            }
        }

        return null;
    }

    private static async Task Write(
        Replay replay, IReadOnlyList<IProjection> views, ReplayRequest request, long? to, TextWriter output, CancellationToken cancellation)
    {
        var (connection, transaction) = await replay.BeginReading(cancellation);
        await using (transaction)
        {
            if (request.View is null)
            {
                Directory.CreateDirectory(request.Out!);
            }

            foreach (var view in views)
            {
                var path = request.View is null ? Path.Combine(request.Out!, $"{view.Name}.ndjson") : request.Out!;
                var part = $"{path}.part"; // what is there under its name is whole
                var rows = await WriteFile(part, view, connection, replay.Schema, FormatOf(path)!.Value, cancellation);
                File.Move(part, path, overwrite: true);
                await output.WriteLineAsync($"{view.Name}{(to is null ? "" : $" at position {to}")}: {rows} rows in {path}");
            }
        }
    }

    private static async Task<long> WriteFile(
        string path, IProjection view, NpgsqlConnection connection, string schema, ListFormat format, CancellationToken cancellation)
    {
        using var buffer = new PooledBuffer(2 * Formats.FlushBytes);
        await using var file = new FileStream(path, FileMode.Create, FileAccess.Write, FileShare.None);
        var csv = new CsvWriter(buffer);
        var rows = 0L;
        foreach (var table in view.Tables)
        {
            if (format == ListFormat.Csv)
            {
                var columns = await ViewRows.Columns(connection, schema, table, cancellation);
                csv.Text("table");
                foreach (var (name, _) in columns)
                {
                    csv.Text(name);
                }

                csv.EndRow();
                await foreach (var cells in ViewRows.ReadCells(connection, schema, table, cancellation))
                {
                    csv.Text(table);
                    for (var i = 0; i < cells.Length; i++)
                    {
                        if (columns[i].IsWhole && cells[i] is { } whole)
                        {
                            csv.Number(long.Parse(whole, CultureInfo.InvariantCulture)); // a minus is no formula
                        }
                        else
                        {
                            csv.Text(cells[i]);
                        }
                    }

                    csv.EndRow();
                    await Flush(Formats.FlushBytes);
                    rows++;
                }
            }
            else
            {
                await foreach (var json in ViewRows.ReadJson(connection, schema, table, cancellation))
                {
                    buffer.Write(Encoding.UTF8.GetBytes($$"""{"table":"{{table}}",{{json.AsSpan(1)}}{{'\n'}}"""));
                    await Flush(Formats.FlushBytes);
                    rows++;
                }
            }
        }

        await Flush(1);
        return rows;

        async ValueTask Flush(int from)
        {
            if (buffer.Written.Length >= from)
            {
                await file.WriteAsync(buffer.Written, cancellation);
                buffer.Clear();
            }
        }
    }

    private static ListFormat? FormatOf(string path) => Path.GetExtension(path) switch
    {
        ".ndjson" => ListFormat.Ndjson,
        ".csv" => ListFormat.Csv,
        _ => null,
    };

    private static Action<long> Progress(long to, TextWriter output)
    {
        var next = (long)EventsBetweenReports;
        return position =>
        {
            if (position >= next && position < to)
            {
                output.WriteLine($"Folded {position} of {to} events");
                next = position + EventsBetweenReports;
            }
        };
    }
}
