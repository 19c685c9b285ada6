namespace Ledger.EventStore.Tests;

public sealed class Event_ids
{
    [Fact]
    public void of_a_key_never_change()
    {
        // SHA-256 of each part's length (four bytes, big-endian) and UTF-8, the first 16 bytes, marked as UUID version 8 (RFC 9562).
        Assert.Equal(Guid.Parse("dd1d16a5-9520-882c-bd4a-b0dfef8db704"), EventId.From("*DEFAULT*", "call", "source", "42"));
        Assert.Equal(Guid.Parse("46bcb287-68bf-809c-836b-f7daccf3bc23"), EventId.From("t1", "command", "ключ"));
        Assert.Equal(Guid.Parse("74de1d56-0a0d-8544-aab5-e1dc4dc91942"), EventId.Next(EventId.From("t1", "command", "ключ"), 1));
    }

    [Fact]
    public void keep_the_boundaries_of_the_parts()
    {
        string[][] keys =
        [
            ["a", "bc"], ["ab", "c"], ["abc"], ["a", "b", "c"], ["", "abc"], ["abc", ""], ["a", "", "bc"], ["a\0", "bc"], ["a", "\0bc"],
            ["\0\0\0\u0001a"], ["a", "\0\0\0\u0002bc"],
        ];

        var ids = keys.Select(key => EventId.From(key[0], key.AsSpan(1))).ToArray();

        Assert.Equal(ids.Length, ids.Distinct().Count());
    }

    [Fact]
    public void of_a_request_differ_and_follow_from_the_first()
    {
        var first = EventId.New();

        var ids = Enumerable.Range(0, EventStoreOptions.MaxRequestEvents).Select(i => EventId.Next(first, i)).ToArray();

        Assert.Equal(first, ids[0]);
        Assert.Equal(ids.Length, ids.Distinct().Count());
        Assert.Equal(ids[7], EventId.Next(first, 7));
    }

    [Fact]
    public void say_how_they_were_made()
    {
        Assert.Equal((7, 8, 8), (EventId.New().Version, EventId.From("t", "k").Version, EventId.Next(EventId.New(), 1).Version));
        Assert.All([EventId.New(), EventId.From("t", "k")], id => Assert.InRange(id.Variant, 8, 11));
    }

    [Fact]
    public void of_fresh_events_are_ordered_by_time()
    {
        var ids = new List<Guid>();
        for (var i = 0; i < 5; i++)
        {
            ids.Add(EventId.New());
            var now = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();
            SpinWait.SpinUntil(() => DateTimeOffset.UtcNow.ToUnixTimeMilliseconds() > now);
        }

        Assert.Equal(ids.OrderBy(id => id.ToString(), StringComparer.Ordinal), ids);
    }

    [Fact]
    public void of_fresh_events_made_by_many_at_once_all_differ_and_say_when()
    {
        var before = DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();

        var ids = Enumerable.Range(0, 100_000).AsParallel().Select(_ => EventId.New()).ToArray();

        Assert.Equal(ids.Length, ids.Distinct().Count());
        Assert.All(ids, id => Assert.InRange(Convert.ToInt64(id.ToString("N")[..12], 16), before, DateTimeOffset.UtcNow.ToUnixTimeMilliseconds()));
        Assert.Equal(16, ids.Take(1_000).Select(id => id.ToString("N")[16..]).SelectMany(random => random[1..]).Distinct().Count());
    }
}
