using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Npgsql;

namespace Ledger.Campaigns;

/// <summary>
/// Begins and ends campaigns, records their audiences, and records as unknown what nodes that died had taken, on the node that keeps
/// the views. Whatever it does it does by events with fixed ids or under conditions, so a node that takes over in the midst goes on
/// where the last one stopped, and one that was frozen and wakes up changes nothing.
/// </summary>
public sealed partial class CampaignKeeper : BackgroundService
{
    /// <summary>Recipients of one part of an audience, and users of one part of a retry.</summary>
    public const int MaxPartRecipients = 1_000;

    /// <summary>Bytes of the recipients or users of one part, as JSON; one event has room for more.</summary>
    public const int MaxPartBytes = 49_152;

    /// <summary>How often it is looked whether there is anything to do, when nothing says so.</summary>
    public static readonly TimeSpan IdleInterval = TimeSpan.FromSeconds(5);

    /// <summary>How often it is looked while a campaign is at work.</summary>
    public static readonly TimeSpan BusyInterval = TimeSpan.FromMilliseconds(250);

    /// <summary>How often it is looked while views move and no campaign is at work.</summary>
    public static readonly TimeSpan WokenInterval = TimeSpan.FromSeconds(0.5);

    /// <summary>Parts that may be recorded before the view has folded them.</summary>
    private const int MaxPartsAhead = 32;

    private const int MaxLostAtOnce = 500;

    private readonly Daemon _daemon;
    private readonly Appender _appender;
    private readonly EventReader _log;
    private readonly Views _views;
    private readonly WaitingMessages _queue;
    private readonly AudienceFinder _audiences;
    private readonly OutcomeRecorder _outcomes;
    private readonly LedgerClock _clock;
    private readonly ILogger<CampaignKeeper> _logger;
    private readonly Meter _meter = new("Ledger");
    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly SemaphoreSlim _attending = new(1, 1);
    private Task _long = Task.CompletedTask;
    private (string TenantId, Guid Id) _hadLong;
    private long _pending;
    private double _oldestSeconds;

    /// <summary>A keeper that does nothing until it is started.</summary>
    public CampaignKeeper(
        Daemon daemon, Appender appender, EventReader log, Views views, WaitingMessages queue, AudienceFinder audiences, OutcomeRecorder outcomes,
        LedgerClock clock, ILogger<CampaignKeeper> logger)
    {
        (_daemon, _appender, _log, _views, _queue, _audiences, _outcomes, _clock, _logger) = (daemon, appender, log, views, queue, audiences, outcomes, clock, logger);
        _meter.CreateObservableGauge(
            "ledger.campaigns.queue.messages", () => Volatile.Read(ref _pending), "{message}", "Messages of campaigns at work that are still to be sent; on the node that keeps the views");
        _meter.CreateObservableGauge(
            "ledger.campaigns.queue.age", () => Volatile.Read(ref _oldestSeconds), "s", "How long the message that waits longest has been due, be its window open or not; on the node that keeps the views");
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _meter.Dispose();
        _wake.Dispose();
        _attending.Dispose();
        base.Dispose();
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        _daemon.Projected += _ => Wake();
        var wait = IdleInterval;
        var (measured, pause) = (0L, WokenInterval);
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await _wake.WaitAsync(wait, stoppingToken);
                wait = IdleInterval;
                if (_daemon.IsLeader)
                {
                    var look = await Attend(stoppingToken);
                    wait = WaitAfter(look, _clock.GetUtcNow());
                    pause = look.Campaigns.Count > 0 || look.IsAnythingTaken ? BusyInterval : WokenInterval;
                    if (measured == 0 || Stopwatch.GetElapsedTime(measured) > IdleInterval)
                    {
                        Volatile.Write(ref _oldestSeconds, look.Campaigns.Count == 0 ? 0 : (await _queue.OldestAge(look.Campaigns, _clock.GetUtcNow(), stoppingToken)).TotalSeconds);
                        measured = Stopwatch.GetTimestamp();
                    }
                }
                else
                {
                    (_pending, _oldestSeconds) = (0, 0);
                }

                // However fast the views move, it is not looked more often than that.
                await Task.Delay(pause, stoppingToken);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
            catch (Exception exception) when (Passing.Is(exception))
            {
                LogPostponed(exception);
                wait = BusyInterval;
            }
            catch (Exception exception)
            {
                LogBug(exception); // no reason to stop the node
            }
        }

