using System.Globalization;
using System.Text;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Testing;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Campaigns;

/// <summary>What the view makes of any sequence of events that the program can record.</summary>
public sealed class The_view_of_campaigns(PostgresFixture postgres, ITestOutputHelper output)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Balances_and_is_the_same_however_the_events_are_cut_into_batches()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        for (var round = 0; round < (LongTests.Wanted ? 20 : 3); round++)
        {
            var log = new RandomCampaigns(new Random(LongTests.Seed + round)).Log(400).ToArray();
            var atOnce = await Rows([log]);
            Assert.Equal(atOnce, await Rows(log.Chunk(1)));
            Assert.Equal(atOnce, await Rows(log.Chunk(7)));
            Assert.Equal(atOnce, await Rows(log.Chunk(97)));
        }
    }

    [Fact]
    public async Task Is_the_same_when_it_is_rebuilt_while_messages_are_sent()
    {
        await using var gateway = await GatewayProcess.Start(new { errorPercent = 20, refusePercent = 5, resetPercent = 5, latencyMilliseconds = 5 });
        await using var node = await Given_a_campaign.Node(postgres, gateway, concurrency: 4);
        await node.Members(300);
        var id = await node.Campaign();
        await node.Comes(id, c => c.Total("sent") > 30, "some are sent");
        await node.Rebuild(CampaignsProjection.View);
        await node.Comes(id, c => c.Total("sent") > 200, "it goes on");
        await node.Post($"/v1/campaigns/{id}/pause", null);
        await node.Comes(id, c => c.Total("sending") == 0, "nothing is under way");
        await node.CatchUp();
        var live = await node.Rows(CampaignsProjection.View);
        await node.Rebuild(CampaignsProjection.View);

        Assert.Equal(live, await node.Rows(CampaignsProjection.View));
        Assert.Equal(0, (await gateway.Summarise()).Unlike);
        Assert.Empty(node.Errors);
    }

    [Theory]
    [InlineData(null, "campaign_messages_pkey")]
    [InlineData("sent", "campaign_messages_settled")]
    [InlineData("failed", "campaign_messages_settled")]
    [InlineData("unknown", "campaign_messages_settled")]
    [InlineData("pending", "campaign_messages_pkey")]
    [InlineData("sending", "campaign_messages_pkey")]
    public async Task Is_read_through_its_indexes(string? status, string index)
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var plan = await Plans.Of(node, Sql.Command(CampaignMessagesReader.Statement(status), Sql.Value("t"), Sql.Value(Guid.Empty), Sql.Value(""), Sql.Value(3)));

        Assert.Equal([index], Plans.IndexesOn("campaign_messages", plan));
        Assert.DoesNotContain("Sort", plan, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Is_taken_from_through_the_index_of_what_is_due()
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var plan = await Plans.Of(node.Services.GetRequiredService<BackgroundDatabase>().Source, Sql.Command(
            WaitingMessages.TakeStatement, Sql.Value("t"), Sql.Value(Guid.Empty), Sql.Texts(["Europe/Berlin"]), Sql.Value(TestClock.Start), Sql.Value(3), Sql.Value(TimeSpan.FromSeconds(9))));

        Assert.Equal(["campaign_messages_due"], Plans.IndexesOn("campaign_messages", plan));
        Assert.Equal(["campaign_sends_pkey"], Plans.IndexesOn("campaign_sends", plan));
    }

    private async Task<string> Rows(IEnumerable<RecordedEvent[]> batches)
    {
        await using var database = EventStoreDatabase.Connect(await postgres.CreateDatabase(), new EventStoreOptions(), "tests", 4);
        await using var connection = await database.OpenConnectionAsync(Cancellation);
        var projection = new CampaignsProjection();
        foreach (var batch in batches)
        {
            await using var transaction = await connection.BeginTransactionAsync(Cancellation);
            await projection.Write(batch, connection, Cancellation);
            await transaction.CommitAsync(Cancellation);
            await AssertBalanced(connection);
        }

        var rows = new StringBuilder();
        foreach (var table in projection.Tables)
        {
            rows.Append(CultureInfo.InvariantCulture, $"# {table}\n");
            await using var command = new NpgsqlCommand($"select t::text from {table} t order by t::text collate \"C\"", connection);
            await using var reader = await command.ExecuteReaderAsync(Cancellation);
            while (await reader.ReadAsync(Cancellation))
            {
                rows.Append(reader.GetString(0)).Append('\n');
            }
        }

        return rows.ToString();
    }

    /// <summary>The totals are what the rows are, and together the recipients.</summary>
    private static async Task AssertBalanced(NpgsqlConnection connection)
    {
        await using var command = new NpgsqlCommand(
            """
            select count(*) from campaigns c
            cross join lateral (
              select count(*) as every, count(*) filter (where status = 'pending') as pending, count(*) filter (where status = 'sent') as sent,
                     count(*) filter (where status = 'failed') as failed, count(*) filter (where status = 'unknown') as unknown,
                     count(*) filter (where status = 'suppressed') as suppressed, count(*) filter (where status = 'unknown' and due_at is not null) as resending
              from campaign_messages m where m.tenant_id = c.tenant_id and m.campaign_id = c.campaign_id) m
            where (c.pending, c.sent, c.failed, c.unknown, c.suppressed, c.resending) <> (m.pending, m.sent, m.failed, m.unknown, m.suppressed, m.resending)
               or m.every <> m.pending + m.sent + m.failed + m.unknown + m.suppressed or (c.recipients is not null and c.recipients <> m.every)
            """, connection);
        Assert.Equal(0L, await command.ExecuteScalarAsync(Cancellation));
    }

    /// <summary>Logs of several campaigns at once, with every kind of event in any order that there can be.</summary>
    private sealed class RandomCampaigns(Random random)
    {
        private sealed class One(Guid id)
        {
            public Guid Id => id;

            public Campaign Campaign { get; set; } = Campaign.Initial(id);

            public int Parts { get; set; }

            public Dictionary<string, (int Attempts, bool IsDue, string Status)> Messages { get; } = [];

            public (long Position, int Part)? Retry { get; set; }
        }

        private long _position;

        public IEnumerable<RecordedEvent> Log(int events)
        {
            var campaigns = Enumerable.Range(0, 3).Select(i => new One(new Guid(i + 1, 0, 0, new byte[8]))).ToArray();
            while (_position < events)
            {
                foreach (var recorded in Next(campaigns[random.Next(campaigns.Length)]))
                {
                    yield return recorded;
                }
            }
        }

        private IEnumerable<RecordedEvent> Next(One one)
        {
            var id = $"{one.Id:N}";
            var plan = new CampaignPlan("c", "t", new Audience(), TestClock.Start, TestClock.Start.AddDays(1), null, null, OnUnknown.Retry);
            switch (one.Campaign)
            {
                case { Exists: false }:
                    yield return OfCampaign(one, new CampaignCreated(plan));
                    break;
                case { Phase: Campaign.Scheduled }:
                    yield return OfCampaign(one, random.Next(4) == 0 ? new CampaignChanged(plan with { Name = $"c{_position}" }) : new CampaignStarted(_position));
                    break;
                case { Phase: Campaign.Starting }:
                    if (random.Next(4) == 0 || one.Parts == 4)
                    {
                        yield return OfCampaign(one, random.Next(8) == 0 ? new CampaignInvalidated("no", ["u"]) : new AudienceCompleted(one.Messages.Count));
                        break;
                    }

                    var recipients = Enumerable.Range(0, 1 + random.Next(12)).Select(i => $"u{one.Parts}-{i:D2}").Select(u => random.Next(6) switch
                    {
                        0 => new Recipient(u, null, null, null, Message.Suppressed, "so"),
                        1 => new Recipient(u, null, null, null, Message.Failed, "so"),
                        _ => new Recipient(u, "+4915112345678", random.Next(2) == 0 ? "Europe/Berlin" : null, random.Next(2) == 0 ? new Dictionary<string, string> { ["name"] = u } : null),
                    }).ToArray();
                    foreach (var recipient in recipients)
                    {
                        one.Messages[recipient.UserId] = (0, recipient.Status is null, recipient.Status ?? Message.Pending);
                    }

                    yield return OfMessages(one, new RecipientsPinned(id, one.Parts++, recipients));
                    break;
                case { Phase: Campaign.Running } when one.Retry is { } retry:
                    var again = one.Messages.Where(m => m.Value.Status == Message.Failed && m.Value.Attempts > 0).Select(m => m.Key).Order(StringComparer.Ordinal).Take(3).ToArray();
                    foreach (var user in again)
                    {
                        one.Messages[user] = one.Messages[user] with { IsDue = true, Status = Message.Pending };
                    }

                    one.Retry = again.Length < 3 ? null : retry with { Part = retry.Part + 1 };
                    yield return OfMessages(one, new MessagesRequeued(id, retry.Position, retry.Part, again, again.Length < 3));
                    break;
                default:
                    var due = one.Messages.Where(m => m.Value.IsDue).Select(m => m.Key).ToArray();
                    if (due.Length > 0 && random.Next(10) > 0)
                    {
                        // Also when it is over: what had left is told of afterwards.
                        yield return OfMessages(one, Outcome(one, id, due[random.Next(due.Length)]));
                    }
                    else if (one.Campaign.Phase == Campaign.Running)
                    {
                        yield return OfCampaign(one, random.Next(6) switch
                        {
                            0 => new CampaignCancelled(), 1 => new CampaignEnded(), 2 => new CampaignCompleted(),
                            3 => new FailedMessagesRetried(), 4 when !one.Campaign.IsPaused => new CampaignPaused(), _ => new CampaignResumed(),
                        });
                    }
                    else if (one.Campaign.Phase == Campaign.Completed)
                    {
                        yield return OfCampaign(one, new FailedMessagesRetried());
                    }
                    else
                    {
                        _position++; // nothing can come of it any more
                    }

                    break;
            }
        }

        private object Outcome(One one, string id, string user)
        {
            var (attempts, _, status) = one.Messages[user];
            var due = TestClock.Start.AddMinutes(_position);
            object outcome = random.Next(5) switch
            {
                0 => new MessageSent(id, user, "m", attempts + 1),
                1 => new MessageDeferred(id, user, "m", attempts + 1, "so", 503, due),
                2 => new MessageFailed(id, user, "m", attempts + 1, "so", 400),
                3 => new MessageOutcomeUnknown(id, user, "m", attempts + 1, "so", null, random.Next(2) == 0 ? due : null),
                _ => new MessageSuppressed(id, user, "m", attempts + 1, "so"),
            };
            one.Messages[user] = (attempts + 1, outcome is MessageDeferred or MessageOutcomeUnknown { DueAt: not null }, outcome switch
            {
                MessageSent => Message.Sent, MessageFailed => Message.Failed, MessageSuppressed => Message.Suppressed, MessageOutcomeUnknown => Message.Unknown, _ => status,
            });
            return outcome;
        }

        private RecordedEvent OfCampaign(One one, object data)
        {
            var recorded = Recorded(Campaign.StreamOf(one.Id), data, one.Campaign.Version + 1);
            one.Campaign = Campaign.Evolve(one.Campaign, recorded);
            one.Retry = data is FailedMessagesRetried ? (recorded.Position, 0) : one.Retry;
            return recorded;
        }

        private RecordedEvent OfMessages(One one, object data) => Recorded(Message.StreamOf(one.Id, TestClock.Start), data, _position + 1);

        private RecordedEvent Recorded(string stream, object data, long version) => Given.Recorded(stream, data, ++_position, TestClock.Start.AddMinutes(_position), version);
    }
}
