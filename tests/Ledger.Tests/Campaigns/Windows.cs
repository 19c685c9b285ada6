using System.Globalization;
using Ledger.Campaigns;

namespace Ledger.Tests.Campaigns;

public sealed class Windows
{
    private static readonly string[] Zones =
    [
        "UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", "Pacific/Kiritimati",
        "America/Sao_Paulo", "Africa/Casablanca", "Asia/Tehran", "Pacific/Chatham", "Europe/Dublin", "America/Santiago", "Antarctica/Troll", "Africa/Cairo",
    ];

    private static DateTimeOffset At(string text) => DateTimeOffset.Parse(text, CultureInfo.InvariantCulture);

    private static SendWindow Window(string text)
    {
        var ends = text.Split('-');
        return new SendWindow(TimeOnly.Parse(ends[0], CultureInfo.InvariantCulture), TimeOnly.Parse(ends[1], CultureInfo.InvariantCulture));
    }

    private static TimeZoneInfo Zone(string id)
    {
        Assert.True(TimeZones.TryFind(id, out var zone), id);
        return zone;
    }

    [Theory]
    [InlineData("09:00-21:00", "2026-11-20T08:00:00Z", true)] // 09:00 in Berlin
    [InlineData("09:00-21:00", "2026-11-20T07:59:59.999Z", false)]
    [InlineData("09:00-21:00", "2026-11-20T19:59:59.999Z", true)]
    [InlineData("09:00-21:00", "2026-11-20T20:00:00Z", false)]
    [InlineData("22:00-06:00", "2026-11-20T21:00:00Z", true)]
    [InlineData("22:00-06:00", "2026-11-20T20:59:59Z", false)]
    [InlineData("22:00-06:00", "2026-11-21T00:00:00Z", true)]
    [InlineData("22:00-06:00", "2026-11-21T05:00:00Z", false)]
    [InlineData("18:00-00:00", "2026-11-20T22:59:59Z", true)]
    [InlineData("18:00-00:00", "2026-11-20T23:00:00Z", false)]
    [InlineData("00:00-00:00", "2026-11-20T23:00:00Z", true)]
    [InlineData("09:00-09:00", "2026-11-20T07:00:00Z", true)]
    public void Are_open_from_their_first_time_until_just_before_their_last(string window, string now, bool isOpen) =>
        Assert.Equal(isOpen, Window(window).IsOpen(At(now), Zone("Europe/Berlin")));

    [Theory]
    // An ordinary day, and the wait until the next one.
    [InlineData("Europe/Berlin", "09:00-21:00", "2026-11-20T12:00Z", "2026-11-20T12:00Z")]
    [InlineData("Europe/Berlin", "09:00-21:00", "2026-11-20T03:00Z", "2026-11-20T08:00Z")]
    [InlineData("Europe/Berlin", "09:00-21:00", "2026-11-20T20:00Z", "2026-11-21T08:00Z")]
    // Half hours and quarters.
    [InlineData("Asia/Kolkata", "09:00-21:00", "2026-11-20T00:00Z", "2026-11-20T03:30Z")]
    [InlineData("Asia/Kathmandu", "09:00-21:00", "2026-11-20T00:00Z", "2026-11-20T03:15Z")]
    // Berlin, spring: 02:00 to 03:00 is left out on 2026-03-29.
    [InlineData("Europe/Berlin", "09:00-21:00", "2026-03-28T21:00Z", "2026-03-29T07:00Z")]
    [InlineData("Europe/Berlin", "02:00-03:00", "2026-03-29T00:30Z", "2026-03-30T00:00Z")]
    [InlineData("Europe/Berlin", "02:30-04:00", "2026-03-29T00:30Z", "2026-03-29T01:00Z")]
    [InlineData("Europe/Berlin", "23:00-02:30", "2026-03-29T01:00Z", "2026-03-29T21:00Z")]
    // Berlin, autumn: 02:00 to 03:00 comes twice on 2026-10-25.
    [InlineData("Europe/Berlin", "09:00-21:00", "2026-10-24T21:00Z", "2026-10-25T08:00Z")]
    [InlineData("Europe/Berlin", "02:15-02:45", "2026-10-24T23:00Z", "2026-10-25T00:15Z")]
    [InlineData("Europe/Berlin", "02:15-02:45", "2026-10-25T00:50Z", "2026-10-25T01:15Z")]
    [InlineData("Europe/Berlin", "02:15-02:45", "2026-10-25T01:45Z", "2026-10-26T01:15Z")]
    [InlineData("Europe/Berlin", "02:30-02:00", "2026-10-25T00:00Z", "2026-10-25T00:30Z")]
    [InlineData("Europe/Berlin", "02:30-02:00", "2026-10-25T01:00Z", "2026-10-25T01:30Z")]
    // New York, both nights.
    [InlineData("America/New_York", "09:00-21:00", "2026-03-08T02:00Z", "2026-03-08T13:00Z")]
    [InlineData("America/New_York", "02:15-02:45", "2026-03-08T06:30Z", "2026-03-09T06:15Z")]
    [InlineData("America/New_York", "09:00-21:00", "2026-11-01T02:00Z", "2026-11-01T14:00Z")]
    [InlineData("America/New_York", "01:30-01:45", "2026-11-01T05:50Z", "2026-11-01T06:30Z")]
    // Lord Howe, where the clock is set by half an hour: 02:00 to 02:30 is left out on 2026-10-04, 01:30 to 02:00 comes twice on 2026-04-05.
    [InlineData("Australia/Lord_Howe", "02:00-02:30", "2026-10-03T15:00Z", "2026-10-04T15:00Z")]
    [InlineData("Australia/Lord_Howe", "02:15-02:45", "2026-10-03T15:00Z", "2026-10-03T15:30Z")]
    [InlineData("Australia/Lord_Howe", "01:40-01:50", "2026-04-04T14:55Z", "2026-04-04T15:10Z")]
    // A day that Samoa left out.
    [InlineData("Pacific/Apia", "09:00-21:00", "2011-12-30T08:00Z", "2011-12-30T19:00Z")]
    // Midnight is left out in São Paulo.
    [InlineData("America/Sao_Paulo", "00:00-00:30", "2018-11-04T02:00Z", "2018-11-05T02:00Z")]
    public void Open_next_when_the_clock_of_the_zone_shows_it(string zone, string window, string now, string opens) =>
        Assert.Equal(At(opens), Window(window).NextOpening(At(now), Zone(zone)));

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Are_what_a_walk_minute_by_minute_along_the_clock_finds(int seed)
    {
        var random = new Random(seed);
        foreach (var zone in Zones.Select(Zone))
        {
            var changes = ChangesOf(zone);
            for (var i = 0; i < 60; i++)
            {
                var window = new SendWindow(new TimeOnly(random.Next(1440) * TimeSpan.TicksPerMinute), new TimeOnly(random.Next(1440) * TimeSpan.TicksPerMinute));
                window = random.Next(3) == 0 ? window with { To = window.From.AddMinutes(random.Next(90)) } : window;
                var near = changes.Count > 0 && random.Next(4) > 0 ? changes[random.Next(changes.Count)] : new DateTimeOffset(2024, 1, 1, 0, 0, 0, TimeSpan.Zero).AddMinutes(random.Next(3 * 525_600));
                var now = near.AddMinutes(random.Next(-1800, 300)).AddTicks(random.Next(2) * random.NextInt64(TimeSpan.TicksPerMinute));

                var opens = window.NextOpening(now, zone);

                var walk = now;
                while (!IsOpenByTheClock(window, walk, zone))
                {
                    walk = new DateTimeOffset((walk.UtcTicks / TimeSpan.TicksPerMinute * TimeSpan.TicksPerMinute) + TimeSpan.TicksPerMinute, TimeSpan.Zero);
                }

                Assert.True(walk == opens, $"seed {seed}: {window} in {zone.Id} from {now:O} opens at {walk:O}, not {opens:O}.");
                Assert.True(window.IsOpen(opens, zone));
                Assert.Equal(IsOpenByTheClock(window, now, zone), window.IsOpen(now, zone));
                Assert.True(opens == now || !window.IsOpen(opens.AddTicks(-1), zone));
            }
        }
    }

