using System.Collections.Concurrent;
using System.Diagnostics;
using System.Threading.Channels;
using Ledger.EventStore;
using Ledger.Segments;
using Ledger.Users;

namespace Ledger.Campaigns;

/// <summary>
/// Sends the messages of running campaigns, on every node that has a gateway. It takes a few messages, which is committed before
/// the first of them leaves, sends them, and records what became of each; the gateway's slowness keeps it from taking more. What
/// must hold at the moment of a call is asked right before its first byte: that the campaign runs as of a look less than a second
/// ago, that its end has not come, that the window is open, and that the lease lasts longer than the call can.
/// </summary>
public sealed partial class Dispatcher : BackgroundService
{
    /// <summary>How often a node looks whether campaigns run, when nothing says so.</summary>
    public static readonly TimeSpan IdleInterval = TimeSpan.FromSeconds(5);

    /// <summary>How often it looks what campaigns are at while one runs.</summary>
    public static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(200);

    /// <summary>How often it looks while the log grows and no campaign runs.</summary>
    public static readonly TimeSpan WokenInterval = TimeSpan.FromSeconds(1);

    /// <summary>What was seen of a campaign longer ago does not let a message leave.</summary>
    public static readonly TimeSpan MaxLookAge = TimeSpan.FromSeconds(1);

    /// <summary>How long a message is taken for, beyond the time that two calls may take: one to wait for, and its own.</summary>
    public static readonly TimeSpan LeaseSlack = TimeSpan.FromSeconds(5);

    /// <summary>How long calls may go on once the node is told to stop.</summary>
    public static readonly TimeSpan StopPatience = TimeSpan.FromSeconds(3);

    private static readonly TimeSpan s_margin = TimeSpan.FromSeconds(1), s_pause = TimeSpan.FromMilliseconds(50), s_foldPatience = TimeSpan.FromSeconds(5);

    private readonly Daemon _daemon;
    private readonly Views _views;
    private readonly EventReader _log;
    private readonly WaitingMessages _queue;
    private readonly Gateway _gateway;
    private readonly OutcomeRecorder _recorder;
    private readonly MembersAt _members;
    private readonly KnownUsers _users;
    private readonly LedgerClock _clock;
    private readonly ILogger<Dispatcher> _logger;
    private readonly SemaphoreSlim _wake = new(0, 1);
    private readonly CancellationTokenSource _giveUp = new();
    private readonly Channel<AttemptOutcome> _outcomes = Channel.CreateUnbounded<AttemptOutcome>(new UnboundedChannelOptions { SingleReader = true });
    private readonly Channel<TakenMessage> _unsent = Channel.CreateUnbounded<TakenMessage>(new UnboundedChannelOptions { SingleReader = true });
    private readonly ConcurrentDictionary<(string Tenant, Guid Id), ActivityContext?> _origins = new();
    private readonly ConcurrentDictionary<Task, bool> _letting = new();
    private volatile Seen _seen = new(new Dictionary<(string, Guid), CampaignAtWork>(), 0);
    private Dictionary<(string Tenant, Guid Id), long> _askAgain = [];
    private int _held;
    private volatile bool _stopping;

    /// <summary>A dispatcher that does nothing until it is started.</summary>
    public Dispatcher(
        Daemon daemon, Views views, EventReader log, WaitingMessages queue, Gateway gateway, OutcomeRecorder recorder, MembersAt members, KnownUsers users,
        LedgerClock clock, ILogger<Dispatcher> logger)
    {
        (_daemon, _views, _log, _queue, _gateway, _recorder) = (daemon, views, log, queue, gateway, recorder);
        (_members, _users, _clock, _logger) = (members, users, clock, logger);
    }

    /// <summary>What campaigns were at, and when that was asked, by the monotonic clock.</summary>
    private sealed record Seen(IReadOnlyDictionary<(string Tenant, Guid Id), CampaignAtWork> Campaigns, long At)
    {
        public bool IsFresh => At != 0 && Stopwatch.GetElapsedTime(At) < MaxLookAge;
    }

    private TimeSpan Lease => (2 * _gateway.Timeout) + LeaseSlack;

    /// <summary>Messages that are taken ahead of the calls that are under way, so that these do not wait for the database.</summary>
    private int MaxHeld => 2 * _gateway.Concurrency;

    /// <inheritdoc/>
    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        _stopping = true; // what has not left by now stays
        _giveUp.CancelAfter(StopPatience);
        await base.StopAsync(cancellationToken);
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _giveUp.Dispose();
        _wake.Dispose();
        base.Dispose();
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        if (!_gateway.IsConfigured)
        {
            return;
        }

