using System.Globalization;
using System.Text;
using Ledger.EventStore;
using Ledger.History;
using Ledger.Hosting;
using Ledger.Segments;
using Ledger.Testing;
using Ledger.Tests.Usage;
using Ledger.Usage;
using Npgsql;

namespace Ledger.Tests.History;

public sealed class The_view_of_the_history(PostgresFixture postgres, ITestOutputHelper output)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Is_the_same_however_the_events_are_cut_into_batches()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var log = new RandomCalls(random).Log(600).Concat(Segments(601, random)).ToArray();

        var at_once = await Rows([log]);
        Assert.Equal(at_once, await Rows(log.Chunk(1)));
        Assert.Equal(at_once, await Rows(log.Chunk(7)));
        Assert.Equal(at_once, await Rows(log.Chunk(257)));
        Assert.Contains("(*DEFAULT*,all,\"\",0,-1,-1,-1,-1)", at_once, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Is_the_same_when_it_is_rebuilt()
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var world = new RandomWorld(node, new Random(LongTests.Seed), "again");
        await world.Begin();
        await world.Run(120, TimeSpan.FromHours(10));
        await node.CatchUp();

        var live = await node.Rows(HistoryProjection.View);
        await node.Rebuild(HistoryProjection.View);

        Assert.Equal(live, await node.Rows(HistoryProjection.View));
    }

    [Fact]
    public async Task Finds_the_events_that_have_all_marks_and_no_others()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        // Positions close together and far apart; segments and actors that are common, rare, and never together.
        var log = new List<RecordedEvent>();
        for (var position = 1L + random.Next(300); log.Count < 3_000; position += 1 + (random.Next(50) == 0 ? random.Next(5_000) : random.Next(3)))
        {
            var segment = $"s{(int)Math.Log2(1 + random.Next(1_000))}";
            var actor = log.Count % 400 < 200 ? "early" : random.Next(40) == 0 ? "rare" : segment == "s9" ? "late" : "common";
            log.Add(Given.Recorded($"user-u{random.Next(9)}", new UserLeftSegment(segment, 1), position, TestClock.Start, 1) with { Actor = actor });
        }

        await using var database = await Project(log.Chunk(500));
        var marks = new HistoryMarks(new ViewDatabase(database));
        for (var i = 0; i < 150; i++)
        {
            var (segment, actor) = ($"s{random.Next(11)}", ((string[])["early", "rare", "late", "common", "nobody"])[random.Next(5)]);
            var kind = random.Next(2) == 0;
            var (after, upTo) = (random.NextInt64(log[^1].Position), random.NextInt64(log[^1].Position + 600));
            (after, upTo) = random.Next(3) == 0 ? (0, log[^1].Position) : (after, upTo);
            var newestFirst = random.Next(2) == 0;
            List<HistoryMark> asked = [new(HistoryMarks.Segment, segment), new(HistoryMarks.Actor, actor)];
            asked.RemoveAll(_ => random.Next(4) == 0);
            if (kind || asked.Count == 0)
            {
                asked.Add(new(HistoryMarks.Kind, "user-left-segment"));
            }

            var expected = log.Where(e => e.Position > after && e.Position <= upTo)
                .Where(e => asked.All(m => m.Value == (m.Dimension == HistoryMarks.Segment ? ((UserLeftSegment)e.Data!).Segment : m.Dimension == HistoryMarks.Actor ? e.Actor : m.Value)))
                .Select(e => e.Position).ToList();
            if (newestFirst)
            {
                expected.Reverse();
            }

            var found = new List<long>();
            await foreach (var positions in marks.Positions(Requests.DefaultTenant, asked, after, upTo, newestFirst, Cancellation))
            {
                Assert.NotEmpty(positions);
                found.AddRange(positions);
            }

            Assert.True(expected.SequenceEqual(found), $"Seed {LongTests.Seed}, question {i}: {string.Join(' ', asked)} after {after} up to {upTo}");
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Is_read_through_its_indexes(bool newestFirst)
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var marks = Sql.Command(
            HistoryMarks.Statement(newestFirst), Sql.Value("t"), Sql.Value("d"), Sql.Value("v"), Sql.Value(1L), Sql.Value(2L), Sql.Value(3));
        var calls = Sql.Command(
            CallsOfUser.Statement(ofService: false, newestFirst), Sql.Value("t"), Sql.Value("u"), Sql.Value(-1L), Sql.Value(long.MaxValue), Sql.Value(3));

        var plan = await Plans.Of(node, marks);
        Assert.Equal(["history_marks_pkey"], Plans.IndexesOn("history_marks", plan));
        Assert.DoesNotContain("Sort", plan, StringComparison.Ordinal);
        plan = await Plans.Of(node, calls);
        Assert.Equal(["calls_pkey"], Plans.IndexesOn("calls", plan));
    }

    private static IEnumerable<RecordedEvent> Segments(long position, Random random)
    {
        for (var life = 0; life < 20; life++)
        {
            var slug = $"s{life % 3}";
            yield return Next(slug, new SegmentCreated(slug, null, random.Next(101), slug, null));
            for (var i = random.Next(4); i > 0; i--)
            {
                yield return Next(slug, new RolloutChanged(random.Next(10_001) / 100m));
                yield return Next(slug, new SegmentDescribed("other words"));
            }

            yield return Next(slug, new SegmentDeleted());
        }

        RecordedEvent Next(string slug, object data) => Given.Recorded($"segment-{slug}", data, position, TestClock.Start.AddMinutes(position++), 1) with { Actor = "somebody" };
    }

    private async Task<NpgsqlDataSource> Project(IEnumerable<RecordedEvent[]> batches)
    {
        var database = EventStoreDatabase.Connect(await postgres.CreateDatabase(), new EventStoreOptions(), "tests", 4);
        var projection = new HistoryProjection(LedgerEvents.Types);
        await using var connection = await database.OpenConnectionAsync(Cancellation);
        foreach (var batch in batches)
        {
            await using var transaction = await connection.BeginTransactionAsync(Cancellation);
            await projection.Write(batch, connection, Cancellation);
            await transaction.CommitAsync(Cancellation);
        }

        return database;
    }

    private async Task<string> Rows(IEnumerable<RecordedEvent[]> batches)
    {
        await using var database = await Project(batches);
        var rows = new StringBuilder();
        foreach (var table in new HistoryProjection(LedgerEvents.Types).Tables)
        {
            rows.Append(CultureInfo.InvariantCulture, $"# {table}\n");
            await using var command = database.CreateCommand($"select t::text from {table} t order by t::text collate \"C\"");
            await using var reader = await command.ExecuteReaderAsync(Cancellation);
            while (await reader.ReadAsync(Cancellation))
            {
                rows.Append(reader.GetString(0)).Append('\n');
            }
        }

        return rows.ToString();
    }
}