    [Fact]
    public void Do_not_go_beyond_the_last_instant_there_is() =>
        Assert.Equal(DateTimeOffset.MaxValue, Window("09:00-10:00").NextOpening(DateTimeOffset.MaxValue.AddHours(-2), TimeZoneInfo.Utc));

    /// <summary>By a list of the minutes of a day that the window has.</summary>
    private static bool IsOpenByTheClock(SendWindow window, DateTimeOffset now, TimeZoneInfo zone)
    {
        var minute = (int)TimeZoneInfo.ConvertTime(now, zone).TimeOfDay.TotalMinutes;
        var (from, to) = ((int)window.From.ToTimeSpan().TotalMinutes, (int)window.To.ToTimeSpan().TotalMinutes);
        for (var open = from; ; open = (open + 1) % 1440)
        {
            if (open == minute)
            {
                return true;
            }

            if ((open + 1) % 1440 == to)
            {
                return false;
            }
        }
    }

    private static List<DateTimeOffset> ChangesOf(TimeZoneInfo zone)
    {
        var changes = new List<DateTimeOffset>();
        var hour = new DateTimeOffset(2023, 1, 1, 0, 0, 0, TimeSpan.Zero);
        for (; hour.Year < 2027; hour = hour.AddHours(1))
        {
            if (zone.GetUtcOffset(hour) != zone.GetUtcOffset(hour.AddHours(1)))
            {
                changes.Add(hour.AddHours(1));
            }
        }

        return changes;
    }
}

public sealed class Zones_by_name
{
    [Theory]
    [InlineData("Europe/Berlin")]
    [InlineData("UTC")]
    [InlineData("Etc/UTC")]
    [InlineData("Etc/GMT+12")]
    [InlineData("America/Argentina/Buenos_Aires")]
    [InlineData("Australia/Lord_Howe")]
    [InlineData("America/Port-au-Prince")]
    public void Are_found(string id)
    {
        Assert.True(TimeZones.TryFind(id, out var zone));
        Assert.Equal(id, zone.Id);
        Assert.True(TimeZones.TryFind(id, out var again));
        Assert.Same(zone, again);
    }

    [Theory]
    [InlineData("")]
    [InlineData("Europe/Atlantis")]
    [InlineData("europe/berlin")]
    [InlineData("EUROPE/BERLIN")]
    [InlineData("utc")]
    [InlineData("W. Europe Standard Time")]
    [InlineData("+02:00")]
    [InlineData("../../../etc/passwd")]
    [InlineData("Europe/../Europe/Berlin")]
    [InlineData("/usr/share/zoneinfo/UTC")]
    [InlineData("Europe")]
    [InlineData("Europe/Berlin ")]
    [InlineData("Europe/Berlin\n")]
    [InlineData("zone.tab")]
    [InlineData("localtime")]
    [InlineData("posixrules")]
    [InlineData("Factory")]
    [InlineData("posix/Europe/Berlin")]
    [InlineData("right/Europe/Berlin")]
    public void Are_not_guessed(string id)
    {
        Assert.True(TimeZones.TryFind("Europe/Berlin", out _)); // known by then under its own name
        Assert.False(TimeZones.TryFind(id, out _));
    }
}