        _daemon.Appended += Wake;
        var (recording, returning) = (Task.Run(RecordOutcomes, CancellationToken.None), Task.Run(ReturnUnsent, CancellationToken.None));
        while (!stoppingToken.IsCancellationRequested)
        {
            try
            {
                await Work(stoppingToken);
            }
            catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
            {
                break;
            }
            catch (Exception exception) when (Passing.Is(exception))
            {
                LogPostponed(exception);
                await Pause(LookInterval, stoppingToken);
            }
            catch (Exception exception)
            {
                LogBug(exception); // no reason to stop the node
                await Pause(IdleInterval, stoppingToken);
            }
        }

        while (Volatile.Read(ref _held) > 0)
        {
            await Task.Delay(s_pause, CancellationToken.None); // every call ends, at the latest when it is given up
        }

        _outcomes.Writer.Complete();
        _unsent.Writer.Complete();
        await Task.WhenAll(recording, returning);
        await Task.WhenAll(_letting.Keys);
    }

    /// <summary>Looks what campaigns are at when it is time, and takes what there is room for; then it waits for the next thing to happen.</summary>
    private async Task Work(CancellationToken cancellation)
    {
        if (_seen.At == 0 || Stopwatch.GetElapsedTime(_seen.At) >= LookInterval)
        {
            var asked = Stopwatch.GetTimestamp();
            var look = await _queue.Look(_clock.GetUtcNow(), cancellation);
            _seen = new Seen(look.Campaigns.Where(c => c.Campaign.Phase == Campaign.Running).ToDictionary(c => c.Key), asked);
            _askAgain = _askAgain.Where(a => _seen.Campaigns.ContainsKey(a.Key)).ToDictionary();
            foreach (var gone in _origins.Keys.Where(k => !_seen.Campaigns.ContainsKey(k)).ToArray())
            {
                _origins.TryRemove(gone, out _);
            }
        }

        var ready = _seen.Campaigns.Values.Where(IsReady).ToArray();
        var taken = 0;
        foreach (var (campaign, index) in ready.Select((c, i) => (c, i)))
        {
            var room = Room();
            if (room > 0 && _gateway.IsAccepting && _seen.IsFresh)
            {
                taken += await Take(campaign, Math.Max(1, room / (ready.Length - index)), cancellation);
            }
        }

        if (taken > 0)
        {
            return;
        }

        if (_seen.Campaigns.Count > 0)
        {
            await _wake.WaitAsync(s_pause, cancellation);
            return;
        }

        await _wake.WaitAsync(IdleInterval, cancellation);
        if (Stopwatch.GetElapsedTime(_seen.At) is var age && age < WokenInterval)
        {
            await Task.Delay(WokenInterval - age, cancellation); // the log grows for other reasons, too
        }

        bool IsReady(CampaignAtWork campaign) =>
            campaign.Campaign.MaySend && _clock.GetUtcNow() < campaign.Plan.EndsAt && _askAgain.GetValueOrDefault(campaign.Key) <= Stopwatch.GetTimestamp();
    }

    /// <summary>How many messages to take: none while there is little room, so that they are taken in groups; one while the gateway is tried.</summary>
    private int Room()
    {
        var room = MaxHeld - Volatile.Read(ref _held);
        return _gateway.State == BreakerState.HalfOpen ? Math.Min(room, 1) : room >= (MaxHeld + 3) / 4 ? room : 0;
    }

    private async Task<int> Take(CampaignAtWork campaign, int atMost, CancellationToken cancellation)
    {
        using var span = CampaignMetrics.Source.StartActivity("take messages", ActivityKind.Internal, default(ActivityContext), links: await LinksOf(campaign, cancellation));
        var (asked, now) = (Stopwatch.GetTimestamp(), _clock.GetUtcNow());
        var taking = await _queue.Take(campaign, atMost, Lease, now, cancellation);
        span?.SetTag("ledger.campaign.id", $"{campaign.Campaign.Id:N}");
        span?.SetTag("ledger.campaign.messages", taking.Messages.Count);
        if (taking.Messages.Count == 0)
        {
            _askAgain[campaign.Key] = asked + (long)(taking.Wait.TotalSeconds * Stopwatch.Frequency);
            return 0;
        }

        Interlocked.Add(ref _held, taking.Messages.Count);
        Dictionary<string, string> suppressed;
        try
        {
            suppressed = await FindSuppressed(campaign.TenantId, taking.Messages, now, cancellation);
        }
        catch
        {
            foreach (var message in taking.Messages)
            {
                Settle(message, null);
            }

            throw;
        }

        var until = asked + (long)(Lease.TotalSeconds * Stopwatch.Frequency);
        foreach (var message in taking.Messages)
        {
            if (suppressed.TryGetValue(message.UserId, out var reason))
            {
                Settle(message, new MessageSuppressed(message.Campaign, message.UserId, message.Id, message.Attempt, reason));
            }
            else
            {
                _ = Send(campaign, message, until);
            }
        }

        return taking.Messages.Count;
    }

    /// <summary>Who has opted out since the audience was recorded, and why that is thought.</summary>
    private async Task<Dictionary<string, string>> FindSuppressed(
        string tenantId, IReadOnlyList<TakenMessage> messages, DateTimeOffset now, CancellationToken cancellation)
    {
        string[] users = [.. messages.Select(m => m.UserId)];
        var suppressed = (await _users.Of(tenantId, users, cancellation)).Where(u => AudienceRules.HasOptedOut(u.Attributes))
            .ToDictionary(u => u.Id, _ => AudienceRules.OptedOut);
        foreach (var segment in await _members.Segments(tenantId, [Campaign.SuppressionSegment], new AsOf(now), cancellation))
        {
            foreach (var user in await _members.Among(tenantId, segment, users, new AsOf(now), cancellation))
            {
                suppressed[user] = AudienceRules.DoNotContact;
            }
        }

        return suppressed;
    }

    private async Task Send(CampaignAtWork campaign, TakenMessage message, long until)
    {
        object? happened = null;
        try
        {
            await Task.Yield();
            using var span = CampaignMetrics.Source.StartActivity("send message", ActivityKind.Internal);
            span?.SetTag("ledger.campaign.id", message.Campaign);
            span?.SetTag("ledger.message.id", message.Id);
            span?.SetTag("ledger.user.id", message.UserId);
            span?.SetTag("ledger.message.attempt", message.Attempt);
            if (!MessageText.TryParse(campaign.Plan.Text, out var text, out var wrong) || !text.TryRender(n => message.Fillings?.GetValueOrDefault(n), out var body, out wrong))
            {
                happened = new MessageFailed(message.Campaign, message.UserId, message.Id, message.Attempt, $"The text {wrong}.", null);
                return;
            }

            using var lease = CancellationTokenSource.CreateLinkedTokenSource(_giveUp.Token);
            lease.CancelAfter(Left(until) > s_margin ? Left(until) - s_margin : TimeSpan.Zero);
            var outcome = await _gateway.Send(message.Id, message.Phone, body, () => MayLeave(message, until), lease.Token);
            var plan = _seen.Campaigns.TryGetValue((message.TenantId, message.CampaignId), out var current) ? current.Plan : campaign.Plan;
            happened = AttemptRules.Decide(message, outcome, plan.OnUnknown, _clock.GetUtcNow(), RetryDelays.Jitter());
            span?.SetTag("ledger.message.outcome", GatewayMetrics.NameOf(outcome.Result));
            if (outcome.Result is not (SendResult.Sent or SendResult.NotSent))
            {
                LogNotSent(message.Campaign, message.Id, message.UserId, message.Attempt, GatewayMetrics.NameOf(outcome.Result), outcome.Error);
            }
        }
        catch (Exception exception)
        {
            // It may have left, so it is not given back: when the lease is over, it is recorded as unknown.
            LogBug(exception);
            happened = AttemptRules.UnknownOutcome(message, "The node failed in the midst of it.", null, campaign.Plan.OnUnknown, _clock.GetUtcNow(), RetryDelays.Jitter());
        }
        finally
        {
            Settle(message, happened);
        }
    }

    /// <summary>What must hold when the first byte leaves.</summary>
    private bool MayLeave(TakenMessage message, long until)
    {
        var (seen, now) = (_seen, _clock.GetUtcNow());
        return !_stopping && seen.IsFresh && seen.Campaigns.TryGetValue((message.TenantId, message.CampaignId), out var current)
            && current.Campaign.MaySend && now < current.Plan.EndsAt
            && WaitingMessages.IsOpen(CampaignRules.WindowOf(current.Plan), message.TimeZone, now)
            && Left(until) > _gateway.Timeout + s_margin;
    }

    private static TimeSpan Left(long until) => Stopwatch.GetElapsedTime(Stopwatch.GetTimestamp(), until);

    /// <summary>Makes room for others, and hands on what became of a message: an event, or null for nothing.</summary>
    private void Settle(TakenMessage message, object? happened)
    {
        _ = happened is null ? _unsent.Writer.TryWrite(message) : _outcomes.Writer.TryWrite(new AttemptOutcome(message, happened));
        Interlocked.Decrement(ref _held);
        Wake();
    }

    /// <summary>Records outcomes as they come, many at once, until the node stops; while the database is away it tries again and again.</summary>
    private async Task RecordOutcomes()
    {
        while (await _outcomes.Reader.WaitToReadAsync())
        {
            var outcomes = new List<AttemptOutcome>();
            while (outcomes.Count < OutcomeRecorder.MaxAtOnce && _outcomes.Reader.TryRead(out var outcome))
            {
                outcomes.Add(outcome);
            }

            for (var isDone = false; !isDone;)
            {
                try
                {
                    var recorded = await _recorder.Record(outcomes, CancellationToken.None);
                    foreach (var (outcome, _, _) in recorded.Where(r => r.IsOwn))
                    {
                        CampaignMetrics.Count(outcome.Event);
                    }

                    LetGo([.. recorded.Select(r => (r.Outcome.Message, r.Position))]);
                    isDone = true;
                }
                catch (Exception exception) when (Passing.Is(exception))
                {
                    LogPostponed(exception);
                    isDone = _stopping; // then the leases run out, and it is recorded as unknown
                    await Task.Delay(LookInterval);
                }
                catch (Exception exception)
                {
                    LogBug(exception);
                    isDone = true;
                }
            }
        }
    }

    /// <summary>Lets go of messages as soon as the view has folded what became of them; should that take long, it is left to others.</summary>
    private void LetGo(IReadOnlyList<(TakenMessage Message, long Position)> recorded)
    {
        var letting = Task.Run(async () =>
        {
            try
            {
                if (!_stopping && await _views.WaitFor([CampaignsProjection.View], recorded.Max(r => r.Position), s_foldPatience, CancellationToken.None))
                {
                    await _queue.Remove([.. recorded.Select(r => r.Message)], CancellationToken.None);
                }
                else
                {
                    await _queue.NoteRecorded(recorded, CancellationToken.None);
                }
            }
            catch (Exception exception) when (Passing.Is(exception))
            {
                LogPostponed(exception); // the lease runs out, and what is recorded is found
            }

            Wake();
        });
        _letting[letting] = true;
        _ = letting.ContinueWith(t => _letting.TryRemove(t, out _), TaskScheduler.Default);
    }

    /// <summary>Gives messages back that did not leave, many at once.</summary>
    private async Task ReturnUnsent()
    {
        while (await _unsent.Reader.WaitToReadAsync())
        {
            var messages = new List<TakenMessage>();
            while (messages.Count < OutcomeRecorder.MaxAtOnce && _unsent.Reader.TryRead(out var message))
            {
                messages.Add(message);
            }

            try
            {
                await _queue.Remove(messages, CancellationToken.None);
            }
            catch (Exception exception) when (Passing.Is(exception))
            {
                LogPostponed(exception); // the lease runs out, and they are taken for lost
            }
        }
    }

    /// <summary>The trace in which the campaign was planned, so that one finds from it what it has led to.</summary>
    private async Task<IEnumerable<ActivityLink>?> LinksOf(CampaignAtWork campaign, CancellationToken cancellation)
    {
        if (!CampaignMetrics.Source.HasListeners())
        {
            return null;
        }

        if (!_origins.TryGetValue(campaign.Key, out var origin))
        {
            await foreach (var recorded in _log.ReadStream(new StreamKey(campaign.TenantId, Campaign.StreamOf(campaign.Campaign.Id)), toVersion: 1, cancellation: cancellation))
            {
                origin = ActivityContext.TryParse(recorded.TraceParent, null, out var context) ? context : null;
            }

            _origins[campaign.Key] = origin;
        }

        return origin is { } known ? [new ActivityLink(known)] : null;
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
        catch (ObjectDisposedException)
        {
            // it will not wake any more
        }
    }

    private static async Task Pause(TimeSpan time, CancellationToken cancellation) =>
        await Task.Delay(time, cancellation).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);

    [LoggerMessage(LogLevel.Information, "Campaign {CampaignId}: attempt {Attempt} of message {MessageId} to user {UserId} came to {Outcome}: {Reason}")]
    private partial void LogNotSent(string campaignId, string messageId, string userId, int attempt, string outcome, string? reason);

    [LoggerMessage(LogLevel.Warning, "Sending messages is postponed")]
    private partial void LogPostponed(Exception exception);

    [LoggerMessage(LogLevel.Error, "Sending messages failed")]
    private partial void LogBug(Exception exception);
}
