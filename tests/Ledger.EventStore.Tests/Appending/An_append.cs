using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class An_append(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task numbers_events_densely_in_the_log_and_in_each_stream()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();

        var first = await appender.Append(Request("a", new Noted("1"), new Noted("2")), Ct);
        var second = await appender.Append(Request("b", new Noted("3")), Ct);
        var third = await appender.Append(Request("a", new Noted("4")), Ct);

        Assert.Equal((AppendOutcome.Appended, 1, 2, 2), (first.Outcome, first.FirstPosition, first.LastPosition, first.Version));
        Assert.Equal((AppendOutcome.Appended, 3, 3, 1), (second.Outcome, second.FirstPosition, second.LastPosition, second.Version));
        Assert.Equal((AppendOutcome.Appended, 4, 4, 3), (third.Outcome, third.FirstPosition, third.LastPosition, third.Version));
        Assert.Equal(
            [(1, "a", 1, "1"), (2, "a", 2, "2"), (3, "b", 1, "3"), (4, "a", 3, "4")],
            (await store.Log()).Select(e => (e.Position, e.StreamId, e.Version, ((Noted)e.Data!).Text)));
        await store.AssertSound();
    }

    [Fact]
    public async Task keeps_all_that_the_store_knows_of_an_event()
    {
        await using var store = await TestStore.Create(postgres);

        var result = await store.StartAppender().Append(
            Keyed("key", "a", "print", new Deposited("a", 5)) with { Actor = "anna", CorrelationId = "c-1", CausationId = "c-0" }, Ct);

        var recorded = Assert.Single(await store.Log());
        Assert.Equal(EventId.From(Tenant, "key"), recorded.Id);
        Assert.Equal((Tenant, "a", "deposited"), (recorded.TenantId, recorded.StreamId, recorded.Type));
        Assert.Equal(("anna", "c-1", "c-0"), (recorded.Actor, recorded.CorrelationId, recorded.CausationId));
        Assert.Equal(result.RecordedAt, recorded.RecordedAt);
        Assert.Equal(new Deposited("a", 5), recorded.Data);
        Assert.Equal(
            """("Ledger.EventStore.Tests.Support.Deposited, Ledger.EventStore.Tests","{""fingerprint"": ""print""}",account,f,f)""",
            Assert.Single(await store.Lines(
                "select e.mt_dotnet_type, e.headers, s.type, e.is_archived, s.is_archived from mt_events e join mt_streams s on s.id = e.stream_id")));
    }

    [Fact]
    public async Task holds_when_every_condition_holds()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("segment", new Noted("created")), Ct);

        var result = await appender.Append(
            Request("user", new Noted("joined")) with { Conditions = [new("user", 0), new("segment", 1), new("absent", 0)] }, Ct);

        Assert.Equal(AppendOutcome.Appended, result.Outcome);
    }

    [Fact]
    public async Task stores_nothing_when_one_of_its_conditions_fails_and_names_the_first_one()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("segment", new Noted("created"), new Noted("deleted")), Ct);

        var result = await appender.Append(
            Request("user", new Noted("joined")) with { Conditions = [new("user", 0), new("segment", 1), new("user", 7)] }, Ct);

        Assert.Equal((AppendOutcome.ConditionFailed, new StreamCondition("segment", 1), 2), (result.Outcome, result.Failed, result.ActualVersion));
        Assert.Equal(2, await store.Reader.ReadHead(Ct));
        Assert.Equal(0, await store.Value<long>("select count(*) from mt_streams where id = 'user'"));
    }

    [Fact]
    public async Task sees_other_tenants_streams_as_others()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("a", new Noted("1")), Ct);

        var result = await appender.Append(Request("a", new Noted("2")) with { TenantId = "t2", Conditions = [new("a", 0)] }, Ct);

        Assert.Equal((AppendOutcome.Appended, 1), (result.Outcome, result.Version));
        await store.AssertSound();
    }

    [Fact]
    public async Task over_several_streams_is_one_contiguous_whole_with_ids_made_of_the_first()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("b", new Noted("0")), Ct);
        var id = EventId.From(Tenant, "many");

        var result = await appender.Append(
            new AppendRequest
            {
                TenantId = Tenant,
                IdempotencyId = id,
                Appends =
                [
                    new("a", "account", [new Noted("1"), new Noted("2")]), new("b", "account", [new Noted("3")]), new("a", "account", [new Noted("4")]),
                ],
            },
            Ct);

        Assert.Equal((2, 5, 3), (result.FirstPosition, result.LastPosition, result.Version));
        Assert.Equal(
            [("a", 1, id), ("a", 2, EventId.Next(id, 1)), ("b", 2, EventId.Next(id, 2)), ("a", 3, EventId.Next(id, 3))],
            (await store.Log()).Skip(1).Select(e => (e.StreamId, e.Version, e.Id)));
        var repeated = await appender.Append(
            new AppendRequest
            {
                TenantId = Tenant,
                IdempotencyId = id,
                Appends =
                [
                    new("a", "account", [new Noted("1"), new Noted("2")]), new("b", "account", [new Noted("3")]), new("a", "account", [new Noted("4")]),
                ],
            },
            Ct);
        Assert.Equal(result with { Outcome = AppendOutcome.Duplicate }, repeated);
    }

    [Fact]
    public async Task without_events_is_refused()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();

        await Assert.ThrowsAsync<ArgumentException>(() => appender.Append(Request("a"), Ct));
        await Assert.ThrowsAsync<ArgumentException>(() => appender.Append(
            Request("a") with { Appends = [new("a", "account", []), new("b", "account", [new Ignored()])] }, Ct));
    }

    [Fact]
    public async Task of_too_many_events_or_too_large_an_event_is_refused()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var envelope = """{"text":""}""".Length;

        await Assert.ThrowsAsync<ArgumentException>(() => appender.Append(
            Request("a", [.. Enumerable.Repeat(new Ignored(), EventStoreOptions.MaxRequestEvents + 1)]), Ct));
        await Assert.ThrowsAsync<ArgumentException>(() => appender.Append(
            Request("a", new Noted(new string('x', EventStoreOptions.MaxEventBytes - envelope + 1))), Ct));

        Assert.Equal(EventStoreOptions.MaxRequestEvents, (await appender.Append(
            Request("a", [.. Enumerable.Repeat(new Ignored(), EventStoreOptions.MaxRequestEvents)]), Ct)).LastPosition);
        Assert.Equal(AppendOutcome.Appended, (await appender.Append(
            Request("a", new Noted(new string('x', EventStoreOptions.MaxEventBytes - envelope))), Ct)).Outcome);
    }

    [Fact]
    public async Task is_heard_of_by_those_who_listen()
    {
        await using var store = await TestStore.Create(postgres);
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        await using (var listen = new NpgsqlCommand("listen mt_events_appended", connection))
        {
            await listen.ExecuteNonQueryAsync(Ct);
        }

        await store.StartAppender().Append(Request("a", new Ignored()), Ct);

        Assert.True(await connection.WaitAsync(Runs.Patience, Ct));
    }

    [Fact]
    public async Task tells_its_own_process_the_last_position()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var heard = new TaskCompletionSource<long>();
        appender.Committed += position => heard.TrySetResult(position);

        await appender.Append(Request("a", new Ignored(), new Ignored()), Ct);

        Assert.Equal(2, await heard.Task.WaitAsync(Runs.Patience, Ct));
    }

    [Fact]
    public async Task is_answered_even_when_a_listener_of_its_own_process_throws()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        appender.Committed += _ => throw new InvalidOperationException("a bug of the listener");

        var result = await appender.Append(Request("a", new Ignored()), Ct);

        Assert.Equal((AppendOutcome.Appended, 1), (result.Outcome, result.LastPosition));
    }

    [Fact]
    public async Task never_records_a_time_before_the_event_before_it()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var other = store.StartAppender();
        var times = new List<DateTimeOffset>();

        foreach (var hours in new[] { 0, 1, -1, 1, 0, 2 })
        {
            store.Wall.Offset = TimeSpan.FromHours(hours);
            times.Add((await appender.Append(Request("a", new Ignored()), Ct)).RecordedAt);
            times.Add((await other.Append(Request("b", new Ignored()), Ct)).RecordedAt);
        }

        Assert.Equal(times.Order(), times);
        Assert.Equal(times, (await store.Log()).Select(e => e.RecordedAt));
        Assert.True(times[^1] > DateTimeOffset.UtcNow.AddHours(1.9), "a clock that steps forward is believed");
        await store.AssertSound();
    }

    [Fact]
    public async Task keeps_the_sequence_at_the_head_even_after_others_drew_from_it()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await store.Execute("select nextval('mt_events_sequence') from generate_series(1, 5)");

        await appender.Append(Request("a", new Ignored()), Ct);
        await appender.Append(Request("a", new Ignored()), Ct);

        Assert.Equal([1L, 2L], (await store.Log()).Select(e => e.Position));
        Assert.Equal(2, await store.Value<long>("select last_value from mt_events_sequence"));
    }
}
