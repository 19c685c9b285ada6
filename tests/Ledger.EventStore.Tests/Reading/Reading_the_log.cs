using System.Text;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Reading;

public sealed class Reading_the_log(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task goes_on_page_after_page_to_the_end_as_it_is_by_then()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        for (var i = 0; i < 2; i++)
        {
            await appender.Append(Request("a", [.. Enumerable.Repeat(new Ignored(), EventReader.PageSize)]), Ct);
        }

        var positions = new List<long>();
        await foreach (var recorded in store.Reader.ReadLog(cancellation: Ct))
        {
            if (recorded.Position == 1)
            {
                await appender.Append(Request("a", new Ignored(), new Ignored()), Ct);
            }

            positions.Add(recorded.Position);
        }

        Assert.Equal(Enumerable.Range(1, (2 * EventReader.PageSize) + 2).Select(i => (long)i), positions);
    }

    [Theory]
    [InlineData(0, 3, "1,2,3")]
    [InlineData(2, 4, "3,4")]
    [InlineData(4, 100, "5")]
    [InlineData(5, 100, "")]
    [InlineData(3, 3, "")]
    public async Task stays_within_the_positions_asked_for(long after, long to, string expected)
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Ignored(), 5)]), Ct);

        Assert.Equal(expected, string.Join(',', await store.Reader.ReadLog(after, to, Ct).Select(e => e.Position).ToListAsync(Ct)));
    }

    [Fact]
    public async Task gives_the_same_of_full_pages_as_of_others()
    {
        await using var store = await TestStore.Create(postgres);
        var appender = store.StartAppender();
        for (var i = 0; i < 30; i++)
        {
            var request = Request($"s-{i % 4}-ключ\u1F600", new Deposited($"a\"{i}\\ä", i), new Ignored(), new Noted(new string('x', i * 400))) with
            {
                TenantId = $"t{i / 10}", Actor = i % 3 == 0 ? "somebody" : null, CorrelationId = i % 2 == 0 ? $"c{i / 4}" : "", CausationId = i % 5 == 0 ? null : "k",
            };
            await appender.Append(request, Ct);
        }

        await store.Execute(
            """
            update mt_events set type = 'stranger' where seq_id in (4, 50);
            update mt_events set data = '{"amount":"no number"}' where seq_id = 7;
            update mt_events set data = '[]' where seq_id = 10;
            update mt_events set headers = '{"nested":{"traceparent":"no"},"traceparent":"00-yes"}' where seq_id = 13;
            update mt_events set headers = '{"nested":[{"traceparent":"no"}],"other":"traceparent"}' where seq_id = 16;
            update mt_events set headers = null, bdata = '\x0102' where seq_id = 22;
            update mt_events set timestamp = 'infinity' where seq_id = 25;
            update mt_events set timestamp = '1999-12-31 23:59:59.999999+00' where seq_id = 28;
            """);
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        foreach (var (after, to, limit) in new (long, long, int)[] { (0, long.MaxValue, 1_000), (0, 90, 90), (3, 40, 1_000), (88, 1_000, 2), (90, 1_000, 5), (5, 5, 10), (9, 2, 10) })
        {
            var page = await store.Reader.CopyPage(connection, after, to, limit, Ct);

            Assert.Equal((await store.Reader.ReadPage(connection, after, to, limit, Ct)).Select(Told), page.Events.Select(Told));
        }

        var all = (await store.Reader.CopyPage(connection, 0, 90, 90, Ct)).Events;
        Assert.Equal((90, 2, "00-yes", null), (all.Count, all.Count(e => e.Unreadable is not null), all[12].TraceParent, all[15].TraceParent));
        Assert.Equal(DateTimeOffset.MaxValue.Ticks / TimeSpan.TicksPerSecond, all[24].RecordedAt.Ticks / TimeSpan.TicksPerSecond);

        static string Told(RecordedEvent e) => string.Join(
            '|', e.Position, e.Id, e.TenantId, e.StreamId, e.Version, e.Type, e.RecordedAt.ToString("O"), Encoding.UTF8.GetString(e.Json.Span),
            e.Actor ?? "null", e.CorrelationId ?? "null", e.CausationId ?? "null", e.TraceParent ?? "null", e.DataType, e.Unreadable?.Message, e.Unreadable is null ? e.Data : "");
    }

    [Fact]
    public async Task knows_its_head_and_when_a_position_was_recorded()
    {
        await using var store = await TestStore.Create(postgres);
        Assert.Equal((0, null), (await store.Reader.ReadHead(Ct), await store.Reader.RecordedAt(1, Ct)));

        var result = await store.StartAppender().Append(Request("a", new Ignored()), Ct);

        Assert.Equal((1, result.RecordedAt), (await store.Reader.ReadHead(Ct), await store.Reader.RecordedAt(1, Ct)));
    }

    [Fact]
    public async Task returns_the_event_at_a_position()
    {
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", new Noted("x"), new Noted("y"), new Noted("z")), Ct);

        Assert.Equal((2, "y"), await store.Reader.ReadAt(Tenant, 2, Ct) is { Data: Noted noted } found ? (found.Position, noted.Text) : default);
        Assert.Null(await store.Reader.ReadAt(Tenant, 4, Ct));
        Assert.Null(await store.Reader.ReadAt(Tenant, 0, Ct));
    }
}
