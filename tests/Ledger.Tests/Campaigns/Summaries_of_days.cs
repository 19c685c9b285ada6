using System.Globalization;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using System.Text.Json;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;

namespace Ledger.Tests.Campaigns;

public sealed class Summaries_of_days(PostgresFixture postgres)
{
    private const string Secret = "s3cr3t-pässword-4711";

    private static readonly CampaignNumbers[] Two =
    [
        new("acme", "c1", "Herbst\r\n.\r\nSubject: forged", new Dictionary<string, long> { ["sent"] = 7, ["failed"] = 1 }),
        new("acme", "c2", "Winter ❄", new Dictionary<string, long> { ["sent"] = 3 }),
    ];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static X509ChainPolicy Trust => new()
    {
        TrustMode = X509ChainTrustMode.CustomRootTrust, CustomTrustStore = { SmtpSink.Certificate }, RevocationMode = X509RevocationMode.NoCheck,
    };

    private static DateTimeOffset At(string text) => DateTimeOffset.Parse(text, CultureInfo.InvariantCulture);

    private static MailSettings MailTo(SmtpSink sink, string scheme = "smtp") =>
        new(new Uri($"{scheme}://localhost:{sink.Port}"), "ledger@example.com", ["a@example.com", "b@example.com"]) { User = "me", Password = Secret };

    private static SummarySettings Settings(params (string Name, string Value)[] environment) =>
        LedgerSettings.FromEnvironment(environment.ToDictionary(e => e.Name, e => e.Value).GetValueOrDefault).CampaignSummary!;

