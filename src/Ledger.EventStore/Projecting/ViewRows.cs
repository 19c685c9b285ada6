using System.Runtime.CompilerServices;
using Npgsql;

namespace Ledger.EventStore;

/// <summary>
/// The rows of a table, such as a view's, as text, in the order of its primary key, whichever schema the table stands in: the same rows give
/// the same bytes. Decimals are strings, times RFC 3339 in UTC with six digits, durations ISO 8601.
/// </summary>
public static class ViewRows
{
    /// <summary>How text is written in the transaction that reads; see <see cref="ReadJson"/>.</summary>
    public const string Settings = "set local intervalstyle = 'iso_8601'; set local timezone = 'UTC'; set local extra_float_digits = 1";

    /// <summary>The columns of a table, in their order, and whether each holds whole numbers.</summary>
    public static async Task<IReadOnlyList<(string Name, bool IsWhole)>> Columns(
        NpgsqlConnection connection, string schema, string table, CancellationToken cancellation) =>
        [.. (await Describe(connection, schema, table, cancellation)).Columns.Select(c => (c.Name, c.IsWhole))];

    /// <summary>Each row as a JSON object. The connection stands in a transaction with <see cref="Settings"/>.</summary>
    public static async IAsyncEnumerable<string> ReadJson(
        NpgsqlConnection connection, string schema, string table, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var (columns, key) = await Describe(connection, schema, table, cancellation);
        var values = string.Join(", ", columns.Select(c => $"{c.Value} as \"{c.Name}\""));
        await using var command = new NpgsqlCommand(
            $"select (select row_to_json(r)::text from (select {values}) r) from \"{schema}\".\"{table}\" t order by {key}", connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            yield return reader.GetString(0);
        }
    }

    /// <summary>Each row as the texts of its columns. The connection stands in a transaction with <see cref="Settings"/>.</summary>
    public static async IAsyncEnumerable<string?[]> ReadCells(
        NpgsqlConnection connection, string schema, string table, [EnumeratorCancellation] CancellationToken cancellation = default)
    {
        var (columns, key) = await Describe(connection, schema, table, cancellation);
        var values = string.Join(", ", columns.Select(c => $"({c.Value})::text"));
        await using var command = new NpgsqlCommand($"select {values} from \"{schema}\".\"{table}\" t order by {key}", connection) { CommandTimeout = 0 };
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            var cells = new string?[columns.Count];
            for (var i = 0; i < cells.Length; i++)
            {
                cells[i] = reader.IsDBNull(i) ? null : reader.GetString(i);
            }

            yield return cells;
        }
    }

    private static async Task<(IReadOnlyList<(string Name, string Value, bool IsWhole)> Columns, string Key)> Describe(
        NpgsqlConnection connection, string schema, string table, CancellationToken cancellation)
    {
        await using var command = new NpgsqlCommand(
            """
            select a.attname::text,
                   case a.atttypid
                     when 'numeric'::regtype then format('t.%I::text', a.attname)
                     when 'numeric[]'::regtype then format('t.%I::text[]', a.attname)
                     when 'timestamptz'::regtype then format('to_char(t.%I, ''YYYY-MM-DD"T"HH24:MI:SS.US"Z"'')', a.attname)
                     else format('t.%I', a.attname)
                   end,
                   a.atttypid in ('int2'::regtype, 'int4'::regtype, 'int8'::regtype),
                   array_position(i.indkey::int2[], a.attnum)
            from pg_class c
            join pg_namespace n on n.oid = c.relnamespace
            join pg_index i on i.indrelid = c.oid and i.indisprimary
            join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
            where n.nspname = $1 and c.relname = $2
            order by a.attnum
            """, connection)
        {
            Parameters = { new NpgsqlParameter<string> { TypedValue = schema }, new NpgsqlParameter<string> { TypedValue = table } },
        };
        var columns = new List<(string, string, bool)>();
        var key = new SortedDictionary<int, string>();
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            columns.Add((reader.GetString(0), reader.GetString(1), reader.GetBoolean(2)));
            if (!reader.IsDBNull(3))
            {
                key[reader.GetInt32(3)] = $"t.\"{reader.GetString(0)}\"";
            }
        }

        return columns.Count > 0 ? (columns, string.Join(", ", key.Values)) : throw new InvalidOperationException($"There is no table {schema}.{table}.");
    }
}
