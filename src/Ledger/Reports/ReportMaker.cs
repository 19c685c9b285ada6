using System.Diagnostics;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Reports;

/// <summary>
/// Makes the reports that were asked for, one after the other and the tenants in turn, on the node that keeps the views. A node that dies in the midst
/// of one leaves nothing but the request: the next node makes it anew, with the same lines.
/// </summary>
public sealed partial class ReportMaker(
    Daemon daemon, Appender appender, EventReader log, ReportsReader reports, ReportFiles files, MembershipReport memberships,
    ILogger<ReportMaker> logger) : BackgroundService
{
    /// <summary>How often a report is tried before it is given up.</summary>
    public const int MaxAttempts = 3;

    /// <summary>
    /// How often it is looked whether a report waits, when nothing says so, and how long one that could not be made is passed over, so
    /// that others are.
    /// </summary>
    public static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(5);

    /// <summary>How long at least between two looks, however fast the views move.</summary>
    public static readonly TimeSpan WokenInterval = TimeSpan.FromMilliseconds(250);

    /// <summary>
    /// How often it is looked whether the file of a report that was made is missing, and whether there is one of a report that is
    /// not there any more; which costs as much as there are reports.
    /// </summary>
    public static readonly TimeSpan LostInterval = TimeSpan.FromMinutes(1);

    /// <summary>Files of deleted reports removed in one look.</summary>
    public const int MaxStrays = 1_000;

    /// <summary>The actor of what it records.</summary>
    public const string Actor = "ledger-reports";

    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly SemaphoreSlim _making = new(1, 1);
    private readonly Dictionary<long, int> _attempts = [];
    private readonly Dictionary<long, long> _postponed = [];
    private string _lastTenant = "";

    /// <summary>Makes whatever waits, and what is lost; returns how many reports were made.</summary>
    public async Task<int> MakeAll(CancellationToken cancellation) =>
        await MakeAll(lost: false, cancellation) + await MakeAll(lost: true, cancellation);

    /// <summary>
    /// Removes files of reports that were deleted, which a node leaves that dies before it has removed them, or while it makes them;
    /// returns how many.
    /// </summary>
    public async Task<int> RemoveStrays(CancellationToken cancellation)
    {
        var strays = await reports.Strays(MaxStrays, cancellation);
        foreach (var (tenantId, requestedPosition) in strays)
        {
            await files.Delete(tenantId, requestedPosition, cancellation);
        }

        return strays.Count;
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        daemon.Projected += _ => Wake();
        long? lookedForLost = null;
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await _wake.WaitAsync(LookInterval, stoppingToken);
                if (!daemon.IsLeader)
                {
                    lookedForLost = null;
                    continue;
                }

                await MakeAll(lost: false, stoppingToken);
                if (lookedForLost is not { } before || Stopwatch.GetElapsedTime(before) > LostInterval)
                {
                    await RemoveStrays(stoppingToken);
                    await MakeAll(lost: true, stoppingToken);
                    lookedForLost = Stopwatch.GetTimestamp();
                }

                await Task.Delay(WokenInterval, stoppingToken);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                return;
            }
            catch (Exception exception) when (IsPassing(exception))
            {
                LogPostponed(exception);
            }
            catch (Exception exception)
            {
                LogBug(exception); // no reason to stop the node
            }
        }
    }

    private void Wake()
    {
        try
        {
            _wake.Release();
        }
        catch (SemaphoreFullException)
        {
            // it is awake already
        }
    }

    private async Task<int> MakeAll(bool lost, CancellationToken cancellation)
    {
        await _making.WaitAsync(cancellation);
        try
        {
            var made = 0;
            while (await reports.Next(lost, _lastTenant, Postponed(), cancellation) is { } next)
            {
                _lastTenant = next.TenantId;
                switch (await Make(next.TenantId, next.Report, cancellation))
                {
                    case Attempt.Made:
                        made++;
                        break;
                    case Attempt.NotSeenYet:
                        return made;
                }
            }

            return made;
        }
        finally
        {
            _making.Release();
        }
    }

    /// <summary>What came of trying to make a report.</summary>
    private enum Attempt
    {
        /// <summary>It was made, or given up, and the view knows.</summary>
        Made,

        /// <summary>It could not be made, and is passed over for now.</summary>
        Postponed,

        /// <summary>The view does not know yet what has become of it: there is no use in asking for the next one right now.</summary>
        NotSeenYet,
    }

    /// <summary>Makes one.</summary>
    private async Task<Attempt> Make(string tenantId, Report row, CancellationToken cancellation)
    {
        var stream = new StreamKey(tenantId, Report.StreamOf(row.Id));
        var (report, version) = await log.Fold(stream, Report.Initial(row.Id), Report.Evolve, cancellation);
        if (report.Status != row.Status || report.RequestedPosition != row.RequestedPosition)
        {
            return Attempt.NotSeenYet;
        }

        object outcome;
        try
        {
            var cut = await memberships.CutOf(report, cancellation);
            var (rows, bytes, sha256) = await files.Write(
                tenantId, report.RequestedPosition, memberships.Lines(tenantId, report, cut, cancellation), report.Completed?.Sha256, cancellation);
            outcome = new ReportCompleted(cut, rows, bytes, sha256);
        }
        catch (Exception exception) when (exception is not OperationCanceledException)
        {
            _postponed[row.RequestedPosition] = Stopwatch.GetTimestamp();
            if (IsPassing(exception) && !TookTooLong(exception))
            {
                throw;
            }

            LogFailed(exception, row.Id);
            var attempts = _attempts[row.RequestedPosition] = _attempts.GetValueOrDefault(row.RequestedPosition) + 1;
            if (attempts < MaxAttempts || report.Completed is not null)
            {
                return Attempt.Postponed;
            }

            outcome = new ReportFailed("The service's log has the reason.");
        }

        if (report.Completed is not null)
        {
            return Attempt.Made; // what was lost is there again
        }

        var result = await appender.Append(
            new AppendRequest
            {
                TenantId = tenantId,
                Appends = [new StreamAppend(stream.StreamId, Report.StreamType, [outcome])],
                Conditions = [new StreamCondition(stream.StreamId, version)],
                Actor = Actor,
            },
            cancellation);
        if (result.Outcome != AppendOutcome.Appended)
        {
            // Another node was faster, which wrote the same file; or it was deleted meanwhile.
            var (now, _) = await log.Fold(stream, Report.Initial(row.Id), Report.Evolve, cancellation);
            if (now.RequestedPosition != report.RequestedPosition || !now.Exists)
            {
                await files.Delete(tenantId, report.RequestedPosition, cancellation);
            }
        }

        // So that the same report is not found waiting once more.
        return await reports.WaitFor(result.LastPosition, LookInterval, cancellation) ? Attempt.Made : Attempt.NotSeenYet;
    }

    /// <summary>The reports that could not be made a moment ago, by the position of their request.</summary>
    private Dictionary<long, long>.KeyCollection Postponed()
    {
        foreach (var (position, _) in _postponed.Where(p => Stopwatch.GetElapsedTime(p.Value) > LookInterval).ToArray())
        {
            _postponed.Remove(position);
        }

        return _postponed.Keys;
    }

    private static bool IsPassing(Exception exception) =>
        exception is EventStoreUnavailableException or AppendQueueFullException or TimeoutException || DatabaseErrors.IsUnavailable(exception)
        || exception is PostgresException { SqlState: PostgresErrorCodes.UniqueViolation or PostgresErrorCodes.UndefinedTable };

    /// <summary>A statement that was cancelled because it took too long would take as long again.</summary>
    private static bool TookTooLong(Exception exception) =>
        exception is PostgresException { SqlState: PostgresErrorCodes.QueryCanceled } or NpgsqlException { InnerException: TimeoutException };

    [LoggerMessage(LogLevel.Warning, "Making reports is postponed")]
    private partial void LogPostponed(Exception exception);

    [LoggerMessage(LogLevel.Error, "Making reports failed")]
    private partial void LogBug(Exception exception);

    [LoggerMessage(LogLevel.Error, "The report {ReportId} could not be made")]
    private partial void LogFailed(Exception exception, string reportId);
}