    [Theory]
    [InlineData("2026-11-20T07:59:59Z", "UTC", null, null, null)]
    [InlineData("2026-11-20T08:00:00Z", "UTC", "2026-11-19", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z")]
    [InlineData("2026-11-20T23:59:59Z", "UTC", "2026-11-19", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z")]
    [InlineData("2026-11-20T07:00:00Z", "Europe/Berlin", "2026-11-19", "2026-11-18T23:00:00Z", "2026-11-19T23:00:00Z")]
    [InlineData("2026-03-30T06:00:00Z", "Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z")]
    [InlineData("2026-10-26T07:00:00Z", "Europe/Berlin", "2026-10-25", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z")]
    [InlineData("2026-11-20T02:30:00Z", "Asia/Kolkata", "2026-11-19", "2026-11-18T18:30:00Z", "2026-11-19T18:30:00Z")]
    [InlineData("2011-12-30T20:00:00Z", "Pacific/Apia", "2011-12-29", "2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z")] // the 30th was left out
    public void Are_due_from_their_time_of_day_on(string now, string zone, string? day, string? from, string? to)
    {
        Assert.True(TimeZones.TryFind(zone, out var info));
        Assert.Equal(
            day is null ? null : (DateOnly.Parse(day, CultureInfo.InvariantCulture), At(from!), At(to!)), DailySummary.DueAt(At(now), new TimeOnly(8, 0), info));
    }

    [Theory]
    [InlineData("smtp", "AUTH PLAIN LOGIN")]
    [InlineData("smtp", "AUTH LOGIN")]
    [InlineData("smtps", "AUTH PLAIN")]
    public async Task Are_mailed_with_TLS_and_a_password(string scheme, string auth)
    {
        await using var sink = new SmtpSink { IsTls = scheme == "smtps", Offers = ["STARTTLS", auth] };
        var settings = MailTo(sink, scheme);
        var summary = new DailySummary(new DateOnly(2026, 11, 19), At("2026-11-19T00:00:00Z"), At("2026-11-20T00:00:00Z"), TimeZoneInfo.Utc, Two);

        await MailClient.Send(settings, MailClient.Write(settings, summary.IdFor("x"), summary.Subject, summary.ToText(), TestClock.Start), Trust, Cancellation);

        var mail = Assert.Single(sink.Mails);
        Assert.Equal(("ledger@example.com", true, "me", Secret), (mail.From, mail.IsSecure, mail.User, mail.Password));
        Assert.Equal(["a@example.com", "b@example.com"], mail.To);
        var (head, body) = (mail.Text.Split("\r\n\r\n")[0], mail.Text.Split("\r\n\r\n")[1]);
        Assert.Equal(
            $"""
            Date: Fri, 20 Nov 2026 12:00:00 +0000
            From: ledger@example.com
            To: a@example.com,
             b@example.com
            Subject: Campaigns on 2026-11-19
            Message-ID: <{summary.IdFor("x")}@example.com>
            MIME-Version: 1.0
            Content-Type: text/plain; charset=utf-8
            Content-Transfer-Encoding: base64
            Auto-Submitted: auto-generated
            """.ReplaceLineEndings("\r\n"),
            head);
        Assert.All(body.Split("\r\n"), line => Assert.True(line.Length <= 76));
        Assert.Equal(
            """
            Campaigns on 2026-11-19 (UTC), 2026-11-19T00:00:00Z to 2026-11-20T00:00:00Z

            All campaigns: 1 failed, 10 sent

            Herbst  .  Subject: forged (c1, acme): 1 failed, 7 sent
            Winter ❄ (c2, acme): 3 sent

            """.ReplaceLineEndings("\n"),
            Encoding.UTF8.GetString(Convert.FromBase64String(body)));
        Assert.DoesNotContain(sink.Commands.TakeWhile(c => c != "STARTTLS"), c => scheme == "smtp" && c.StartsWith("AUTH", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("EHLO", "500 no", "The mail server answered 500 to EHLO.")]
    [InlineData("AUTH", "535 wrong " + Secret, "The mail server answered 535 to AUTH.")]
    [InlineData("MAIL", "451 later", "The mail server answered 451 to MAIL.")]
    [InlineData("RCPT", "550 nobody", "The mail server answered 550 to RCPT.")]
    [InlineData(".", "552 too much", "The mail server answered 552 to the mail.")]
    [InlineData("MAIL", "hello", "The mail server does not speak SMTP.")]
    [InlineData("STARTTLS", "220 go on\r\n250 injected", "The mail server does not speak SMTP.")]
    public async Task Are_not_taken_for_sent_when_the_server_does_not_take_them(string verb, string reply, string message)
    {
        await using var sink = new SmtpSink();
        sink.Replies[verb] = reply;
        Assert.Equal(message, (await Assert.ThrowsAsync<MailException>(() => MailClient.Send(MailTo(sink), "x\r\n", Trust, Cancellation))).Message);
        Assert.Empty(sink.Mails);
    }

    [Fact]
    public async Task Go_to_no_server_that_cannot_be_trusted()
    {
        await using var sink = new SmtpSink();
        Assert.Equal(
            "There is no secure connection to the mail server.",
            (await Assert.ThrowsAsync<MailException>(() => MailClient.Send(MailTo(sink), "x\r\n", null, Cancellation))).Message);
        Assert.DoesNotContain(sink.Commands, c => c.StartsWith("AUTH", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Go_over_no_network_without_TLS()
    {
        await using var sink = new SmtpSink { Offers = ["AUTH PLAIN"] };
        // Leads to this machine, and is no address of loopback.
        var elsewhere = MailTo(sink) with { Server = new Uri($"smtp://0.0.0.0:{sink.Port}") };

        Assert.Equal("The mail server does not offer STARTTLS.", (await Assert.ThrowsAsync<MailException>(() => MailClient.Send(elsewhere, "x\r\n", Trust, Cancellation))).Message);
        Assert.StartsWith("EHLO [127.0.0.1]", Assert.Single(sink.Commands), StringComparison.Ordinal);

        await MailClient.Send(MailTo(sink), "x\r\n", Trust, Cancellation);
        Assert.False(Assert.Single(sink.Mails).IsSecure);
    }

    [Fact]
    public async Task Are_posted_with_a_key_that_stays_the_same()
    {
        var answers = new Queue<string>(["503 Service Unavailable", "204 No Content"]);
        await using var raw = new RawGateway((socket, _) => socket.SendAsync(Encoding.Latin1.GetBytes($"HTTP/1.1 {answers.Dequeue()}\r\nContent-Length: 0\r\n\r\n")));
        var settings = new SummarySettings(new TimeOnly(8, 0), TimeZoneInfo.Utc) { Webhook = new WebhookSettings(new Uri(raw.Address, "/hook?key=1")) { Token = "t0ken" } };
        await using var node = await Node();
        var sender = Sender(node, settings);

        Assert.Equal(0, await sender.SendDue(Cancellation));
        Assert.Equal(0, await sender.SendDue(Cancellation)); // not before the wait is over
        Assert.Equal(("The receiver answered 503.", 1), await Row(node));
        await Execute(node, "update ledger.campaign_summaries set next_at = clock_timestamp()");
        Assert.Equal(1, await sender.SendDue(Cancellation));
        Assert.Equal(0, await sender.SendDue(Cancellation));
        Assert.Equal((null, 2), await Row(node));

        Assert.Equal(2, raw.Requests.Count);
        var (first, second) = (raw.Requests.First(), raw.Requests.Last());
        Assert.StartsWith("POST /hook?key=1 HTTP/1.1\r\n", first, StringComparison.Ordinal);
        Assert.Contains("Authorization: Bearer t0ken\r\n", first, StringComparison.Ordinal);
        Assert.Equal(Header(first), Header(second));
        Assert.StartsWith("Idempotency-Key: ledger-summary-2026-11-19-", Header(first), StringComparison.Ordinal);
        var json = JsonElement.Parse(first.Split("\r\n\r\n")[1]);
        Assert.Equal(
            ("2026-11-19", "2026-11-19T00:00:00Z", "2026-11-20T00:00:00Z", "UTC", 10, 2),
            (json.GetProperty("day").GetString(), json.GetProperty("from").GetString(), json.GetProperty("to").GetString(), json.GetProperty("timeZone").GetString(),
                json.GetProperty("total").GetProperty("sent").GetInt32(), json.GetProperty("campaigns").GetArrayLength()));
        Assert.Equal("c1", json.GetProperty("campaigns")[0].GetProperty("campaignId").GetString());

        static string Header(string request) => request.Split("\r\n").Single(l => l.StartsWith("Idempotency-Key", StringComparison.Ordinal));
    }

    [Fact]
    public async Task Go_out_once_however_many_nodes_would_send_them()
    {
        await using var sink = new SmtpSink();
        var settings = new SummarySettings(new TimeOnly(8, 0), TimeZoneInfo.Utc) { Mail = MailTo(sink) };
        await using var node = await Node();
        await using var other = await node.StartBeside();
        SummarySender[] senders = [.. Enumerable.Range(0, 8).Select(i => Sender(i % 2 == 0 ? node : other, settings))];

        for (var day = 0; day < 3; day++)
        {
            var sent = await Task.WhenAll(senders.Select(s => Task.Run(() => s.SendDue(Cancellation))));
            Assert.Equal(1, sent.Sum());
            Assert.Equal(day + 1, sink.Mails.Count);
            node.Clock.Advance(TimeSpan.FromDays(1));
        }

        Assert.Equal(3, sink.Mails.Select(m => m.Text.Split("\r\n").Single(l => l.StartsWith("Message-ID", StringComparison.Ordinal))).Distinct().Count());
    }

    [Fact]
    public async Task Are_sent_by_another_node_when_the_first_one_dies_in_the_midst()
    {
        await using var sink = new SmtpSink();
        var settings = new SummarySettings(new TimeOnly(8, 0), TimeZoneInfo.Utc) { Mail = MailTo(sink) };
        await using var node = await Node();
        await Execute(node, "insert into ledger.campaign_summaries (tenant_id, day, channel, attempts, next_at) values ('*DEFAULT*', '2026-11-19', 'mail', 1, clock_timestamp() + interval '5 minutes')");
        Assert.Equal(0, await Sender(node, settings).SendDue(Cancellation));

        await Execute(node, "update ledger.campaign_summaries set next_at = clock_timestamp()");
        Assert.Equal(1, await Sender(node, settings).SendDue(Cancellation));
        Assert.Single(sink.Mails);
    }

    [Fact]
    public async Task Are_given_up_after_so_many_attempts()
    {
        await using var sink = new SmtpSink();
        sink.Replies["MAIL"] = "451 later";
        var settings = new SummarySettings(new TimeOnly(8, 0), TimeZoneInfo.Utc) { Mail = MailTo(sink) };
        await using var node = await Node();
        for (var i = 0; i < SummarySender.MaxAttempts + 3; i++)
        {
            Assert.Equal(0, await Sender(node, settings).SendDue(Cancellation));
            await Execute(node, "update ledger.campaign_summaries set next_at = clock_timestamp()");
        }

        Assert.Equal(("The mail server answered 451 to MAIL.", SummarySender.MaxAttempts), await Row(node));
        Assert.Equal(SummarySender.MaxAttempts, sink.Commands.Count(c => c.StartsWith("MAIL", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task Are_sent_by_a_node_that_is_set_to()
    {
        await using var raw = RawGateway.Answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        await using var node = new TestNode(postgres)
        {
            Settings = s => s with { CampaignSummary = new SummarySettings(new TimeOnly(8, 0), TimeZoneInfo.Utc) { Webhook = new WebhookSettings(raw.Address) } },
            Configure = s => s.AddSingleton<ICampaignNumbers>(new Numbers()),
        };
        await node.InitializeAsync();
        while (raw.Requests.IsEmpty)
        {
            await Task.Delay(20, Cancellation);
        }
    }

    [Fact]
    public void Are_set_by_the_environment()
    {
        Assert.Null(Settings());
        var mail = Settings(("LEDGER_SUMMARY_SMTP", "smtp://mail.example.com"), ("LEDGER_SUMMARY_FROM", "l@example.com"), ("LEDGER_SUMMARY_TO", "a@example.com, b@example.com"), ("LEDGER_SUMMARY_SMTP_USER", "me"), ("LEDGER_SUMMARY_SMTP_PASSWORD", Secret));
        Assert.Equal((new TimeOnly(8, 0), "UTC", 587, 2, Secret), (mail.At, mail.Zone.Id, mail.Mail!.Port, mail.Mail.To.Count, mail.Mail.Password));
        Assert.DoesNotContain(Secret, $"{mail}", StringComparison.Ordinal);
        var webhook = Settings(("LEDGER_SUMMARY_WEBHOOK", "https://chat.example.com/hook/" + Secret), ("LEDGER_SUMMARY_AT", "23:30"), ("LEDGER_SUMMARY_TIME_ZONE", "Europe/Berlin"));
        Assert.Equal((new TimeOnly(23, 30), "Europe/Berlin"), (webhook.At, webhook.Zone.Id));
        Assert.DoesNotContain(Secret, $"{webhook}", StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("LEDGER_SUMMARY_AT", "8")]
    [InlineData("LEDGER_SUMMARY_TIME_ZONE", "Europe/Atlantis")]
    [InlineData("LEDGER_SUMMARY_SMTP", "smtp://mail.example.com")]
    [InlineData("LEDGER_SUMMARY_FROM", "a@example.com")]
    [InlineData("LEDGER_SUMMARY_WEBHOOK", "http://chat.example.com")]
    [InlineData("LEDGER_SUMMARY_WEBHOOK", "https://me:" + Secret + "@chat.example.com")]
    [InlineData("LEDGER_SUMMARY_WEBHOOK_TOKEN", "x")]
    [InlineData("LEDGER_SUMMARY_SMTP_PASSWORD", Secret)]
    public void Are_refused_at_the_start_if_they_make_no_sense(string variable, string value) =>
        Assert.DoesNotContain(Secret, Assert.Throws<SettingsException>(() => Settings((variable, value))).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData("a@example.com\r\nRCPT TO:<evil@example.com>")]
    [InlineData("a@example.com>")]
    [InlineData("a b@example.com")]
    [InlineData("A <a@example.com>")]
    [InlineData("a")]
    [InlineData("")]
    [InlineData("a@example.com,,b@example.com")]
    public void Go_to_addresses_that_hold_no_command_and_no_header(string to) => Assert.Throws<SettingsException>(
        () => Settings(("LEDGER_SUMMARY_SMTP", "smtp://mail.example.com"), ("LEDGER_SUMMARY_FROM", "l@example.com"), ("LEDGER_SUMMARY_TO", to)));

    private async Task<TestNode> Node()
    {
        var node = new TestNode(postgres);
        await node.InitializeAsync();
        return node;
    }

    private static SummarySender Sender(TestNode node, SummarySettings settings) => new(
        settings, new Numbers(), node.Services.GetRequiredService<AllTenantsDatabase>(), node.Services.GetRequiredService<Daemon>(), node.Clock, NullLogger<SummarySender>.Instance)
    {
        Trust = Trust,
    };

    private static async Task Execute(TestNode node, string sql)
    {
        await using var command = node.Services.GetRequiredService<AllTenantsDatabase>().Source.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Cancellation);
    }

    private static async Task<(string? Error, int Attempts)> Row(TestNode node)
    {
        await using var command = node.Services.GetRequiredService<AllTenantsDatabase>().Source.CreateCommand("select error, attempts from ledger.campaign_summaries");
        await using var reader = await command.ExecuteReaderAsync(Cancellation);
        Assert.True(await reader.ReadAsync(Cancellation));
        return (reader.IsDBNull(0) ? null : reader.GetString(0), reader.GetInt32(1));
    }

    private sealed class Numbers : ICampaignNumbers
    {
        public Task<IReadOnlyList<CampaignNumbers>> Read(DateTimeOffset from, DateTimeOffset to, CancellationToken cancellation) => Task.FromResult<IReadOnlyList<CampaignNumbers>>(Two);
    }
}
