using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class Events_with_an_identity(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task are_stored_once_each_and_keep_their_first_outcome()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var first = await appender.Append(Identified("a", ("1", "x"), ("2", "x")), Ct);

        var second = await appender.Append(Identified("a", ("2", "x"), ("3", "x"), ("1", "x"), ("3", "x")), Ct);

        Assert.Equal(
            [
                new EventResult(AppendOutcome.Duplicate, 2, first.RecordedAt), new EventResult(AppendOutcome.Appended, 3, second.RecordedAt),
                new EventResult(AppendOutcome.Duplicate, 1, first.RecordedAt), new EventResult(AppendOutcome.Duplicate, 3, second.RecordedAt),
            ],
            second.Events);
        Assert.Equal((AppendOutcome.Appended, 1, 3), (second.Outcome, second.FirstPosition, second.LastPosition));
        Assert.Equal(["1", "2", "3"], (await store.Log()).Select(e => ((Noted)e.Data!).Text));
        await store.AssertSound();
    }

    [Fact]
    public async Task that_are_all_there_make_the_request_a_duplicate_whatever_its_conditions_say_by_then()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var request = Identified("a", ("1", "x")) with { Conditions = [new("a", 0)] };
        await appender.Append(request, Ct);

        var repeat = await appender.Append(request, Ct);

        Assert.Equal((AppendOutcome.Duplicate, 1), (repeat.Outcome, repeat.LastPosition));
        Assert.Equal(AppendOutcome.ConditionFailed, (await appender.Append(Identified("a", ("1", "x"), ("2", "x")) with { Conditions = [new("a", 0)] }, Ct)).Outcome);
        Assert.Equal(1, await store.Reader.ReadHead(Ct));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task whose_id_was_used_for_something_else_are_refused_alone_or_with_all_others(bool allOrNothing)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Identified("a", ("1", "x")), Ct);

        var result = await appender.Append(Identified("a", ("2", "x"), ("1", "other"), ("3", "x"), ("3", "other")) with { AllOrNothing = allOrNothing }, Ct);

        Assert.Equal(allOrNothing ? AppendOutcome.KeyReused : AppendOutcome.Appended, result.Outcome);
        Assert.Equal((AppendOutcome.KeyReused, 1), (result.Events[1].Outcome, result.Events[1].Position));
        Assert.Equal(AppendOutcome.KeyReused, result.Events[3].Outcome);
        Assert.Equal(allOrNothing ? ["1"] : ["1", "2", "3"], (await store.Log()).Select(e => ((Noted)e.Data!).Text));
        await store.AssertSound();
    }

    [Fact]
    public async Task are_told_apart_by_tenant_stream_and_each_other_in_one_batch()
    {
        await using var store = await TestStore.Create(postgres);

        var results = await store.AppendTogether(
            store.StartAppender(), Identified("a", ("1", "x")), Identified("b", ("1", "x"), ("2", "x")), Identified("a", ("2", "other"), ("3", "x")));

        Assert.Equal([AppendOutcome.Appended], results[0].Events.Select(e => e.Outcome));
        Assert.Equal([AppendOutcome.Duplicate, AppendOutcome.Appended], results[1].Events.Select(e => e.Outcome));
        Assert.Equal([AppendOutcome.KeyReused, AppendOutcome.Appended], results[2].Events.Select(e => e.Outcome));
        Assert.Equal(3, await store.Reader.ReadHead(Ct));
        await store.AssertSound();
    }

    [Fact]
    public async Task are_stored_only_while_another_event_is_absent()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var ruling = EventId.From(Tenant, "void");
        var ruled = Identified("a", ("1", "x")) with { Absent = [ruling] };
        var before = await appender.Append(ruled, Ct);
        await appender.Append(Identified("a", ("void", "x")), Ct);

        var after = await appender.Append(Identified("a", ("2", "x")) with { Absent = [ruling] }, Ct);
        var repeat = await appender.Append(ruled, Ct);
        var together = await store.AppendTogether(
            appender, Identified("b", ("other void", "x")), Identified("b", ("3", "x")) with { Absent = [EventId.From(Tenant, "other void")] });

        Assert.Equal(AppendOutcome.Appended, before.Outcome);
        Assert.Equal((AppendOutcome.ConditionFailed, ruling), (after.Outcome, after.Found));
        Assert.Equal(AppendOutcome.Duplicate, repeat.Outcome);
        Assert.Equal([AppendOutcome.Appended, AppendOutcome.ConditionFailed], together.Select(r => r.Outcome));
        Assert.Equal(3, await store.Reader.ReadHead(Ct));
    }

    [Fact]
    public async Task at_every_appender_at_once_are_stored_by_one_of_them()
    {
        await using var store = await TestStore.Create(postgres);
        Appender[] appenders = [store.StartAppender(), store.StartAppender(), store.StartAppender()];
        (string, string)[] events = [.. Enumerable.Range(0, 500).Select(i => ($"{i}", "x"))];

        var results = await Task.WhenAll(appenders.SelectMany((appender, a) => Enumerable.Range(0, 4).Select(i => appender.Append(
            Identified($"s{a}", [.. events.Skip(i * 100), .. events.Take(i * 100)]), Ct))));

        Assert.Equal(500, results.Sum(r => r.Events.Count(e => e.Outcome == AppendOutcome.Appended)));
        Assert.Equal(500, await store.Reader.ReadHead(Ct));
        foreach (var i in Enumerable.Range(0, 500))
        {
            var id = EventId.From(Tenant, $"{i}");
            var stored = await store.Reader.FindRequest(Tenant, id, Ct);
            Assert.All(results.Where((_, r) => r % 4 == 0), r => Assert.Equal(stored!.FirstPosition, r.Events[i].Position));
        }

        await store.AssertSound();
    }

    [Fact]
    public async Task keep_their_outcome_when_the_connection_is_lost_between_commit_and_answer()
    {
        await using var store = await TestStore.Create(postgres);
        await using var proxy = new FaultProxy(store.ConnectionString);
        var appender = store.StartAppender(proxy: proxy);
        await appender.Append(Identified("a", ("old", "x")), Ct);
        (string, string)[] fresh = [.. Enumerable.Range(0, 300).Select(i => ($"{i}", "x"))]; // enough to be copied
        A_lost_connection.CutOnceAfterCommit(proxy);

        var results = await store.AppendTogether(
            appender, Identified("a", [("old", "x"), .. fresh]), Identified("b", fresh), Identified("a", ("old", "other"), ("last", "x")));

        Assert.True(proxy.Cuts >= 1, "nothing was cut");
        Assert.Equal(AppendOutcome.Duplicate, results[0].Events[0].Outcome);
        Assert.All(results[0].Events.Skip(1), (e, i) => Assert.Equal((AppendOutcome.Appended, i + 2), (e.Outcome, e.Position)));
        Assert.All(results[1].Events, (e, i) => Assert.Equal((AppendOutcome.Duplicate, i + 2), (e.Outcome, e.Position)));
        Assert.Equal([AppendOutcome.KeyReused, AppendOutcome.Appended], results[2].Events.Select(e => e.Outcome));
        Assert.Equal(302, await store.Reader.ReadHead(Ct));
        await store.AssertSound();
    }

    [Fact]
    public async Task must_have_one_each_and_none_beside_the_requests()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var request = Identified("a", ("1", "x"), ("2", "x"));

        await Assert.ThrowsAsync<ArgumentException>(() => appender.Append(request with { Identities = [request.Identities![0]] }, Ct));
        await Assert.ThrowsAsync<ArgumentException>(() => appender.Append(request with { IdempotencyId = Guid.NewGuid() }, Ct));

        Assert.Equal(0, await store.Reader.ReadHead(Ct));
    }

    private static AppendRequest Identified(string stream, params (string Key, string Fingerprint)[] events) =>
        Request(stream, [.. events.Select(e => new Noted(e.Key))]) with
        {
            Identities = [.. events.Select(e => new EventIdentity(EventId.From(Tenant, e.Key), e.Fingerprint))],
        };
}
