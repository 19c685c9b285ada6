using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Reading;

public sealed class The_tail_of_a_stream(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task is_what_the_view_has_yet_to_fold()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        foreach (var stream in new[] { "a", "b", "a", "c", "a", "c", "d" })
        {
            await appender.Append(Request(stream, new Noted(stream)), Ct); // a at 1, 3, 5; b at 2; c at 4, 6; d at 7
        }

        string[] streams = ["c", "missing", "a", "b", "d"];
        Assert.Equal("c2:4,6 missing0: a3:1,3,5 b1:2 d1:7", await Tails(store, null, streams));
        Assert.Equal("c2:4,6 missing0: a3:5 b1: d1:7", await Tails(store, 3, streams));
        Assert.Equal("c2:6 missing0: a3: b1: d1:7", await Tails(store, 5, streams));
        Assert.Equal("c2: missing0: a3: b1: d1:7", await Tails(store, 6, streams));
        Assert.Equal("c2: missing0: a3: b1: d1:", await Tails(store, 7, streams));
    }

    [Fact]
    public async Task is_the_tenants_own()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        await appender.Append(Request("a", new Ignored()), Ct);
        await appender.Append(Request("a", new Ignored(), new Ignored()) with { TenantId = "t2" }, Ct);

        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        await using var batch = new NpgsqlBatch(connection);
        EventReader.AddTails(batch, "V", ["t2", Tenant, "t3"], ["a", "a", "a"]);
        await using var reader = await batch.ExecuteReaderAsync(Ct);

        Assert.Equal([2, 1, 0], (await store.Reader.ReadTails(reader, 3, Ct)).Select(t => t.Version));
    }

    [Fact]
    public async Task costs_what_it_returns_however_long_the_stream_is()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        for (var i = 0; i < 10; i++)
        {
            await appender.Append(Request("long", [.. Enumerable.Repeat(new Ignored(), 1_000)]), Ct);
        }

        await store.Execute("insert into mt_event_progression (name, last_seq_id) values ('V:All', 9998); analyze mt_events");
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        await using var batch = new NpgsqlBatch(connection);
        EventReader.AddTails(batch, "V", [Tenant], ["long"]);
        batch.BatchCommands[0].CommandText = "explain (analyze, timing off, summary off, format json) " + batch.BatchCommands[0].CommandText;
        var plan = (string)(await batch.ExecuteScalarAsync(Ct))!;

        var rows = System.Text.RegularExpressions.Regex.Matches(plan, "\"Actual Rows\": ([0-9]+)").Select(m => int.Parse(m.Groups[1].Value, System.Globalization.CultureInfo.InvariantCulture));
        Assert.True(rows.Max() <= 3, plan);
        Assert.DoesNotContain("Seq Scan on mt_events", plan, StringComparison.Ordinal);
    }

    [Fact]
    public async Task fits_the_view_without_gap_or_overlap_while_both_move()
    {
        await using var store = await TestStore.Create(postgres);
        await store.Execute("insert into mt_event_progression (name, last_seq_id) values ('V:All', 0); create table v (folded bigint); insert into v values (0)");
        var appender = store.StartAppender();
        using var stop = new CancellationTokenSource();
        var writing = Task.Run(
            async () =>
            {
                while (!stop.IsCancellationRequested)
                {
                    var result = await appender.Append(Request("a", new Ignored()));
                    if (result.LastPosition % 3 == 0)
                    {
                        await store.Execute(
                            $"begin; update v set folded = {result.LastPosition}; update mt_event_progression set last_seq_id = {result.LastPosition}; commit");
                    }
                }
            },
            Ct);

        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        for (var i = 0; i < 500; i++)
        {
            await using var batch = new NpgsqlBatch(connection);
            EventReader.BeginSnapshotOfAny(batch);
            batch.BatchCommands.Add(new NpgsqlBatchCommand("select folded from v"));
            EventReader.AddTails(batch, "V", [Tenant], ["a"]);
            EventReader.EndSnapshot(batch);
            await using var reader = await batch.ExecuteReaderAsync(Ct);
            await reader.ReadAsync(Ct);
            var folded = reader.GetInt64(0);
            await reader.NextResultAsync(Ct);
            var tail = Assert.Single(await store.Reader.ReadTails(reader, 1, Ct));
            Assert.Equal(Enumerable.Range((int)folded + 1, tail.Events.Count).Select(p => (long)p), tail.Events.Select(e => e.Position));
            Assert.Equal(tail.Version, folded + tail.Events.Count);
        }

        await stop.CancelAsync();
        await writing;
    }

    private static async Task<string> Tails(TestStore store, long? position, string[] streams)
    {
        await store.Execute(position is null
            ? "delete from mt_event_progression"
            : $"insert into mt_event_progression (name, last_seq_id) values ('V:All', {position}) on conflict (name) do update set last_seq_id = excluded.last_seq_id");
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        await using var batch = new NpgsqlBatch(connection);
        EventReader.BeginSnapshotOfAny(batch);
        EventReader.AddTails(batch, "V", [.. streams.Select(_ => Tenant)], streams);
        EventReader.EndSnapshot(batch);
        await using var reader = await batch.ExecuteReaderAsync(Ct);
        var tails = await store.Reader.ReadTails(reader, streams.Length, Ct);
        return string.Join(' ', streams.Zip(tails, (s, t) => $"{s}{t.Version}:{string.Join(',', t.Events.Select(e => e.Position))}"));
    }
}
