using Npgsql;

namespace Ledger.EventStore.Tests.Support;

/// <summary>The ways to number events that are known to lose some, on a table of their own.</summary>
internal sealed class NaiveLog(NpgsqlDataSource database, NaiveLog.Strategy strategy) : IRacingLog
{
    public enum Strategy
    {
        /// <summary>The position is a sequence's; the reader orders by it.</summary>
        Sequence,

        /// <summary>The same, and the reader keeps away from transactions that others still run beside: the usual recipe.</summary>
        SequenceBehindTheOldestTransaction,

        /// <summary>A lock in a row trigger; the sequence has been drawn from by then.</summary>
        LockInATrigger,
    }

    /// <summary>Held by a test, it stops a writer of <see cref="Strategy.LockInATrigger"/> between its position and the lock, as the scheduler may.</summary>
    public const int PauseLock = 77;

    private string Gate => strategy == Strategy.SequenceBehindTheOldestTransaction ? "and xid < pg_snapshot_xmin(pg_current_snapshot())" : "";

    public static async Task<NaiveLog> Create(NpgsqlDataSource database, Strategy strategy)
    {
        await using var command = database.CreateCommand(
            $"""
             create table naive (pos bigint not null default nextval('naive_pos'), id uuid not null primary key, xid xid8 not null default pg_current_xact_id())
             """.Replace("create table", "create sequence naive_pos; create table", StringComparison.Ordinal)
            + (strategy == Strategy.LockInATrigger
                ? $"""
                   ;
                   create function take_lock() returns trigger language plpgsql as $$
                   begin
                     if current_setting('test.pause', true) = 'yes' then perform pg_advisory_xact_lock_shared({PauseLock}); end if;
                     perform pg_advisory_xact_lock(1);
                     return new;
                   end $$;
                   create trigger take_lock before insert on naive for each row execute function take_lock();
                   """
                : ""));
        await command.ExecuteNonQueryAsync();
        return new NaiveLog(database, strategy);
    }

    public async Task Write(int writer, Random chance)
    {
        await using var connection = await database.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await Insert(connection);
        if (chance.Next(20) == 0)
        {
            await transaction.RollbackAsync();
        }
        else
        {
            await transaction.CommitAsync();
        }
    }

    public static async Task Insert(NpgsqlConnection connection)
    {
        await using var command = new NpgsqlCommand("insert into naive (id) values (gen_random_uuid())", connection);
        await command.ExecuteNonQueryAsync();
    }

    public Task<IReadOnlyList<(long Position, Guid Id)>> ReadAfter(long position) => Read($"select pos, id from naive where pos > {position} {Gate} order by pos limit 1000");

    public Task<IReadOnlyList<(long Position, Guid Id)>> ReadTruth() => Read("select pos, id from naive order by pos");

    private async Task<IReadOnlyList<(long, Guid)>> Read(string sql)
    {
        await using var command = database.CreateCommand(sql);
        await using var reader = await command.ExecuteReaderAsync();
        var page = new List<(long, Guid)>();
        while (await reader.ReadAsync())
        {
            page.Add((reader.GetInt64(0), reader.GetGuid(1)));
        }

        return page;
    }
}
