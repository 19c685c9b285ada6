using Npgsql;

namespace Ledger.EventStore;

/// <summary>The log of a database, to be verified beside the nodes that use it: what is sealed does not change.</summary>
public sealed class DatabaseLog(NpgsqlDataSource database, TransparencyLog log) : IVerifiedLog
{
    /// <inheritdoc/>
    public async Task<LogClaims> ReadClaims(CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand(
            """
            select coalesce((select max(seq_id) from mt_events), 0), s.size, s.root, c.size, c.root, c.note
            from log_state s left join log_checkpoint c on c.name = s.name where s.name = 'log'
            """);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        if (!await reader.ReadAsync(cancellation))
        {
            throw new InvalidDataException("The log's state is gone: log_state is empty.");
        }

        var shown = reader.IsDBNull(3) ? null
            : new PublishedCheckpoint(reader.GetInt64(3), new MerkleHash(reader.GetFieldValue<byte[]>(4)), reader.GetFieldValue<byte[]>(5));
        return new LogClaims(reader.GetInt64(0), reader.GetInt64(1), new MerkleHash(reader.GetFieldValue<byte[]>(2)), shown, await log.ReadKeys(cancellation));
    }

    /// <inheritdoc/>
    public async Task<Stream> OpenEvents(long after, long limit, CancellationToken cancellation = default)
    {
        var connection = await database.OpenConnectionAsync(cancellation);
        try
        {
            return new OwnedStream(await StoredRow.Open(connection, after, limit, cancellation), connection);
        }
        catch
        {
            await connection.DisposeAsync();
            throw;
        }
    }

    /// <inheritdoc/>
    public async Task<LogSecrets> ReadSecrets(long firstBundle, int bundles, CancellationToken cancellation = default)
    {
        var (salts, erasures) = (new Dictionary<long, byte[]>(), new Dictionary<long, byte[]>());
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new NpgsqlBatchCommand("select bundle, salts from log_salts where bundle >= $1 and bundle < $2")
                {
                    Parameters = { new NpgsqlParameter<long> { TypedValue = firstBundle }, new NpgsqlParameter<long> { TypedValue = firstBundle + bundles } },
                },
                new NpgsqlBatchCommand("select position, commitments from log_erasures where position > $1 and position <= $2")
                {
                    Parameters =
                    {
                        new NpgsqlParameter<long> { TypedValue = firstBundle * TilePath.Width },
                        new NpgsqlParameter<long> { TypedValue = (firstBundle + bundles) * TilePath.Width },
                    },
                },
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            salts[reader.GetInt64(0)] = reader.GetFieldValue<byte[]>(1);
        }

        await reader.NextResultAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            erasures[reader.GetInt64(0)] = reader.GetFieldValue<byte[]>(1);
        }

        return new LogSecrets(salts, erasures);
    }

    /// <inheritdoc/>
    public async Task<byte[]?> ReadPseudonym(string tenantId, CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand("select pseudonym from log_tenants where tenant_id = $1");
        command.Parameters.Add(new NpgsqlParameter<string> { TypedValue = tenantId });
        return await command.ExecuteScalarAsync(cancellation) as byte[];
    }

    /// <inheritdoc/>
    public async Task<string?> FindFault(CancellationToken cancellation = default)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        await using (var settings = new NpgsqlCommand(
            "set local enable_mergejoin = on; set local enable_seqscan = on; set local idle_in_transaction_session_timeout = 0", connection))
        {
            await settings.ExecuteNonQueryAsync(cancellation); // all of it is read, once
        }

        await using var command = new NpgsqlCommand(
            """
            select coalesce(s.tenant_id, e.tenant_id), coalesce(s.id, e.stream_id), s.version, coalesce(e.events, 0), coalesce(e.first, 1), coalesce(e.last, 0)
            from (select tenant_id, stream_id, count(*) as events, min(version) as first, max(version) as last from mt_events group by 1, 2) e
            full join mt_streams s on s.tenant_id = e.tenant_id and s.id = e.stream_id
            where s.version is distinct from coalesce(e.events, 0) or e.first <> 1 or e.last <> e.events
            limit 1
            """, connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation)
            ? $"The stream '{reader.GetValue(1)}' of the tenant '{reader.GetValue(0)}' says version {(reader.IsDBNull(2) ? "nothing" : reader.GetInt64(2))}, "
                + $"but holds {reader.GetInt64(3)} events with versions from {reader.GetInt64(4)} to {reader.GetInt64(5)}."
            : null;
    }

    /// <inheritdoc/>
    public Task<IReadOnlyDictionary<TileId, byte[]>> ReadTiles(IReadOnlyCollection<TileId> tiles, CancellationToken cancellation = default) =>
        log.ReadTiles(tiles, cancellation);

    /// <summary>A stream that ends its connection with itself.</summary>
    private sealed class OwnedStream(Stream inner, NpgsqlConnection connection) : Stream
    {
        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count) => inner.Read(buffer, offset, count);

        public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) => inner.ReadAsync(buffer, cancellationToken);

        public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken) =>
            inner.ReadAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

        public override void Flush()
        {
        }

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override async ValueTask DisposeAsync()
        {
            await inner.DisposeAsync();
            await connection.DisposeAsync();
            await base.DisposeAsync();
            GC.SuppressFinalize(this);
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                inner.Dispose();
                connection.Dispose();
            }

            base.Dispose(disposing);
        }
    }
}
