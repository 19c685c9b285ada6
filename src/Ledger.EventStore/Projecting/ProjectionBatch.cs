using System.Diagnostics;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>One batch for one group of views, in one transaction.</summary>
internal static class ProjectionBatch
{
    /// <summary>
    /// Lets each view write its rows, moves the progress of all from <paramref name="from"/> to the last event, and commits. The
    /// progress only moves from where this batch began and only under the epoch this node leads with: of two nodes that both
    /// think they lead, one commits. Nor does it move where the log has another event by now, as a server that was promoted without the
    /// last commits has. The commit does not wait for the disk: after a crash of PostgreSQL rows and progress are
    /// both as they were some batches before, and the daemon folds those again from the log, which does wait.
    /// <para>False: a view was stopped meanwhile, so nothing was written. A view that <see cref="Views.Pause"/> has stopped does
    /// not move any more.</para>
    /// </summary>
    /// <exception cref="ProjectionFailedException">A view could not fold the batch; nothing was written.</exception>
    /// <exception cref="ProjectionFencedException">Another node leads, or has projected this; nothing was written.</exception>
    public static async Task<bool> Run(
        NpgsqlDataSource database, IReadOnlyList<IProjection> views, IReadOnlyList<RecordedEvent> events, long from, long epoch, EventStoreOptions options)
    {
        var started = Stopwatch.GetTimestamp();
        var begun = TimeProvider.System.GetUtcNow();
        ActivityContext[] commands = Telemetry.Source.HasListeners() ? [.. Commands(events)] : [];
        using var activity = Telemetry.Source.StartActivity(
            "project", ActivityKind.Consumer, default(ActivityContext), tags: null, links: commands.Select(c => new ActivityLink(c)));
        activity?.SetTag("ledger.position", events[^1].Position);
        activity?.SetTag("ledger.events", events.Count);
        var apart = events.Count >= CopyRows.MinRows;
        bool written;
        try
        {
            written = await Write(database, views, events, from, epoch, options, apart);
        }
        catch (Exception exception) when (
            !apart && exception is not (ProjectionFailedException or ProjectionFencedException) && !DatabaseErrors.IsUnavailable(exception))
        {
            database.Clear(); // after an error in a batch, Npgsql may not know what it has prepared on the connection
            written = await Write(database, views, events, from, epoch, options, apart: true); // and see whose it is
        }

        if (!written)
        {
            return false;
        }

        Telemetry.ProjectTime.Record(Stopwatch.GetElapsedTime(started).TotalSeconds);
        ShowVisible(commands, views, events[^1].Position, begun);
        return true;
    }

    /// <summary>
    /// Few events are one round trip for all views together, from begin to commit; the rows of many go view by view. What must hold for
    /// the transaction to be committed is divided by, for want of an assertion in SQL: an error skips whatever follows it.
    /// </summary>
    private static async Task<bool> Write(
        NpgsqlDataSource database, IReadOnlyList<IProjection> views, IReadOnlyList<RecordedEvent> events, long from, long epoch, EventStoreOptions options, bool apart)
    {
        await using var connection = await database.OpenConnectionAsync();
        var transaction = new ViewTransaction(connection);
        var entered = new NpgsqlBatchCommand($"select 1 / pg_try_advisory_xact_lock_shared({SchemaMigrator.ViewsLockKey(options)})::int, {IdleTimeout(options)}, set_config('synchronous_commit', 'off', true)");
        var noted = new NpgsqlBatchCommand(
            """
            with noted as (update projections set recorded_at = $2 where name = any($1) and state = 'running' returning 1)
            select 1 / (count(*) = cardinality($1))::int from noted
            """)
        {
            Parameters =
            {
                new NpgsqlParameter<string[]> { TypedValue = [.. views.Select(v => v.Name)] },
                new NpgsqlParameter<DateTimeOffset> { TypedValue = events[^1].RecordedAt },
            },
        };
        var moved = new NpgsqlBatchCommand(
            """
            with moved as (
              update mt_event_progression set last_seq_id = $1, last_updated = now()
              where name = any($2) and last_seq_id = $3
                and exists (select from daemon_lease where name = 'daemon' and epoch = $4)
                and exists (select from mt_events where seq_id = $1 and id = $5)
              returning 1
            )
            select 1 / (count(*) = cardinality($2))::int from moved
            """)
        {
            Parameters =
            {
                new NpgsqlParameter<long> { TypedValue = events[^1].Position },
                new NpgsqlParameter<string[]> { TypedValue = [.. views.Select(v => EventReader.ProgressionName(v.Name))] },
                new NpgsqlParameter<long> { TypedValue = from },
                new NpgsqlParameter<long> { TypedValue = epoch },
                new NpgsqlParameter<Guid> { TypedValue = events[^1].Id },
            },
        };
        try
        {
            transaction.Add(new NpgsqlBatchCommand("begin isolation level read committed"));
            transaction.Add(entered);
            foreach (var view in views)
            {
                await Fold(view, events, transaction, apart, CancellationToken.None);
            }

            transaction.Add(noted);
            transaction.Add(moved);
            transaction.Add(new NpgsqlBatchCommand("commit"));
            await transaction.Send(CancellationToken.None);
            return true;
        }
        catch (StatementFailedException failure) when (failure.SqlState == PostgresErrorCodes.DivisionByZero)
        {
            database.Clear();
            return failure.Statement == noted ? false : throw new ProjectionFencedException();
        }
    }

