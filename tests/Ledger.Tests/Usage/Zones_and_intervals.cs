using Ledger.EventStore;
using Ledger.Testing;
using Ledger.Usage;

namespace Ledger.Tests.Usage;

public sealed class Zones_and_intervals(PostgresFixture postgres, ITestOutputHelper output)
{
    private static DateTimeOffset At(string text) => DateTimeOffset.Parse(text, System.Globalization.CultureInfo.InvariantCulture);

    private static ZonedIntervals Covering(string from, string to, IntervalUnit unit, string zone) =>
        ZonedIntervals.Covering(At(from), At(to), unit, TimeZoneInfo.FindSystemTimeZoneById(zone))!;

    private static string[] Shown(ZonedIntervals intervals) =>
        [.. Enumerable.Range(1, intervals.Count).Select(i => $"{intervals[i].Start:yyyy-MM-dd'T'HH:mm} {(intervals[i].End - intervals[i].Start).TotalHours:0.##}")];

    [Theory]
    [InlineData("Europe/Berlin", "2026-03-28T12:00Z", "2026-03-30T12:00Z", "2026-03-27T23:00 24", "2026-03-28T23:00 23", "2026-03-29T22:00 24")]
    [InlineData("America/New_York", "2026-10-31T12:00Z", "2026-11-02T12:00Z", "2026-10-31T04:00 24", "2026-11-01T04:00 25", "2026-11-02T05:00 24")]
    [InlineData("Asia/Kathmandu", "2026-11-20T00:00Z", "2026-11-20T18:15Z", "2026-11-19T18:15 24")]
    [InlineData("Australia/Lord_Howe", "2026-10-03T13:30Z", "2026-10-04T13:00Z", "2026-10-03T13:30 23.5")]
    [InlineData("Pacific/Apia", "2011-12-29T12:00Z", "2011-12-31T12:00Z", "2011-12-29T10:00 24", "2011-12-30T10:00 24", "2011-12-31T10:00 24")]
    [InlineData("America/Sao_Paulo", "2018-11-03T12:00Z", "2018-11-05T01:00Z", "2018-11-03T03:00 24", "2018-11-04T03:00 23")]
    public void Days_are_those_of_the_calendar(string zone, string from, string to, params string[] days) =>
        Assert.Equal(days, Shown(Covering(from, to, IntervalUnit.Day, zone)));

    [Theory]
    [InlineData("Asia/Kolkata", "2026-11-20T10:00Z", "2026-11-20T12:00Z", "2026-11-20T09:30 1", "2026-11-20T10:30 1", "2026-11-20T11:30 1")]
    [InlineData("Europe/Berlin", "2026-10-25T00:30Z", "2026-10-25T02:00Z", "2026-10-25T00:00 1", "2026-10-25T01:00 1")]
    [InlineData("Australia/Lord_Howe", "2026-10-03T14:30Z", "2026-10-03T17:00Z", "2026-10-03T14:30 1", "2026-10-03T15:30 0.5", "2026-10-03T16:00 1")]
    [InlineData("Australia/Lord_Howe", "2026-04-04T14:00Z", "2026-04-04T16:30Z", "2026-04-04T14:00 1", "2026-04-04T15:00 0.5", "2026-04-04T15:30 1")]
    public void Hours_are_those_of_the_clock_and_cut_where_it_is_set(string zone, string from, string to, params string[] hours) =>
        Assert.Equal(hours, Shown(Covering(from, to, IntervalUnit.Hour, zone)));

    [Fact]
    public void Months_are_those_of_the_calendar() => Assert.Equal(
        ["2026-01-31T23:00 672", "2026-02-28T23:00 743", "2026-03-31T22:00 720"],
        Shown(Covering("2026-02-15T00:00Z", "2026-04-01T00:00Z", IntervalUnit.Month, "Europe/Berlin")));

