using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class A_repeated_request(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task has_the_first_outcome_in_the_same_batch()
    {
        await using var store = await TestStore.Create(postgres);
        var request = Keyed("k", "a", null, new Noted("1"), new Noted("2"));

        var results = await store.AppendTogether(store.StartAppender(), request, Request("a", new Ignored()), request);

        Assert.Equal((AppendOutcome.Appended, 1, 2, 2), (results[0].Outcome, results[0].FirstPosition, results[0].LastPosition, results[0].Version));
        Assert.Equal(results[0] with { Outcome = AppendOutcome.Duplicate }, results[2]);
        Assert.Equal(3, await store.Reader.ReadHead(Ct));
    }

    [Fact]
    public async Task has_the_first_outcome_in_a_later_batch_whatever_its_conditions_say_by_then()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var request = Keyed("k", "a") with { Conditions = [new("a", 0)] };

        var first = await appender.Append(request, Ct);
        await appender.Append(Request("a", new Ignored()), Ct);

        Assert.Equal(first with { Outcome = AppendOutcome.Duplicate }, await appender.Append(request, Ct));
    }

    [Fact]
    public async Task has_the_first_outcome_at_every_appender_at_once()
    {
        await using var store = await TestStore.Create(postgres);
        var appenders = new[] { store.StartAppender(), store.StartAppender() };

        var results = await Task.WhenAll(Enumerable.Range(0, 200).Select(i => appenders[i % 2].Append(Keyed($"k{i / 4}", $"s{i / 4 % 7}"), Ct)));

        foreach (var same in results.Chunk(4))
        {
            Assert.Single(same, r => r.Outcome == AppendOutcome.Appended);
            Assert.Single(same.Select(r => r with { Outcome = AppendOutcome.Appended }).Distinct());
        }

        Assert.Equal(50, await store.Reader.ReadHead(Ct));
        await store.AssertSound();
    }

    [Fact]
    public async Task that_asks_for_something_else_is_a_reused_key()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();

        var first = await appender.Append(Keyed("k", "a", "one"), Ct);
        var later = await appender.Append(Keyed("k", "a", "two"), Ct);
        var together = await store.AppendTogether(appender, Keyed("l", "a", "one"), Keyed("l", "a", "two"));

        Assert.Equal((AppendOutcome.KeyReused, first.FirstPosition), (later.Outcome, later.FirstPosition));
        Assert.Equal([AppendOutcome.Appended, AppendOutcome.KeyReused], together.Select(r => r.Outcome));
        Assert.Equal(2, await store.Reader.ReadHead(Ct));
    }

    [Fact]
    public async Task of_one_that_failed_its_condition_is_decided_anew()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();

        var failed = await appender.Append(Keyed("k", "a") with { Conditions = [new("a", 3)] }, Ct);
        var repeated = await appender.Append(Keyed("k", "a") with { Conditions = [new("a", 0)] }, Ct);

        Assert.Equal([AppendOutcome.ConditionFailed, AppendOutcome.Appended], [failed.Outcome, repeated.Outcome]);
    }

    [Fact]
    public async Task of_another_tenant_is_another_request()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();

        await appender.Append(Keyed("k", "a"), Ct);
        var other = await appender.Append(Keyed("k", "a") with { TenantId = "t2", IdempotencyId = EventId.From("t2", "k") }, Ct);

        Assert.Equal(AppendOutcome.Appended, other.Outcome);
    }
}
