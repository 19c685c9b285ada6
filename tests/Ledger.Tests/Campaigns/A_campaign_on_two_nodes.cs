using System.Collections.Immutable;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json;
using Ledger.DemoGateway;
using Ledger.Testing;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;
using Ledger.Tests.Running;
using Npgsql;

namespace Ledger.Tests.Campaigns;

/// <summary>Two processes on one database, killed at random while they send, and a gateway that fails, refuses, hangs and cuts connections.</summary>
public sealed class A_campaign_on_two_nodes(PostgresFixture postgres)
{
    private const int GatewaySeconds = 2;

    private static readonly int s_recipients = LongTests.Wanted ? 100_000 : 10_000;

    private static string[] Of(params string[] slugs) => slugs;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task killed_at_random_loses_nothing_and_sends_nothing_twice_but_what_is_unknown()
    {
        var chance = Patience.Chance(out _);
        var database = await postgres.CreateDatabase();
        using var home = new TempFolder();
        await using var gateway = await GatewayProcess.Start(
            new { errorPercent = 8, refusePercent = 2, hangPercent = 0.3, resetPercent = 1, garbagePercent = 0.5, latencyMilliseconds = 20, seed = chance.Next() });
        (string, string)[] environment =
        [
            ("LEDGER_DB", database), ("LEDGER_HOME", home.Path), ("LEDGER_POOL_SIZE", "24"), ("LEDGER_GATEWAY_URL", gateway.Address.ToString()),
            ("LEDGER_GATEWAY_TOKEN", GatewayProcess.Token), ("LEDGER_GATEWAY_TIMEOUT_SECONDS", GatewaySeconds.ToString(CultureInfo.InvariantCulture)),
        ];
        var nodes = ImmutableArray.CreateRange(await Task.WhenAll(UpProcess.Start(database, environment), UpProcess.Start(database, environment)));
        try
        {
            await Prepare(nodes[0].Client);
            var rate = s_recipients / 25;
            var whole = await Plan(nodes[0].Client, "whole", DateTimeOffset.UtcNow.AddMinutes(20), rate);
            var endsAt = DateTimeOffset.UtcNow.AddSeconds(LongTests.Wanted ? 75 : 18); // its audience is recorded by then, and not all of it sent
            var cut = await Plan(nodes[1].Client, "cut", endsAt, rate / 4);
            using var sampling = new CancellationTokenSource();
            var samples = Sample(() => nodes, [whole, cut], sampling.Token);
            for (var kill = 0; kill < (LongTests.Wanted ? 12 : 5); kill++)
            {
                await Task.Delay(TimeSpan.FromSeconds(1 + (chance.NextDouble() * 3)), Ct);
                var victim = chance.Next(2);
                await nodes[victim].Kill();
                await nodes[victim].DisposeAsync();
                nodes = nodes.SetItem(victim, await UpProcess.Start(database, environment));
            }

            await Patience.Until(async () => (await Get(nodes, whole)) is { } c && c.GetProperty("state").GetString() == "completed", "everything is settled", seconds: LongTests.Wanted ? 600 : 180);
            await Patience.Until(async () => (await Get(nodes, cut)) is { } c && c.GetProperty("state").GetString() is "ended" or "completed", "the other one ends");
            await sampling.CancelAsync();
            TestContext.Current.TestOutputHelper?.WriteLine($"{await samples} samples; {await Get(nodes, whole)}; {await Get(nodes, cut)}");

            var log = await ReadLog(database);
            var received = (await gateway.Received()).ToLookup(c => c.Id);
            Assert.Empty(FaultsOf(log, received, (await Get(nodes, whole))!.Value, whole));
            Assert.Empty(FaultsOf(log, received, (await Get(nodes, cut))!.Value, cut));
            Assert.Equal(0, (await gateway.Summarise()).Unlike);
            Assert.All(received.SelectMany(c => c).Where(c => c.Text.StartsWith("cut", StringComparison.Ordinal)), c => Assert.True(c.At < endsAt.AddMilliseconds(50), $"A message came at {c.At:O}, after {endsAt:O}."));
            Assert.All(nodes, n => n.AssertNoErrors());
            await AssertReplayed(environment);
        }
        finally
        {
            foreach (var node in nodes)
            {
                await node.DisposeAsync();
            }
        }
    }

    /// <summary>What became of one message: its attempts that were recorded, and the last of them.</summary>
    private sealed record Told(string Campaign, string User, string Message, int Attempts, int Unknown, int AttemptsThatLeft, string Last);

