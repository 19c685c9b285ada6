using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Segments;
using Ledger.Users;
using Microsoft.Extensions.Logging.Abstractions;

namespace Ledger.Benchmarks;

/// <summary>
/// Campaigns through the gateway of tests as a process of its own: recording an audience, and messages a second with a gateway that
/// answers at once, and with one that takes 100 ms, at the concurrency that a node has unless set.
/// </summary>
internal static class CampaignsScenario
{
    public const int DefaultRecipients = 100_000;

    private const int Messages = 10_000;

    public static async Task Run(Bench bench)
    {
        var recipients = bench.Options.Events ?? DefaultRecipients;
        await using var gateway = await DemoGateway.Start(bench);
        await using var node = await bench.StartNode(
            "campaigns", new Dictionary<string, string> { ["LEDGER_GATEWAY_URL"] = gateway.Address, ["LEDGER_GATEWAY_TOKEN"] = DemoGateway.Token });
        await node.CreateSegment("all");
        await node.CreateSegment("some");
        await Fill(bench, node, recipients);
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            await Record(bench, node, recipients, run);
            await Send(bench, node, gateway, "campaign, gateway that answers at once", 0, run);
            await Send(bench, node, gateway, "campaign, gateway with 100 ms", 100, run);
        }
    }

    /// <summary>Users with phones, some of them in the second segment too, by the appender in this process.</summary>
    private static async Task Fill(Bench bench, Node node, int users)
    {
        await using var appender = new Appender(node.Database, LedgerEvents.Types, new EventStoreOptions(), new LedgerClock(TimeProvider.System), NullLogger<Appender>.Instance);
        foreach (var some in Enumerable.Range(0, users).Chunk(2_000))
        {
            await appender.AppendMany([.. some.Select(i => new AppendRequest
            {
                TenantId = Requests.DefaultTenant, Actor = "bench",
                Appends =
                [
                    new StreamAppend(User.StreamOf($"u{i:D8}"), User.StreamType,
                    [
                        new UserRegistered(new Dictionary<string, JsonElement>
                        {
                            ["phone"] = JsonElement.Parse($"\"7921{i % 10_000_000:D7}\""), ["name"] = JsonElement.Parse($"\"N{i}\""), ["timeZone"] = JsonElement.Parse("\"Etc/UTC\""),
                        }),
                        new UserJoinedSegment("all", 1, null, null, Membership.Import),
                        .. i < Messages ? [new UserJoinedSegment("some", 2, null, null, Membership.Import)] : (object[])[],
                    ]),
                ],
            })]);
        }

        await node.Settle(await node.Head());
    }

    /// <summary>An audience whose window is closed, so that nothing is sent meanwhile.</summary>
    private static async Task Record(Bench bench, Node node, int recipients, int run)
    {
        var opens = DateTime.UtcNow.AddHours(6);
        var measurement = await Measurement.Begin(node);
        var started = Stopwatch.GetTimestamp();
        var id = await Plan(node, "all", new { from = opens.ToString("HH:mm", CultureInfo.InvariantCulture), to = opens.AddHours(1).ToString("HH:mm", CultureInfo.InvariantCulture) });
        await Until(node, id, "running");
        var elapsed = Stopwatch.GetElapsedTime(started);
        measurement.EndLoad();
        await node.Settle(await node.Head());
        var pinned = await node.Scalar<long>($"select recipients from campaigns where campaign_id = '{id}'");
        if (pinned != recipients)
        {
            throw new BenchFailedException($"{recipients} users are in the segment, and {pinned} are recipients.");
        }

        var sample = await measurement.Finish("campaign, recording the audience until the view shows it", run, recipients / elapsed.TotalSeconds, recipients);
        if (run > 0)
        {
            bench.Add(sample);
        }

        await node.Post($"/v1/campaigns/{id:N}/cancel");
    }

    private static async Task Send(Bench bench, Node node, DemoGateway gateway, string figure, int latencyMilliseconds, int run)
    {
        await gateway.Reset(latencyMilliseconds);
        var measurement = await Measurement.Begin(node);
        var id = await Plan(node, "some", null);
        await Until(node, id, "completed");
        measurement.EndLoad();
        await node.Settle(await node.Head());
        var accepted = await gateway.Accepted();
        if (accepted != Messages)
        {
            throw new BenchFailedException($"{Messages} messages were sent, and the gateway accepted {accepted}.");
        }

        // From the moment at which everybody is recorded to the last outcome, by the log's own times.
        var seconds = await node.Scalar<double>(
            $"""
             select extract(epoch from max(e.timestamp) filter (where e.type = 'message_sent') - min(e.timestamp) filter (where e.type = 'audience_completed'))::float8
             from mt_events e where e.stream_id in ('campaign-{id:N}', 'messages-{id:N}-{DateTime.UtcNow:yyyy-MM-dd}')
             """);
        var sample = await measurement.Finish(figure, run, Messages / seconds, Messages);
        if (run > 0)
        {
            bench.Add(sample);
        }
    }

    private static async Task<Guid> Plan(Node node, string segment, object? window)
    {
        using var response = await node.Process.Http.PostAsJsonAsync("/v1/campaigns", new
        {
            name = "bench", text = "Hello {name}!", audience = new { segments = new { any = new[] { segment } } }, endsAt = DateTime.UtcNow.AddDays(1), window,
        });
        var text = await response.Content.ReadAsStringAsync();
        return response.IsSuccessStatusCode ? Guid.ParseExact(JsonElement.Parse(text).GetProperty("id").GetString()!, "N") : throw new BenchFailedException(text);
    }

    private static async Task Until(Node node, Guid id, string phase)
    {
        while (await node.Scalar<string>($"select coalesce(max(phase), '') from campaigns where campaign_id = '{id}'") is var now && now != phase)
        {
            if (now is "invalid" or "ended")
            {
                throw new BenchFailedException($"The campaign is {now}.");
            }

            node.ExpectRunning();
            await Task.Delay(20);
        }
    }

    /// <summary>The gateway of tests, as a process.</summary>
    private sealed class DemoGateway(Process process) : IAsyncDisposable
    {
        public const string Token = "bench";

        private static readonly TimeSpan StartTimeout = TimeSpan.FromSeconds(30);

        private readonly HttpClient _http = new();
        private int _stopped;

        public string Address { get; private set; } = "";

        public static async Task<DemoGateway> Start(Bench bench)
        {
            const string Listens = "Gateway listens on ";
            var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "Ledger.Gateway.dll"), "--urls", "http://127.0.0.1:0"]) { RedirectStandardOutput = true };
            start.Environment["GATEWAY_TOKEN"] = Token;
            var gateway = bench.Track(() => new DemoGateway(Process.Start(start)!));
            await gateway.UntilItListens(Listens, bench.Options.Stopping);
            return gateway;
        }

        /// <summary>Lets it forget what it received, and take so long from now on.</summary>
        public async Task Reset(int latencyMilliseconds)
        {
            using var faults = await _http.PutAsJsonAsync("/faults", new { latencyMilliseconds });
            using var forgotten = await _http.DeleteAsync(new Uri("/received", UriKind.Relative));
            _ = (faults.EnsureSuccessStatusCode(), forgotten.EnsureSuccessStatusCode());
        }

        public async Task<long> Accepted() => (await _http.GetFromJsonAsync<JsonElement>("/received/summary")).GetProperty("accepted").GetInt64();

        public async ValueTask DisposeAsync()
        {
            if (Interlocked.Exchange(ref _stopped, 1) == 0)
            {
                _http.Dispose();
                process.Kill();
                await process.WaitForExitAsync();
                process.Dispose();
            }
        }

        private async Task UntilItListens(string says, CancellationToken cancellation)
        {
            string? line;
            try
            {
                line = await process.StandardOutput.ReadLineAsync(CancellationToken.None).AsTask().WaitAsync(StartTimeout, cancellation);
            }
            catch (TimeoutException)
            {
                line = $"it said nothing for {StartTimeout.TotalSeconds} s";
            }

            Address = line?.StartsWith(says, StringComparison.Ordinal) == true ? line[says.Length..] : throw new BenchFailedException($"The gateway did not start: {line}");
            _http.BaseAddress = new Uri(Address);
        }
    }
}
