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

            Assert.Equal((await store.Reader.ReadPage(connection, after, to, limit, Ct)).Events.Select(Told), page.Events.Select(Told));
            Assert.False(page.IsCut);
        }

        var all = (await store.Reader.CopyPage(connection, 0, 90, 90, Ct)).Events;
        Assert.Equal((90, 2, "00-yes", null), (all.Count, all.Count(e => e.Unreadable is not null), all[12].TraceParent, all[15].TraceParent));
        Assert.Equal(DateTimeOffset.MaxValue.Ticks / TimeSpan.TicksPerSecond, all[24].RecordedAt.Ticks / TimeSpan.TicksPerSecond);

        static string Told(RecordedEvent e) => string.Join(
            '|', e.Position, e.Id, e.TenantId, e.StreamId, e.Version, e.Type, e.RecordedAt.ToString("O"), Encoding.UTF8.GetString(e.Json.Span),
            e.Actor ?? "null", e.CorrelationId ?? "null", e.CausationId ?? "null", e.TraceParent ?? "null", e.DataType, e.Unreadable?.Message, e.Unreadable is null ? e.Data : "");
    }

    [Theory]
    [InlineData(1)]
    [InlineData(100)]
    [InlineData(100_000)]
    public async Task ends_a_copied_page_with_the_last_event_within_the_limit(int piece)
    {
        const int events = 4;
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", [.. Enumerable.Range(1, events).Select(i => new Noted(new string('x', i * 150)))]), Ct);
        await using var connection = await store.Database.OpenConnectionAsync(Ct);
        var copies = new List<byte[]>();
        for (var i = 1; i <= events; i++)
        {
            copies.Add((await store.Reader.CopyPage(connection, 0, long.MaxValue, i, Ct)).Rows!.Bytes);
        }

        var ends = copies.ConvertAll(c => c.Length - StoredRow.Trailer.Length); // of each event's row

        foreach (var (maxBytes, expected) in Enumerable.Range(1, events).SelectMany(
            n => new[] { (ends[n - 1], n), (ends[n - 1] + 1, n), (ends[n - 1] - 1, Math.Max(1, n - 1)) }).Append((0, 1)).Append((int.MaxValue, events)))
        {
            using var copy = new Pieces(copies[^1], piece);
            var page = await EventPage.Read(copy, events, maxBytes, TestEvents.Types, Ct);

            Assert.Equal(Enumerable.Range(1, expected).Select(i => (long)i), page.Events.Select(e => e.Position));
            Assert.Equal(expected < events, page.IsCut);
            Assert.Equal(copies[expected - 1], page.Rows!.Bytes); // as if no more had been asked for
            Assert.Equal(copy.Length, copy.Position); // the connection can be used again
        }
    }

    [Fact]
    public async Task ends_a_page_with_the_last_event_within_the_limit()
    {
        const int eventBytes = EventReader.MaxPageBytes / 8;
        await using var store = await TestStore.Create(postgres);
        await store.StartAppender().Append(Request("a", [.. Enumerable.Repeat(new Noted(""), 12)]), Ct);
        await store.Execute($$"""update mt_events set data = jsonb_build_object('text', repeat('x', {{eventBytes}} - length('{"text": ""}')))""");
        await using var connection = await store.Database.OpenConnectionAsync(Ct);

        Assert.Equal("1-8", await Read(0, 100)); // exactly the limit
        Assert.Equal("1-8", await Read(0, 8, isCut: false));
        Assert.Equal("5-12", await Read(4, 100, isCut: false));
        await store.Execute("update mt_events set data = jsonb_build_object('text', data ->> 'text' || 'x') where seq_id = 8");
        Assert.Equal("1-7", await Read(0, 100));
        await store.Execute("update mt_events set data = jsonb_build_object('text', repeat(data ->> 'text', 9)) where seq_id = 8");
        Assert.Equal("8-8", await Read(7, 100)); // it alone is more than the limit
        Assert.Equal("8-8", await Read(7, 1, isCut: false));
        Assert.Equal((8, true), await store.Reader.CopyPage(connection, 7, 100, 100, Ct) is var alone ? (Assert.Single(alone.Events).Position, alone.IsCut) : default);
        Assert.Equal((8, false), await store.Reader.CopyPage(connection, 7, 8, 100, Ct) is var last ? (Assert.Single(last.Events).Position, last.IsCut) : default);
        Assert.Equal(Enumerable.Range(1, 12).Select(i => (long)i), await store.Reader.ReadLog(cancellation: Ct).Select(e => e.Position).ToListAsync(Ct));

        async Task<string> Read(long after, int limit, bool isCut = true)
        {
            var page = await store.Reader.ReadPage(connection, after, long.MaxValue, limit, Ct);
            Assert.Equal(isCut, page.IsCut);
            Assert.Equal(page.Events.Count, page.Events[^1].Position - after);
            return $"{page.Events[0].Position}-{page.Events[^1].Position}";
        }
    }

    [Fact]
    public void asks_for_as_much_as_a_page_that_was_cut_and_then_for_more_and_more()
    {
        var length = new PageLength(100);
        Assert.Equal((100, false, true), (length.Positions, length.IsMore(Page(99)), length.IsMore(Page(100))));

        length.Learn(Page(20, isCut: true), after: 0);

        Assert.Equal((20, true, true, false), (length.Positions, length.IsMore(Page(1, isCut: true)), length.IsMore(Page(20)), length.IsMore(Page(19))));
        var asked = new List<int>();
        for (var i = 0; i < 9; i++)
        {
            length.Learn(Page(length.Positions), after: 0);
            asked.Add(length.Positions);
        }

        Assert.Equal([26, 33, 42, 53, 67, 84, 100, 100, 100], asked);
        length.Learn(Page(1, isCut: true), after: 0);
        length.Learn(Page(0), after: 1);
        Assert.Equal(2, length.Positions);

        static EventPage Page(int events, bool isCut = false) => new([.. Enumerable.Range(1, events).Select(Event)], isCut);

        static RecordedEvent Event(int position) => new()
        {
            Position = position, Id = Guid.Empty, TenantId = Tenant, StreamId = "a", Version = position, Type = "noted", RecordedAt = DateTimeOffset.UnixEpoch, Json = default,
        };
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

    /// <summary>Bytes that come in pieces.</summary>
    private sealed class Pieces(byte[] bytes, int piece) : MemoryStream(bytes)
    {
        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
            base.ReadAsync(buffer[..Math.Min(piece, buffer.Length)], cancellationToken);
    }
}
