using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Transparency;

public sealed class Handing_pages_over(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task keeps_no_more_than_there_is_room_for()
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Ignored(), 100)]), Ct);
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        var pages = new PagesToSeal();
        var (room, kept) = (PagesToSeal.MaxBytes, 0L);
        for (var after = 0L; after < 100; after++)
        {
            await using var copy = await StoredRow.Open(connection, after, 1, Ct);
            var page = new EventPage(await EventPage.ReadToEnd(copy, rows: 4_000, Ct), TestEvents.Types); // room for that many
            pages.Offer(page.Rows!);
            room -= page.Rows!.Bytes.Length;
            kept += room >= 0 ? 1 : 0;
        }

        Assert.InRange(kept, 1, 99);
        Assert.NotNull(pages.Find(kept - 1));
        Assert.Null(pages.Find(kept));
        pages.Offer((await store.Reader.CopyPage(connection, kept, long.MaxValue, 10, Ct)).Rows!); // there is room again
        Assert.NotNull(pages.Find(kept));
        pages.Clear();
        Assert.Null(pages.Find(kept));
    }

    [Fact]
    public async Task says_when_something_changes()
    {
        var pages = new PagesToSeal();
        var changed = pages.Changed;
        Assert.False(changed.IsCompleted);

        pages.Flowing = true;

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
