using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

public sealed class A_batch(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task is_one_transaction_of_all_who_wait()
    {
        await using var store = await TestStore.Create(postgres);

        await store.AppendTogether(store.StartAppender(), [.. Enumerable.Range(0, 100).Select(i => Request($"s{i}", new Ignored()))]);

        Assert.Equal(1, await store.Value<long>("select count(distinct xmin::text) from mt_events"));
    }

    [Fact]
    public async Task loses_only_the_member_whose_condition_fails()
    {
        await using var store = await TestStore.Create(postgres);

        var results = await store.AppendTogether(
            store.StartAppender(),
            Request("a", new Noted("first")) with { Conditions = [new("a", 0)] },
            Request("a", new Noted("too late")) with { Conditions = [new("a", 0)] },
            Request("a", new Noted("in step")) with { Conditions = [new("a", 1)] },
            Request("b", new Noted("unrelated")));

        Assert.Equal(
            [AppendOutcome.Appended, AppendOutcome.ConditionFailed, AppendOutcome.Appended, AppendOutcome.Appended], results.Select(r => r.Outcome));
        Assert.Equal((new StreamCondition("a", 0), 1), (results[1].Failed, results[1].ActualVersion));
        Assert.Equal(["first", "in step", "unrelated"], (await store.Log()).Select(e => ((Noted)e.Data!).Text));
        await store.AssertSound();
    }

    public static TheoryData<string> Poisons =>
        ["nul in JSON", "nul in a stream's name", "half a character in a stream's name", "half a character in the actor", "name too long for the index"];

    [Theory]
    [MemberData(nameof(Poisons))]
    public async Task loses_only_the_member_that_PostgreSQL_or_its_client_refuses(string poison)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        var poisoned = poison switch
        {
            "nul in JSON" => Request("p", new Noted("a\0b")),
            "nul in a stream's name" => Request("p\0", new Noted("a")),
            "half a character in a stream's name" => Request("p\ud800", new Noted("a")),
            "half a character in the actor" => Request("p", new Noted("a")) with { Actor = "\ud800" },
            _ => Request(new string(new Random(1).GetItems<char>("abcdefghijklmnopqrstuvwxyz0123456789", 8_000)), new Noted("a")),
        };
        var sound = Enumerable.Range(0, 20).Select(i => Keyed($"k{i}", $"s{i % 3}")).ToArray();

        Task<AppendResult>[] appends;
        Task<AppendResult> refused;
        await using (var held = await store.HoldAppendLock())
        {
            var plug = appender.Append(Request("plug", new Ignored()), Ct);
            await store.AppendersWait();
            appends = [.. sound.Take(7).Select(r => appender.Append(r, Ct))];
            refused = appender.Append(poisoned, Ct);
            appends = [.. appends, .. sound.Skip(7).Select(r => appender.Append(r, Ct))];
            await Release(held);
            await plug;
        }

        await Assert.ThrowsAnyAsync<Exception>(() => refused);
        Assert.All(await Task.WhenAll(appends), r => Assert.Equal(AppendOutcome.Appended, r.Outcome));
        Assert.Equal(21, await store.Reader.ReadHead(Ct));
        Assert.Equal(AppendOutcome.Appended, (await appender.Append(Request("after", new Ignored()), Ct)).Outcome);
        await store.AssertSound();
    }

    [Fact]
    public async Task holds_no_more_events_than_its_limit()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { MaxBatchEvents = 10 });

        await store.AppendTogether(store.StartAppender(), [.. Enumerable.Range(0, 25).Select(i => Request($"s{i}", new Ignored(), new Ignored(), new Ignored()))]);

        Assert.Equal(9, await store.Value<long>("select max(n) from (select count(*) as n from mt_events group by xmin::text) t"));
        await store.AssertSound();
    }

    [Fact]
    public async Task holds_no_more_bytes_than_its_limit_except_for_one_larger_request()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { MaxBatchBytes = 10_000 });
        var large = Request("large", [.. Enumerable.Repeat(new Noted(new string('x', 5_000)), 4)]);

        await store.AppendTogether(
            store.StartAppender(), [.. Enumerable.Range(0, 10).Select(i => Request($"s{i}", new Noted(new string('x', 3_000)))), large]);

        Assert.Equal(14, await store.Reader.ReadHead(Ct));
        Assert.True(10_000 >= await store.Value<long>(
            "select max(n) from (select sum(octet_length(data::text)) as n from mt_events where stream_id <> 'large' group by xmin::text) t"));
        Assert.Equal(1, await store.Value<long>("select count(distinct xmin::text) from mt_events where stream_id = 'large'"));
    }

    [Fact]
    public async Task of_many_rows_stores_them_as_one_of_few_does()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("s0", new Noted("first")), Ct);
        AppendRequest[] few = [.. Enumerable.Range(0, 100).Select(i => Of("few", i))], many = [.. Enumerable.Range(0, 1_000).Select(i => Of("many", i))];

        await store.AppendTogether(appender, few);
        await store.AppendTogether(appender, many);

        Assert.Equal(1_101, await store.Reader.ReadHead(Ct));
        const string Rows =
            """
            select row_number() over (order by e.seq_id) as n, e.version, e.data, e.type, e.tenant_id, e.mt_dotnet_type, e.correlation_id, e.causation_id,
              e.headers - 'fingerprint', e.user_name, e.is_archived, e.bdata, s.type as kind, s.is_archived as closed, s.timestamp = e.timestamp, s.created <= e.timestamp
            from mt_events e join mt_streams s on s.tenant_id = e.tenant_id and s.id = e.stream_id where e.correlation_id like '{0}-%' and (e.data ->> 'text')::int < 100
            """;
        Assert.Equal(
            await store.Lines(Rows.Replace("{0}", "few", StringComparison.Ordinal)),
            (await store.Lines(Rows.Replace("{0}", "many", StringComparison.Ordinal))).Select(l => l.Replace("many", "few", StringComparison.Ordinal)));
        await store.AssertSound();

        static AppendRequest Of(string name, int i) => Keyed($"{name}{i}", $"{name}{i}", events: new Noted($"{i}")) with
        {
            Actor = i % 2 == 0 ? "anna" : null, CorrelationId = $"{name}-{i}", CausationId = i % 3 == 0 ? "ä \\ \t" : null,
        };
    }

    [Theory]
    [InlineData(50)]
    [InlineData(1_000)]
    public async Task begins_streams_and_loses_only_the_ones_that_were_there(int streams)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("s7", new Ignored(), new Ignored()), Ct);
        AppendRequest[] requests =
        [
            .. Enumerable.Range(0, streams).Select(i => Request($"s{i}", new Noted($"{i}")) with { Conditions = [new($"s{i}", 0)] }),
            Request("s8", new Noted("second")) with { Conditions = [new("s8", 1)] },
            Request("s9", new Noted("second")) with { Conditions = [new("s9", 0)] },
            Request("s10", new Noted("of any version")),
            Request("other", new Noted("while s11 is not there")) with { Conditions = [new("s11", 0)] },
            Request("other", new Noted("while s-none is not there")) with { Conditions = [new("s-none", 0), new("other", 0)] },
        ];

        var results = await store.AppendTogether(appender, requests);

        Assert.Equal([7, streams + 1, streams + 3], results.Index().Where(r => r.Item.Outcome == AppendOutcome.ConditionFailed).Select(r => r.Index));
        Assert.Equal([2, 1, 1], results.Where(r => r.Outcome == AppendOutcome.ConditionFailed).Select(r => r.ActualVersion));
        Assert.Equal(streams + 4, await store.Reader.ReadHead(Ct)); // 2 there were, 3 are refused
        await store.AssertSound();
    }

    [Fact]
    public async Task may_be_larger_than_the_queue_for_those_who_stream()
    {
        await using var store = await TestStore.Create(postgres, new EventStoreOptions { QueueCapacity = 10, MaxBatchEvents = 7 });
        var appender = store.StartAppender();

        var results = await appender.AppendMany(
            [.. Enumerable.Range(0, 100).Select(i => Request($"s{i % 50}", new Noted($"{i}")) with { Conditions = i == 42 ? [new("s42", 9)] : [] })]);

        Assert.Equal(99, results.Count(r => r.Outcome == AppendOutcome.Appended));
        Assert.Equal(AppendOutcome.ConditionFailed, results[42].Outcome);
        Assert.Equal(
            Enumerable.Range(0, 100).Where(i => i != 42).Select(i => $"{i}"), (await store.Log()).Select(e => ((Noted)e.Data!).Text));
        Assert.Empty(await appender.AppendMany([]));
        await store.AssertSound();
    }

    [Fact]
    public async Task of_those_who_stream_is_refused_when_the_appender_has_stopped()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.DisposeAsync();

        var refusal = await Assert.ThrowsAsync<EventStoreUnavailableException>(() => appender.AppendMany([Request("a", new Ignored())]));

        Assert.False(refusal.OutcomeUnknown);
    }

    [Fact]
    public async Task gives_way_to_a_program_that_numbers_without_the_lock()
    {
        await using var store = await TestStore.Create(postgres);
        await using var intruder = await store.Database.OpenConnectionAsync(Ct);
        await using var transaction = await intruder.BeginTransactionAsync(Ct);
        await using (var insert = new NpgsqlCommand(
            """
            insert into mt_streams (tenant_id, id, version) values ('t1', 'foreign', 1);
            insert into mt_events (seq_id, id, stream_id, version, data, type, tenant_id)
            values (nextval('mt_events_sequence'), gen_random_uuid(), 'foreign', 1, '{}', 'ignored', 't1')
            """, intruder))
        {
            await insert.ExecuteNonQueryAsync(Ct);
        }

        var append = store.StartAppender().Append(Keyed("k", "a"), Ct);
        await Runs.Until(
            async () => await store.Value<long>("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 1,
            "the append waits for the other's number");
        await transaction.CommitAsync(Ct);

        Assert.Equal((AppendOutcome.Appended, 2), ((await append).Outcome, (await append).FirstPosition));
        await store.AssertSound();
    }
}
