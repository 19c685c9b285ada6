using Ledger.EventStore;
using Npgsql;
using NpgsqlTypes;

namespace Ledger;

/// <summary>Typed parameters, so that nothing is guessed and nothing is boxed.</summary>
public static class Sql
{
    /// <summary>A statement of a batch with its parameters, $1 first.</summary>
    public static NpgsqlBatchCommand Command(string text, params ReadOnlySpan<NpgsqlParameter> parameters)
    {
        var command = new NpgsqlBatchCommand(text);
        foreach (var parameter in parameters)
        {
            command.Parameters.Add(parameter);
        }

        return command;
    }

    /// <summary>A statement of its own with its parameters, $1 first.</summary>
    public static NpgsqlCommand Command(this NpgsqlDataSource database, string text, params ReadOnlySpan<NpgsqlParameter> parameters)
    {
        var command = database.CreateCommand(text);
        foreach (var parameter in parameters)
        {
            command.Parameters.Add(parameter);
        }

        return command;
    }

    /// <summary>A statement on behalf of a tenant, with its parameters, $1 first; <see cref="TenantScope.Read"/> gives its result.</summary>
    public static NpgsqlBatch For(this NpgsqlDataSource database, string tenantId, string text, params ReadOnlySpan<NpgsqlParameter> parameters) =>
        TenantScope.Batch(database, tenantId, Command(text, parameters));

    /// <summary>A value.</summary>
    public static NpgsqlParameter Value<T>(T value) => new NpgsqlParameter<T> { TypedValue = value };

    /// <summary>A value that may be null.</summary>
    public static NpgsqlParameter Nullable(object? value, NpgsqlDbType type) => new() { Value = value ?? DBNull.Value, NpgsqlDbType = type };

    /// <summary>A column of texts, some of them perhaps null.</summary>
    public static NpgsqlParameter Texts(IEnumerable<string?> values) =>
        new NpgsqlParameter<string?[]> { TypedValue = [.. values], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };

    /// <summary>A column of numbers.</summary>
    public static NpgsqlParameter Longs(IEnumerable<long> values) => Value(values.ToArray());

    /// <summary>A column of numbers, some of them null.</summary>
    public static NpgsqlParameter LongsOrNull(IEnumerable<long?> values) => Value(values.ToArray());

    /// <summary>A column of instants.</summary>
    public static NpgsqlParameter Instants(IEnumerable<DateTimeOffset> values) => Value(values.ToArray());

    /// <summary>A column of instants, some of them null.</summary>
    public static NpgsqlParameter InstantsOrNull(IEnumerable<DateTimeOffset?> values) => Value(values.ToArray());

    /// <summary>A column's value that may be null.</summary>
    public static T? Maybe<T>(this NpgsqlDataReader reader, int column) => reader.IsDBNull(column) ? default : reader.GetFieldValue<T>(column);
}

/// <summary>
/// Reads of views on behalf of a tenant. Every answer is of one snapshot and names the position its views had reached in it.
/// </summary>
public sealed class ViewDatabase(NpgsqlDataSource database)
{
    /// <summary>The rows of one statement, for answers whose position was settled before.</summary>
    public async Task<List<TRow>> Rows<TRow>(string tenantId, NpgsqlBatchCommand statement, Func<NpgsqlDataReader, TRow> row, CancellationToken cancellation)
    {
        var rows = new List<TRow>();
        await Read(
            tenantId, [], [statement],
            async reader =>
            {
                while (await reader.ReadAsync(cancellation))
                {
                    rows.Add(row(reader));
                }
            },
            cancellation);
        return rows;
    }

    /// <summary>The position that all of <paramref name="views"/> have reached.</summary>
    public Task<long> Position(IReadOnlyCollection<string> views, CancellationToken cancellation) =>
        Read(TenantScope.Every, views, [], _ => Task.CompletedTask, cancellation);

    /// <summary>
    /// Runs the statements in one round trip and one snapshot; <paramref name="read"/> finds the reader at the first of their
    /// results. Returns the position that all of <paramref name="views"/> have reached.
    /// </summary>
    public async Task<long> Read(
        string tenantId, IReadOnlyCollection<string> views, IEnumerable<NpgsqlBatchCommand> statements, Func<NpgsqlDataReader, Task> read,
        CancellationToken cancellation)
    {
        await using var connection = await database.OpenConnectionAsync(cancellation);
        await using var batch = new NpgsqlBatch(connection);
        EventReader.BeginSnapshotOfAny(batch);
        batch.BatchCommands.Add(Sql.Command(
            $"select coalesce(min(last_seq_id), 0), set_config('{TenantScope.Setting}', $2, true) from mt_event_progression where name = any($1)",
            Sql.Texts(views.Select(v => v + ":All")), Sql.Value(tenantId)));
        foreach (var statement in statements)
        {
            batch.BatchCommands.Add(statement);
        }

        EventReader.EndSnapshot(batch);
        await using var reader = await batch.ExecuteReaderAsync(cancellation);
        await reader.ReadAsync(cancellation);
        var position = reader.GetInt64(0);
        await reader.NextResultAsync(cancellation);
        await read(reader);
        while (await reader.NextResultAsync(cancellation))
        {
            // An error of a later statement shows here.
        }

        return position;
    }
}
