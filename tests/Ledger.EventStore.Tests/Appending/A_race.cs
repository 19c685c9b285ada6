using System.Collections.Concurrent;
using Ledger.EventStore.Tests.Support;
using Ledger.Testing;
using Npgsql;
using static Ledger.EventStore.Tests.Support.TestStore;

namespace Ledger.EventStore.Tests.Appending;

/// <summary>One reader that tails the log against many writers. The known-bad ways to number must fail here: a race that can't be lost proves nothing.</summary>
public sealed class A_race(PostgresFixture postgres)
{
    private const int Writers = 48;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task of_two_appenders_with_failing_conditions_rollbacks_and_long_transactions_loses_nothing()
    {
        await using var store = await TestStore.Create(postgres);
        await using var elsewhere = await OpenLongTransaction(await postgres.CreateEmptyDatabase());
        await using var here = await OpenLongTransaction(store.ConnectionString);
        var log = new LedgerLog(store, store.StartAppender(), store.StartAppender());
        using var stop = new CancellationTokenSource();
        var aborting = AbortUntil(store, stop.Token);

        var result = await Race.Run(log, Writers, Runs.Size(16_000, 260_000));
        await stop.CancelAsync();
        var aborted = await aborting;

        Assert.True(result.IsSound, $"{result}");
        Assert.True(result.Committed >= Runs.Size(40_000, 1_000_000), $"only {result.Committed} events");
        Assert.True(log.Failed > 0 && log.Duplicates > 0 && aborted > 0, $"{log.Failed} failed, {log.Duplicates} duplicates, {aborted} aborted");
        Assert.Equal(log.Appended, result.Committed);
        await store.AssertSound();
    }

    [Theory]
    [InlineData(nameof(NaiveLog.Strategy.Sequence))]
    public async Task is_lost_by_numbering_without_a_lock(string strategy)
    {
        await using var database = NpgsqlDataSource.Create(await postgres.CreateEmptyDatabase());
        var log = await NaiveLog.Create(database, Enum.Parse<NaiveLog.Strategy>(strategy));

        var result = await Race.Run(log, 32, Runs.Size(4_000, 40_000));

        Assert.True(result.Missed > 0, $"{result}");
    }

    [Fact]
    public async Task is_lost_by_a_sequence_when_the_later_number_commits_first()
    {
        await using var database = NpgsqlDataSource.Create(await postgres.CreateEmptyDatabase());
        var log = await NaiveLog.Create(database, NaiveLog.Strategy.Sequence);

        var result = await Script(database, log, NaiveLog.Insert, _ => Task.CompletedTask);

        Assert.Equal((2, 1), (result.Committed, result.Missed));
    }

    [Fact]
    public async Task is_lost_by_the_oldest_transaction_gate_when_the_number_is_older_than_the_transaction_id()
    {
        await using var database = NpgsqlDataSource.Create(await postgres.CreateEmptyDatabase());
        var log = await NaiveLog.Create(database, NaiveLog.Strategy.SequenceBehindTheOldestTransaction);
        await Run(database, "select nextval('naive_pos')"); // the first draw is logged and takes a transaction id at once

        // Both defaults of one insert, evaluated in the order of the columns, with a pause of the scheduler between them.
        var number = 0L;
        var result = await Script(
            database, log,
            async slow => number = (long)(await new NpgsqlCommand("select nextval('naive_pos')", slow).ExecuteScalarAsync(Ct))!,
            slow => new NpgsqlCommand($"insert into naive (pos, id) values ({number}, gen_random_uuid())", slow).ExecuteNonQueryAsync(Ct));

        Assert.Equal((2, 1), (result.Committed, result.Missed));
    }

    [Fact]
    public async Task is_lost_by_a_lock_in_a_row_trigger_because_the_number_was_drawn_before_it()
    {
        await using var database = NpgsqlDataSource.Create(await postgres.CreateEmptyDatabase());
        var log = await NaiveLog.Create(database, NaiveLog.Strategy.LockInATrigger);
        await using var pause = await database.OpenConnectionAsync(Ct);
        await new NpgsqlCommand($"select pg_advisory_lock({NaiveLog.PauseLock})", pause).ExecuteNonQueryAsync(Ct);

        Task? inserting = null;
        var result = await Script(
            database, log,
            async slow =>
            {
                await new NpgsqlCommand("set local test.pause = 'yes'", slow).ExecuteNonQueryAsync(Ct);
                inserting = NaiveLog.Insert(slow);
                await Runs.Until(
                    async () => (bool)(await new NpgsqlCommand($"select exists (select from pg_locks where locktype = 'advisory' and objid = {NaiveLog.PauseLock} and not granted)", pause).ExecuteScalarAsync(Ct))!,
                    "the slow writer has its number and not yet the lock");
            },
            async _ =>
            {
                await new NpgsqlCommand("select pg_advisory_unlock_all()", pause).ExecuteNonQueryAsync(Ct);
                await inserting!;
            });

        Assert.Equal((2, 1), (result.Committed, result.Missed));
    }

