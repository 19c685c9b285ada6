using Ledger.EventStore;
using System.Net;
using System.Text.Json;
using Ledger.Campaigns;
using Ledger.DemoGateway;
using Ledger.Testing;
using Ledger.Tests.Running;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Campaigns;

/// <summary>Campaigns on a node of this process, through a gateway that is a process of its own.</summary>
public sealed class Sending_messages(PostgresFixture postgres)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Reaches_everybody_in_the_segment_once_under_the_messages_id()
    {
        await using var gateway = await GatewayProcess.Start();
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(120);

        var id = await node.Campaign();
        var campaign = await node.Reaches(id, "completed");

        Assert.Equal(120, campaign.GetProperty("recipients").GetInt64());
        Assert.Equal(120, campaign.Total("sent"));
        var received = await gateway.Received();
        var messages = (await node.Messages(id)).ToDictionary(m => m.GetProperty("messageId").GetString()!, m => m);
        Assert.Equal(120, received.Count);
        Assert.All(received, call =>
        {
            var user = messages[call.Id].GetProperty("userId").GetString()!;
            Assert.Equal($"Hello N{int.Parse(user[1..], System.Globalization.CultureInfo.InvariantCulture)}!", call.Text);
            Assert.Equal($"+{Given_a_campaign.Phone(int.Parse(user[1..], System.Globalization.CultureInfo.InvariantCulture))}", call.Phone);
        });
        Assert.All(messages.Values, m => Assert.Equal(("sent", 1), (m.GetProperty("status").GetString(), m.GetProperty("attempts").GetInt32())));
        var history = await node.Get("/v1/history?user=u0007");
        Assert.Contains("message-sent", history.Is(HttpStatusCode.OK).Each("kind"));
        await Patience.Until(async () => await node.Taken() == 0, "everything taken is let go of");
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Tries_again_what_failed_and_gives_up_what_is_refused()
    {
        await using var gateway = await GatewayProcess.Start(new { errorPercent = 30, refusePercent = 10 });
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(150);

        var id = await node.Campaign();
        await node.Comes(id, c => c.GetProperty("state").GetString() == "running", "it runs");
        JsonElement campaign;
        do
        {
            node.Clock.Advance(TimeSpan.FromSeconds(30)); // what waits for another attempt is due
            campaign = await node.Campaign(id);
            Given_a_campaign.AssertBalanced(campaign);
            await Task.Delay(50, Cancellation);
        }
        while (campaign.GetProperty("state").GetString() == "running");

        Assert.Equal("completed", campaign.GetProperty("state").GetString());
        Assert.Equal(150, campaign.Total("sent") + campaign.Total("failed"));
        var received = await gateway.Summarise();
        Assert.Equal((campaign.Total("sent"), 0, 0), (received.Accepted, received.AcceptedMoreThanOnce, received.Unlike));
        var failed = await node.Messages(id, "failed");
        Assert.Equal(campaign.Total("failed"), failed.Length);
        Assert.All(failed, m => Assert.Contains("not in service", m.GetProperty("error").GetString()!, StringComparison.Ordinal));
        Assert.Contains(await node.Messages(id, "sent"), m => m.GetProperty("attempts").GetInt32() > 1);

        // Only those are tried again when that is asked for.
        await gateway.SetFaults(new { });
        (await node.Post($"/v1/campaigns/{id}/retry-failed", null)).Is(HttpStatusCode.OK);
        campaign = await node.Comes(id, c => c.GetProperty("state").GetString() == "completed" && c.Total("failed") == 0, "the failed ones are sent");
        Assert.Equal(150, campaign.Total("sent"));
        Assert.Equal((150, 0), ((await gateway.Summarise()).Accepted, (await gateway.Summarise()).AcceptedMoreThanOnce));
        Assert.Empty(node.Errors);
    }

    [Theory]
    [InlineData("keep")]
    [InlineData("retry")]
    public async Task Says_unknown_of_what_was_not_answered(string onUnknown)
    {
        await using var gateway = await GatewayProcess.Start(new { resetPercent = 100, acceptedAnywayPercent = 100 });
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(10);

        var id = await node.Campaign(("onUnknown", onUnknown));
        await node.Comes(id, c => c.Total("unknown") == 10, "all are unknown");
        if (onUnknown == "retry")
        {
            Assert.Equal("running", (await node.Campaign(id)).GetProperty("state").GetString());
            await gateway.SetFaults(new { deduplicate = true });
            node.Clock.Advance(TimeSpan.FromSeconds(30));
            Assert.Equal(10, (await node.Reaches(id, "completed")).Total("sent"));
        }
        else
        {
            Assert.Equal(10, (await node.Reaches(id, "completed")).Total("unknown"));
        }

        Assert.Equal((10, 0), ((await gateway.Summarise()).Accepted, (await gateway.Summarise()).AcceptedMoreThanOnce));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Stops_within_a_second_of_a_pause_and_goes_on_when_resumed()
    {
        await using var gateway = await GatewayProcess.Start(new { latencyMilliseconds = 20 });
        await using var node = await Given_a_campaign.Node(postgres, gateway, concurrency: 4);
        await node.Members(600);

        var id = await node.Campaign();
        await node.Comes(id, c => c.Total("sent") > 20, "some are sent");
        var paused = (await node.Post($"/v1/campaigns/{id}/pause", null)).Is(HttpStatusCode.OK);
        var at = DateTimeOffset.UtcNow;
        Assert.Equal("paused", paused.Json.GetProperty("state").GetString());
        await Task.Delay(TimeSpan.FromSeconds(1.5), Cancellation); // what must not happen takes time not to happen
        var received = await gateway.Summarise();
        Assert.True(received.LastAt < at + TimeSpan.FromSeconds(1), $"Paused at {at:O}, the last message came at {received.LastAt:O}.");
        Assert.InRange(received.Calls, 20, 599);
        Assert.Equal(received.Accepted, (await node.Comes(id, c => c.Total("sending") == 0, "nothing is under way")).Total("sent"));

        (await node.Post($"/v1/campaigns/{id}/resume", null)).Is(HttpStatusCode.OK);
        Assert.Equal(600, (await node.Reaches(id, "completed")).Total("sent"));
        Assert.Equal((600, 0), ((await gateway.Summarise()).Calls, (await gateway.Summarise()).AcceptedMoreThanOnce));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Ends_with_a_cancel_whose_rest_is_cancelled()
    {
        await using var gateway = await GatewayProcess.Start(new { latencyMilliseconds = 20 });
        await using var node = await Given_a_campaign.Node(postgres, gateway, concurrency: 4);
        await node.Members(400);

        var id = await node.Campaign();
        await node.Comes(id, c => c.Total("sent") > 20, "some are sent");
        (await node.Post($"/v1/campaigns/{id}/cancel", null)).Is(HttpStatusCode.OK);
        var campaign = await node.Comes(id, c => c.GetProperty("state").GetString() == "cancelled" && c.Total("sending") == 0, "nothing is under way");
        await Patience.Until(async () => await node.Taken() == 0, "everything taken is let go of");
        campaign = await node.Campaign(id);

        Assert.Equal(400, campaign.Total("sent") + campaign.Total("cancelled"));
        Assert.Equal((await gateway.Summarise()).Accepted, campaign.Total("sent"));
        Assert.Equal(campaign.Total("cancelled"), (await node.Messages(id, "cancelled")).Length);
        Assert.Empty(await node.Messages(id, "pending"));
        (await node.Post($"/v1/campaigns/{id}/resume", null)).IsProblem(409, "campaign-over");
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Ends_at_the_end_whose_rest_has_expired()
    {
        await using var gateway = await GatewayProcess.Start(new { latencyMilliseconds = 20 });
        await using var node = await Given_a_campaign.Node(postgres, gateway, concurrency: 4);
        await node.Members(400);

        var id = await node.Campaign();
        await node.Comes(id, c => c.Total("sent") > 20, "some are sent");
        var at = DateTimeOffset.UtcNow;
        node.Clock.Advance(TimeSpan.FromHours(1)); // to the microsecond
        var campaign = await node.Reaches(id, "ended");

        Assert.Equal(400, campaign.Total("sent") + campaign.Total("expired"));
        Assert.Equal((await gateway.Summarise()).Accepted, campaign.Total("sent"));
        Assert.True((await gateway.Summarise()).LastAt <= at + TimeSpan.FromMilliseconds(100), "A message came after the end.");
        Assert.Equal(campaign.Total("expired"), (await node.Messages(id, "expired")).Length);
        (await node.Post($"/v1/campaigns/{id}/retry-failed", null)).IsProblem(409, "campaign-over");
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Keeps_to_the_hours_of_each_recipients_zone()
    {
        await using var gateway = await GatewayProcess.Start();
        await using var node = await Given_a_campaign.Node(postgres, gateway); // it is noon by UTC: 15 h in Moscow, 21 h in Tokyo, 7 h in New York
        await node.Members(5, prefix: "moscow", zone: "Europe/Moscow");
        await node.Members(5, prefix: "tokyo", zone: "Asia/Tokyo");
        await node.Members(5, prefix: "york", zone: "America/New_York");

        var id = await node.Campaign(("window", new { from = "09:00", to = "21:00" }), ("endsAt", node.Clock.Now.AddDays(2)));
        await node.Comes(id, c => c.Total("sent") == 5, "Moscow is sent to");
        node.Clock.Advance(TimeSpan.FromHours(1.999));
        await node.Comes(id, c => c.Total("sending") == 0, "nothing is under way");
        Assert.Equal(10, (await node.Campaign(id)).Total("pending"));
        node.Clock.Advance(TimeSpan.FromHours(0.002));
        await node.Comes(id, c => c.Total("sent") == 10, "it is nine in New York");
        node.Clock.SetTo(new DateTimeOffset(2026, 11, 21, 0, 0, 0, TimeSpan.Zero));
        await node.Reaches(id, "completed");

        var cities = (await node.Messages(id)).ToDictionary(m => m.GetProperty("messageId").GetString()!, m => m.GetProperty("userId").GetString()![..^4]);
        Assert.Equal([.. Enumerable.Repeat("moscow", 5), .. Enumerable.Repeat("york", 5), .. Enumerable.Repeat("tokyo", 5)], (await gateway.Received()).Select(c => cities[c.Id]));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Keeps_to_the_rate_of_the_campaign()
    {
        await using var gateway = await GatewayProcess.Start();
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(100);

        await node.Reaches(await node.Campaign(("ratePerSecond", 40)), "completed");

        var calls = (await gateway.Received()).Select(c => c.At).Order().ToArray();
        // The burst is a quarter of a second; then 90 more take at least 2.25 s.
        Assert.InRange((calls[^1] - calls[0]).TotalSeconds, 2.0, 20);
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Leaves_out_who_has_opted_out_until_the_moment_of_the_call()
    {
        await using var gateway = await GatewayProcess.Start();
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(6);
        await node.User("u0001", new { phone = Given_a_campaign.Phone(1), name = "N1", optedOut = true });
        await node.Post("/v1/segments", new { slug = Ledger.Campaigns.Campaign.SuppressionSegment });
        await node.Put($"/v1/users/u0002/segments/{Ledger.Campaigns.Campaign.SuppressionSegment}", null);
        await node.CatchUp();

        var id = await node.Campaign(("window", new { from = "20:00", to = "21:00" }), ("endsAt", node.Clock.Now.AddDays(1)));
        await node.Reaches(id, "running");
        await node.User("u0003", new { phone = Given_a_campaign.Phone(3), name = "N3", timeZone = "Europe/Moscow", optedOut = true });
        await node.Put($"/v1/users/u0004/segments/{Ledger.Campaigns.Campaign.SuppressionSegment}", null);
        await node.CatchUp();
        node.Clock.Advance(TimeSpan.FromHours(5.5));
        var campaign = await node.Reaches(id, "completed");

        Assert.Equal((2, 4), (campaign.Total("sent"), campaign.Total("suppressed")));
        Assert.Equal(["u0001", "u0002", "u0003", "u0004"], (await node.Messages(id, "suppressed")).Select(m => m.GetProperty("userId").GetString()));
        Assert.Equal(2, (await gateway.Summarise()).Calls);
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Waits_for_a_gateway_that_is_away_without_counting_attempts()
    {
        var gateway = await GatewayProcess.Start();
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await node.Members(30);
        await gateway.Kill();

        var id = await node.Campaign();
        await node.Reaches(id, "running");
        await Patience.Until(() => Task.FromResult(((Gateway)node.Services.GetService(typeof(Gateway))!).State != BreakerState.Closed), "the breaker opens");
        Assert.Equal(30, (await node.Campaign(id)).GetProperty("recipients").GetInt64());
        await using var back = await GatewayProcess.Start(address: gateway.Address);
        var campaign = await node.Reaches(id, "completed");

        Assert.Equal(30, campaign.Total("sent"));
        Assert.All(await node.Messages(id), m => Assert.Equal(1, m.GetProperty("attempts").GetInt32()));
        await gateway.DisposeAsync();
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Of_two_nodes_at_once_sends_everything_once()
    {
        await using var gateway = await GatewayProcess.Start();
        await using var node = await Given_a_campaign.Node(postgres, gateway);
        await using var other = await node.StartBeside();
        await node.Members(500);

        var id = await node.Campaign();
        var campaign = await node.Reaches(id, "completed");

        Assert.Equal(500, campaign.Total("sent"));
        Assert.Equal((500, 500, 0), ((await gateway.Summarise()).Calls, (await gateway.Summarise()).Accepted, (await gateway.Summarise()).AcceptedMoreThanOnce));
        Assert.Empty(node.Errors.Concat(other.Errors));
    }

    [Fact]
    public async Task Says_unknown_of_what_a_node_had_taken_that_died_and_lets_what_is_known_stand()
    {
        await using var node = await Given_a_campaign.Node(postgres, null);
        await node.Members(2);
        var id = await node.Campaign(("onUnknown", "keep"));
        await node.Reaches(id, "running");
        var recorder = node.Services.GetRequiredService<OutcomeRecorder>();
        var (lost, told) = (Taken("u0000"), Taken("u0001"));

        // The other node died after it had recorded what became of the second message, and before it let go of it.
        Assert.True(Assert.Single(await recorder.Record([Sent(told)], Cancellation)).IsOwn);
        await using (var command = node.Services.GetRequiredService<AllTenantsDatabase>().Source.CreateCommand(
            $"insert into campaign_sends (tenant_id, campaign_id, user_id, attempt, leased_until) select '{Requests.DefaultTenant}', '{lost.CampaignId}', u, 1, clock_timestamp() from unnest(array['u0000', 'u0001']) u"))
        {
            await command.ExecuteNonQueryAsync(Cancellation);
        }

        var campaign = await node.Reaches(id, "completed");
        Assert.Equal((1, 1), (campaign.Total("unknown"), campaign.Total("sent")));
        await Patience.Until(async () => await node.Taken() == 0, "everything taken is let go of");

        // It was not dead but frozen: what it says now comes second.
        var late = Assert.Single(await recorder.Record([Sent(lost)], Cancellation));
        Assert.False(late.IsOwn);
        await node.CatchUp();
        Assert.Equal(1, (await node.Campaign(id)).Total("unknown"));
        Assert.Equal(2, (await node.Log()).Count(e => Message.OutcomeOf(e.Data) is not null));
        Assert.Empty(node.Errors);

        TakenMessage Taken(string user) => new(Requests.DefaultTenant, Guid.ParseExact(id, "N"), user, "+79210000001", "", null, Message.Pending, 1, 0);

        static AttemptOutcome Sent(TakenMessage message) => new(message, new MessageSent(message.Campaign, message.UserId, message.Id, message.Attempt));
    }
}