    /// <summary>
    /// Begins a transaction of the daemon. A node that freezes in it does not keep the rows locked from the next one for longer
    /// than the lease. Migrations wait for it, and it does not wait for them: what they make is for a program that knows it.
    /// </summary>
    /// <exception cref="ProjectionFencedException">Migrations are under way.</exception>
    public static async Task<NpgsqlTransaction> Begin(NpgsqlConnection connection, EventStoreOptions options)
    {
        var transaction = await connection.BeginTransactionAsync();
        await using var command = new NpgsqlCommand(
            $"""
             select pg_try_advisory_xact_lock_shared({SchemaMigrator.ViewsLockKey(options)}),
                    {IdleTimeout(options)}
             """, connection);
        if (!(bool)(await command.ExecuteScalarAsync())!)
        {
            await transaction.DisposeAsync();
            throw new ProjectionFencedException();
        }

        return transaction;
    }

    /// <summary>Gives a view those of the events that it folds; apart, its rows have been written when it returns.</summary>
    /// <exception cref="ProjectionFailedException">A view could not fold them.</exception>
    public static async Task Fold(
        IProjection view, IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, bool apart, CancellationToken cancellation)
    {
        var handled = view.Events;
        var relevant = events.Where(e => e.DataType is { } type && handled.Contains(type)).ToArray();
        if (relevant.Length == 0)
        {
            return;
        }

        if (relevant.FirstOrDefault(e => e.Unreadable is not null) is { Unreadable: { } unreadable })
        {
            throw new ProjectionFailedException(view, unreadable);
        }

        transaction.AddsFor(view);
        try
        {
            await view.Project(relevant, transaction, cancellation);
            if (apart)
            {
                await transaction.Send(cancellation);
            }
        }
        catch (Exception exception) when (
            exception is not (ProjectionFailedException or StatementFailedException or OperationCanceledException) && !DatabaseErrors.IsUnavailable(exception))
        {
            throw new ProjectionFailedException(view, exception);
        }
        finally
        {
            transaction.AddsFor(null);
        }

        Telemetry.ProjectedEvents.Add(relevant.Length, new KeyValuePair<string, object?>("view", view.Name));
    }

    /// <summary>Stops a view at an event, unless another node has folded that by now: then the failure is that node's success.</summary>
    /// <exception cref="ProjectionFencedException">The view does not stand just before that event, or another node leads.</exception>
    public static async Task MarkFailed(NpgsqlDataSource database, ProjectionFailedException failure, long position, long from, long epoch)
    {
        await using var command = database.CreateCommand(
            """
            update projections set state = 'failed', failed_position = $1, error = $2
            where name = $3 and state = 'running'
              and exists (select from daemon_lease where name = 'daemon' and epoch = $4)
              and exists (select from mt_event_progression where name = $5 and last_seq_id = $6 for update)
            """);
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = position });
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = failure.InnerException!.ToString().Replace('\0', ' ') });
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = failure.Projection.Name });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = epoch });
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = EventReader.ProgressionName(failure.Projection.Name) });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = from });
        if (await command.ExecuteNonQueryAsync() != 1)
        {
            throw new ProjectionFencedException();
        }
    }

    private static string IdleTimeout(EventStoreOptions options) =>
        $"set_config('idle_in_transaction_session_timeout', '{(int)options.LeaseDuration.TotalMilliseconds}ms', true)";

    /// <summary>
    /// Ends the trace of each command with the moment when its effect could be seen: a span from the batch's beginning to its
    /// commit, linked to the batch. So that moment is in a trace that was sampled, whether or not the batch's own was.
    /// </summary>
    private static void ShowVisible(ActivityContext[] commands, IReadOnlyList<IProjection> views, long position, DateTimeOffset begun)
    {
        if (commands.Length == 0)
        {
            return;
        }

        KeyValuePair<string, object?>[] tags = [new("ledger.position", position), new("ledger.views", views.Select(v => v.Name).ToArray())];
        ActivityLink[] links = Activity.Current is { } batch ? [new ActivityLink(batch.Context)] : [];
        foreach (var command in commands)
        {
            using var visible = Telemetry.Source.CreateActivity("visible", ActivityKind.Consumer, command, tags, links);
            visible?.SetStartTime(begun.UtcDateTime).Start();
        }
    }

    /// <summary>The commands whose events are in the batch, as many as exporters accept links by default.</summary>
    private static IEnumerable<ActivityContext> Commands(IReadOnlyList<RecordedEvent> events)
    {
        const int MaxLinks = 128;
        return events.Select(e => e.TraceParent).OfType<string>().Distinct().Take(MaxLinks)
            .Select(parent => ActivityContext.TryParse(parent, null, isRemote: true, out var context) ? context : default)
            .Where(context => context != default);
    }
}

/// <summary>A view could not fold an event; the inner exception says why.</summary>
internal sealed class ProjectionFailedException(IProjection projection, Exception inner) : Exception($"{projection.Name} failed.", inner)
{
    public IProjection Projection { get; } = projection;
}

/// <summary>This node does not lead any more.</summary>
internal sealed class ProjectionFencedException() : Exception("Another node keeps the views.");
