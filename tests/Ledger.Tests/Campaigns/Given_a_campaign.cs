using Ledger.EventStore;
using System.Globalization;
using System.Net;
using System.Text.Json;
using Ledger.Campaigns;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Campaigns;

/// <summary>Nodes with a gateway, users with phones, and campaigns for them.</summary>
internal static class Given_a_campaign
{
    public const string Segment = "everybody";

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>A node that sends through a gateway.</summary>
    public static async Task<TestNode> Node(
        PostgresFixture postgres, GatewayProcess? gateway, int concurrency = 16, int timeoutSeconds = 5, Action<IServiceCollection>? configure = null)
    {
        var node = new TestNode(postgres) { Settings = Settings(gateway, concurrency, timeoutSeconds), Configure = configure };
        await node.InitializeAsync();
        return node;
    }

    public static Func<Ledger.Hosting.LedgerSettings, Ledger.Hosting.LedgerSettings> Settings(GatewayProcess? gateway, int concurrency = 16, int timeoutSeconds = 5) =>
        settings => settings with
        {
            MessageGateway = gateway is null ? null
                : new GatewaySettings(gateway.Address, GatewayProcess.Token) { Concurrency = concurrency, Timeout = TimeSpan.FromSeconds(timeoutSeconds) },
        };

    /// <summary>A phone number for each of many users.</summary>
    public static string Phone(int number) => $"7921{number.ToString("D7", CultureInfo.InvariantCulture)}";

    /// <summary>A user with a phone and whatever else.</summary>
    public static async Task User(this TestNode node, string id, object? attributes = null) =>
        Assert.True((int)(await node.Put($"/v1/users/{id}", new { attributes = attributes ?? new { phone = Phone(1) } })).Status is 200 or 201);

    /// <summary>A segment with members u0000, u0001 … who have phones and names.</summary>
    public static async Task Members(this TestNode node, int count, string slug = Segment, string prefix = "u", string zone = "Europe/Moscow")
    {
        if ((await node.Get($"/v1/segments/{slug}")).Status == HttpStatusCode.NotFound)
        {
            (await node.Post("/v1/segments", new { slug })).Is(HttpStatusCode.Created);
        }

        await Task.WhenAll(Enumerable.Range(0, count).Select(i => node.User(Name(prefix, i), new { phone = Phone(i), name = $"N{i}", timeZone = zone })));
        (await node.Import(slug, string.Concat(Enumerable.Range(0, count).Select(i => $"{Name(prefix, i)}\n")))).Is(HttpStatusCode.OK);
    }

    public static string Name(string prefix, int number) => prefix + number.ToString("D4", CultureInfo.InvariantCulture);

    /// <summary>A plan as it is sent, with changes.</summary>
    public static Dictionary<string, object?> Plan(this TestNode node, params (string Name, object? Value)[] changes)
    {
        var plan = new Dictionary<string, object?>
        {
            ["name"] = "a campaign", ["text"] = "Hello {name}!", ["audience"] = new { segments = new { any = new[] { Segment } } }, ["endsAt"] = node.Clock.Now.AddHours(1),
        };
        foreach (var (name, value) in changes)
        {
            plan[name] = value;
        }

        return plan;
    }

    /// <summary>Plans a campaign; returns its id.</summary>
    public static async Task<string> Campaign(this TestNode node, params (string Name, object? Value)[] changes) =>
        (await node.Post("/v1/campaigns", node.Plan(changes))).Is(HttpStatusCode.Created).Json.GetProperty("id").GetString()!;

    /// <summary>
    /// Records what a node would have that worked on a campaign whose time has not come: that it began, with these recipients, and
    /// what became of the message to each.
    /// </summary>
    public static async Task Began(this TestNode node, string id, IReadOnlyCollection<string> users, Func<string, object> outcome)
    {
        var campaign = Guid.ParseExact(id, "N");
        var stream = Ledger.Campaigns.Campaign.StreamOf(campaign);
        var parts = users.Chunk(20).Select((some, part) => new RecipientsPinned(id, part, [.. some.Select(u => new Recipient(u, "+79210000001", null))]));
        var appended = await node.Services.GetRequiredService<Appender>().Append(
            new AppendRequest
            {
                TenantId = Requests.DefaultTenant,
                Appends =
                [
                    new StreamAppend(Message.StreamOf(campaign, node.Clock.Now), Message.StreamType, [.. parts, .. users.Select(outcome)]),
                    new StreamAppend(stream, Ledger.Campaigns.Campaign.StreamType, [new CampaignStarted(node.Position), new AudienceCompleted(users.Count)]),
                ],
                Conditions = [new StreamCondition(stream, 1)],
            },
            Cancellation);
        Assert.Equal(AppendOutcome.Appended, appended.Outcome);
    }

    public static async Task<JsonElement> Campaign(this TestNode node, string id) => (await node.Get($"/v1/campaigns/{id}")).Is(HttpStatusCode.OK).Json;

    /// <summary>Waits until a campaign is in one of the states; what it is then.</summary>
    public static async Task<JsonElement> Reaches(this TestNode node, string id, params string[] states) =>
        await node.Comes(id, c => states.Contains(c.GetProperty("state").GetString()), $"one of {string.Join(", ", states)}");

    /// <summary>Waits until something is so of a campaign, whose totals must add up all the while.</summary>
    public static async Task<JsonElement> Comes(this TestNode node, string id, Func<JsonElement, bool> so, string what, int seconds = 60)
    {
        var clock = System.Diagnostics.Stopwatch.StartNew();
        while (true)
        {
            var campaign = await node.Campaign(id);
            AssertBalanced(campaign);
            if (so(campaign))
            {
                return campaign;
            }

            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(seconds), $"It never came to {what}: {campaign}\n{string.Join('\n', node.Errors)}");
            await Task.Delay(20, Cancellation);
        }
    }

    public static long Total(this JsonElement campaign, string status) => campaign.GetProperty("totals").GetProperty(status).GetInt64();

    public static void AssertBalanced(JsonElement campaign)
    {
        var totals = campaign.GetProperty("totals").EnumerateObject().Select(t => t.Value.GetInt64()).ToArray();
        Assert.All(totals, t => Assert.True(t >= 0, campaign.ToString()));
        Assert.Equal(campaign.GetProperty("recipients").GetInt64(), totals.Sum());
    }

    /// <summary>The messages of a campaign with a status, or all.</summary>
    public static async Task<JsonElement[]> Messages(this TestNode node, string id, string? status = null)
    {
        var answer = await node.Get($"/v1/campaigns/{id}/messages{(status is null ? "" : $"?status={status}")}", ("Accept", "application/x-ndjson"));
        return [.. answer.Is(HttpStatusCode.OK).Text.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(l => JsonElement.Parse(l))];
    }

    /// <summary>How many messages are taken by a node.</summary>
    public static async Task<long> Taken(this TestNode node)
    {
        await using var command = node.Services.GetRequiredService<AllTenantsDatabase>().Source.CreateCommand("select count(*) from campaign_sends");
        return (long)(await command.ExecuteScalarAsync(Cancellation))!;
    }
}
