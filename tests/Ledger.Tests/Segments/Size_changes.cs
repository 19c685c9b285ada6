using Ledger.Segments;

namespace Ledger.Tests.Segments;

public sealed class Size_changes
{
    [Fact]
    public void Up_to_an_instant_add_up_to_the_size_at_it()
    {
        var random = new Random(LongTests.Seed);
        var centre = TestClock.Start;
        for (var round = 0; round < 200; round++)
        {
            // Changes close together and far apart, before 1970 and up to the end of time.
            var spread = Math.Pow(10, random.Next(1, 18));
            var changes = Enumerable.Range(0, 50).Select(_ => (At: Near(), Net: random.Next(-2, 3))).ToList();
            for (var probe = 0; probe < 20; probe++)
            {
                var at = probe % 2 == 0 ? Near() : changes[random.Next(changes.Count)].At.AddMicroseconds(random.Next(-1, 2));
                var expected = changes.Where(c => c.At <= at).Sum(c => c.Net);
                var actual = SizeChanges.UpTo(at).Sum(r => changes
                    .Where(c => SizeChanges.BucketOf(c.At, r.Level) is var bucket && bucket >= r.From && bucket < r.Below).Sum(c => c.Net));
                Assert.True(expected == actual, $"Seed {LongTests.Seed}: {actual} instead of {expected} at {at:O}.");
            }

            DateTimeOffset Near()
            {
                var ticks = centre.UtcTicks + ((random.NextDouble() - 0.5) * spread * TimeSpan.TicksPerMicrosecond);
                var inRange = (long)Math.Clamp(ticks, TimeSpan.TicksPerDay, DateTimeOffset.MaxValue.UtcTicks - TimeSpan.TicksPerDay);
                return new DateTimeOffset(inRange - (inRange % TimeSpan.TicksPerMicrosecond), TimeSpan.Zero);
            }
        }
    }

    [Fact]
    public void Are_found_in_few_rows()
    {
        foreach (var at in new[] { TestClock.Start, DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch.AddTicks(-1), DateTimeOffset.MinValue, DateTimeOffset.MaxValue })
        {
            var ranges = SizeChanges.UpTo(at);
            Assert.Equal(SizeChanges.TopLevel + 1, ranges.Length);
            Assert.All(ranges.Where(r => r.Level is > 0 and < SizeChanges.TopLevel), r => Assert.InRange(r.Below - r.From, 0, 63));
        }
    }
}

public sealed class A_roll_out
{
    private static readonly string[] Users = [.. Enumerable.Range(0, 100_000).Select(i => $"user-{i}")];

    [Fact]
    public void Has_the_buckets_the_contract_says()
    {
        // First four bytes, big-endian, of SHA-256 over salt, a zero byte and the user id, modulo 10 000; computed elsewhere.
        Assert.Equal((4461, 2246, 4604), (Rollout.BucketOf("S", "u1"), Rollout.BucketOf("AVITO_VOICE", "ä"), Rollout.BucketOf("", "")));
    }

    [Theory]
    [InlineData(0.01)]
    [InlineData(1)]
    [InlineData(12.5)]
    [InlineData(50)]
    [InlineData(99.99)]
    public void Takes_in_its_share_of_all_users(decimal percent)
    {
        var share = 100m * Users.Count(u => Rollout.Includes(percent, Rollout.BucketOf("some-segment", u))) / Users.Length;

        Assert.InRange(share, percent - 0.5m, percent + 0.5m);
    }

    [Fact]
    public void Keeps_everyone_in_as_it_grows()
    {
        foreach (var user in Users.Take(2_000))
        {
            var bucket = Rollout.BucketOf("grows", user);
            var isIn = Enumerable.Range(0, 1_001).Select(i => Rollout.Includes(i / 10m, bucket)).ToArray();
            Assert.Equal(isIn.Order(), isIn);
            Assert.Equal((false, true), (isIn[0], isIn[^1]));
        }
    }

    [Fact]
    public void Of_one_segment_says_nothing_about_another()
    {
        var both = Users.Count(u => Rollout.Includes(50, Rollout.BucketOf("one", u)) && Rollout.Includes(50, Rollout.BucketOf("two", u)));

        Assert.InRange(both / (double)Users.Length, 0.24, 0.26);
    }
}
