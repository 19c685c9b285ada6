using System.Text.Json;
using Ledger.Http;

namespace Ledger.Tests.History;

/// <summary>Random commands of every kind over HTTP, by users and on segments and services of their own.</summary>
internal sealed class RandomWorld(TestNode node, Random random, string prefix)
{
    private readonly List<string> _calls = [];

    public string[] Users { get; } = [$"={prefix}1+1", $"{prefix}-u1", $"{prefix}-ä/ö \U0001F600", $"{prefix}-u3"];

    public string[] Slugs { get; } = [$"{prefix}-s0", $"{prefix}-s1", $"{prefix}-s2"];

    public string[] Services { get; } = [$"{prefix}-m0", $"{prefix}-m1"];

    private string User => Users[random.Next(Users.Length)];

    private string Slug => Slugs[random.Next(Slugs.Length)];

    private string Service => Services[random.Next(Services.Length)];

    public async Task Begin()
    {
        foreach (var serviceId in Services)
        {
            await node.Post("/v1/services", new { serviceId, title = $"Title of {serviceId}" });
        }
    }

    public async Task Run(int commands, TimeSpan longestStep)
    {
        for (var i = 0; i < commands; i++)
        {
            var user = Uri.EscapeDataString(User);
            await (random.Next(16) switch
            {
                0 or 1 => node.Post("/v1/segments", new { slug = Slug, rolloutPercent = Percent() }),
                2 => node.Patch($"/v1/segments/{Slug}", new { rolloutPercent = Percent() }),
                3 => random.Next(2) == 0 ? node.Delete($"/v1/segments/{Slug}") : node.Patch($"/v1/segments/{Slug}", new { description = $"about {random.Next(9)}" }),
                4 or 5 or 6 => node.Put($"/v1/users/{user}/segments/{Slug}", Term()),
                7 => node.Delete($"/v1/users/{user}/segments/{Slug}"),
                8 => node.Import(Slug, string.Concat(Users.Where(_ => random.Next(2) == 0).Select(u => $"{u}\n"))),
                9 => node.Put($"/v1/users/{user}", new { attributes = new { age = random.Next(99) } }),
                10 or 11 => Call(),
                12 => _calls.Count == 0 ? Call() : node.Post($"/v1/usage/calls/{prefix}/{_calls[random.Next(_calls.Count)]}/void", new { reason = "by chance" }),
                13 => random.Next(2) == 0 ? SetPrice() : node.Post("/v1/usage/unpriced/price", new { serviceId = Service }),
                14 => Sweep(),
                _ => Step(),
            });
        }

        async Task<Answer> Call()
        {
            _calls.Add($"{_calls.Count}");
            return await node.Post("/v1/usage", new
            {
                source = prefix, id = _calls[^1], userId = User, serviceId = Service,
                occurredAt = Rfc3339.Format(node.Clock.Now.AddMinutes(-random.Next(100_000))),
            });
        }

        Task<Answer> SetPrice() => node.Post($"/v1/services/{Service}/prices", new
        {
            currency = "USD", effectiveFrom = "2020-01-01T00:00:00Z", components = new[] { new { unit = "call", price = "0.01" } },
        });

        async Task<Answer> Sweep()
        {
            await node.Sweep();
            return await node.GetAsIs("/health/live");
        }

        Task<Answer> Step()
        {
            node.Clock.Advance(TimeSpan.FromSeconds(random.Next((int)longestStep.TotalSeconds)) + TimeSpan.FromMicroseconds(random.Next(2) * 7));
            return node.GetAsIs("/health/live");
        }
    }

    private string Percent() => Decimals.Format(random.Next(4) switch { 0 => 0, 1 => 100, _ => random.Next(10_001) / 100m });

    private string? Term() => random.Next(3) switch
    {
        0 => null,
        1 => JsonSerializer.Serialize(new { ttl = $"PT{1 + random.Next(100)}H" }),
        _ => JsonSerializer.Serialize(new { expiresAt = Rfc3339.Format(node.Clock.Now.AddMinutes(1 + random.Next(10_000))) }),
    };
}