    [Fact]
    public void Are_as_many_as_there_may_be_and_no_more()
    {
        var start = TestClock.Start.AddHours(-TestClock.Start.Hour);
        Assert.Equal(ZonedIntervals.MaxIntervals, ZonedIntervals.Covering(start, start.AddHours(ZonedIntervals.MaxIntervals), IntervalUnit.Hour, TimeZoneInfo.Utc)!.Count);
        Assert.Null(ZonedIntervals.Covering(start, start.AddHours(ZonedIntervals.MaxIntervals).AddMicroseconds(1), IntervalUnit.Hour, TimeZoneInfo.Utc));
        Assert.Null(ZonedIntervals.Covering(start.AddMicroseconds(-1), start.AddHours(ZonedIntervals.MaxIntervals), IntervalUnit.Hour, TimeZoneInfo.Utc));
        Assert.Equal(ZonedIntervals.MaxIntervals, ZonedIntervals.Covering(start, start.AddDays(ZonedIntervals.MaxIntervals), IntervalUnit.Day, TimeZoneInfo.Utc)!.Count);
        Assert.Null(ZonedIntervals.Covering(start, start.AddDays(ZonedIntervals.MaxIntervals + 1), IntervalUnit.Day, TimeZoneInfo.Utc));
        Assert.Null(ZonedIntervals.Covering(DateTimeOffset.MinValue, DateTimeOffset.MaxValue, IntervalUnit.Month, TimeZoneInfo.Utc));
        Assert.Equal(0, ZonedIntervals.Covering(start, start, IntervalUnit.Day, TimeZoneInfo.Utc)!.Count);
    }

    [Theory]
    [InlineData("UTC")]
    [InlineData("Pacific/Kiritimati")]
    [InlineData("America/New_York")]
    public void Reach_from_the_first_instant_to_the_last(string zone)
    {
        var info = TimeZoneInfo.FindSystemTimeZoneById(zone);
        foreach (var unit in Enum.GetValues<IntervalUnit>())
        {
            var first = ZonedIntervals.Covering(DateTimeOffset.MinValue, DateTimeOffset.MinValue.AddDays(60), unit, info)!;
            Assert.True(first[1].Start == DateTimeOffset.MinValue && first[first.Count].End >= DateTimeOffset.MinValue.AddDays(60));
            var last = ZonedIntervals.Covering(DateTimeOffset.MaxValue.AddDays(-60), UsageRanges.End, unit, info)!;
            Assert.True(last[1].Start <= DateTimeOffset.MaxValue.AddDays(-60) && last[last.Count].End >= UsageRanges.End);
        }
    }

