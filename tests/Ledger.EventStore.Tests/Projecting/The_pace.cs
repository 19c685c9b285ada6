using Ledger.EventStore.Tests.Support;
using Ledger.Testing;

namespace Ledger.EventStore.Tests.Projecting;

/// <summary>When the daemon's next batch may begin.</summary>
public sealed class The_pace(PostgresFixture postgres)
{
    private static readonly TimeSpan s_long = TimeSpan.FromHours(1);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task gathers_what_comes_several_at_a_time_until_the_moment_is_over()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        var pace = new Pace(node.Views, TimeSpan.FromMilliseconds(1));

        pace.Begin(Pace.MinEvents);

        await pace.Wait(Ct).WaitAsync(Runs.Patience, Ct);
    }

    [Fact]
    public async Task keeps_nobody_waiting_who_waits_for_a_position()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        var pace = new Pace(node.Views, s_long);
        pace.Begin(Pace.MinEvents);
        var next = pace.Wait(Ct);
        Assert.False(next.IsCompleted);

        var waiting = node.Views.WaitFor(node.Views.Names, 1, Runs.Patience, Ct).AsTask();

        await next.WaitAsync(Runs.Patience, Ct);
        await pace.Wait(Ct).WaitAsync(Runs.Patience, Ct); // who waits already hurries the next one, too
        await Deposits.Append(store.StartAppender(), 1);
        Assert.True(await waiting);
    }

    [Fact]
    public async Task lets_what_comes_one_by_one_be_seen_at_once()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        var pace = new Pace(node.Views, s_long);
        Assert.True(pace.Wait(Ct).IsCompletedSuccessfully);

        pace.Begin(Pace.MinEvents - 1);

        Assert.True(pace.Wait(Ct).IsCompletedSuccessfully);
    }

    [Fact]
    public async Task ends_when_the_node_stops()
    {
        await using var store = await TestStore.Create(postgres);
        await using var node = await TestNode.Start(store);
        using var stopping = new CancellationTokenSource();
        var pace = new Pace(node.Views, s_long);
        pace.Begin(Pace.MinEvents);
        var next = pace.Wait(stopping.Token);

        await stopping.CancelAsync();

        await next.WaitAsync(Runs.Patience, Ct);
    }
}
