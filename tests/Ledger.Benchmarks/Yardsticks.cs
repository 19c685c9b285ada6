using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>pgbench: as many clients, each committing one row into a table with mt_events' columns and indexes.</summary>
internal sealed partial class PgBench
{
    public const string Name = "pgbench, 1 row a commit";

    // Ids in order and a stream of its own each: the cheapest an insert into these indexes can be.
    private const string Script =
        """
        insert into events (seq_id, id, stream_id, version, data, type, timestamp, tenant_id, mt_dotnet_type, correlation_id, headers, user_name, is_archived)
        select n, lpad(to_hex(n), 32, '0')::uuid, 'user-' || lpad(to_hex(n), 16, '0'), 1, '{"source": "explicit", "segment": "BENCH", "segmentId": 1}',
          'user_joined_segment', now(), '*DEFAULT*', 'Ledger.Segments.UserJoinedSegment, Ledger', '0HNPBQT8C8H5C:00000001', '{"events": 1}', 'anonymous', false
        from nextval('positions') n;
        """;

    private const int ConnectionsASecond = 20;
    private const int WarmUpSeconds = 1;

    private readonly Bench _bench;
    private readonly string _program;
    private readonly string _database;
    private readonly string _script;
    private int _clients;

    private PgBench(Bench bench, string program, string database, string script) =>
        (_bench, _program, _database, _script) = (bench, program, database, script);

    /// <summary>Null, and a word about it, when there is no pgbench.</summary>
    public static async Task<PgBench?> Prepare(Bench bench)
    {
        var folders = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Prepend(bench.Programs);
        if (folders.Select(f => Path.Combine(f, "pgbench")).FirstOrDefault(File.Exists) is not { } program)
        {
            Console.Error.WriteLine("  There is no pgbench beside PostgreSQL or on the PATH: going on without that yardstick.");
            return null;
        }

        var database = await bench.CreateDatabase("yardstick");
        await using (var connected = bench.Connect(database))
        {
            await connected.Execute("create table events (like mt_events including all); create sequence positions cache 1");
        }

        var script = Path.Combine(bench.Folder, "pgbench.sql");
        await File.WriteAllTextAsync(script, Script.ReplaceLineEndings(" ") + "\n");
        return new PgBench(bench, program, database, script);
    }

    /// <summary>Commits a second. For each number of clients the table begins empty and warms up once, as the service does.</summary>
    public async Task<double> Run(int clients)
    {
        if (clients != _clients)
        {
            await using (var connected = _bench.Connect(_database))
            {
                await connected.Execute("truncate events; alter sequence positions restart");
            }

            await Run(clients, WarmUpSeconds);
            _clients = clients;
        }

        return await Run(clients, _bench.Options.Seconds);
    }

    private async Task<double> Run(int clients, int measuredSeconds)
    {
        var server = new NpgsqlConnectionStringBuilder(_bench.Cluster.ConnectionString);
        var seconds = measuredSeconds + (clients / ConnectionsASecond); // its time includes connecting; its rate does not
        var start = new ProcessStartInfo(_program,
        [
            "-n", "-M", "prepared", "-c", $"{clients}", "-j", $"{Math.Min(clients, Environment.ProcessorCount)}", "-T", $"{seconds}",
            "-f", _script, "-h", server.Host!, "-p", $"{server.Port}", "-U", server.Username!, _database,
        ])
        {
            RedirectStandardOutput = true, RedirectStandardError = true,
        };
        start.Environment["PGPASSWORD"] = server.Password;
        start.Environment["PGOPTIONS"] = "-c search_path=ledger";
        using var process = Process.Start(start)!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = await process.StandardOutput.ReadToEndAsync();
        await process.WaitForExitAsync();
        return Tps().Match(output) is { Success: true } match
            ? double.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture)
            : throw new BenchFailedException($"pgbench: {output}{await errors}");
    }

    [GeneratedRegex(@"tps = ([\d.]+)")]
    private static partial Regex Tps();
}

/// <summary>Bare binary COPY, in one transaction, of rows that Ledger has stored, into the same tables of a second database.</summary>
internal sealed class BareCopy(Bench bench, NpgsqlDataSource target)
{
    public const string Name = "bare COPY";

    private long _copied;

    public static async Task<BareCopy> Prepare(Bench bench) => new(bench, bench.Connect(await bench.CreateDatabase("copy")));

