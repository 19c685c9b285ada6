using System.Net;
using Ledger.Campaigns;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Operations;

/// <summary>Random commands of all kinds, which leave something in every table of every view.</summary>
internal sealed class RandomUse(Random random)
{
    public const int Users = 6;

    private readonly RandomCalls _calls = new(random);
    private int _rounds;

    public static string User(int i) => i % 2 == 0 ? $"u{i}" : $"ü{i} \"x\",=1";

    public static string Path(int user) => $"/v1/users/{Uri.EscapeDataString(User(user))}";

    public async Task Round(TestNode node, int commands, int calls)
    {
        var round = _rounds++;
        (await node.Post("/v1/segments", $$"""{"slug":"s{{round}}","rolloutPercent":"{{random.Next(100)}}.5","defaultTtl":"P{{random.Next(1, 9)}}D"}""")).Is(HttpStatusCode.Created);
        (await node.Post("/v1/services", $$"""{"serviceId":"m{{round}}","title":"m{{round}} \"ü\""}""")).Is(HttpStatusCode.Created);
        for (var i = 0; i < commands; i++)
        {
            node.Clock.Advance(TimeSpan.FromSeconds(random.Next(3) * random.Next(1, 40_000)));
            var (segment, user) = ($"s{random.Next(round + 1)}", random.Next(Users));
            switch (random.Next(12))
            {
                case 0:
                    await node.Patch($"/v1/segments/{segment}", $$"""{"rolloutPercent":"{{random.Next(100)}}"}""");
                    break;
                case 1:
                    await node.Put(Path(user), $$$"""{"attributes":{"b":1.50,"a":"=1+1","n":{{{i}}}}}""");
                    break;
                case 2:
                    await node.Sweep();
                    break;
                case 3:
                    await node.Post(
                        $"/v1/services/m{random.Next(round + 1)}/prices",
                        $$"""{"currency":"USD","effectiveFrom":"{{Ledger.Http.Rfc3339.Format(node.Clock.Now.AddHours(random.Next(-99, 99)))}}","components":[{"unit":"call","price":"0.0{{random.Next(99)}}0"}]}""");
                    break;
                case 4:
                case 5:
                    await node.Delete($"{Path(user)}/segments/{segment}");
                    break;
                case 6 when random.Next(4) == 0:
                    await node.Delete($"/v1/segments/{segment}");
                    break;
                case 7 when calls > 0:
                    await _calls.Append(node, calls);
                    break;
                default:
                    await node.Put($"{Path(user)}/segments/{segment}", random.Next(3) switch { 0 => null, 1 => """{"ttl":"PT9H"}""", _ => """{"ttl":"P2D"}""" });
                    break;
            }
        }

        await node.Put($"{Path(0)}/segments/s{round}", """{"ttl":"P1D"}""");
        await node.Put($"{Path(0)}/segments/s{round}", """{"ttl":"P2D"}""");
        await node.Post($"/v1/services/m{round}/prices", """{"currency":"USD","components":[{"unit":"call","price":"0.010"}]}""");
        await node.Put(Path(round), "{}");
        await _calls.Append(node, Math.Max(calls, 1));
        await Campaign(node, round);
        await Report(node);
    }

    /// <summary>A campaign to one user, whose message a gateway has accepted, so that nothing comes later.</summary>
    private static async Task Campaign(TestNode node, int round)
    {
        var user = $"c{round}";
        await node.Put($"/v1/users/{user}", new { attributes = new { phone = "79211234567", tag = user } });
        await node.CatchUp();
        var id = (await node.Post("/v1/campaigns", new { name = user, text = "Hello {tag}!", audience = new { attributes = new { tag = user } }, endsAt = node.Clock.Now.AddDays(9) }))
            .Is(HttpStatusCode.Created).Json.GetProperty("id").GetString()!;
        await Reaches("running");
        var message = new TakenMessage(Requests.DefaultTenant, Guid.ParseExact(id, "N"), user, "+79211234567", "", null, Message.Pending, 1, 0);
        await node.Services.GetRequiredService<OutcomeRecorder>().Record(
            [new AttemptOutcome(message, new MessageSent(id, user, message.Id, 1))], TestContext.Current.CancellationToken);
        await Reaches("completed");

        async Task Reaches(string state)
        {
            while ((await node.Get($"/v1/campaigns/{id}")).Json.GetProperty("state").GetString() != state)
            {
                await Task.Delay(20, TestContext.Current.CancellationToken);
            }
        }
    }

    /// <summary>A report of the month, and what is made of it in the background, so that nothing comes later.</summary>
    private static async Task Report(TestNode node)
    {
        var asked = await node.Post("/v1/reports", $$"""{"kind":"memberships","month":"{{node.Clock.Now:yyyy-MM}}"}""");
        await node.ReportMade(asked.Headers["Location"]);
    }
}
