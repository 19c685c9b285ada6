using System.Buffers;
using System.Buffers.Text;
using System.Text;

namespace Ledger.Http;

/// <summary>
/// CSV in UTF-8 by RFC 4180: CRLF, and quotes where a cell needs them. Text beginning with <c>= + - @</c>, tab, CR or LF gets
/// an apostrophe before it, so that a spreadsheet shows it instead of running it as a formula. So does text beginning with an
/// apostrophe: whoever reads the file by program takes one off and has what was written. Numbers and times that Ledger writes
/// are not touched.
/// </summary>
public sealed class CsvWriter
{
    private readonly IBufferWriter<byte> _output;
    private readonly byte _separator;
    private readonly SearchValues<byte> _needsQuotes;
    private readonly bool _marksApostrophes;
    private bool _inRow;

    /// <summary>
    /// Writes to <paramref name="output"/>, with another separator than a comma where one is asked for. Without
    /// <paramref name="marksApostrophes"/>, text beginning with an apostrophe gets none before it, as in files of earlier days.
    /// </summary>
    public CsvWriter(IBufferWriter<byte> output, char separator = ',', bool marksApostrophes = true)
    {
        _output = output;
        _marksApostrophes = marksApostrophes;
        _separator = (byte)separator;
        _needsQuotes = separator == ',' ? NeedsQuotes : SearchValues.Create([(byte)separator, .. "\"\r\n"u8]);
    }

    private static readonly SearchValues<byte> NeedsQuotes = SearchValues.Create(",\"\r\n"u8);

    /// <summary>A cell of text; null is an empty cell.</summary>
    public void Text(string? value)
    {
        BeginCell();
        if (string.IsNullOrEmpty(value)) return;
        var size = Encoding.UTF8.GetMaxByteCount(value.Length);
        byte[]? rented = null;
        var utf8 = size <= 512 ? stackalloc byte[512] : rented = ArrayPool<byte>.Shared.Rent(size);
        Cell(utf8[..Encoding.UTF8.GetBytes(value, utf8)]);
        if (rented is not null) ArrayPool<byte>.Shared.Return(rented);
    }

    /// <summary>A cell with a whole number.</summary>
    public void Number(long? value)
    {
        BeginCell();
        if (value is not { } number) return;
        var span = _output.GetSpan(20);
        Utf8Formatter.TryFormat(number, span, out var written);
        _output.Advance(written);
    }

    /// <summary>A cell with a decimal, plain and trimmed.</summary>
    public void Number(decimal? value)
    {
        BeginCell();
        if (value is { } number) _output.Advance(Decimals.Format(number, _output.GetSpan(Decimals.MaxChars)));
    }

    /// <summary>A cell with a time, RFC 3339 in UTC.</summary>
    public void Time(DateTimeOffset? value)
    {
        BeginCell();
        if (value is { } time) _output.Advance(Rfc3339.Format(time, _output.GetSpan(Rfc3339.MaxChars)));
    }

    /// <summary>A cell with <c>true</c> or <c>false</c>.</summary>
    public void Bool(bool? value)
    {
        BeginCell();
        if (value is { } boolean) _output.Write(boolean ? "true"u8 : "false"u8);
    }

    /// <summary>Ends the row.</summary>
    public void EndRow()
    {
        _output.Write("\r\n"u8);
        _inRow = false;
    }

    private void BeginCell()
    {
        if (_inRow) _output.Write([_separator]);
        _inRow = true;
    }

    private void Cell(ReadOnlySpan<byte> text)
    {
        var quoted = text.ContainsAny(_needsQuotes);
        if (quoted) _output.Write("\""u8);
        if (text[0] is (byte)'=' or (byte)'+' or (byte)'-' or (byte)'@' or (byte)'\t' or (byte)'\r' or (byte)'\n'
            || (_marksApostrophes && text[0] == (byte)'\''))
            _output.Write("'"u8);
        for (int quote; quoted && (quote = text.IndexOf((byte)'"')) >= 0; text = text[(quote + 1)..])
        {
            _output.Write(text[..quote]);
            _output.Write("\"\""u8);
        }
        _output.Write(text);
        if (quoted) _output.Write("\""u8);
    }
}

/// <summary>How rows of <typeparamref name="T"/> look as CSV: the header, and the cells of one row in its order.</summary>
public sealed record CsvTable<T>(IReadOnlyList<string> Header, Action<CsvWriter, T> WriteCells, char Separator = ',');