    /// <summary>
    /// Takes over what is new in the log since the last time: events, and the streams that begin among them. A stream that only
    /// goes on is there already, and costs nothing here. Events a second.
    /// </summary>
    public async Task<double> Run(NpgsqlDataSource source)
    {
        var (streams, events) = (Path.Combine(bench.Folder, "streams"), Path.Combine(bench.Folder, "events"));
        await Export(source, $"select s.* from mt_events e join mt_streams s using (tenant_id) where s.id = e.stream_id and e.version = 1 and e.seq_id > {_copied} order by e.seq_id", streams);
        await Export(source, $"select * from mt_events where seq_id > {_copied} order by seq_id", events);

        await using var connection = await target.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        var started = Stopwatch.GetTimestamp();
        await Import(connection, "mt_streams", streams);
        await Import(connection, "mt_events", events);
        await transaction.CommitAsync();
        var elapsed = Stopwatch.GetElapsedTime(started);

        foreach (var table in new[] { "mt_streams", "mt_events" })
        {
            var (there, here) = (await source.Scalar<long>($"select count(*) from {table}"), await target.Scalar<long>($"select count(*) from {table}"));
            if (there != here)
            {
                throw new BenchFailedException($"{table} has {there} rows, and {here} of them were copied.");
            }
        }

        var head = await target.Scalar<long>("select max(seq_id) from mt_events");
        var rate = (head - _copied) / elapsed.TotalSeconds;
        _copied = head;
        return rate;
    }

    /// <summary>Copies all rows of a view's tables, instead of those that are there. How long it takes.</summary>
    public async Task<TimeSpan> RunView(NpgsqlDataSource source, IReadOnlyList<string> tables)
    {
        foreach (var table in tables)
        {
            // As the rows lie: out of an index they would come in its order, which COPY then has an easy time with.
            await Export(source, $"select * from {table} order by ctid", Path.Combine(bench.Folder, table));
            await target.Execute($"truncate {table}");
        }

        await using var connection = await target.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        var started = Stopwatch.GetTimestamp();
        foreach (var table in tables)
        {
            await Import(connection, table, Path.Combine(bench.Folder, table));
        }

        await transaction.CommitAsync();
        return Stopwatch.GetElapsedTime(started);
    }

    /// <summary>
    /// Copies rows like a log's last joins and those of their views, but of other users, on top of them, into the tables they
    /// stand in: what these indexes cost at this size. No node may run on the database any more. Events a second.
    /// </summary>
    public static async Task<double> RunOnTop(NpgsqlDataSource database, int events, string folder)
    {
        string[] tables = ["mt_streams", "mt_events", "users", "memberships"];
        await using var connection = await database.OpenConnectionAsync();
        await using (var command = connection.CreateCommand())
        {
            command.CommandTimeout = 0;
            command.CommandText =
                $"""
                 create or replace function pg_temp.other(text) returns text language sql as $$ select regexp_replace($1, '[0-9a-f]+$', substr(md5($1), 1, 16)) $$;
                 create temp table of_mt_events as select * from mt_events where type = 'user_joined_segment' order by seq_id desc limit {events};
                 create temp table of_mt_streams as select s.* from of_mt_events e join mt_streams s on s.tenant_id = e.tenant_id and s.id = e.stream_id;
                 create temp table of_users as select u.* from of_mt_events e join users u on u.tenant_id = e.tenant_id and u.user_id = substr(e.stream_id, length('user-') + 1);
                 create temp table of_memberships as select m.* from of_users join memberships m using (tenant_id, user_id);
                 update of_mt_events set seq_id = seq_id + (select max(seq_id) from mt_events) + 1 - (select min(seq_id) from of_mt_events), id = gen_random_uuid(), stream_id = pg_temp.other(stream_id);
                 update of_mt_streams set id = pg_temp.other(id);
                 update of_memberships set joined_position = joined_position + {events}, user_id = pg_temp.other(user_id);
                 update of_users set user_id = pg_temp.other(user_id)
                 """;
            await command.ExecuteNonQueryAsync();
        }

        foreach (var table in tables)
        {
            await Export(connection, $"select * from of_{table}", Path.Combine(folder, table));
        }

        await using var transaction = await connection.BeginTransactionAsync();
        var started = Stopwatch.GetTimestamp();
        foreach (var table in tables)
        {
            await Import(connection, table, Path.Combine(folder, table));
        }

        await transaction.CommitAsync();
        var rate = events / Stopwatch.GetElapsedTime(started).TotalSeconds;
        await using var drop = new NpgsqlCommand($"drop table {string.Join(", ", tables.Select(t => $"of_{t}"))}", connection);
        await drop.ExecuteNonQueryAsync();
        return rate;
    }

    private static async Task Export(NpgsqlDataSource source, string query, string file)
    {
        await using var connection = await source.OpenConnectionAsync();
        await Export(connection, query, file);
    }

    private static async Task Export(NpgsqlConnection connection, string query, string file)
    {
        await using var copy = await connection.BeginRawBinaryCopyAsync($"copy ({query}) to stdout (format binary)");
        await using var output = File.Create(file);
        await copy.CopyToAsync(output);
    }

    private static async Task Import(NpgsqlConnection connection, string table, string file)
    {
        await using var copy = await connection.BeginRawBinaryCopyAsync($"copy {table} from stdin (format binary)");
        await using var input = File.OpenRead(file);
        await input.CopyToAsync(copy, 1 << 20);
    }
}
