namespace Ledger.EventStore.Tests.Transparency;

public sealed class The_versions_of_streams
{
    private static readonly Guid s_a = StreamVersions.Key("t", "a"), s_b = StreamVersions.Key("t", "b");

    [Fact]
    public void follow_one_another_whatever_order_the_pieces_come_in()
    {
        var versions = new StreamVersions();

        versions.Add(3, [(s_a, 3), (s_b, 2)]);
        Assert.Equal(0, versions.Position);
        versions.Add(0, [(s_a, 1), (s_b, 1), (s_a, 2)]);

        Assert.Equal((5, null), (versions.Position, versions.Broken));
    }

    [Theory]
    [InlineData(1, 3, 2, 1)] // one is missing
    [InlineData(1, 1, 2, 1)] // one is there twice
    [InlineData(2, 1, 1, 0)] // the wrong way round
    [InlineData(0, 1, 1, 0)] // begins too early
    public void are_broken_where_one_does_not_follow(long first, long second, long position, long before)
    {
        var versions = new StreamVersions();

        versions.Add(1, [(s_a, second)]);
        versions.Add(0, [(s_a, first)]);

        Assert.Equal((position, before), versions.Broken);
        Assert.Equal(2, versions.Position);
    }

    [Fact]
    public void are_of_a_stream_of_a_tenant()
    {
        Assert.NotEqual(StreamVersions.Key("t", "a"), StreamVersions.Key("ta", ""));
        Assert.NotEqual(StreamVersions.Key("t", "a"), StreamVersions.Key("u", "a"));
    }
}
