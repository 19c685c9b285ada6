using System.Globalization;
using System.Net;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Operations;

/// <summary>
/// What is answered of the past is what a replay up to there gives: random commands, then random positions and instants, each
/// asked for over HTTP and read from the rows of a replay that knows nothing later.
/// </summary>
public sealed class An_answer_of_the_past(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task is_what_a_replay_up_to_there_gives()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        await using var own = await node.StartAnew();
        var use = new RandomUse(random);
        foreach (var _ in Enumerable.Range(0, LongTests.Wanted ? 12 : 4))
        {
            await use.Round(own, commands: 50, calls: 15);
        }

        var head = await own.CatchUp();
        var log = await own.Log();
        var (first, last) = (log[0].RecordedAt, log[^1].RecordedAt);
        var present = await Replayed.UpTo(own, head);
        for (var turn = 0; turn < (LongTests.Wanted ? 100 : 12); turn++)
        {
            var position = random.NextInt64(1, head + 1);
            var recordedAt = log[(int)position - 1].RecordedAt;
            output.WriteLine($"position {position}");
            var known = await Replayed.UpTo(own, position);
            await Compare(own, known, recordedAt, $"position={position}");
            await CompareUsage(own, known, recordedAt, $"position={position}", before: null);

            // An instant at which something was recorded, or about.
            var at = (turn % 3) switch
            {
                0 => log[random.Next(log.Count)].RecordedAt,
                1 => log[random.Next(log.Count)].RecordedAt.AddMicroseconds(random.Next(-1, 2)),
                _ => first.AddMicroseconds(random.NextInt64((last - first).Ticks / TimeSpan.TicksPerMicrosecond)),
            };
            output.WriteLine($"instant {at:O}");
            var then = await Replayed.UpTo(own, await own.Services.GetRequiredService<EventReader>().PositionAt(at, Cancellation));
            await Compare(own, then, at, $"at={Rfc3339.Format(at)}");
            // When a call happened and when a price takes effect is not when it was recorded: of those, today's knowledge is asked.
            await CompareUsage(own, present, at, $"at={Rfc3339.Format(at)}", before: at);
            await CompareUsage(own, known, at, $"at={Rfc3339.Format(at)}&position={position}", before: at);
        }

        Assert.Empty(own.Errors);
    }

    private static async Task Compare(TestNode own, Replayed known, DateTimeOffset at, string query)
    {
        var segments = known.Rows("segments").Where(s => s.IsNull("deleted_at") && s.Time("created_at") <= at).OrderBy(s => s.Text("slug"), StringComparer.Ordinal).ToArray();
        var stays = known.Rows("memberships")
            .Where(m => m.IsNull("expires_at") || m.Time("expires_at") > at)
            .ToLookup(m => m.Number("segment_id"));

        Assert.Equal(
            segments.Select(s => $"{s.Text("slug")} {stays[s.Number("segment_id")].Count()}"),
            (await own.Get($"/v1/segments/counts?{query}")).Is(HttpStatusCode.OK).Items.Select(i => $"{i.GetProperty("segment").GetString()} {i.GetProperty("members").GetInt64()}"));
        foreach (var slug in known.Rows("segments").Select(s => s.Text("slug")).Distinct())
        {
            var answer = await own.Get($"/v1/segments/{slug}/members?limit=1000&{query}");
            if (segments.SingleOrDefault(s => s.Text("slug") == slug) is not { } live)
            {
                answer.IsProblem(404, "segment-not-found");
                continue;
            }

            Assert.Equal(
                stays[live.Number("segment_id")].OrderBy(m => m.Text("user_id"), StringComparer.Ordinal)
                    .Select(m => $"{m.Text("user_id")} {m.Text("source")} {m.Time("joined_at"):O} {m.MaybeTime("expires_at"):O}"),
                answer.Is(HttpStatusCode.OK).Items.Select(i =>
                    $"{i.GetProperty("userId").GetString()} {i.GetProperty("source").GetString()} {i.GetProperty("joinedAt").GetDateTimeOffset():O} {MaybeTime(i.GetProperty("expiresAt")):O}"));
        }

        foreach (var user in Enumerable.Range(0, RandomUse.Users))
        {
            var id = RandomUse.User(user);
            var expected = segments.Select(s =>
                (Slug: s.Text("slug"), Stay: stays[s.Number("segment_id")].SingleOrDefault(m => m.Text("user_id") == id),
                    RolledOut: Rollout.BucketOf(s.Text("salt"), id) < s.Decimal("rollout_percent") * 100))
                .Where(s => s.Stay is not null || s.RolledOut)
                .Select(s => s.Stay is { } stay ? $"{s.Slug} {stay.Text("source")} {stay.Time("joined_at"):O} {stay.MaybeTime("expires_at"):O}" : $"{s.Slug} rollout");
            Assert.Equal(
                expected,
                (await own.Get($"{RandomUse.Path(user)}/segments?{query}")).Is(HttpStatusCode.OK).Json.GetProperty("segments").EnumerateArray().Select(s =>
                    s.GetProperty("source").GetString() is var source && source == "rollout"
                        ? $"{s.GetProperty("segment").GetString()} rollout"
                        : $"{s.GetProperty("segment").GetString()} {source} {s.GetProperty("joinedAt").GetDateTimeOffset():O} {MaybeTime(s.GetProperty("expiresAt")):O}"));
        }
    }

    private static async Task CompareUsage(TestNode own, Replayed known, DateTimeOffset at, string query, DateTimeOffset? before)
    {
        // From single calls: the sums that are kept are compared with them, too.
        var totals = known.Rows("calls")
            .Where(c => c.Text("status") != "voided" && (before is null || c.Time("occurred_at") < before))
            .GroupBy(c => (User: c.Text("user_id"), Service: c.Text("service_id"), Currency: c.IsNull("currency") ? "" : c.Text("currency")))
            .Select(g => $"{g.Key.User} {g.Key.Service} {g.Key.Currency} {g.Count()} {(g.Key.Currency.Length == 0 ? 0 : g.Sum(c => c.Decimal("amount"))).ToString("G29", CultureInfo.InvariantCulture)}");
        var answer = (await own.Get($"/v1/usage/totals?groupBy=user,service,currency&limit=1000&{query}")).Is(HttpStatusCode.OK);
        Assert.Equal(
            totals.Order(StringComparer.Ordinal),
            answer.Items.Select(i =>
            {
                var amount = i.GetProperty("amounts").EnumerateObject().Select(a => (a.Name, decimal.Parse(a.Value.GetString()!, CultureInfo.InvariantCulture))).SingleOrDefault((Name: "", 0m));
                return $"{i.GetProperty("user").GetString()} {i.GetProperty("service").GetString()} {amount.Name} {i.GetProperty("calls").GetInt64()} {amount.Item2.ToString("G29", CultureInfo.InvariantCulture)}";
            }).Order(StringComparer.Ordinal));
        if (before is null)
        {
            var kept = known.Rows("usage_totals").Where(t => t.Number("calls") > 0)
                .GroupBy(t => (User: t.Text("user_id"), Service: t.Text("service_id"), Currency: t.Text("currency")))
                .Select(g => $"{g.Key.User} {g.Key.Service} {g.Key.Currency} {g.Sum(t => t.Number("calls"))} {g.Sum(t => t.Decimal("amount")).ToString("G29", CultureInfo.InvariantCulture)}");
            Assert.Equal(totals.Order(StringComparer.Ordinal), kept.Order(StringComparer.Ordinal));
        }

        var prices = known.Rows("service_prices").ToLookup(p => p.Text("service_id"));
        foreach (var service in known.Rows("services").Select(s => s.Text("service_id")))
        {
            var inForce = prices[service].Where(p => p.Time("effective_from") <= at)
                .OrderByDescending(p => p.Time("effective_from")).ThenByDescending(p => p.Number("price_version")).FirstOrDefault()?.Number("price_version");
            Assert.Equal(
                prices[service].OrderBy(p => p.Number("price_version"))
                    .Select(p => $"{p.Number("price_version")} {p.Time("effective_from"):O} {p.Number("price_version") == inForce}"),
                (await own.Get($"/v1/services/{service}/prices?limit=1000&{query}")).Is(HttpStatusCode.OK).Items.Select(p =>
                    $"{p.GetProperty("priceVersion").GetInt64()} {p.GetProperty("effectiveFrom").GetDateTimeOffset():O} {p.GetProperty("inForce").GetBoolean()}"));
        }
    }

    private static DateTimeOffset? MaybeTime(JsonElement value) => value.ValueKind == JsonValueKind.Null ? null : value.GetDateTimeOffset();

    /// <summary>The rows of all views as the log up to a position gives them.</summary>
    private sealed class Replayed
    {
        private readonly Dictionary<string, List<Row>> _tables = [];

        public List<Row> Rows(string table) => _tables[table];

        public static async Task<Replayed> UpTo(TestNode own, long position)
        {
            var views = own.Services.GetRequiredService<IReadOnlyList<IProjection>>();
            await using var replay = await Replay.Begin(
                own.Services.GetRequiredService<OwnerDatabase>().Source, own.Services.GetRequiredService<EventReader>(), own.Services.GetRequiredService<Migrations>(),
                own.Services.GetRequiredService<EventStoreOptions>(), views, Cancellation);
            await replay.FoldTo(position, views, cancellation: Cancellation);
            var replayed = new Replayed();
            var (connection, transaction) = await replay.BeginReading(Cancellation);
            await using (transaction)
            {
                foreach (var table in views.SelectMany(v => v.Tables))
                {
                    var rows = replayed._tables[table] = [];
                    await foreach (var row in ViewRows.ReadJson(connection, replay.Schema, table, Cancellation))
                    {
                        rows.Add(new Row(JsonElement.Parse(row)));
                    }
                }
            }

            return replayed;
        }
    }

    private sealed record Row(JsonElement Json)
    {
        public bool IsNull(string column) => Json.GetProperty(column).ValueKind == JsonValueKind.Null;

        public string Text(string column) => Json.GetProperty(column).GetString()!;

        public long Number(string column) => Json.GetProperty(column).GetInt64();

        public decimal Decimal(string column) => decimal.Parse(Text(column), CultureInfo.InvariantCulture);

        public DateTimeOffset Time(string column) => Json.GetProperty(column).GetDateTimeOffset();

        public DateTimeOffset? MaybeTime(string column) => IsNull(column) ? null : Time(column);
    }
}
