using System.Text;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>A checkpoint that was signed and shown: the log answers for this size and no other until the next.</summary>
public sealed record PublishedCheckpoint(long Size, MerkleHash Root, byte[] Note);

/// <summary>An event's leaf: the entry that was hashed, and the salt of its commitments, null once that was erased.</summary>
public sealed record LogEntry(byte[] Entry, byte[]? Salt);

/// <summary>Reads the transparency log's tables. Entries are made of events of all tenants, and need connections that see them.</summary>
public sealed class TransparencyLog(NpgsqlDataSource database, AllTenantsDatabase entries) : ITileSource
{
    /// <summary>Over connections that see all.</summary>
    public TransparencyLog(NpgsqlDataSource database) : this(database, new AllTenantsDatabase(database))
    {
    }

    /// <summary>What an export holds of it.</summary>
    public static readonly ExportSection Tables =
        new("log", ["log_state", "log_tiles", "log_salts", "log_tenants", "log_erasures", "log_checkpoint", "log_keys"]);

    /// <summary>The newest checkpoint; null until the first.</summary>
    public async Task<PublishedCheckpoint?> ReadCheckpoint(CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand("select size, root, note from log_checkpoint where name = 'log'");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        return await reader.ReadAsync(cancellation)
            ? new PublishedCheckpoint(reader.GetInt64(0), new MerkleHash(reader.GetFieldValue<byte[]>(1)), reader.GetFieldValue<byte[]>(2))
            : null;
    }

    /// <summary>The verification keys, the current one first.</summary>
    public async Task<IReadOnlyList<string>> ReadKeys(CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand("select key from log_keys order by number desc");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var keys = new List<string>();
        while (await reader.ReadAsync(cancellation))
        {
            keys.Add(reader.GetString(0));
        }

        return keys;
    }

    /// <inheritdoc/>
    public async Task<IReadOnlyDictionary<TileId, byte[]>> ReadTiles(IReadOnlyCollection<TileId> tiles, CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand(
            """
            select t.level, t.index, t.hashes from unnest($1, $2) k (level, index)
            cross join lateral (select * from log_tiles t where t.level = k.level and t.index = k.index limit 1) t
            """);
        command.Parameters.Add(new NpgsqlParameter<int[]> { TypedValue = [.. tiles.Select(t => t.Level)] });
        command.Parameters.Add(new NpgsqlParameter<long[]> { TypedValue = [.. tiles.Select(t => t.Index)] });
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        var found = new Dictionary<TileId, byte[]>();
        while (await reader.ReadAsync(cancellation))
        {
            found[new TileId(reader.GetInt32(0), reader.GetInt64(1))] = reader.GetFieldValue<byte[]>(2);
        }

        return found;
    }

