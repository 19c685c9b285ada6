using Ledger.EventStore.Tests.Support;

namespace Ledger.EventStore.Tests.Transparency;

public sealed class Handing_pages_over
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public void keeps_no_more_than_there_is_room_for()
    {
        var pages = new PagesToSeal();
        var half = new byte[PagesToSeal.MaxBytes / 2];

        pages.Offer(new PageRows(half, 1, 10));
        pages.Offer(new PageRows(half, 11, 20));
        pages.Offer(new PageRows([0], 21, 21));

        Assert.NotNull(pages.Find(after: 19));
        Assert.Null(pages.Find(after: 20));
        pages.Offer(new PageRows([0], 21, 21)); // there is room again
        Assert.NotNull(pages.Find(after: 20));
        pages.Clear();
        Assert.Null(pages.Find(after: 20));
    }

    [Fact]
    public void says_whether_the_next_may_still_come()
    {
        var pages = new PagesToSeal();
        Assert.False(pages.MayCome(after: 100));

        pages.Flow(true);
        Assert.True(pages.MayCome(after: 100));

        pages.Offer(new PageRows([], 51, 100));
        Assert.True(pages.MayCome(after: 100)); // what is here was sealed

        pages.Offer(new PageRows([], 201, 300)); // those in between were not kept
        Assert.False(pages.MayCome(after: 100));
        Assert.True(pages.MayCome(after: 300));
    }

    [Fact]
    public async Task says_when_something_changes()
    {
        var pages = new PagesToSeal();
        var changed = pages.Changed;
        Assert.False(changed.IsCompleted);

        pages.Flow(true);

        await changed.WaitAsync(Runs.Patience, Ct);
        Assert.False(pages.Changed.IsCompleted);
    }

    [Fact]
    public async Task says_when_there_is_enough_to_seal()
    {
        var pages = new PagesToSeal();
        var held = pages.Hold(after: 100, events: 20, Ct);

        pages.Offer(new PageRows([], 101, 119));
        Assert.False(held.IsCompleted);

        pages.Offer(new PageRows([], 120, 120));
        await held.WaitAsync(Runs.Patience, Ct);
        await pages.Hold(after: 100, events: 20, Ct);
        Assert.False(pages.Hold(after: 101, events: 20, Ct).IsCompleted);
    }
}
