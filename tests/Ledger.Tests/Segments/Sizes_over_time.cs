using System.Net;
using System.Text.Json;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Tests.History;

namespace Ledger.Tests.Segments;

public sealed class Sizes_over_time(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static string Range(DateTimeOffset from, DateTimeOffset to, string interval) =>
        $"from={Rfc3339.Format(from)}&to={Rfc3339.Format(to)}&interval={interval}";

    [Fact]
    public async Task Are_what_the_size_at_each_instant_is()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var world = new RandomWorld(node, random, "sizes");
        await world.Begin();
        var begun = node.Clock.Now;
        await world.Run(LongTests.Wanted ? 600 : 120, TimeSpan.FromHours(8));

        for (var i = 0; i < 3; i++)
        {
            var interval = random.Next(2) == 0 ? "PT1H" : "P1D";
            var width = interval == "PT1H" ? TimeSpan.FromHours(1) : TimeSpan.FromDays(1);
            // From before the first segment to after the last expiry that is known, not at full hours.
            var from = begun + (width * random.Next(-2, 5)) + TimeSpan.FromMicroseconds(random.Next(3) * 500_000_123L);
            var to = from + (width * random.Next(4, 25)) - (random.Next(2) * TimeSpan.FromSeconds(1));
            var range = Range(from, to, interval);
            var all = new List<string>();
            string? cursor = null;
            do
            {
                var page = (await node.Get($"/v1/segments/counts?{range}&limit={1 + random.Next(30)}{(cursor is null ? "" : $"&cursor={cursor}")}")).Is(HttpStatusCode.OK);
                all.AddRange(page.Items.Select(Line));
                cursor = page.Json.GetProperty("nextCursor").GetString();
            }
            while (cursor is not null);

            var expected = new List<(string Segment, string At, string Members)>();
            var instants = new List<string>();
            for (var at = from; at < to; at += width)
            {
                instants.Add(Rfc3339.Format(at));
                var counts = (await node.Get($"/v1/segments/counts?at={instants[^1]}")).Is(HttpStatusCode.OK);
                expected.AddRange(counts.Items.Select(c => (c.GetProperty("segment").GetString()!, instants[^1], c.GetProperty("members").ToString())));
            }

            var told = $"Seed {LongTests.Seed}: {range}";
            Assert.True(expected.OrderBy(e => e.Segment, StringComparer.Ordinal).Select(e => $"{e.Segment} {e.At} {e.Members}").SequenceEqual(all), told);
            foreach (var slug in world.Slugs)
            {
                var one = await node.Get($"/v1/segments/{slug}/counts?{range}");
                if (one.Status == HttpStatusCode.NotFound)
                {
                    Assert.DoesNotContain(expected, e => e.Segment == slug);
                    continue;
                }

                var sizes = instants.Select(at => $"{at} {expected.FirstOrDefault(e => e.Segment == slug && e.At == at).Members ?? "0"}");
                Assert.True(sizes.SequenceEqual(one.Items.Select(s => $"{s.GetProperty("at")} {s.GetProperty("members")}")), told);
            }
        }

        Assert.Empty(node.Errors);

        static string Line(JsonElement size) => $"{size.GetProperty("segment")} {size.GetProperty("at")} {size.GetProperty("members")}";
    }

    [Fact]
    public async Task Can_be_had_as_CSV_and_in_pages()
    {
        await node.Post("/v1/segments", new { slug = "curve" });
        var at = node.Clock.Now;
        await node.Put("/v1/users/curve-1/segments/curve", """{"ttl":"PT90M"}""");
        await node.Put("/v1/users/curve-2/segments/curve", null);
        var range = Range(at.AddHours(-1), at.AddHours(3), "PT1H");

        var csv = (await node.Get($"/v1/segments/curve/counts?{range}", ("Accept", "text/csv"))).Is(HttpStatusCode.OK).Text;
        Assert.Equal(
            $"at,members\r\n{Rfc3339.Format(at.AddHours(-1))},0\r\n{Rfc3339.Format(at)},2\r\n{Rfc3339.Format(at.AddHours(1))},2\r\n{Rfc3339.Format(at.AddHours(2))},1\r\n", csv);
        var all = (await node.Get($"/v1/segments/counts?{range}", ("Accept", "text/csv"))).Is(HttpStatusCode.OK).Text;
        Assert.StartsWith("segment,at,members\r\n", all, StringComparison.Ordinal);
        Assert.Contains($"\r\ncurve,{Rfc3339.Format(at)},2\r\ncurve,{Rfc3339.Format(at.AddHours(1))},2\r\n", all, StringComparison.Ordinal);

        var first = await node.Get($"/v1/segments/curve/counts?{range}&limit=3");
        var rest = await node.Get($"/v1/segments/curve/counts?{range}&limit=3&cursor={first.Json.GetProperty("nextCursor").GetString()}");
        Assert.Equal(["0", "2", "2"], first.Each("members"));
        Assert.Equal(["1"], rest.Each("members"));
        Assert.Equal(JsonValueKind.Null, rest.Json.GetProperty("nextCursor").ValueKind);
        Assert.Empty((await node.Get($"/v1/segments/curve/counts?{Range(at, at, "P1D")}")).Items);
    }

    [Fact]
    public async Task Are_of_so_many_instants_and_no_more()
    {
        await node.Post("/v1/segments", new { slug = "bounded" });
        var from = node.Clock.Now;
        var longest = from.AddHours(InstantsQuery.MaxInstants);

        Assert.Equal(InstantsQuery.MaxInstants, (await node.Get($"/v1/segments/bounded/counts?{Range(from, longest, "PT1H")}")).Is(HttpStatusCode.OK).Items.Count());
        Assert.Equal(["to"], (await node.Get($"/v1/segments/bounded/counts?{Range(from, longest.AddMicroseconds(1), "PT1H")}")).IsProblem(400, "invalid-request").Fields);
        Assert.Equal(["to"], (await node.Get($"/v1/segments/counts?{Range(from, longest.AddMicroseconds(1), "PT1H")}")).IsProblem(400, "invalid-request").Fields);
    }

    [Theory]
    [InlineData("counts?interval=PT1H", "from,to")]
    [InlineData("counts?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z", "interval")]
    [InlineData("counts?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=P1M", "interval")]
    [InlineData("counts?from=2026-11-22T00:00:00Z&to=2026-11-21T00:00:00Z&interval=P1D", "from")]
    [InlineData("counts?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=P1D&at=2026-11-20T00:00:00Z", "at")]
    [InlineData("counts?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=P1D&position=1", "position")]
    [InlineData("wrong/counts", "from,interval,to")]
    [InlineData("-/counts?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=P1D", "slug")]
    public async Task Name_what_is_wrong_with_a_question(string path, string fields) =>
        Assert.Equal(fields.Split(','), (await node.Get($"/v1/segments/{path}")).IsProblem(400, "invalid-request").Fields.Order());

    [Fact]
    public async Task Of_a_slug_that_no_segment_ever_had_are_not_found() =>
        (await node.Get("/v1/segments/unheard/counts?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=P1D")).IsProblem(404, "segment-not-found");
}
