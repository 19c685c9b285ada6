using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class The_append_queue(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task refuses_what_it_cannot_hold_and_stores_all_that_it_took()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { QueueCapacity = 2, MaxBatchEvents = 1 });
        var appender = store.StartAppender();
        var taken = new List<Task<AppendResult>>();
        AppendQueueFullException? full = null;
        await using (var held = await store.HoldAppendLock())
        {
            taken.Add(appender.Append(Request("s", new Ignored()), Ct));
            await store.AppendersWait();
            while (full is null)
            {
                var append = appender.Append(Request("s", new Ignored()), Ct);
                if (append.IsFaulted)
                {
                    full = await Assert.ThrowsAsync<AppendQueueFullException>(() => append);
                }
                else
                {
                    taken.Add(append);
                }

                Assert.True(taken.Count <= 10, "the queue has no bound");
            }

            await Release(held);
        }

        Assert.All(await Task.WhenAll(taken), r => Assert.Equal(AppendOutcome.Appended, r.Outcome));
        Assert.Equal(taken.Count, await store.Reader.ReadHead(Ct));
    }

    [Fact]
    public async Task lets_go_of_a_request_that_is_cancelled_before_its_transaction()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        using var cancel = new CancellationTokenSource();
        await using (var held = await store.HoldAppendLock())
        {
            var plug = appender.Append(Request("plug", new Ignored()), Ct);
            await store.AppendersWait();
            var withdrawn = appender.Append(Request("a", new Noted("withdrawn")), cancel.Token);
            var kept = appender.Append(Request("a", new Noted("kept")), Ct);
            await cancel.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => withdrawn);
            await Release(held);
            await Task.WhenAll(plug, kept);
        }

        Assert.Equal(["plug", "a"], (await store.Log()).Select(e => e.StreamId));
    }

    [Fact]
    public async Task answers_a_request_that_is_cancelled_after_its_transaction_began()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        using var cancel = new CancellationTokenSource();
        await using var held = await store.HoldAppendLock();
        var append = appender.Append(Request("a", new Ignored()), cancel.Token);
        await store.AppendersWait();

        await cancel.CancelAsync();
        await Release(held);

        Assert.Equal(AppendOutcome.Appended, (await append).Outcome);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => appender.Append(Request("a", new Ignored()), cancel.Token));
        Assert.Equal(1, await store.Reader.ReadHead(Ct));
    }

    [Fact]
    public async Task is_stored_to_the_last_request_when_the_appender_stops()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { MaxBatchEvents = 7 });
        var appender = store.StartAppender();
        Task<AppendResult>[] appends;
        await using (var held = await store.HoldAppendLock())
        {
            appends = [.. Enumerable.Range(0, 50).Select(i => appender.Append(Request($"s{i % 5}", new Ignored()), Ct))];
            var stopping = appender.DisposeAsync();
            await Assert.ThrowsAsync<EventStoreUnavailableException>(() => appender.Append(Request("late", new Ignored()), Ct));
            await Release(held);
            await stopping;
        }

        Assert.All(await Task.WhenAll(appends), r => Assert.Equal(AppendOutcome.Appended, r.Outcome));
        Assert.Equal(50, await store.Reader.ReadHead(Ct));
        await store.AssertSound();
    }
}
