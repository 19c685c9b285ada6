using System.Buffers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>Writes the whole log into a folder, as it was at one position, in constant memory, while commands go on.</summary>
public sealed class LogExport(NpgsqlDataSource database, EventStoreOptions options, IReadOnlyList<ExportSection> sections)
{
    private const int FlushBytes = 256 * 1024;

    /// <summary>
    /// Writes the sections at one snapshot, the events up to the head of that snapshot (they don't change, so they need none), and
    /// last the manifest. Whatever breaks it off leaves a folder without manifest.
    /// </summary>
    /// <exception cref="ExportException">The folder is not empty, or the log has a gap.</exception>
    public async Task<ExportManifest> Write(string folder, Action<long>? progress = null, CancellationToken cancellation = default)
    {
        if (File.Exists(folder) || (Directory.Exists(folder) && Directory.EnumerateFileSystemEntries(folder).Any()))
        {
            throw new ExportException($"'{folder}' is there already: an export is written into a new or empty folder.");
        }

        Directory.CreateDirectory(Path.Combine(folder, "events"));
        var (position, exported) = await WriteSections(folder, cancellation);
        var segments = new List<ExportSegment>();
        var tenants = new SortedSet<string>(StringComparer.Ordinal);
        for (var first = 1L; first <= position; first += ExportManifest.EventsPerSegment)
        {
            segments.Add(await WriteSegment(folder, first, Math.Min(position, first + ExportManifest.EventsPerSegment - 1), tenants, cancellation));
            progress?.Invoke(segments[^1].LastPosition);
        }

        Folder.Flush(Path.Combine(folder, "events"));
        var manifest = new ExportManifest(
            ExportManifest.FormatName, ExportManifest.CurrentVersion, position,
            segments.Sum(s => s.Bytes) + exported.Values.SelectMany(t => t).Sum(t => t.Bytes), [.. tenants], segments, exported);
        var path = Path.Combine(folder, ExportManifest.FileName);
        await using (var file = new FileStream($"{path}.part", FileMode.CreateNew, FileAccess.Write))
        {
            await JsonSerializer.SerializeAsync(file, manifest, ExportManifest.Json, cancellation);
            file.Flush(flushToDisk: true);
        }

        Folder.Flush(folder);
        File.Move($"{path}.part", path);
        Folder.Flush(folder);
        return manifest;
    }

    private async Task<(long Position, Dictionary<string, IReadOnlyList<ExportTable>> Sections)> WriteSections(string folder, CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var transaction = await connection.BeginTransactionAsync(System.Data.IsolationLevel.RepeatableRead, cancellation);
        await Execute(connection, $"set local idle_in_transaction_session_timeout = 0; {ViewRows.Settings}", cancellation);
        await using var head = new NpgsqlCommand("select coalesce(max(seq_id), 0) from mt_events", connection);
        var position = (long)(await head.ExecuteScalarAsync(cancellation))!;
        var exported = new Dictionary<string, IReadOnlyList<ExportTable>>();
        foreach (var section in sections)
        {
            Directory.CreateDirectory(Path.Combine(folder, section.Name));
            var tables = new List<ExportTable>();
            foreach (var table in section.Tables)
            {
                var name = ExportManifest.TableFile(section.Name, table);
                await using var file = new HashedFile(Path.Combine(folder, name));
                var rows = 0L;
                await foreach (var row in ViewRows.ReadJson(connection, options.Schema, table, cancellation))
                {
                    file.Buffer.Write(Encoding.UTF8.GetBytes(row));
                    file.Buffer.Write("\n"u8);
                    rows++;
                    await file.Flush(FlushBytes, cancellation);
                }

                var (bytes, sha256) = await file.Complete(cancellation);
                tables.Add(new ExportTable(table, name, rows, bytes, sha256));
            }

            Folder.Flush(Path.Combine(folder, section.Name));
            exported[section.Name] = tables;
        }

        return (position, exported);
    }

    private async Task<ExportSegment> WriteSegment(string folder, long first, long last, SortedSet<string> tenants, CancellationToken cancellation)
    {
        var name = ExportManifest.SegmentFile(first);
        await using var file = new HashedFile(Path.Combine(folder, name));
        await using var line = ExportedEvent.Writer(file.Buffer);
        await using var command = database.CreateCommand(
            $"select {ExportedEvent.Columns} from {ExportedEvent.From} where e.seq_id >= $1 and e.seq_id <= $2 order by e.seq_id");
        command.CommandTimeout = 0;
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = first });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = last });
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var next = first;
        while (await reader.ReadAsync(cancellation))
        {
            if (reader.GetInt64(0) != next)
            {
                break;
            }

            if (!reader.IsDBNull(2))
            {
                tenants.Add(reader.GetString(2));
            }

            ExportedEvent.Write(line, reader);
            file.Buffer.Write("\n"u8);
            next++;
            await file.Flush(FlushBytes, cancellation);
        }

        if (next != last + 1)
        {
            throw new ExportException($"The log has no event at position {next}, but goes up to {last} at least.");
        }

        var (bytes, sha256) = await file.Complete(cancellation);
        return new ExportSegment(name, first, last, bytes, sha256);
    }

    private static async Task Execute(NpgsqlConnection connection, string sql, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(cancellation);
    }

    /// <summary>A new file, hashed as it is written, on the disk when it is complete.</summary>
    private sealed class HashedFile(string path) : IAsyncDisposable
    {
        private readonly FileStream _file = new(path, FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0);
        private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        private long _bytes;

        public ArrayBufferWriter<byte> Buffer { get; } = new(2 * FlushBytes);

        public async ValueTask Flush(int from, CancellationToken cancellation)
        {
            if (Buffer.WrittenCount >= from)
            {
                _hash.AppendData(Buffer.WrittenSpan);
                _bytes += Buffer.WrittenCount;
                await _file.WriteAsync(Buffer.WrittenMemory, cancellation);
                Buffer.ResetWrittenCount();
            }
        }

        public async Task<(long Bytes, string Sha256)> Complete(CancellationToken cancellation)
        {
            await Flush(1, cancellation);
            _file.Flush(flushToDisk: true);
            return (_bytes, Convert.ToHexStringLower(_hash.GetHashAndReset()));
        }

        public async ValueTask DisposeAsync()
        {
            _hash.Dispose();
            await _file.DisposeAsync();
        }
    }
}