    [Fact]
    public async Task Are_those_that_PostgreSQL_knows_in_every_zone()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        await using var database = EventStoreDatabase.Connect(await postgres.CreateDatabase(), new EventStoreOptions(), "tests", 2);
        var zones = TimeZoneInfo.GetSystemTimeZones().Where(z => z.Id.Contains('/', StringComparison.Ordinal)).OrderBy(_ => random.Next()).Take(LongTests.Wanted ? 600 : 60).ToArray();
        Assert.NotEmpty(zones);
        foreach (var zone in zones)
        {
            var from = new DateTimeOffset(random.Next(1972, 2030), random.Next(1, 13), 1, random.Next(24), 0, 0, TimeSpan.Zero);
            var to = from.AddDays(400);
            var days = ZonedIntervals.Covering(from, to, IntervalUnit.Day, zone)!;
            await using var command = database.Command(
                """
                select min(t) from generate_series($1::timestamptz - interval '3 days', $2::timestamptz + interval '3 days', interval '15 minutes') t
                group by (t at time zone $3)::date having min(t) > $1::timestamptz - interval '1 day' and min(t) < $2 order by 1
                """,
                Sql.Value(from), Sql.Value(to), Sql.Value(zone.Id));
            var starts = new List<DateTimeOffset>();
            await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
            while (await reader.ReadAsync(TestContext.Current.CancellationToken))
            {
                starts.Add(reader.GetFieldValue<DateTimeOffset>(0));
            }

            var known = days.Starts.ToArray().Where(s => s >= from).ToArray();
            Assert.True(
                known.SequenceEqual(starts.Where(s => s >= from)),
                $"{zone.Id} from {from:O} (seed {LongTests.Seed}): {string.Join(' ', known.Except(starts))} instead of {string.Join(' ', starts.Where(s => s >= from).Except(known))}");
        }
    }

    [Fact]
    public void Leave_no_gap_and_no_overlap_of_sums_and_single_calls()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var widths = new HashSet<TimeSpan>();
        for (var i = 0; i < 1_000; i++)
        {
            var from = At("1905-01-01T00:00Z").AddMicroseconds(random.NextInt64(0, 100_000_000_000) * (random.Next(2) == 0 ? 1 : 30_000));
            var to = from.AddMicroseconds(random.NextInt64(0, 400_000_000_000));
            (from, to) = random.Next(2) == 0 ? (UsageBuckets.Of(from), UsageBuckets.Of(to)) : (from, to);
            var zone = TimeZoneInfo.FindSystemTimeZoneById(random.GetItems(["Asia/Kolkata", "Europe/Amsterdam", "UTC"], 1)[0]);
            var intervals = random.Next(3) == 0 ? null : ZonedIntervals.Covering(from, to, random.Next(2) == 0 ? IntervalUnit.Hour : IntervalUnit.Day, zone);
            var wide = random.Next(2) == 0;

            var ranges = UsageRanges.Of(from, to, intervals, wide, single: false);

            var all = ranges.Whole.Values.SelectMany(r => r).Concat(ranges.Single).Order().ToArray();
            Assert.Equal(from < to, all.Length > 0);
            Assert.All(all, r => Assert.True(r.Since < r.Below));
            Assert.True(all.Length == 0 || (all[0].Since == from && all[^1].Below == to));
            Assert.Equal(all.Skip(1).Select(r => r.Since), all.SkipLast(1).Select(r => r.Below));
            foreach (var (width, whole) in ranges.Whole)
            {
                widths.Add(width);
                Assert.True(wide || width == UsageBuckets.Width);
                Assert.All(whole, r => Assert.True(UsageBuckets.IsStart(r.Since, width) && UsageBuckets.IsStart(r.Below, width)));
                Assert.True(intervals is null || intervals.Starts.ToArray().All(s => UsageBuckets.IsStart(s, width) || whole.TrueForAll(r => s <= r.Since || s >= r.Below)));
            }

            Assert.All(ranges.Single, r => Assert.True(r.Below - r.Since < 2 * UsageBuckets.Width)); // no whole one lies within
        }

        Assert.Equal([.. UsageBuckets.Wider, UsageBuckets.Width], widths.OrderDescending());
    }

    [Fact]
    public void Add_up_a_month_by_its_days()
    {
        var ranges = UsageRanges.Of(At("2026-10-31T22:59:59.5Z"), At("2026-11-30T10:20Z"), intervals: null, wide: true, single: false);

        Assert.Equal([(At("2026-11-01T00:00Z"), At("2026-11-30T00:00Z"))], ranges.Whole[TimeSpan.FromDays(1)]);
        Assert.Equal([(At("2026-10-31T23:00Z"), At("2026-11-01T00:00Z")), (At("2026-11-30T00:00Z"), At("2026-11-30T10:00Z"))], ranges.Whole[TimeSpan.FromHours(1)]);
        Assert.Equal([(At("2026-11-30T10:00Z"), At("2026-11-30T10:15Z"))], ranges.Whole[TimeSpan.FromMinutes(15)]);
        Assert.Equal([(At("2026-10-31T22:59:59.5Z"), At("2026-10-31T23:00Z")), (At("2026-11-30T10:15Z"), At("2026-11-30T10:20Z"))], ranges.Single);
    }
}
