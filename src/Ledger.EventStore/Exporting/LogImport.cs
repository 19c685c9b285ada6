using System.Text;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Puts an exported log into a database that has none: every event at its position, in one transaction. Checksums, positions and
/// versions are checked before it commits; when anything is wrong, nothing was stored. The views follow from the log, by the daemon.
/// </summary>
public sealed class LogImport(NpgsqlDataSource database, EventStoreOptions options, IReadOnlyList<ExportSection> sections)
{
    private const int CopyBytes = 4 * 1024 * 1024;
    private const int RowsAtOnce = 500;

    /// <summary>Reads the folder and stores what it holds.</summary>
    /// <exception cref="ExportException">It is no whole export, or the database is not empty; nothing was stored.</exception>
    public async Task<ExportManifest> Read(string folder, Action<long>? progress = null, CancellationToken cancellation = default)
    {
        var manifest = await ExportManifest.Read(folder, cancellation);
        if (manifest.Sections.Keys.FirstOrDefault(name => sections.All(s => s.Name != name)) is { } unknown)
        {
            throw new ExportException($"The export has a section '{unknown}', which this program does not know: import it with a newer one.");
        }

        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        await Execute(connection, "set local idle_in_transaction_session_timeout = 0", cancellation);
        await Execute(connection, $"select pg_advisory_xact_lock({Appender.AppendLockKey(options.Schema)})", cancellation); // nobody appends meanwhile
        await RefuseUnlessEmpty(connection, cancellation);
        await Execute(connection, "create temp table imported_streams (tenant_id varchar not null, id varchar not null, type varchar null) on commit drop", cancellation);
        try
        {
            foreach (var segment in manifest.Segments)
            {
                await CopySegment(folder, segment, connection, cancellation);
                progress?.Invoke(segment.LastPosition);
            }

            await WriteStreams(connection, cancellation);
            await CheckVersions(connection, cancellation);
            foreach (var (name, tables) in manifest.Sections)
            {
                await CopySection(folder, sections.Single(s => s.Name == name), tables, connection, cancellation);
            }
        }
        catch (PostgresException exception) when (DatabaseErrors.IsRefusedData(exception) || DatabaseErrors.IsNumberTaken(exception))
        {
            throw new ExportException($"PostgreSQL does not take the export: {exception.MessageText}");
        }

        if (manifest.Position > 0)
        {
            await Execute(connection, $"select setval('mt_events_sequence', {manifest.Position}), pg_notify('{Channels.EventsAppended}', '')", cancellation);
        }

        await transaction.CommitAsync(cancellation);
        return manifest;
    }

