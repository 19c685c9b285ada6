using System.Text.Json;
using Microsoft.Win32.SafeHandles;

namespace Ledger.EventStore;

/// <summary>
/// The rows of a table in a file of an export, found by their key without being kept in memory: of each row only the key and the
/// place are. A row that can't be read is as good as none.
/// </summary>
internal sealed class ExportedTable : IDisposable
{
    private static readonly JsonDocumentOptions s_options = new() { AllowDuplicateProperties = false };

    private readonly List<(long Major, long Minor)> _keys = [];
    private readonly List<(long Offset, int Length)> _places = [];
    private readonly SafeFileHandle? _file;

    private ExportedTable(SafeFileHandle? file) => _file = file;

    /// <summary>How many rows there are.</summary>
    public int Count => _places.Count;

    /// <summary>Finds the rows, whose key is one or two columns of whole numbers, or none that rows are looked up by.</summary>
    public static async Task<ExportedTable> Open(
        string folder, ExportTable table, string[] key, Action<string> wrong, CancellationToken cancellation)
    {
        var path = Path.Combine(folder, table.File);
        var read = new ExportedTable(File.Exists(path) ? File.OpenHandle(path, options: FileOptions.RandomAccess) : null);
        var (number, offset) = (0L, 0L);
        await foreach (var line in ExportFile.Lines(folder, table.File, table.Bytes, table.Sha256, wrong, cancellation))
        {
            number++;
            try
            {
                using var row = JsonDocument.Parse(line, s_options);
                var major = key.Length > 0 ? row.RootElement.GetProperty(key[0]).GetInt64() : number;
                var found = (major, key.Length > 1 ? row.RootElement.GetProperty(key[1]).GetInt64() : 0);
                if (read._keys.Count > 0 && found.CompareTo(read._keys[^1]) <= 0)
                {
                    throw new FormatException("it is not in the order of its key");
                }

                read._keys.Add(found);
                read._places.Add((offset, line.Length));
            }
            catch (Exception exception) when (IsUnreadable(exception))
            {
                wrong($"Line {number} of {table.File} is no row of {table.Table}: {exception.Message}");
            }

            offset += line.Length + 1;
        }

        if (number != table.Rows)
        {
            wrong($"{table.File} has {number} rows, and not {table.Rows}.");
        }

        return read;
    }

    /// <summary>The numbers of the rows whose keys lie from one up to, but not including, another.</summary>
    public IEnumerable<int> Between((long Major, long Minor) from, (long Major, long Minor) to)
    {
        var first = _keys.BinarySearch(from);
        for (var row = first < 0 ? ~first : first; row < _keys.Count && _keys[row].CompareTo(to) < 0; row++)
        {
            yield return row;
        }
    }

    /// <summary>The row with a number, as what is made of it; the default when that is impossible.</summary>
    public T? Read<T>(int row, Func<JsonElement, T> read)
    {
        var (offset, length) = _places[row];
        var line = new byte[length];
        for (int done = 0, some; done < length; done += some)
        {
            some = RandomAccess.Read(_file!, line.AsSpan(done), offset + done);
            if (some == 0)
            {
                return default;
            }
        }

        try
        {
            using var document = JsonDocument.Parse(line, s_options);
            return read(document.RootElement);
        }
        catch (Exception exception) when (IsUnreadable(exception))
        {
            return default;
        }
    }

    /// <summary>A bytea as PostgreSQL writes it.</summary>
    /// <exception cref="FormatException">It is none.</exception>
    public static byte[] Bytes(JsonElement row, string column) =>
        row.GetProperty(column).GetString() is ['\\', 'x', .. var hex] ? Convert.FromHexString(hex) : throw new FormatException($"{column} holds no bytes");

    /// <inheritdoc/>
    public void Dispose() => _file?.Dispose();

    private static bool IsUnreadable(Exception exception) =>
        exception is JsonException or FormatException or InvalidOperationException or KeyNotFoundException or ArgumentException;
}