        await _long.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <summary>How long nothing can come up by itself.</summary>
    private static TimeSpan WaitAfter(Look look, DateTimeOffset now)
    {
        var wait = look.Campaigns.Any(c => !c.Campaign.IsPaused) || look.IsAnythingTaken ? TimeSpan.Zero : IdleInterval;
        foreach (var due in look.Campaigns.Select(c => c.Plan.EndsAt).Append(look.NextStart ?? DateTimeOffset.MaxValue))
        {
            wait = due - now < wait ? due - now : wait;
        }

        return wait > TimeSpan.Zero ? wait : TimeSpan.Zero;
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

    /// <summary>Does once what is to be done; what takes long is done beside it, for one campaign at a time.</summary>
    internal async Task<Look> Attend(CancellationToken cancellation)
    {
        await _attending.WaitAsync(cancellation);
        try
        {
            var now = _clock.GetUtcNow();
            var look = await _queue.Look(now, cancellation);
            Volatile.Write(ref _pending, look.Campaigns.Sum(c => c.Counts.Pending + c.Counts.Resending));
            if (look.IsAnythingTaken)
            {
                await _queue.RemoveFolded(cancellation);
                await RecordLost(cancellation);
            }

            var active = look.Campaigns.Where(c => c.Campaign.IsActive).ToLookup(c => TakesLong(c, now));
            BeginLong([.. active[true]], cancellation);
            foreach (var campaign in active[false])
            {
                await Attend(campaign, now, cancellation);
            }

            return look;
        }
        finally
        {
            _attending.Release();
        }
    }

    /// <summary>Whether an audience is to be recorded, or failed messages are to be put into the queue again.</summary>
    private static bool TakesLong(CampaignAtWork at, DateTimeOffset now) =>
        at.Plan.EndsAt > now && (at.Campaign.Phase == Campaign.Starting || (at.RetriedUpTo is not null && at.IsFolded));

    /// <summary>Goes on with the campaign after the one that had its turn last, so that one that fails again and again keeps no other waiting.</summary>
    private void BeginLong(CampaignAtWork[] campaigns, CancellationToken cancellation)
    {
        if (campaigns.Length == 0 || !_long.IsCompleted)
        {
            return;
        }

        // When that one is done and gone, the one that ends first is next.
        var next = campaigns[(Array.FindIndex(campaigns, c => c.Key == _hadLong) + 1) % campaigns.Length];
        _hadLong = next.Key;
        _long = Task.Run(() => DoLong(next, cancellation), CancellationToken.None);
    }

    private async Task Attend(CampaignAtWork at, DateTimeOffset now, CancellationToken cancellation)
    {
        var campaign = at.Campaign;
        if (campaign.Plan!.EndsAt <= now)
        {
            if (!at.IsUnderWay && at.IsFolded)
            {
                await Append(at, campaign.Phase == Campaign.Running && at.Counts is { Pending: 0, Resending: 0 } ? new CampaignCompleted() : new CampaignEnded(), cancellation);
            }
        }
        else if (campaign.Phase == Campaign.Scheduled)
        {
            if (!campaign.IsPaused && campaign.Plan.StartsAt <= now)
            {
                await Append(at, new CampaignStarted(await _log.ReadHead(cancellation)), cancellation);
                Wake();
            }
        }
        else if (at is { IsFolded: true, IsUnderWay: false, Counts: { Pending: 0, Resending: 0 } })
        {
            await Append(at, new CampaignCompleted(), cancellation);
        }
    }

    /// <summary>Records that of an attempt nothing is known, where the lease ran out; where something is known after all, it stands.</summary>
    private async Task RecordLost(CancellationToken cancellation)
    {
        var lost = await _queue.FindLost(MaxLostAtOnce, cancellation);
        if (lost.Count == 0)
        {
            return;
        }

        var now = _clock.GetUtcNow();
        var recorded = await _outcomes.Record(
            [
                .. lost.Select(l => new AttemptOutcome(l.Message, AttemptRules.UnknownOutcome(
                    l.Message, "The node that was sending it did not say what became of it.", null, l.OnUnknown, now, RetryDelays.Jitter()))),
            ],
            cancellation);
        foreach (var (outcome, _, _) in recorded.Where(r => r.IsOwn))
        {
            CampaignMetrics.Count(outcome.Event);
            CampaignMetrics.Lost.Add(1);
            LogLost(outcome.Message.Campaign, outcome.Message.Id, outcome.Message.UserId, outcome.Message.Attempt);
        }

        await _queue.NoteRecorded([.. recorded.Select(r => (r.Outcome.Message, r.Position))], cancellation);
    }

    private async Task DoLong(CampaignAtWork at, CancellationToken cancellation)
    {
        try
        {
            await (at.Campaign.Phase == Campaign.Starting ? Pin(at, cancellation) : Requeue(at, cancellation));
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // The next node goes on.
        }
        catch (Exception exception) when (Passing.Is(exception))
        {
            LogPostponed(exception);
        }
        catch (Exception exception)
        {
            LogBug(exception);
        }

        Wake();
    }

    /// <summary>
    /// Records the audience from where the view says it ends so far. A part has a fixed id and rests on the version of the campaign's
    /// stream: one that is recorded already, or a campaign that was cancelled or paused meanwhile, ends it, and it begins anew from what is known then.
    /// </summary>
    private async Task Pin(CampaignAtWork looked, CancellationToken cancellation)
    {
        using var span = CampaignMetrics.Source.StartActivity("pin audience", ActivityKind.Internal);
        span?.SetTag("ledger.campaign.id", $"{looked.Campaign.Id:N}");
        if (await Fresh(looked, cancellation) is not { Campaign: { Phase: Campaign.Starting, StartedAt: { } startedAt, AudiencePosition: { } position } } at)
        {
            return;
        }

        if (!await _views.WaitFor([CampaignsProjection.View, .. MembersAt.Views, Users.KnownUsers.View], position, IdleInterval, cancellation))
        {
            return;
        }

        var (part, recipients, folded) = (at.Parts, at.Counts.Sum, new Queue<long>());
        try
        {
            await foreach (var page in ReadAhead(_audiences.Pages(at.TenantId, at.Plan, new AsOf(startedAt, position), at.PinnedUpTo, cancellation), cancellation))
            {
                if (page.Lacking.Count > 0)
                {
                    var (_, attributes) = page.Lacking[0];
                    await Append(
                        at,
                        new CampaignInvalidated(
                            $"The text names attributes that recipients lack, such as {attributes[0]}.",
                            [.. page.Lacking.Take(Campaign.MaxErrorUsers).Select(l => l.UserId)]),
                        cancellation);
                    return;
                }

                foreach (var some in Parts(page.Recipients))
                {
                    if (await AppendPart(at, new RecipientsPinned($"{at.Campaign.Id:N}", part, some), Message.PartId(at.TenantId, at.Campaign.Id, part), cancellation) is not { } recorded)
                    {
                        return;
                    }

                    (part, recipients) = (part + 1, recipients + some.Count);
                    folded.Enqueue(recorded);
                    if (folded.Count > MaxPartsAhead && !await _views.WaitFor([CampaignsProjection.View], folded.Dequeue(), TimeSpan.FromMinutes(1), cancellation))
                    {
                        return;
                    }
                }
            }
        }
        catch (InvalidAudienceException exception)
        {
            await Append(at, new CampaignInvalidated(exception.Message, null), cancellation);
            return;
        }

        await Append(at, new AudienceCompleted(recipients), cancellation);
        LogPinned(at.Campaign.Id.ToString("N"), recipients, position);
    }

    /// <summary>Puts messages that had failed into the queue again, part by part.</summary>
    private async Task Requeue(CampaignAtWork looked, CancellationToken cancellation)
    {
        if (await Fresh(looked, cancellation) is not { Campaign: { Phase: Campaign.Running, RetryPosition: { } retry }, RetriedUpTo: { } after } at)
        {
            return;
        }

        for (var part = at.RetryParts; ; part++)
        {
            var failed = await _queue.FindFailed(at, after, MaxPartRecipients, cancellation);
            var users = Parts(failed).FirstOrDefault([]);
            var isLast = failed.Count < MaxPartRecipients && users.Count == failed.Count;
            var recorded = await AppendPart(
                at, new MessagesRequeued($"{at.Campaign.Id:N}", retry, part, users, isLast), Message.RequeueId(at.TenantId, at.Campaign.Id, retry, part), cancellation);
            if (isLast || recorded is null)
            {
                return;
            }

            after = users[^1];
        }
    }

    /// <summary>The campaign as it is once the view has folded all there is; null when it is not at work any more, or the view is slow.</summary>
    private async Task<CampaignAtWork?> Fresh(CampaignAtWork looked, CancellationToken cancellation)
    {
        if (!await _views.WaitFor([CampaignsProjection.View], await _log.ReadHead(cancellation), IdleInterval, cancellation))
        {
            return null;
        }

        return (await _queue.Look(_clock.GetUtcNow(), cancellation)).Campaigns.FirstOrDefault(c => c.Key == looked.Key && c.IsFolded);
    }

    /// <summary>Records one part; null when that was not what was to come next, and somebody has to look anew.</summary>
    private async Task<long?> AppendPart(CampaignAtWork at, object part, Guid id, CancellationToken cancellation)
    {
        var result = await _appender.Append(
            new AppendRequest
            {
                TenantId = at.TenantId,
                Appends = [new StreamAppend(Message.StreamOf(at.Campaign.Id, _clock.GetUtcNow()), Message.StreamType, [part])],
                Identities = [new EventIdentity(id, "part")],
                Conditions = [new StreamCondition(Campaign.StreamOf(at.Campaign.Id), at.Campaign.Version)],
                Actor = OutcomeRecorder.Actor,
            },
            cancellation);
        return result is { Outcome: AppendOutcome.Appended } ? result.LastPosition : null;
    }

    private async Task Append(CampaignAtWork at, object happened, CancellationToken cancellation)
    {
        var stream = Campaign.StreamOf(at.Campaign.Id);
        var result = await _appender.Append(
            new AppendRequest
            {
                TenantId = at.TenantId,
                Appends = [new StreamAppend(stream, Campaign.StreamType, [happened])],
                Conditions = [new StreamCondition(stream, at.Campaign.Version)],
                Actor = OutcomeRecorder.Actor,
            },
            cancellation);
        if (result.Outcome == AppendOutcome.Appended)
        {
            LogHappened(at.Campaign.Id.ToString("N"), EventTypes.MartenAlias(happened.GetType()), result.LastPosition);
        }
    }

    /// <summary>Cuts what is recorded into parts that an event has room for.</summary>
    private static IEnumerable<List<T>> Parts<T>(IReadOnlyList<T> items)
    {
        var (part, bytes) = (new List<T>(), 0);
        foreach (var item in items)
        {
            var more = JsonSerializer.SerializeToUtf8Bytes(item, Json.Options).Length + 1;
            if (part.Count > 0 && (part.Count == MaxPartRecipients || bytes + more > MaxPartBytes))
            {
                yield return part;
                (part, bytes) = ([], 0);
            }

            part.Add(item);
            bytes += more;
        }

        if (part.Count > 0)
        {
            yield return part;
        }
    }

    /// <summary>Reads the next page while the one before is worked on.</summary>
    private static async IAsyncEnumerable<AudiencePage> ReadAhead(
        IAsyncEnumerable<AudiencePage> pages, [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellation)
    {
        await using var reader = pages.GetAsyncEnumerator(cancellation);
        var next = Task.Run(async () => await reader.MoveNextAsync(), cancellation);
        try
        {
            while (await next)
            {
                var page = reader.Current;
                next = Task.Run(async () => await reader.MoveNextAsync(), cancellation);
                yield return page;
            }
        }
        finally
        {
            await ((Task)next).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing); // a page may not be let go of while it is being read
        }
    }

    [LoggerMessage(LogLevel.Information, "Campaign {CampaignId}: {Event} at position {Position}")]
    private partial void LogHappened(string campaignId, string @event, long position);

    [LoggerMessage(LogLevel.Information, "Campaign {CampaignId}: {Recipients} recipients, as known at position {Position}")]
    private partial void LogPinned(string campaignId, long recipients, long position);

    [LoggerMessage(LogLevel.Warning, "Campaign {CampaignId}: what became of attempt {Attempt} of message {MessageId} to user {UserId} is not known: the node that made it is gone")]
    private partial void LogLost(string campaignId, string messageId, string userId, int attempt);

    [LoggerMessage(LogLevel.Warning, "Work on campaigns is postponed")]
    private partial void LogPostponed(Exception exception);

    [LoggerMessage(LogLevel.Error, "Work on campaigns failed")]
    private partial void LogBug(Exception exception);
}

/// <summary>What goes wrong for a while, as it does when the database is away or tables of a view are being swapped.</summary>
internal static class Passing
{
    public static bool Is(Exception exception) =>
        exception is EventStoreUnavailableException or AppendQueueFullException or TimeoutException || DatabaseErrors.IsUnavailable(exception)
        || exception is PostgresException { SqlState: PostgresErrorCodes.UndefinedTable };
}
