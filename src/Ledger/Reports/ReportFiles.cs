using Ledger.EventStore;
using Ledger.Http;
using Npgsql;
using System.Security.Cryptography;

namespace Ledger.Reports;

/// <summary>The files of reports: pieces in the database, so that every node can give them.</summary>
public sealed class ReportFiles(NpgsqlDataSource database, AllTenantsDatabase writing)
{
    /// <summary>Bytes of a piece, at most.</summary>
    public const int ChunkBytes = 262_144;

    /// <summary>How long writing a file may stand still before the database ends it, so that another node can.</summary>
    public static readonly TimeSpan MaxPause = TimeSpan.FromSeconds(60);

    /// <summary>A piece, from 0; null where the file has ended, or is not there.</summary>
    public async Task<byte[]?> Read(string tenantId, long requestedPosition, int number, CancellationToken cancellation)
    {
        await using var batch = database.For(
            tenantId, "select c.content from report_chunks c where c.tenant_id = $1 and c.requested_position = $2 and c.number = $3",
            Sql.Value(tenantId), Sql.Value(requestedPosition), Sql.Value(number));
        await using var reader = await batch.Read(cancellation);
        return await reader.ReadAsync(cancellation) ? reader.GetFieldValue<byte[]>(0) : null;
    }

    /// <summary>Removes a file.</summary>
    public async Task Delete(string tenantId, long requestedPosition, CancellationToken cancellation)
    {
        await using var command = writing.Source.Command(
            "delete from report_chunks c where c.tenant_id = $1 and c.requested_position = $2", Sql.Value(tenantId), Sql.Value(requestedPosition));
        await command.ExecuteNonQueryAsync(cancellation);
    }

    /// <summary>
    /// Writes a file of lines, in one transaction and in pieces, and says what has become of it. It takes the place of what was
    /// there. A <paramref name="expected"/> digest must come out, or nothing is written.
    /// </summary>
    internal async Task<(long Rows, long Bytes, string Sha256)> Write(
        string tenantId, long requestedPosition, IAsyncEnumerable<ReportLine> lines, string? expected, CancellationToken cancellation) =>
        await TryWrite(tenantId, requestedPosition, lines, expected, marksApostrophes: true, cancellation)
        // A file that was made before apostrophes were marked is made again as it was.
        ?? await TryWrite(tenantId, requestedPosition, lines, expected, marksApostrophes: false, cancellation)
        ?? throw new InvalidOperationException($"The report requested at {requestedPosition} had the digest {expected} and would have another one now.");

    /// <summary>Null, and nothing is written, when another digest comes out than the expected one.</summary>
    private async Task<(long Rows, long Bytes, string Sha256)?> TryWrite(
        string tenantId, long requestedPosition, IAsyncEnumerable<ReportLine> lines, string? expected, bool marksApostrophes, CancellationToken cancellation)
    {
        var (rows, bytes, number) = (0L, 0L, 0);
        using var digest = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        using var buffer = new PooledBuffer(2 * ChunkBytes);
        var csv = new CsvWriter(buffer, ReportLine.Table.Separator, marksApostrophes);
        foreach (var name in ReportLine.Table.Header)
        {
            csv.Text(name);
        }

        csv.EndRow();
        await using var connection = await writing.Source.OpenConnectionAsync(cancellation);
        await using var all = lines.GetAsyncEnumerator(cancellation);
        var more = await all.MoveNextAsync(); // gathering and sorting is done by then
        await using var transaction = await connection.BeginTransactionAsync(cancellation);
        await Execute(connection, Sql.Command($"set local idle_in_transaction_session_timeout = '{(int)MaxPause.TotalMilliseconds}ms'"), cancellation);
        await Execute(
            connection, Sql.Command("delete from report_chunks c where c.tenant_id = $1 and c.requested_position = $2", Sql.Value(tenantId), Sql.Value(requestedPosition)),
            cancellation);
        while (more)
        {
            ReportLine.Table.WriteCells(csv, all.Current);
            csv.EndRow();
            rows++;
            if (buffer.Written.Length >= ChunkBytes)
            {
                await Flush();
            }

            more = await all.MoveNextAsync();
        }

        await Flush();
        var sha256 = Convert.ToHexStringLower(digest.GetHashAndReset());
        if (expected is not null && expected != sha256)
        {
            return null;
        }

        await transaction.CommitAsync(cancellation);
        return (rows, bytes, sha256);

        async Task Flush()
        {
            var content = buffer.Written.ToArray();
            buffer.Clear();
            digest.AppendData(content);
            bytes += content.Length;
            await Execute(
                connection,
                Sql.Command(
                    "insert into report_chunks (tenant_id, requested_position, number, content) values ($1, $2, $3, $4)",
                    Sql.Value(tenantId), Sql.Value(requestedPosition), Sql.Value(number++), Sql.Value(content)),
                cancellation);
        }
    }

    private static async Task Execute(NpgsqlConnection connection, NpgsqlBatchCommand command, CancellationToken cancellation)
    {
        await using var batch = new NpgsqlBatch(connection) { BatchCommands = { command } };
        await batch.ExecuteNonQueryAsync(cancellation);
    }
}
