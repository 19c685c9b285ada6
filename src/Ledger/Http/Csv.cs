using System.Text;

namespace Ledger.Http;

/// <summary>Reads CSV lines by RFC 4180, for files whose values hold no line breaks.</summary>
public static class Csv
{
    /// <summary>The cells of a line, or null when its quotes don't match. Quoted cells may hold commas and doubled quotes.</summary>
    public static IReadOnlyList<string>? TrySplit(string line)
    {
        if (!line.Contains('"', StringComparison.Ordinal))
        {
            return line.Split(',');
        }

        var cells = new List<string>();
        var at = 0;
        while (true)
        {
            if (at < line.Length && line[at] == '"')
            {
                var cell = new StringBuilder();
                for (at++; ; at++)
                {
                    if (at >= line.Length)
                    {
                        return null; // no closing quote
                    }

                    if (line[at] == '"' && (++at >= line.Length || line[at] != '"'))
                    {
                        break;
                    }

                    cell.Append(line[at]);
                }

                cells.Add(cell.ToString());
            }
            else
            {
                var end = line.IndexOf(',', at);
                var cell = end < 0 ? line[at..] : line[at..end];
                if (cell.Contains('"', StringComparison.Ordinal))
                {
                    return null; // a quote within a cell that is not quoted
                }

                cells.Add(cell);
                at += cell.Length;
            }

            if (at == line.Length)
            {
                return cells;
            }

            if (line[at] != ',')
            {
                return null; // text after a closing quote
            }

            at++;
        }
    }
}
