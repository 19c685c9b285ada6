using Npgsql;

namespace Ledger.EventStore.Tests.Support;

/// <summary>A view of the tests, which can be made to fail or to freeze before it writes or after.</summary>
internal abstract class TestView(string name, string table) : IProjection
{
    public string Name => name;

    public IReadOnlyCollection<Type> Events { get; } = new HashSet<Type> { typeof(Deposited) };

    public IReadOnlyList<string> Tables => [table];

    public virtual IReadOnlyList<string> ReaderIndexes => [];

    /// <summary>The position of an event it can't fold.</summary>
    public long? Poison { get; set; }

    /// <summary>What it adds for that event; it throws when there is none.</summary>
    public Func<NpgsqlBatchCommand>? Venom { get; set; }

    /// <summary>Whether it leaves its statement to be sent with those of others; else it is run at once.</summary>
    public bool Adds { get; init; }

    /// <summary>What happens when its rows are written and its transaction is still open.</summary>
    public Func<IReadOnlyList<RecordedEvent>, Task> AfterWriting { get; set; } = _ => Task.CompletedTask;

    /// <summary>Has it stand still with its rows written and its transaction open, each time, until <c>Going</c> has a result; <c>Standing</c> ends when it first does.</summary>
    public (Task Standing, TaskCompletionSource Going) StandStill()
    {
        var (standing, going) = (new TaskCompletionSource(), new TaskCompletionSource());
        AfterWriting = _ =>
        {
            standing.TrySetResult();
            return going.Task;
        };
        return (standing.Task.WaitAsync(Runs.Patience, TestContext.Current.CancellationToken), going);
    }

    /// <summary>What its table must hold, as a query over the log.</summary>
    public abstract string Truth { get; }

    protected abstract string Upsert { get; }

    public async Task Project(IReadOnlyList<RecordedEvent> events, ViewTransaction transaction, CancellationToken cancellation)
    {
        transaction.Add(new NpgsqlBatchCommand(Upsert)
        {
            Parameters =
            {
                new NpgsqlParameter<long[]> { TypedValue = [.. events.Select(e => e.Position)] },
                new NpgsqlParameter<string[]> { TypedValue = [.. events.Select(e => ((Deposited)e.Data!).Account)] },
                new NpgsqlParameter<long[]> { TypedValue = [.. events.Select(e => (long)((Deposited)e.Data!).Amount)] },
            },
        });
        if (!Adds)
        {
            await transaction.Connection(cancellation);
        }

        if (events.Any(e => e.Position == Poison))
        {
            transaction.Add(Venom?.Invoke() ?? throw new InvalidOperationException($"{Name} can't fold the event at {Poison}"));
        }

        await AfterWriting(events);
    }
}

/// <summary>Adds up in place.</summary>
internal sealed class Totals() : TestView("Totals", "ledger_test_totals")
{
    public override string Truth =>
        "select data ->> 'account', sum((data ->> 'amount')::bigint)::bigint, count(*) from mt_events where type = 'deposited' group by 1 order by 1";

    protected override string Upsert =>
        """
        insert into ledger_test_totals (account, amount, events)
        select account, sum(amount), count(*) from unnest($1, $2, $3) e (position, account, amount) group by account order by account
        on conflict (account) do update set
          amount = ledger_test_totals.amount + excluded.amount, events = ledger_test_totals.events + excluded.events
        """;
}

/// <summary>Keeps a row an event.</summary>
internal sealed class Entries() : TestView("Entries", "ledger_test_entries")
{
    public override IReadOnlyList<string> ReaderIndexes => ["ledger_test_entries_account"];

    public override string Truth =>
        "select seq_id, data ->> 'account', (data ->> 'amount')::bigint from mt_events where type = 'deposited' order by 1";

    protected override string Upsert =>
        "insert into ledger_test_entries (position, account, amount) select * from unnest($1, $2, $3)";
}
