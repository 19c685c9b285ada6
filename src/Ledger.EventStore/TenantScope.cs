using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// Whose rows statements see. A connection of requests sees no tenant's rows until its transaction names one, and then that one's
/// only: the policies of <see cref="DatabaseRoles"/> ask for it. It is named by a statement in the same round trip, and ends with
/// the transaction, so that nothing of it is left on a connection for the next request.
/// </summary>
public static class TenantScope
{
    /// <summary>The setting that names the tenant.</summary>
    public const string Setting = "ledger.tenant";

    /// <summary>Names none: only connections that see every tenant's rows find any then.</summary>
    public const string Every = "";

    /// <summary>Names the tenant for the rest of the transaction; its result is one row to be read past.</summary>
    public static NpgsqlBatchCommand Of(string tenantId) => new($"select set_config('{Setting}', $1, true)")
    {
        Parameters = { new NpgsqlParameter<string> { TypedValue = tenantId } },
    };

    /// <summary>
    /// Statements on behalf of one tenant, in one round trip and one transaction. They are read by <see cref="Read"/>.
    /// </summary>
    public static NpgsqlBatch Batch(NpgsqlDataSource database, string tenantId, params ReadOnlySpan<NpgsqlBatchCommand> statements)
    {
        var batch = database.CreateBatch();
        batch.BatchCommands.Add(Of(tenantId));
        foreach (var statement in statements)
        {
            batch.BatchCommands.Add(statement);
        }

        return batch;
    }

    /// <summary>Runs a batch whose first result is that of <see cref="Of"/>, and stands at the one after it.</summary>
    public static async Task<NpgsqlDataReader> Read(this NpgsqlBatch batch, CancellationToken cancellation)
    {
        var reader = await batch.ExecuteReaderAsync(cancellation);
        try
        {
            await reader.NextResultAsync(cancellation);
            return reader;
        }
        catch
        {
            await reader.DisposeAsync();
            throw;
        }
    }
}
