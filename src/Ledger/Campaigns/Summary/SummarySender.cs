using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography.X509Certificates;
using Ledger.EventStore;
using Npgsql;
using NpgsqlTypes;

namespace Ledger.Campaigns;

/// <summary>
/// Sends the summary of the day before, on the node that keeps the views, once over each channel. Who sends takes a row in the
/// database first, for a while: a node that dies in the midst leaves it to another, whose mail has the same Message-ID, and whose
/// post the same Idempotency-Key, as the one that may have gone out.
/// </summary>
public sealed partial class SummarySender(
    SummarySettings settings, ICampaignNumbers numbers, AllTenantsDatabase database, Daemon daemon, TimeProvider clock, ILogger<SummarySender> logger)
    : BackgroundService
{
    /// <summary>How often it is looked whether a summary is due.</summary>
    public static readonly TimeSpan LookInterval = TimeSpan.FromSeconds(5);

    /// <summary>How long an attempt is its node's alone; longer than one may take.</summary>
    public static readonly TimeSpan ClaimTime = TimeSpan.FromMinutes(5);

    /// <summary>Attempts at one summary over one channel.</summary>
    public const int MaxAttempts = 12;

    private const string Mail = "mail";
    private const string Webhook = "webhook";

    private static readonly Meter Meter = new("Ledger");

    private static readonly Counter<long> Sent = Meter.CreateCounter<long>("ledger.summary.attempts", "{attempt}", "Attempts to send the summary of a day");

    // What this node has sent need not be asked for again.
    private readonly HashSet<(DateOnly Day, string Channel)> _sent = [];

    /// <summary>Whom TLS trusts at the mail server, unless the system's authorities.</summary>
    internal X509ChainPolicy? Trust { get; init; }

    /// <summary>Sends what is due and nobody else is at; returns over how many channels it went out.</summary>
    public async Task<int> SendDue(CancellationToken cancellation)
    {
        if (DailySummary.DueAt(clock.GetUtcNow(), settings.At, settings.Zone) is not { } due)
        {
            return 0;
        }

        var sent = 0;
        foreach (var channel in (string[])[.. settings.Mail is null ? (string[])[] : [Mail], .. settings.Webhook is null ? (string[])[] : [Webhook]])
        {
            if (_sent.Contains((due.Day, channel)) || await Claim(due.Day, channel, cancellation) is not { } attempts)
            {
                continue;
            }

            string? error = null;
            try
            {
                var summary = new DailySummary(due.Day, due.From, due.To, settings.Zone, await numbers.Read(due.From, due.To, cancellation));
                await (channel == Mail ? SendMail(summary, cancellation) : Post(summary, cancellation));
                sent++;
            }
            catch (Exception exception) when (exception is MailException or HttpRequestException or IOException
                || (exception is OperationCanceledException && !cancellation.IsCancellationRequested))
            {
                // What an exception of HTTP says may repeat what came back, and so the token.
                error = exception is MailException ? exception.Message : exception is StatusException status ? status.Message : "The receiver can't be reached.";
                LogFailed(due.Day, channel, error);
            }

            Sent.Add(1, new("channel", channel), new("outcome", error is null ? "sent" : "failed"));
            await Note(due.Day, channel, attempts, error, cancellation);
            if (error is null)
            {
                _sent.RemoveWhere(s => s.Day != due.Day);
                _sent.Add((due.Day, channel));
            }
        }

        return sent;
    }

    /// <inheritdoc/>
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var pause = new PeriodicTimer(LookInterval);
        try
        {
            do
            {
                try
                {
                    if (daemon.IsLeader)
                    {
                        await SendDue(stoppingToken);
                    }
                }
                catch (Exception exception) when (exception is not OperationCanceledException || !stoppingToken.IsCancellationRequested)
                {
                    if (!DatabaseErrors.IsUnavailable(exception))
                    {
                        LogBug(exception); // no reason to stop the node
                    }
                }
            }
            while (await pause.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // The node stops.
        }
    }

    /// <summary>Takes the row, by the database's clock; the number of the attempt, null: it went out, somebody is at it, or it waits for another try.</summary>
    private async Task<int?> Claim(DateOnly day, string channel, CancellationToken cancellation)
    {
        await using var command = database.Source.Command(
            """
            insert into campaign_summaries as s (tenant_id, day, channel, attempts, next_at) values ($1, $2, $3, 1, clock_timestamp() + $4)
            on conflict (tenant_id, day, channel) do update set attempts = s.attempts + 1, next_at = clock_timestamp() + $4
            where s.sent_at is null and s.next_at <= clock_timestamp() and s.attempts < $5
            returning attempts
            """,
            Sql.Value(Requests.DefaultTenant), Sql.Value(day), Sql.Value(channel), Sql.Value(ClaimTime), Sql.Value(MaxAttempts));
        return (int?)await command.ExecuteScalarAsync(cancellation);
    }

    private async Task Note(DateOnly day, string channel, int attempts, string? error, CancellationToken cancellation)
    {
        await using var command = database.Source.Command(
            """
            update campaign_summaries set error = $5, sent_at = case when $5 is null then clock_timestamp() end, next_at = clock_timestamp() + $6
            where tenant_id = $1 and day = $2 and channel = $3 and (attempts = $4 or $5 is null)
            """,
            Sql.Value(Requests.DefaultTenant), Sql.Value(day), Sql.Value(channel), Sql.Value(attempts), Sql.Nullable(error, NpgsqlDbType.Varchar),
            Sql.Value(RetryDelays.After(attempts + 3, RetryDelays.Jitter())));
        await command.ExecuteNonQueryAsync(cancellation);
    }

    private Task SendMail(DailySummary summary, CancellationToken cancellation)
    {
        var mail = settings.Mail!;
        var id = summary.IdFor(string.Join(',', mail.To));
        return MailClient.Send(mail, MailClient.Write(mail, id, summary.Subject, summary.ToText(), clock.GetUtcNow()), Trust, cancellation);
    }

    private async Task Post(DailySummary summary, CancellationToken cancellation)
    {
        var (webhook, id) = (settings.Webhook!, summary.IdFor($"{settings.Webhook!.Address}"));
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(MailClient.Patience);
        using var client = new HttpMessageInvoker(new SocketsHttpHandler { UseProxy = false, UseCookies = false, AllowAutoRedirect = false, ActivityHeadersPropagator = null });
        using var request = new HttpRequestMessage(HttpMethod.Post, webhook.Address) { Content = new ByteArrayContent(summary.ToJson(id)) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        request.Headers.Add("Idempotency-Key", id);
        request.Headers.Authorization = webhook.Token is { } token ? new AuthenticationHeaderValue("Bearer", token) : null;
        using var response = await client.SendAsync(request, patience.Token);
        if (response.StatusCode is < HttpStatusCode.OK or >= HttpStatusCode.MultipleChoices)
        {
            throw new StatusException((int)response.StatusCode);
        }
    }

    [LoggerMessage(LogLevel.Warning, "The summary of {Day} could not be sent ({Channel}): {Reason}")]
    private partial void LogFailed(DateOnly day, string channel, string reason);

    [LoggerMessage(LogLevel.Error, "The summary of a day could not be made")]
    private partial void LogBug(Exception exception);

    private sealed class StatusException(int status) : HttpRequestException($"The receiver answered {status}.");
}

/// <summary>The summary of each day.</summary>
public static class SummaryFeature
{
    /// <summary>Reads its settings; null: none is sent.</summary>
    /// <exception cref="Hosting.SettingsException">A value is none.</exception>
    public static SummarySettings? ReadSettings(Func<string, string?> text) => SummarySettings.Read(text);

    /// <summary>Its sender, where it is set; <see cref="ICampaignNumbers"/> must be there.</summary>
    public static IServiceCollection AddSummary(this IServiceCollection services, SummarySettings? settings) => settings is null ? services : services
        .AddSingleton(s => new SummarySender(
            settings, s.GetRequiredService<ICampaignNumbers>(), s.GetRequiredService<AllTenantsDatabase>(), s.GetRequiredService<Daemon>(), s.GetRequiredService<LedgerClock>(),
            s.GetRequiredService<ILogger<SummarySender>>()))
        .AddHostedService(s => s.GetRequiredService<SummarySender>());
}
