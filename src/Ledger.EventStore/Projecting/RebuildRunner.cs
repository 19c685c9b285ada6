using Microsoft.Extensions.Logging;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Rebuilds views without downtime. A rebuild folds the log from the start into the view's tables in a schema of its own, at
/// its own pace, and gives them the indexes that only readers need; when it is close behind, the daemon, between two batches, folds
/// the rest and swaps the tables in. The owner makes and swaps tables; rows are written in the writer's role, as those of the live
/// ones are.
/// </summary>
internal sealed partial class RebuildRunner(
    NpgsqlDataSource owner, NpgsqlDataSource database, EventReader reader, IReadOnlyList<IProjection> projections, Migrations migrations, EventStoreOptions options,
    ILogger logger, Func<long> currentEpoch, Action wake) : IAsyncDisposable
{
    /// <summary>Pages without an event of the view that are passed over until it is noted how far the rebuild is.</summary>
    private const int UnnotedPages = 20;

    /// <summary>How long to wait for tables: at the swap for readers, while those that come after them wait behind it.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromMilliseconds(100);

    private readonly Dictionary<string, (long Epoch, Task<bool> Done)> _bulks = []; // of each view's latest rebuild
    private readonly SemaphoreSlim _indexing = new(1); // it may take minutes, and the daemon needs the owner's other connection
    private readonly CancellationTokenSource _stopping = new();

    /// <summary>Starts what was asked for and swaps in what has caught up; returns whether it has swapped. Called by the daemon between batches.</summary>
    public async Task<bool> Attend(IReadOnlyList<ViewStatus> statuses, long epoch, CancellationToken cancellation)
    {
        var swapped = false;
        foreach (var status in statuses)
        {
            if (status.Rebuild is not ("requested" or "running") || projections.FirstOrDefault(p => p.Name == status.Name) is not { } view)
            {
                continue;
            }

            if (_bulks.TryGetValue(view.Name, out var bulk) && !bulk.Done.IsCompleted)
            {
                continue;
            }

            if (status.Rebuild == "requested")
            {
                _bulks.Remove(view.Name);
                bulk = default;
                if (!await Guard(view, epoch, () => Prepare(view, epoch, cancellation)))
                {
                    continue;
                }
            }

            var behind = status.Position + status.LagEvents - (status.Rebuild == "requested" ? 0 : status.RebuildPosition ?? 0);
            var isIndexed = bulk.Epoch == epoch && bulk.Done is { Result: true }; // of an earlier epoch it may be another rebuild's
            if (isIndexed && behind <= 2 * options.MaxRebuildBatch) // a page that was not full, and as much again that came meanwhile
            {
                swapped |= await Guard(view, epoch, () => FinishAndSwap(view, status, epoch, cancellation));
            }
            else if (_bulks.Values.Count(b => !b.Done.IsCompleted) < AllTenantsDatabase.MaxRebuildsAtOnce) // it is woken when one of them is done
            {
                var folding = Task.Run(() => Guard(view, epoch, () => FoldFullPages(view, epoch, isIndexed)), CancellationToken.None);
                _bulks[view.Name] = (epoch, folding);
                _ = folding.ContinueWith(_ => wake(), TaskScheduler.Default); // not before it is seen to be done
            }
        }

        return swapped;
    }

    /// <summary>Interrupts the rebuilds under way; they go on when a daemon attends to them again.</summary>
    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        await Task.WhenAll(_bulks.Values.Select(b => b.Done));
        _stopping.Dispose();
        _indexing.Dispose();
    }

    private static string BePatient => $"set local lock_timeout = '{Patience.TotalMilliseconds}ms'";

    private string ShadowSchema(IProjection view) => $"{options.Schema}_rebuild_{view.Name.ToLowerInvariant()}";

    /// <summary>Makes empty tables, exactly as the migrations make the live ones, but for what only readers need.</summary>
    private async Task Prepare(IProjection view, long epoch, CancellationToken cancellation)
    {
        await using var connection = await owner.OpenConnectionAsync(cancellation);
        await using var transaction = await ProjectionBatch.Begin(connection, options);
        await Execute(connection, BePatient);
        await Execute(connection, $"drop schema if exists \"{ShadowSchema(view)}\" cascade; create schema \"{ShadowSchema(view)}\"; set local search_path = \"{ShadowSchema(view)}\"");
        foreach (var table in view.Tables)
        {
            await Execute(connection, migrations.Creating(table).Without(view.ReaderIndexes).Sql);
        }

        if (options.WriterRole is { } writer)
        {
            await Execute(
                connection,
                $"grant usage on schema \"{ShadowSchema(view)}\" to \"{writer}\"; "
                + $"grant select, insert, update, delete on all tables in schema \"{ShadowSchema(view)}\" to \"{writer}\"");
        }

        await Execute(connection, $"set local search_path = \"{options.Schema}\"");
        await Note(connection, view, "rebuild = 'running', rebuild_position = 0", epoch);
        await transaction.CommitAsync(cancellation);
    }

    /// <summary>The bulk of a rebuild, and what came meanwhile; a second time, when that was much, without the indexes again.</summary>
    private async Task FoldFullPages(IProjection view, long epoch, bool isIndexed)
    {
        await using (var connection = await database.OpenConnectionAsync(_stopping.Token))
        {
            var position = await RebuildPosition(connection, view);
            while (await reader.ReadHead(_stopping.Token) - position is var left && left >= options.MaxRebuildBatch)
            {
                position = await FoldPages(connection, view, position, position + left - (left % options.MaxRebuildBatch), epoch, _stopping.Token);
            }
        }

        if (isIndexed)
        {
            return;
        }

        await _indexing.WaitAsync(_stopping.Token);
        try
        {
            await using var owning = await owner.OpenConnectionAsync(_stopping.Token);
            await MakeIndexes(owning, view, epoch, _stopping.Token);
            foreach (var table in view.Tables)
            {
                await ExecuteLong(owning, $"analyze \"{ShadowSchema(view)}\".\"{table}\"", _stopping.Token); // plans are right from the swap on
            }
        }
        finally
        {
            _indexing.Release();
        }
    }

    /// <summary>Folds the log on from one position to another. How far it is is noted with each page that has an event of the view, and now and then.</summary>
    private async Task<long> FoldPages(NpgsqlConnection connection, IProjection view, long from, long to, long epoch, CancellationToken cancellation)
    {
        await using var reading = await database.OpenConnectionAsync(cancellation);
        await foreach (var (end, events) in reader.ReadKinds(reading, from, to, options.MaxRebuildBatch, view.Events, cancellation))
        {
            if (currentEpoch() != epoch)
            {
                throw new ProjectionFencedException();
            }

            if (events.Count > 0 || end == to || end - from >= UnnotedPages * (long)options.MaxRebuildBatch)
            {
                await FoldPage(connection, view, events, from, end, epoch);
                from = end;
            }
        }

        return from;
    }

    /// <summary>
    /// Makes those indexes that only readers need, where they are not there yet: sorting all rows takes a fraction of adding each. A
    /// node that leads no longer may still be at it, and is waited for.
    /// </summary>
    private async Task MakeIndexes(NpgsqlConnection owning, IProjection view, long epoch, CancellationToken cancellation)
    {
        foreach (var index in view.Tables.SelectMany(t => migrations.Creating(t).Without(view.ReaderIndexes).Indexes))
        {
            await using var transaction = await owning.BeginTransactionAsync(cancellation);
            await ExecuteLong(owning, $"select pg_advisory_xact_lock({Appender.AppendLockKey(ShadowSchema(view))})", cancellation);
            await CheckRunning(owning, view, epoch);
            await Execute(owning, $"set local search_path = \"{ShadowSchema(view)}\"");
            await ExecuteLong(owning, index, cancellation);
            await transaction.CommitAsync(cancellation);
        }
    }

    /// <summary>Folds what the view folds of the positions up to one; of two nodes that both do, one commits.</summary>
    /// <remarks>The commit does not wait for the disk, as rows and position are lost together; that of the swap does, for all before it.</remarks>
    private async Task FoldPage(NpgsqlConnection connection, IProjection view, IReadOnlyList<RecordedEvent> events, long from, long to, long epoch)
    {
        await using var transaction = await ProjectionBatch.Begin(connection, options);
        await Execute(connection, $"set local search_path = \"{ShadowSchema(view)}\", \"{options.Schema}\"; set local synchronous_commit = off");
        await ProjectionBatch.Fold(view, events, new ViewTransaction(connection), apart: true, CancellationToken.None);
        await Execute(connection, $"set local search_path = \"{options.Schema}\"");
        await Note(connection, view, $"rebuild_position = {to}", epoch, from);
        await transaction.CommitAsync();
    }

    /// <summary>
    /// Folds what is left, commits that, and then puts the new tables in the place of the live ones. What a swap commits with
    /// itself would be missing from the new tables for every reader whose snapshot is older, so it commits no row. Readers take
    /// their snapshot after a lock on <c>mt_event_progression</c> (<see cref="EventReader.BeginSnapshot"/>): before the swap or
    /// after it, never in between.
    /// </summary>
    private async Task FinishAndSwap(IProjection view, ViewStatus status, long epoch, CancellationToken cancellation)
    {
        var position = await FoldRest(view, status, epoch, cancellation);
        await using var connection = await owner.OpenConnectionAsync(cancellation);
        await using var transaction = await ProjectionBatch.Begin(connection, options);
        await Execute(connection, $"{BePatient}; lock table mt_event_progression in access exclusive mode");
        foreach (var table in view.Tables)
        {
            var grants = await DatabaseRoles.GrantsOf(connection, options, table, cancellation);
            await Execute(connection, $"drop table \"{table}\"; alter table \"{ShadowSchema(view)}\".\"{table}\" set schema \"{options.Schema}\"");
            foreach (var grant in grants)
            {
                await Execute(connection, grant);
            }
        }

        await DatabaseRoles.Apply(connection, options, view.Tables, cancellation);
        await Execute(connection, $"drop schema \"{ShadowSchema(view)}\" cascade");
        await Execute(connection, $"update mt_event_progression set last_seq_id = {position}, last_updated = now() where name = '{EventReader.ProgressionName(view.Name)}'");
        await Note(
            connection, view,
            $"""
             rebuild = null, rebuild_position = null, rebuild_error = null, rebuilt_at = now(), failed_position = null, error = null,
             state = case state when 'failed' then 'running' else state end,
             recorded_at = coalesce(log_recorded_at({position}), recorded_at)
             """, epoch, position);
        await transaction.CommitAsync(cancellation);
        LogRebuilt(view.Name, position);
    }

    private async Task<long> FoldRest(IProjection view, ViewStatus status, long epoch, CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        var position = await RebuildPosition(connection, view);
        // A view that runs keeps its company: it goes on from where the others stand. A stopped one comes up to the head.
        var upTo = status.State == "running" ? Math.Max(status.Position, position) : await reader.ReadHead(cancellation);
        return await FoldPages(connection, view, position, upTo, epoch, cancellation);
    }

    /// <summary>What fails a rebuild ends it, with the reason kept; the live view is untouched. False: the work was not done.</summary>
    private async Task<bool> Guard(IProjection view, long epoch, Func<Task> work)
    {
        try
        {
            await work();
            return true;
        }
        catch (Exception exception) when (IsInterruption(exception))
        {
            LogInterrupted(exception, view.Name); // goes on from its own position at the next occasion
        }
        catch (Exception exception)
        {
            LogFailed(exception, view.Name);
            database.Clear(); // after an error in a batch, Npgsql may not know what it has prepared on the connection
            try
            {
                await using var command = database.CreateCommand(
                    """
                    update projections set rebuild = 'failed', rebuild_error = $1
                    where name = $2 and rebuild is not null and exists (select from daemon_lease where name = 'daemon' and epoch = $3)
                    """);
                command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = (exception.InnerException ?? exception).ToString().Replace('\0', ' ') });
                command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = view.Name });
                command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = epoch });
                await command.ExecuteNonQueryAsync();
            }
            catch (Exception away) when (IsInterruption(away))
            {
                LogInterrupted(away, view.Name); // it will fail again
            }
        }

        return false;
    }

    private static bool IsInterruption(Exception exception) =>
        exception is OperationCanceledException or ProjectionFencedException || DatabaseErrors.IsUnavailable(exception);

    private static async Task<long> RebuildPosition(NpgsqlConnection connection, IProjection view)
    {
        await using var command = new NpgsqlCommand("select coalesce(rebuild_position, 0) from projections where name = $1", connection)
        {
            Parameters = { new() { Value = view.Name } },
        };
        return (long)(await command.ExecuteScalarAsync())!;
    }

    /// <summary>
    /// Writes to the view's row, if this node still leads, the rebuild was not asked for anew, and it stands where this node left
    /// it; <paramref name="from"/> is null when it is to begin.
    /// </summary>
    private static async Task Note(NpgsqlConnection connection, IProjection view, string change, long epoch, long? from = null)
    {
        var expected = from is null ? "rebuild = 'requested'" : $"rebuild = 'running' and rebuild_position = {from}";
        await using var command = new NpgsqlCommand(
            $"update projections set {change} where name = $1 and {expected} and exists (select from daemon_lease where name = 'daemon' and epoch = $2)", connection)
        {
            Parameters = { new() { Value = view.Name }, new() { Value = epoch } },
        };
        if (await command.ExecuteNonQueryAsync() != 1)
        {
            throw new ProjectionFencedException();
        }
    }

    /// <exception cref="ProjectionFencedException">This node does not lead any more, or the rebuild was asked for anew.</exception>
    private static async Task CheckRunning(NpgsqlConnection connection, IProjection view, long epoch)
    {
        await using var command = new NpgsqlCommand(
            "select from projections where name = $1 and rebuild = 'running' and exists (select from daemon_lease where name = 'daemon' and epoch = $2)", connection)
        {
            Parameters = { new() { Value = view.Name }, new() { Value = epoch } },
        };
        await using var reader = await command.ExecuteReaderAsync();
        if (!await reader.ReadAsync())
        {
            throw new ProjectionFencedException();
        }
    }

    private static async Task Execute(NpgsqlConnection connection, string sql)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }

    /// <summary>Runs what takes as long as there are rows.</summary>
    private static async Task ExecuteLong(NpgsqlConnection connection, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync(cancellation);
    }

    [LoggerMessage(LogLevel.Information, "The view {View} was rebuilt up to position {Position}")]
    private partial void LogRebuilt(string view, long position);

    [LoggerMessage(LogLevel.Warning, "The rebuild of {View} was interrupted and goes on later")]
    private partial void LogInterrupted(Exception exception, string view);

    [LoggerMessage(LogLevel.Error, "The rebuild of {View} failed")]
    private partial void LogFailed(Exception exception, string view);
}
