using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Reading;

public sealed class Reading_streams(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(1, long.MaxValue, "12345")]
    [InlineData(3, long.MaxValue, "345")]
    [InlineData(2, 3, "23")]
    [InlineData(6, long.MaxValue, "")]
    [InlineData(4, 3, "")]
    public async Task returns_the_versions_asked_for(long from, long to, string expected)
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        foreach (var text in new[] { "1", "2", "3", "4", "5" })
        {
            await appender.Append(Request("a", new Noted(text)), Ct);
            await appender.Append(Request("b", new Noted("other")), Ct);
            await appender.Append(Request("a", new Noted("other tenant")) with { TenantId = "t2" }, Ct);
        }

        var read = await store.Reader.ReadStream(new StreamKey(Tenant, "a"), from, to, Ct).ToListAsync(Ct);

        Assert.Equal(expected, string.Concat(read.Select(e => ((Noted)e.Data!).Text)));
    }

    [Fact]
    public async Task returns_several_stream_by_stream()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        foreach (var stream in new[] { "b", "a", "c", "b", "a" })
        {
            await appender.Append(Request(stream, new Ignored()), Ct);
        }

        var read = await store.Reader.ReadStreams(Tenant, ["c", "a", "missing"], Ct).ToListAsync(Ct);

        Assert.Equal([("c", 1, 3), ("a", 1, 2), ("a", 2, 5)], read.Select(e => (e.StreamId, e.Version, e.Position)));
    }

    [Fact]
    public async Task returns_what_several_got_after_a_version_of_each()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        foreach (var stream in new[] { "b", "a", "b", "a", "a" })
        {
            await appender.Append(Request(stream, new Ignored()), Ct);
        }

        var read = await store.Reader.ReadStreams(Tenant, ["a", "missing", "b", "b"], [1, 0, 2, 1], Ct).ToListAsync(Ct);

        Assert.Equal([("a", 2, 4), ("a", 3, 5), ("b", 2, 3)], read.Select(e => (e.StreamId, e.Version, e.Position)));
    }

    [Fact]
    public async Task folds_one_from_its_start()
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", new Deposited("a", 5), new Deposited("a", 7)), Ct);

        var folded = await store.Reader.Fold(new StreamKey(Tenant, "a"), 0, (sum, e) => sum + ((Deposited)e.Data!).Amount, Ct);
        var missing = await store.Reader.Fold(new StreamKey(Tenant, "b"), 3, (sum, _) => sum + 1, Ct);

        Assert.Equal([(12, 2L), (3, 0L)], [folded, missing]);
    }

    [Fact]
    public async Task passes_over_kinds_it_does_not_know_and_fails_only_where_an_unreadable_one_is_used()
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", new Ignored(), new Deposited("a", 7), new Ignored()), Ct);
        await store.Execute("update mt_events set type = 'from_the_future' where seq_id = 1");
        await store.Execute("""update mt_events set data = '{"account": 5, "amount": "many"}' where seq_id = 2""");

        var read = await store.Reader.ReadStream(new StreamKey(Tenant, "a"), cancellation: Ct).ToListAsync(Ct);

        Assert.Equal(("from_the_future", null), (read[0].Type, read[0].Data));
        Assert.Equal(2, Assert.Throws<UnreadableEventException>(() => read[1].Data).Position);
        Assert.IsType<Ignored>(read[2].Data);
    }

    [Fact]
    public async Task finds_a_request_by_its_key_wherever_it_was_written()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("a", new Ignored()), Ct);
        var result = await appender.Append(Keyed("k", "a", "print", new Ignored(), new Ignored()), Ct);
        var foreign = Guid.NewGuid();
        await store.Execute($"update mt_events set id = '{foreign}', headers = null where seq_id = 1"); // as a Marten program writes

        Assert.Equal(
            new StoredRequest(2, 2, "a", 2, result.RecordedAt, "print") { LastVersion = 3 },
            await store.Reader.FindRequest(Tenant, EventId.From(Tenant, "k"), Ct));
        Assert.Equal(3, (await store.Reader.FindRequest(Tenant, EventId.From(Tenant, "k"), Ct))!.LastPosition);
        Assert.Equal((1, 1, null), (await store.Reader.FindRequest(Tenant, foreign, Ct)) is { } found ? (found.FirstPosition, found.Events, found.Fingerprint) : default);
        Assert.Null(await store.Reader.FindRequest(Tenant, Guid.NewGuid(), Ct));
    }
}