    /// <summary>A slow writer begins, a quick one stores in between, a reader looks, the slow one ends, the reader looks again.</summary>
    private static async Task<RaceResult> Script(
        NpgsqlDataSource database, NaiveLog log, Func<NpgsqlConnection, Task> begin, Func<NpgsqlConnection, Task> end)
    {
        await using var slow = await database.OpenConnectionAsync(Ct);
        await using var transaction = await slow.BeginTransactionAsync(Ct);
        await begin(slow);
        await using (var quick = await database.OpenConnectionAsync(Ct))
        {
            await NaiveLog.Insert(quick);
        }

        // A gate on the oldest transaction waits for those of other tests as well.
        var delivered = new List<(long Position, Guid Id)>();
        await Runs.Until(
            async () =>
            {
                delivered = [.. await log.ReadAfter(0)];
                return delivered.Count > 0;
            },
            "the reader sees what the quick writer has stored");
        Assert.Single(delivered);
        await end(slow);
        await transaction.CommitAsync(Ct);
        delivered.AddRange(await log.ReadAfter(delivered[^1].Position));
        return Race.Judge(delivered, await log.ReadTruth());
    }

    private static async Task<NpgsqlConnection> OpenLongTransaction(string connectionString)
    {
        var connection = new NpgsqlConnection(connectionString + ";Pooling=false");
        await connection.OpenAsync(Ct);
        await new NpgsqlCommand("begin; select pg_current_xact_id()", connection).ExecuteNonQueryAsync(Ct);
        return connection;
    }

    /// <summary>Numbers an event under the lock and rolls it back, and draws from the sequence, until stopped.</summary>
    private static async Task<int> AbortUntil(TestStore store, CancellationToken stop)
    {
        var aborted = 0;
        while (!stop.IsCancellationRequested)
        {
            await store.Execute(
                $"""
                 begin;
                 select pg_advisory_xact_lock({Appender.AppendLockKey(store.Options.Schema)}), nextval('mt_events_sequence');
                 insert into mt_streams (tenant_id, id, version) values ('t1', 'aborted', 1);
                 insert into mt_events (seq_id, id, stream_id, version, data, type, tenant_id)
                 select coalesce(max(seq_id), 0) + 1, gen_random_uuid(), 'aborted', 1, '[]', 'ignored', 't1' from mt_events;
                 rollback
                 """);
            aborted++;
        }

        return aborted;
    }

    private static async Task Run(NpgsqlDataSource database, string sql)
    {
        await using var command = database.CreateCommand(sql);
        await command.ExecuteNonQueryAsync(Ct);
    }

    /// <summary>The store as it is used: requests of one to eight events, hot and cold streams, stale versions, repeats.</summary>
    private sealed class LedgerLog(TestStore store, params Appender[] appenders) : IRacingLog
    {
        private readonly ConcurrentQueue<AppendRequest> _earlier = new();
        private int _appended;
        private int _failed;
        private int _duplicates;

        public int Appended => _appended;

        public int Failed => _failed;

        public int Duplicates => _duplicates;

        public async Task Write(int writer, Random chance)
        {
            if (chance.Next(50) == 0 && _earlier.TryDequeue(out var earlier))
            {
                var repeated = await appenders[chance.Next(appenders.Length)].Append(earlier);
                Assert.Equal(AppendOutcome.Duplicate, repeated.Outcome);
                Interlocked.Increment(ref _duplicates);
                return;
            }

            var stream = chance.Next(4) == 0 ? "hot" : $"s{chance.Next(5_000)}";
            var request = Keyed($"{Guid.NewGuid()}", stream, null, [.. Enumerable.Repeat(new Ignored(), chance.Next(1, 9))]);
            if (chance.Next(20) == 0)
            {
                request = request with { Conditions = [new("hot", chance.Next(100_000))] };
            }

            var result = await appenders[writer % appenders.Length].Append(request);
            if (result.Outcome == AppendOutcome.Appended)
            {
                Interlocked.Add(ref _appended, request.Appends[0].Events.Count);
                if (chance.Next(20) == 0)
                {
                    _earlier.Enqueue(request);
                }
            }
            else
            {
                Assert.Equal(AppendOutcome.ConditionFailed, result.Outcome);
                Interlocked.Increment(ref _failed);
            }
        }

        public async Task<IReadOnlyList<(long Position, Guid Id)>> ReadAfter(long position)
        {
            var read = new List<(long, Guid)>();
            await foreach (var recorded in store.Reader.ReadLog(position))
            {
                read.Add((recorded.Position, recorded.Id));
            }

            return read;
        }

        public async Task<IReadOnlyList<(long Position, Guid Id)>> ReadTruth()
        {
            await using var command = store.Database.CreateCommand("select seq_id, id from mt_events order by seq_id");
            await using var reader = await command.ExecuteReaderAsync();
            var truth = new List<(long, Guid)>();
            while (await reader.ReadAsync())
            {
                truth.Add((reader.GetInt64(0), reader.GetGuid(1)));
            }

            return truth;
        }
    }
}
