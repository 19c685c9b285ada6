using Ledger.EventStore.Tests.Support;
using Ledger.EventStore.Tests.Transparency;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Projecting;

public sealed class Large_events(PostgresFixture postgres)
{
    private const int Bytes = 49_152; // as many as a part of a campaign's audience has
    private static readonly EventStoreOptions s_options = TestNode.Quick with { MaxProjectionBatch = EventStoreOptions.DefaultMaxProjectionBatch, MaxRebuildBatch = 300 };

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(EventReader.MinCopiedEvents - 1)]
    [InlineData(800)]
    public async Task are_folded_and_sealed_as_they_are_read_in_smaller_pages(int events)
    {
        await using var store = await TestStore.Create(postgres);
        await Append(store, events);
        var (pages, views) = Watched();

        await using var node = await TestNode.Start(store, s_options, views: views);
        await node.CatchUp();

        await node.AssertViewsEqualTheLog();
        AssertWithinTheLimit(pages, events);
        await node.Covered();
        await SoundLog.Assert_(store);
    }

    [Fact]
    public async Task bring_a_new_view_up_to_the_others_in_smaller_pages()
    {
        await using var store = await TestStore.Create(postgres);
        await Append(store, 800);
        await using (var old = await TestNode.Start(store, s_options, views: [new Totals()]))
        {
            await old.CatchUp();
        }

        var (pages, views) = Watched();
        await using var node = await TestNode.Start(store, s_options, views: views);
        await node.CatchUp();

        await node.AssertViewsEqualTheLog();
        AssertWithinTheLimit(pages, 800);
    }

    [Fact]
    public async Task are_rebuilt_in_smaller_pages()
    {
        await using var store = await TestStore.Create(postgres);
        await Append(store, 1_100);
        var (pages, views) = Watched();
        await using var node = await TestNode.Start(store, s_options, views: views);
        await node.CatchUp();
        pages.Clear();

        Assert.True(await node.Views.Rebuild("Entries", Ct));
        await node.Becomes("Entries", s => s.RebuiltAt is not null || s.Rebuild == "failed", "the rebuild ends");

        Assert.Null((await node.Status("Entries")).RebuildError);
        await node.AssertViewsEqualTheLog();
        AssertWithinTheLimit(pages, 1_100);
        Assert.Equal(1, await store.Value<long>("select count(*) from ledger_test_entries where position = 1"));
    }

    [Fact]
    public async Task are_replayed_in_smaller_pages()
    {
        await using var store = await TestStore.Create(postgres);
        await Append(store, 800);
        var (pages, views) = Watched();
        var progress = new List<long>();
        await using var replay = await Replay.Begin(
            store.Database, store.Reader, TestStore.Migrations, s_options with { MaxRebuildBatch = EventStoreOptions.DefaultMaxRebuildBatch }, views, Ct);

        await replay.FoldTo(403, views, progress.Add, Ct);
        Assert.Equal(403, progress[^1]);
        await replay.FoldTo(800, views, progress.Add, Ct);

        Assert.Equal(800, progress[^1]);
        Assert.Equal(progress.Order().Distinct(), progress);
        AssertWithinTheLimit(pages, 800);
        foreach (var view in views)
        {
            Assert.Equal(await store.Lines(view.Truth), await store.Lines($"select * from {replay.Schema}.{view.Tables[0]} order by 1"));
        }
    }

    [Fact]
    public async Task are_followed_by_full_pages_again()
    {
        await using var store = await TestStore.Create(postgres);
        await Append(store, 400);
        await store.StartAppender().Append(Request("small", [.. Enumerable.Repeat(new Deposited("a", 1), 4_000)]), Ct);
        await using var connection = await store.Database.OpenConnectionAsync(Ct);

        var (after, lengths) = (0L, new List<long>());
        await foreach (var (to, events) in store.Reader.ReadKinds(connection, 0, 4_400, 500, [typeof(Deposited)], Ct))
        {
            Assert.All(events, e => Assert.InRange(e.Position, after + 1, to));
            lengths.Add(to - after);
            after = to;
        }

        Assert.Equal(4_400, after);
        Assert.True(lengths[0] < 400, "the first page is cut");
        Assert.Equal([500, 500, 500], lengths.SkipLast(1).TakeLast(3));
        Assert.InRange(lengths.Count, 10, 18);
    }

    /// <summary>Events that the views fold, and among them others, all with data that the views do not read.</summary>
    private static async Task Append(TestStore store, int events)
    {
        await store.StartAppender().Append(
            Request("large", [.. Enumerable.Range(0, events).Select(i => i % 9 == 4 ? (object)new Ignored() : new Deposited($"a{i % 7}", i))]), Ct);
        await store.Execute($"update mt_events set data = data || jsonb_build_object('more', repeat('x', {Bytes} - 200 + seq_id::int % 97))");
    }

    /// <summary>Views, and of each call of one of them the sizes of its events.</summary>
    private static (List<int[]> Pages, TestView[] Views) Watched()
    {
        var pages = new List<int[]>();
        var entries = new Entries
        {
            AfterWriting = events =>
            {
                pages.Add([.. events.Select(e => e.Json.Length)]);
                return Task.CompletedTask;
            },
        };
        return (pages, [new Totals(), entries]);
    }

    private static void AssertWithinTheLimit(List<int[]> pages, int events)
    {
        Assert.All(pages, sizes => Assert.InRange(sizes.Sum(), 1, EventReader.MaxPageBytes));
        var fewest = (events * Bytes / EventReader.MaxPageBytes) + 1;
        Assert.InRange(pages.Count, fewest, 2 * fewest); // and not much less than that either
    }
}