    private static List<string> FaultsOf(IReadOnlyList<Told> log, ILookup<string, Call> received, JsonElement campaign, string id)
    {
        var faults = new List<string>();
        var messages = log.Where(t => t.Campaign == id).ToArray();
        long sent = 0, failed = 0, unknown = 0;
        foreach (var told in messages)
        {
            var calls = received[told.Message].ToArray();
            var accepted = calls.Count(c => c.IsAccepted);
            sent += told.Last == "message_sent" ? 1 : 0;
            failed += told.Last == "message_failed" ? 1 : 0;
            unknown += told.Last is "message_outcome_unknown" ? 1 : 0;
            Check(told.Last != "message_sent" || accepted > 0, "was lost: it is said to be sent");
            Check(told.Last is "message_sent" || told.Unknown > 0 || accepted == 0, $"was accepted, and is said to be {told.Last}");
            Check(accepted <= 1 + told.Unknown, $"was accepted {accepted} times, and unknown {told.Unknown} times");
            Check(calls.Length <= told.Attempts, $"came {calls.Length} times, of {told.Attempts} attempts that are recorded");

            void Check(bool so, string what)
            {
                if (!so)
                {
                    faults.Add($"{told.User} of {id} {what}: {told}, {string.Join(", ", calls.Select(c => $"{c.At:O} {c.Answer} {c.IsAccepted}"))}");
                }
            }
        }

        var totals = campaign.GetProperty("totals");
        if (campaign.GetProperty("recipients").GetInt64() != s_recipients || totals.GetProperty("sent").GetInt64() != sent || totals.GetProperty("failed").GetInt64() != failed)
        {
            faults.Add($"The totals are {totals}, and {sent} were sent, {failed} failed, {unknown} are unknown, by the log.");
        }

        return [.. faults.Take(20)];
    }

    private static async Task<IReadOnlyList<Told>> ReadLog(string database)
    {
        await using var connection = new NpgsqlConnection(database + ";Pooling=false");
        await connection.OpenAsync(Ct);
        await using var command = new NpgsqlCommand(
            """
            select data ->> 'campaignId', data ->> 'userId', data ->> 'messageId', count(*)::int, count(*) filter (where type = 'message_outcome_unknown')::int,
                   max((data ->> 'attempt')::int), (array_agg(type order by seq_id desc))[1]
            from ledger.mt_events where type in ('message_sent', 'message_deferred', 'message_failed', 'message_outcome_unknown')
            group by 1, 2, 3
            """, connection) { CommandTimeout = 120 };
        await using var reader = await command.ExecuteReaderAsync(Ct);
        var log = new List<Told>();
        while (await reader.ReadAsync(Ct))
        {
            log.Add(new Told(reader.GetString(0), reader.GetString(1), reader.GetString(2), reader.GetInt32(3), reader.GetInt32(4), reader.GetInt32(5), reader.GetString(6)));
        }

        return log;
    }

    /// <summary>Asks for the totals again and again, of whichever node answers; they must add up each time.</summary>
    private static async Task<int> Sample(Func<IReadOnlyList<UpProcess>> nodes, string[] campaigns, CancellationToken cancellation)
    {
        var samples = 0;
        while (!cancellation.IsCancellationRequested)
        {
            foreach (var id in campaigns)
            {
                if (await Get(nodes(), id) is { } campaign)
                {
                    Given_a_campaign.AssertBalanced(campaign);
                    samples++;
                }
            }

            await Task.Delay(100, CancellationToken.None);
        }

        Assert.True(samples > 20, $"Only {samples} samples.");
        return samples;
    }

    private static async Task<JsonElement?> Get(IReadOnlyList<UpProcess> nodes, string id)
    {
        foreach (var node in nodes)
        {
            try
            {
                using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(5));
                using var response = await node.Client.GetAsync(new Uri($"/v1/campaigns/{id}", UriKind.Relative), patience.Token);
                if (response.StatusCode == HttpStatusCode.OK)
                {
                    return JsonElement.Parse(await response.Content.ReadAsStringAsync(patience.Token));
                }
            }
            catch (Exception exception) when (exception is HttpRequestException or OperationCanceledException or IOException or ObjectDisposedException or InvalidOperationException)
            {
                // It was killed; the other one knows.
            }
        }

        return null;
    }

    private static async Task Prepare(HttpClient node)
    {
        (await node.PostAsJsonAsync("/v1/segments", new { slug = "everybody" }, Ct)).EnsureSuccessStatusCode();
        using var slots = new SemaphoreSlim(32);
        await Task.WhenAll(Enumerable.Range(0, s_recipients).Select(async i =>
        {
            await slots.WaitAsync(Ct);
            try
            {
                using var response = await node.PutAsJsonAsync($"/v1/users/u{i}", new { attributes = new { phone = Given_a_campaign.Phone(i), name = $"N{i}" } }, Ct);
                response.EnsureSuccessStatusCode();
            }
            finally
            {
                slots.Release();
            }
        }));
        using var members = new StringContent(string.Concat(Enumerable.Range(0, s_recipients).Select(i => $"u{i}\n")), System.Text.Encoding.UTF8, "text/csv");
        using var imported = await node.PostAsync(new Uri("/v1/segments/everybody/members", UriKind.Relative), members, Ct);
        imported.EnsureSuccessStatusCode();
    }

    private static async Task<string> Plan(HttpClient node, string name, DateTimeOffset endsAt, int rate)
    {
        using var response = await node.PostAsJsonAsync(
            "/v1/campaigns", new { name, text = name + ", {name}", audience = new { segments = new { any = Of("everybody") } }, endsAt, ratePerSecond = rate }, Ct);
        var text = await response.Content.ReadAsStringAsync(Ct);
        Assert.True(response.IsSuccessStatusCode, text);
        return JsonElement.Parse(text).GetProperty("id").GetString()!;
    }

    /// <summary>Folds the log anew beside the live views, and compares.</summary>
    private static async Task AssertReplayed((string, string)[] environment)
    {
        var (code, printed) = await LedgerProgram.Run(environment, "replay", "--compare");
        Assert.True(code == 0, printed);
        Assert.Contains("Campaigns is what a replay of the log gives", printed, StringComparison.Ordinal);
    }
}
