using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Reading;

public sealed class Reading_the_log(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task goes_on_page_after_page_to_the_end_as_it_is_by_then()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        for (var i = 0; i < 2; i++)
        {
            await appender.Append(Request("a", [.. Enumerable.Repeat(new Ignored(), EventReader.PageSize)]), Ct);
        }

        var positions = new List<long>();
        await foreach (var recorded in store.Reader.ReadLog(cancellation: Ct))
        {
            if (recorded.Position == 1)
            {
                await appender.Append(Request("a", new Ignored(), new Ignored()), Ct);
            }

            positions.Add(recorded.Position);
        }

        Assert.Equal(Enumerable.Range(1, (2 * EventReader.PageSize) + 2).Select(i => (long)i), positions);
    }

    [Theory]
    [InlineData(0, 3, "1,2,3")]
    [InlineData(2, 4, "3,4")]
    [InlineData(4, 100, "5")]
    [InlineData(5, 100, "")]
    [InlineData(3, 3, "")]
    public async Task stays_within_the_positions_asked_for(long after, long to, string expected)
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Ignored(), 5)]), Ct);

        Assert.Equal(expected, string.Join(',', await store.Reader.ReadLog(after, to, Ct).Select(e => e.Position).ToListAsync(Ct)));
    }

    [Fact]
    public async Task knows_its_head_and_when_a_position_was_recorded()
    {
        await using var store = await TestStore.Create(postgres);
        Assert.Equal((0, null), (await store.Reader.ReadHead(Ct), await store.Reader.RecordedAt(1, Ct)));

        var result = await store.StartAppender().Append(Request("a", new Ignored()), Ct);

        Assert.Equal((1, result.RecordedAt), (await store.Reader.ReadHead(Ct), await store.Reader.RecordedAt(1, Ct)));
    }

    [Fact]
    public async Task returns_the_event_at_a_position()
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", new Noted("x"), new Noted("y"), new Noted("z")), Ct);

        Assert.Equal((2, "y"), await store.Reader.ReadAt(2, Ct) is { Data: Noted noted } found ? (found.Position, noted.Text) : default);
        Assert.Null(await store.Reader.ReadAt(4, Ct));
        Assert.Null(await store.Reader.ReadAt(0, Ct));
    }
}