    /// <summary>The first <paramref name="count"/> hashes of a tile; null when it has not so many.</summary>
    public async Task<byte[]?> ReadTile(TileId tile, int count, CancellationToken cancellation = default)
    {
        await using var command = database.CreateCommand("select substr(hashes, 1, $3) from log_tiles where level = $1 and index = $2");
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = tile.Level });
        command.Parameters.Add(new NpgsqlParameter<long> { TypedValue = tile.Index });
        command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = count * MerkleHash.Bytes });
        return await command.ExecuteScalarAsync(cancellation) is byte[] hashes && hashes.Length == count * MerkleHash.Bytes ? hashes : null;
    }

    /// <summary>The first <paramref name="count"/> entries of a tile, each after its length as two bytes; null when there are not so many.</summary>
    public async Task<byte[]?> ReadEntryTile(long index, int count, CancellationToken cancellation = default)
    {
        var bundle = new ByteBuffer();
        var read = await ReadEntries(index * TilePath.Width, count, (entry, _) =>
        {
            bundle.WriteUInt16((ushort)entry.Length);
            bundle.Write(entry);
        }, cancellation);
        return read == count ? bundle.Written.ToArray() : null;
    }

    /// <summary>The entry of the event at a position; null when it is not sealed yet.</summary>
    public async Task<LogEntry?> ReadEntry(long position, CancellationToken cancellation = default)
    {
        LogEntry? found = null;
        await ReadEntries(position - 1, 1, (entry, salt) => found = new LogEntry(entry.ToArray(), salt.IsEmpty ? null : salt.ToArray()), cancellation);
        return found;
    }

    /// <summary>Gives the entries of events side by side, which must lie in one tile; returns how many there were.</summary>
    private async Task<int> ReadEntries(long first, int count, EntryReader give, CancellationToken cancellation)
    {
        await using var connection = await entries.Source.OpenConnectionAsync(cancellation);
        var (salts, erased, pseudonyms) = await ReadSecrets(connection, first, count, cancellation);
        if (salts is null)
        {
            return 0;
        }

        var (entry, scratch, commitments) = (new ByteBuffer(), new ByteBuffer(), new byte[LeafEnvelope.CommitmentsBytes]);
        await using var rows = await StoredRow.Read(connection, first, count, cancellation);
        var read = 0;
        while (await rows.Next(cancellation))
        {
            var index = rows.PositionNumber - 1;
            var offset = (int)(index & (TilePath.Width - 1)) * LeafEnvelope.SaltBytes;
            if (index != first + read || offset + LeafEnvelope.SaltBytes > salts.Length
                || !pseudonyms.TryGetValue(Encoding.UTF8.GetString(rows.TenantId), out var pseudonym))
            {
                break;
            }

            read++;
            entry.Clear();
            if (erased.TryGetValue(rows.PositionNumber, out var kept))
            {
                LeafEnvelope.Write(rows, pseudonym, kept, entry);
                give(entry.Written, []);
            }
            else
            {
                var salt = salts.AsSpan(offset, LeafEnvelope.SaltBytes);
                LeafEnvelope.Commit(rows, salt, scratch, commitments);
                LeafEnvelope.Write(rows, pseudonym, commitments, entry);
                give(entry.Written, salt);
            }
        }

        while (await rows.Next(cancellation))
        {
            // A COPY is read to its end, or the connection can't be used again.
        }

        return read;
    }

    private static async Task<(byte[]? Salts, Dictionary<long, byte[]> Erased, Dictionary<string, byte[]> Pseudonyms)> ReadSecrets(
        NpgsqlConnection connection, long first, int count, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection)
        {
            BatchCommands =
            {
                new NpgsqlBatchCommand("select salts from log_salts where bundle = $1")
                {
                    Parameters = { new NpgsqlParameter<long> { TypedValue = first / TilePath.Width } },
                },
                new NpgsqlBatchCommand("select position, commitments from log_erasures where position > $1 and position <= $2")
                {
                    Parameters = { new NpgsqlParameter<long> { TypedValue = first }, new NpgsqlParameter<long> { TypedValue = first + count } },
                },
                new NpgsqlBatchCommand(
                    """
                    select t.tenant_id, t.pseudonym
                    from (select distinct e.tenant_id from mt_events e where e.seq_id > $1 and e.seq_id <= $2) k
                    cross join lateral (select * from log_tenants t where t.tenant_id = coalesce(k.tenant_id, '') limit 1) t
                    """)
                {
                    Parameters = { new NpgsqlParameter<long> { TypedValue = first }, new NpgsqlParameter<long> { TypedValue = first + count } },
                },
            },
        };
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        var salts = await reader.ReadAsync(cancellation) ? reader.GetFieldValue<byte[]>(0) : null;
        await reader.NextResultAsync(cancellation);
        var erased = new Dictionary<long, byte[]>();
        while (await reader.ReadAsync(cancellation))
        {
            erased[reader.GetInt64(0)] = reader.GetFieldValue<byte[]>(1);
        }

        await reader.NextResultAsync(cancellation);
        var pseudonyms = new Dictionary<string, byte[]>();
        while (await reader.ReadAsync(cancellation))
        {
            pseudonyms[reader.GetString(0)] = reader.GetFieldValue<byte[]>(1);
        }

        return (salts, erased, pseudonyms);
    }

    private delegate void EntryReader(ReadOnlySpan<byte> entry, ReadOnlySpan<byte> salt);
}