    private static async Task RefuseUnlessEmpty(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select exists (select from mt_events), exists (select from mt_streams),
                   exists (select from mt_event_progression where last_seq_id > 0)
            """, connection);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        if (reader.GetBoolean(0) || reader.GetBoolean(1) || reader.GetBoolean(2))
        {
            throw new ExportException("The database has a log, or views of one. An export is imported into an empty database only.");
        }
    }

    private static async Task CopySegment(string folder, ExportSegment segment, NpgsqlConnection connection, CancellationToken cancellation)
    {
        var position = segment.FirstPosition;
        var (events, streams) = (new CopyRows(), new CopyRows());
        try
        {
            await foreach (var line in ExportFile.Lines(folder, segment.File, segment.Bytes, segment.Sha256, Refuse, cancellation))
            {
                try
                {
                    ExportedEvent.Read(line, position, events, streams);
                }
                catch (FormatException exception)
                {
                    throw new ExportException($"Line {position - segment.FirstPosition + 1} of {segment.File} should be the event at position {position}, but {exception.Message}.");
                }

                position++;
                if (events.Length >= CopyBytes)
                {
                    await Send();
                    (events, streams) = (new CopyRows(), new CopyRows());
                }
            }

            if (position != segment.LastPosition + 1)
            {
                throw new ExportException($"{segment.File} ends at position {position - 1}, and not at {segment.LastPosition}.");
            }

            await Send();
        }
        finally
        {
            events.Dispose();
            streams.Dispose();
        }

        async Task Send()
        {
            using (events)
            using (streams)
            {
                await streams.CopyTo(connection, "copy imported_streams (tenant_id, id, type) from stdin (format binary)", cancellation);
                await events.CopyTo(connection, $"copy mt_events ({ExportedEvent.CopyColumns}) from stdin (format binary)", cancellation);
            }
        }
    }

    /// <summary>A stream's row says what its first and its last event say.</summary>
    private static Task WriteStreams(NpgsqlConnection connection, CancellationToken cancellation) => Execute(
        connection,
        """
        insert into mt_streams (tenant_id, id, type, version, timestamp, created, is_archived)
        select s.tenant_id, s.id, s.type, newest.version, newest.timestamp, oldest.timestamp, newest.is_archived
        from imported_streams s
        cross join lateral (
          select e.version, e.timestamp, e.is_archived from mt_events e
          where e.tenant_id = s.tenant_id and e.stream_id = s.id order by e.version desc limit 1) newest
        cross join lateral (
          select e.timestamp from mt_events e where e.tenant_id = s.tenant_id and e.stream_id = s.id and e.version = 1 limit 1) oldest
        """, cancellation);

    /// <summary>The versions of every stream are 1, 2, 3, … in the order of positions.</summary>
    private static async Task CheckVersions(NpgsqlConnection connection, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select e.seq_id, e.stream_id, e.version from (
              select seq_id, stream_id, version, row_number() over w as expected, lag(seq_id, 1, 0::bigint) over w as before
              from mt_events window w as (partition by tenant_id, stream_id order by version)) e
            where e.version <> e.expected or e.before > e.seq_id
            limit 1
            """, connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (await reader.ReadAsync(cancellation))
        {
            throw new ExportException(
                $"The stream '{(reader.IsDBNull(1) ? "" : reader.GetString(1))}' does not count its events: the one at position {reader.GetInt64(0)} has version {reader.GetInt64(2)}.");
        }
    }

    private static async Task CopySection(
        string folder, ExportSection section, IReadOnlyList<ExportTable> tables, NpgsqlConnection connection, CancellationToken cancellation)
    {
        foreach (var table in tables)
        {
            if (!section.Tables.Contains(table.Table) || table.File != ExportManifest.TableFile(section.Name, table.Table))
            {
                throw new ExportException($"The section '{section.Name}' of the export has a table '{table.Table}', which this program does not know.");
            }

            await Execute(connection, $"delete from \"{table.Table}\"", cancellation);
            var rows = 0L;
            var some = new List<string>(RowsAtOnce);
            await foreach (var line in ExportFile.Lines(folder, table.File, table.Bytes, table.Sha256, Refuse, cancellation))
            {
                some.Add(Encoding.UTF8.GetString(line.Span));
                rows++;
                if (some.Count == RowsAtOnce)
                {
                    await Insert();
                }
            }

            await Insert();
            if (rows != table.Rows)
            {
                throw new ExportException($"{table.File} has {rows} rows, and not {table.Rows}.");
            }

            async Task Insert()
            {
                await using var command = new NpgsqlCommand(
                    $"insert into \"{table.Table}\" select r.* from unnest($1) l (line) cross join lateral json_populate_record(null::\"{table.Table}\", l.line::json) r", connection)
                {
                    CommandTimeout = 0,
                    Parameters = { new NpgsqlParameter<string[]> { TypedValue = [.. some], NpgsqlDbType = NpgsqlTypes.NpgsqlDbType.Array | NpgsqlTypes.NpgsqlDbType.Text } },
                };
                await command.ExecuteNonQueryAsync(cancellation);
                some.Clear();
            }
        }
    }

    /// <summary>What a file's reader finds wrong ends the import before anything is committed.</summary>
    private static void Refuse(string what) => throw new ExportException(what);

    private static async Task Execute(NpgsqlConnection connection, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, connection) { CommandTimeout = 0 };
        await command.ExecuteNonQueryAsync(cancellation);
    }
}
