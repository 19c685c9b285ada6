using System.Collections.Concurrent;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>
/// The log of an export, to be verified with nothing but its files. What is wrong with a file as a whole, such as its checksum, is
/// kept aside until all else was looked at: that an event was changed says more.
/// </summary>
public sealed class ExportedLog : IVerifiedLog, IDisposable
{
    private const int PieceBytes = 256 * 1024;
    private static readonly byte[] s_copyTrailer = [0xFF, 0xFF];

    private readonly string _folder;
    private readonly ExportManifest _manifest;
    private readonly ConcurrentDictionary<string, int> _faults = [];
    private readonly ConcurrentDictionary<string, bool> _tenants = [];
    private readonly StreamVersions _streams = new();
    private readonly Dictionary<string, byte[]> _pseudonyms = [];
    private readonly Dictionary<string, ExportedTable> _tables = [];

    private ExportedLog(string folder, ExportManifest manifest) => (_folder, _manifest) = (folder, manifest);

    /// <summary>What was found wrong with files so far, in the order it was found.</summary>
    public IReadOnlyList<string> Faults => [.. _faults.OrderBy(f => f.Value).Select(f => f.Key)];

    private string? FirstFault => _faults.IsEmpty ? null : _faults.MinBy(f => f.Value).Key;

    /// <summary>Opens an export: reads its manifest, and finds what belongs to the log beside its events.</summary>
    /// <exception cref="ExportException">The folder holds no export, or one without a transparency log.</exception>
    public static async Task<ExportedLog> Open(string folder, CancellationToken cancellation = default)
    {
        var log = new ExportedLog(folder, await ExportManifest.Read(folder, cancellation));
        try
        {
            await log.OpenTables(cancellation);
            return log;
        }
        catch
        {
            log.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public Task<LogClaims> ReadClaims(CancellationToken cancellation = default)
    {
        if (Rows("log_state", r => (Size: r.GetProperty("size").GetInt64(), Root: new MerkleHash(ExportedTable.Bytes(r, "root")))) is not [var (size, root)])
        {
            throw new InvalidDataException("The log's state is gone: log_state has not one row that can be read.");
        }

        var shown = Rows("log_checkpoint", r => new PublishedCheckpoint(
            r.GetProperty("size").GetInt64(), new MerkleHash(ExportedTable.Bytes(r, "root")), ExportedTable.Bytes(r, "note")));
        var keys = Rows("log_keys", r => r.GetProperty("key").GetString());
        return Task.FromResult(new LogClaims(_manifest.Position, size, root, shown.FirstOrDefault(), [.. keys.OfType<string>().Reverse()]));
    }

    /// <inheritdoc/>
    public Task<Stream> OpenEvents(long after, long limit, CancellationToken cancellation = default) =>
        Task.FromResult<Stream>(new PieceStream(ReadEvents(after, limit, cancellation).GetAsyncEnumerator(cancellation)));

    /// <inheritdoc/>
    public Task<LogSecrets> ReadSecrets(long firstBundle, int bundles, CancellationToken cancellation = default) => Task.FromResult(new LogSecrets(
        Bytes("log_salts", "bundle", "salts", firstBundle, firstBundle + bundles),
        Bytes("log_erasures", "position", "commitments", (firstBundle * TilePath.Width) + 1, ((firstBundle + bundles) * TilePath.Width) + 1)));

    /// <inheritdoc/>
    public Task<byte[]?> ReadPseudonym(string tenantId, CancellationToken cancellation = default) => Task.FromResult(_pseudonyms.GetValueOrDefault(tenantId));

    /// <inheritdoc/>
    public Task<IReadOnlyDictionary<TileId, byte[]>> ReadTiles(IReadOnlyCollection<TileId> tiles, CancellationToken cancellation = default)
    {
        var found = new Dictionary<TileId, byte[]>();
        var table = _tables["log_tiles"];
        foreach (var tile in tiles)
        {
            foreach (var row in table.Between((tile.Level, tile.Index), (tile.Level, tile.Index + 1)))
            {
                if (table.Read(row, r => ExportedTable.Bytes(r, "hashes")) is { } hashes)
                {
                    found[tile] = hashes;
                }
            }
        }

        return Task.FromResult<IReadOnlyDictionary<TileId, byte[]>>(found);
    }

    /// <inheritdoc/>
    public async Task<string?> FindFault(CancellationToken cancellation = default)
    {
        if (FirstFault is { } fault)
        {
            return fault;
        }

        var files = _manifest.Segments.Select(s => s.Bytes).Concat(_manifest.Sections.Values.SelectMany(s => s).Select(t => t.Bytes)).Sum();
        return _manifest.Bytes != files ? $"{ExportManifest.FileName} says {_manifest.Bytes} bytes, but names files of {files}."
            : !_manifest.Tenants.SequenceEqual(_tenants.Keys.Order(StringComparer.Ordinal)) ? $"{ExportManifest.FileName} names other tenants than the events have."
            : _manifest.Position > 0 && _tables["log_checkpoint"].Count == 0 ? "The export has no signed checkpoint: nothing of it is proven."
            : _streams.Position != _manifest.Position ? $"Only the versions of {_streams.Position} events could be compared, of {_manifest.Position}."
            : _streams.Broken is { } broken ? await Describe(broken.Position, broken.Before, cancellation)
            : null;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (var table in _tables.Values)
        {
            table.Dispose();
        }
    }

    private async Task OpenTables(CancellationToken cancellation)
    {
        foreach (var (section, tables) in _manifest.Sections)
        {
            foreach (var table in tables)
            {
                // The name becomes a path.
                if (!IsName(section) || !IsName(table.Table) || table.File != ExportManifest.TableFile(section, table.Table))
                {
                    throw new ExportException($"{ExportManifest.FileName} names '{table.File}' for the table '{table.Table}' of the section '{section}'.");
                }

                string[] key = table.Table switch
                {
                    "log_tiles" => ["level", "index"],
                    "log_salts" => ["bundle"],
                    "log_erasures" => ["position"],
                    "log_keys" => ["number"],
                    _ => [],
                };
                var opened = await ExportedTable.Open(_folder, table, key, Note, cancellation);
                if (section != TransparencyLog.Tables.Name)
                {
                    opened.Dispose(); // only its checksum was of interest
                }
                else if (!_tables.TryAdd(table.Table, opened))
                {
                    opened.Dispose();
                    throw new ExportException($"{ExportManifest.FileName} names the table '{table.Table}' twice.");
                }
            }
        }

        if (TransparencyLog.Tables.Tables.FirstOrDefault(t => !_tables.ContainsKey(t)) is { } missing)
        {
            throw new ExportException($"The export has no table '{missing}' in a section '{TransparencyLog.Tables.Name}': nothing of it can be verified.");
        }

        foreach (var (tenant, pseudonym) in Rows("log_tenants", r => (r.GetProperty("tenant_id").GetString()!, ExportedTable.Bytes(r, "pseudonym"))))
        {
            if (!_pseudonyms.TryAdd(tenant, pseudonym))
            {
                Note($"log_tenants has the tenant '{tenant}' twice.");
            }
        }
    }

    private List<T> Rows<T>(string name, Func<JsonElement, T> read)
    {
        var rows = new List<T>();
        for (var row = 0; row < _tables[name].Count; row++)
        {
            if (_tables[name].Read(row, r => new[] { read(r) }) is [var value])
            {
                rows.Add(value);
            }
            else
            {
                Note($"Row {row + 1} of {name} can't be read.");
            }
        }

        return rows;
    }

    private Dictionary<long, byte[]> Bytes(string name, string key, string column, long from, long to)
    {
        var found = new Dictionary<long, byte[]>();
        foreach (var row in _tables[name].Between((from, 0), (to, 0)))
        {
            if (_tables[name].Read(row, r => new[] { (r.GetProperty(key).GetInt64(), ExportedTable.Bytes(r, column)) }) is [var (number, bytes)])
            {
                found[number] = bytes;
            }
        }

        return found;
    }

    /// <summary>The rows of a binary COPY, in pieces. A file is read to its end, where its checksum is known.</summary>
    private async IAsyncEnumerable<byte[]> ReadEvents(long after, long limit, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var rows = new CopyRows();
        var versions = new List<(Guid, long)>();
        try
        {
            foreach (var segment in _manifest.Segments.Where(s => s.LastPosition > after && s.FirstPosition <= after + limit))
            {
                var position = segment.FirstPosition - 1;
                await foreach (var line in ExportFile.Lines(_folder, segment.File, segment.Bytes, segment.Sha256, Note, cancellation))
                {
                    position++;
                    if (position <= after || position > after + limit || position > segment.LastPosition)
                    {
                        continue;
                    }

                    if (Read(line, rows, versions) is { } what)
                    {
                        yield return rows.ToArray();
                        throw new NotAnEventException(position, $"Line {position - segment.FirstPosition + 1} of {segment.File} should be an event, but {what}.");
                    }

                    if (rows.Length >= PieceBytes)
                    {
                        yield return rows.ToArray();
                        rows.Dispose();
                        rows = new CopyRows(header: false);
                    }
                }

                if (position != segment.LastPosition)
                {
                    Note($"{segment.File} ends at position {position}, and not at {segment.LastPosition}.");
                }
            }

            _streams.Add(after, versions);
            yield return [.. rows.ToArray(), .. s_copyTrailer];
        }
        finally
        {
            rows.Dispose();
        }
    }

    private string? Read(ReadOnlyMemory<byte> line, CopyRows rows, List<(Guid Stream, long Version)> versions)
    {
        try
        {
            var (tenant, stream, version) = ExportedEvent.Read(line, rows);
            if (tenant is not null)
            {
                _tenants.TryAdd(tenant, true);
            }

            versions.Add((StreamVersions.Key(tenant ?? "", stream ?? ""), version)); // one without is found by who reads the rows
            return null;
        }
        catch (FormatException exception)
        {
            return exception.Message;
        }
    }

    /// <summary>Names the stream that has a hole before the event at a position.</summary>
    private async Task<string> Describe(long brokenPosition, long before, CancellationToken cancellation)
    {
        var segment = _manifest.Segments.First(s => s.LastPosition >= brokenPosition);
        var position = segment.FirstPosition - 1;
        await foreach (var line in ExportFile.Lines(_folder, segment.File, segment.Bytes, segment.Sha256, Note, cancellation))
        {
            if (++position == brokenPosition)
            {
                var (tenant, stream, version) = ExportedEvent.ReadVersion(line);
                return $"The stream '{stream}' of the tenant '{tenant}' has version {version} at position {position}, after version {before}.";
            }
        }

        throw new InvalidDataException($"{segment.File} was changed while it was verified.");
    }

    private void Note(string what) => _faults.TryAdd(what, _faults.Count);

    private static bool IsName(string name) => name.Length > 0 && name.All(c => char.IsAsciiLetterOrDigit(c) || c == '_');

    /// <summary>Pieces as one stream.</summary>
    private sealed class PieceStream(IAsyncEnumerator<byte[]> pieces) : Stream
    {
        private ReadOnlyMemory<byte> _rest;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            while (_rest.IsEmpty)
            {
                if (!await pieces.MoveNextAsync())
                {
                    return 0;
                }

                _rest = pieces.Current;
            }

            var some = Math.Min(buffer.Length, _rest.Length);
            _rest.Span[..some].CopyTo(buffer.Span);
            _rest = _rest[some..];
            return some;
        }

        public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override async ValueTask DisposeAsync()
        {
            await pieces.DisposeAsync();
            await base.DisposeAsync();
            GC.SuppressFinalize(this);
        }
    }
}
