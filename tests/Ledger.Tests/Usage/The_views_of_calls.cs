using System.Globalization;
using System.Text;
using Ledger.EventStore;
using Ledger.Testing;
using Ledger.Usage;
using Npgsql;

namespace Ledger.Tests.Usage;

public sealed class The_views_of_calls(PostgresFixture postgres, ITestOutputHelper output)
{
    public static TheoryData<string> Views => ["Calls", "UsageTotals"];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static IProjection Projection(string view) => view == CallsProjection.View ? new CallsProjection() : new UsageTotalsProjection();

    [Theory, MemberData(nameof(Views))]
    public async Task Are_the_same_however_the_events_are_cut_into_batches(string view)
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        var log = new RandomCalls(random).Log(600);

        var at_once = await Rows(view, [log]);
        Assert.Equal(at_once, await Rows(view, log.Chunk(1)));
        Assert.Equal(at_once, await Rows(view, Cut()));
        Assert.Equal(at_once, await Rows(view, log.Chunk(7)));

        IEnumerable<RecordedEvent[]> Cut()
        {
            for (int from = 0, to; from < log.Length; from = to)
            {
                to = Math.Min(log.Length, from + random.Next(1, 200));
                yield return log[from..to];
            }
        }
    }

    [Fact]
    public async Task Copy_many_rows_that_are_new_and_add_to_those_that_are_there()
    {
        const int Users = 300;
        var quantities = new Dictionary<string, decimal> { ["call"] = 1, ["token"] = 0.25m };
        // Of the users of each batch but the first, half have called in the one before.
        var log = Enumerable.Range(0, 3 * Users).Select(i => Given.Recorded(
            "usage-m-2026-11-20",
            new CallRecorded("s", $"{i}", $"u{(7 * i % Users) + (i / Users * Users / 2)}", "m", TestClock.Start, quantities, null, i + 0.10m, "USD", 1, null),
            i + 1, TestClock.Start, i + 1)).ToArray();

        var rows = await Rows(UsageTotalsProjection.View, log.Chunk(Users));

        Assert.True(Users >= CopyRows.MinRows && Users / 3 < CopyRows.MinRows);
        Assert.Contains("(*DEFAULT*,u150,m,\"2026-11-20 12:00:00+00\",USD,\"call,token\",2,\"{2,0.50}\",", rows, StringComparison.Ordinal);
        Assert.Equal(await Rows(UsageTotalsProjection.View, log.Chunk(Users / 3)), rows);
        Assert.Equal(await Rows(UsageTotalsProjection.View, [log]), rows);
    }

    [Fact]
    public async Task Keep_a_row_of_a_quarter_whose_calls_were_all_taken_back()
    {
        var call = new CallRecorded("s", "1", "u", "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 1 }, null, 1.50m, "USD", 1, null);
        RecordedEvent[] log =
        [
            Given.Recorded("usage-m-2026-11-20", call, 1, TestClock.Start, 1),
            Given.Recorded("usage-m-2026-11-20", new CallVoided("s", "1", 1, "why", "u", "m", TestClock.Start, call.Quantities, 1.50m, "USD", null), 2, TestClock.Start, 2),
        ];

        var rows = await Rows(UsageTotalsProjection.View, [log]);

        Assert.Contains("(*DEFAULT*,u,m,\"2026-11-20 12:00:00+00\",USD,call,0,{0},0.00)", rows, StringComparison.Ordinal);
        Assert.Equal(rows, await Rows(UsageTotalsProjection.View, log.Chunk(1)));
    }

    [Fact]
    public async Task Say_what_became_of_a_call()
    {
        var quantities = new Dictionary<string, decimal> { ["call"] = 1 };
        RecordedEvent[] log =
        [
            .. Enumerable.Range(1, 3).Select(i => Given.Recorded(
                "usage-m-2026-11-20", new CallRecorded("s", $"{i}", "u", "m", TestClock.Start, quantities, null, null, null, null, "no-price"), i, TestClock.Start, i)),
            Given.Recorded("usage-m-2026-11-20", new CallPriced("s", "2", 2, "u", "m", TestClock.Start, quantities, 0.5m, "USD", 3, "no-price"), 4, TestClock.Start, 4),
            Given.Recorded("usage-m-2026-11-20", new CallVoided("s", "3", 3, "why", "u", "m", TestClock.Start, quantities, null, null, "no-price"), 5, TestClock.Start, 5),
        ];

        Assert.Equal(
            """
            # calls
            (*DEFAULT*,u,m,"2026-11-20 12:00:00+00",1,unpriced,,,,no-price,,)
            (*DEFAULT*,u,m,"2026-11-20 12:00:00+00",2,priced,0.5,USD,3,,4,)
            (*DEFAULT*,u,m,"2026-11-20 12:00:00+00",3,voided,,,,no-price,,5)
            # unpriced_calls
            (*DEFAULT*,m,no-price,1)

            """,
            await Rows(CallsProjection.View, [log]));
    }

    [Fact]
    public async Task Refuse_an_amount_whose_sums_would_be_rounded()
    {
        var call = new CallRecorded(
            "s", "1", "u", "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 1 }, null, 0.000_000_000_000_000_1m, "USD", 1, null);

        await Assert.ThrowsAsync<InvalidOperationException>(() =>
            Rows(UsageTotalsProjection.View, [[Given.Recorded("usage-m-2026-11-20", call, 1, TestClock.Start, 1)]]));
    }

    [Fact]
    public async Task Add_up_more_of_the_largest_amounts_than_a_decimal_holds()
    {
        const int Calls = UsageTotalsProjection.MaxSummedCalls + 1;
        const decimal Largest = 999_999_999.999_999_999_999_999m;
        var call = new CallRecorded("s", "1", "u", "m", TestClock.Start, new Dictionary<string, decimal> { ["call"] = 999_999_999_999.999_999_999m }, null, Largest, "USD", 1, null);
        var log = Enumerable.Range(1, Calls).Select(i => Given.Recorded("usage-m-2026-11-20", call, i, TestClock.Start, i)).ToArray();

        var rows = await Rows(UsageTotalsProjection.View, Enumerable.Repeat(log, 9));

        // 90 009 times one less than a power of ten each.
        Assert.Contains($",USD,call,{9 * Calls},{{90008999999999999.999909991}},90008999999999.999999999909991)", rows, StringComparison.Ordinal);
    }

    /// <summary>Folds batches into empty tables and returns all rows.</summary>
    private async Task<string> Rows(string view, IEnumerable<RecordedEvent[]> batches)
    {
        await using var database = EventStoreDatabase.Connect(await postgres.CreateDatabase(), new EventStoreOptions(), "tests", 2);
        var projection = Projection(view);
        await using var connection = await database.OpenConnectionAsync(Cancellation);
        foreach (var batch in batches)
        {
            await using var transaction = await connection.BeginTransactionAsync(Cancellation);
            await projection.Write(batch, connection, Cancellation);
            await transaction.CommitAsync(Cancellation);
        }

        var rows = new StringBuilder();
        foreach (var table in projection.Tables)
        {
            rows.Append(CultureInfo.InvariantCulture, $"# {table}\n");
            await using var command = new NpgsqlCommand($"select t::text from {table} t order by t::text collate \"C\"", connection);
            await using var reader = await command.ExecuteReaderAsync(Cancellation);
            while (await reader.ReadAsync(Cancellation))
            {
                rows.Append(reader.GetString(0)).Append('\n');
            }
        }

        return rows.ToString();
    }
}
