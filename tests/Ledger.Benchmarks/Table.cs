using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Ledger.Benchmarks;

/// <summary>The samples as one table in Markdown, and as they are in JSON and CSV.</summary>
internal static class Table
{
    /// <summary>The 99th percentile of fewer times than these hangs on a handful of them, so the table says how many they are.</summary>
    private const long FewTimes = 1_000;

    private const string Explanation =
        """

        Each cell is the median of the runs, of the memory the most. A ratio is the median of the runs' own ratios, each to the yardstick
        taken beside it, and not the ratio of the two medians.

        """;

    private static readonly JsonSerializerOptions Indented = new() { WriteIndented = true };

    public static string Of(IReadOnlyList<Sample> samples)
    {
        var text = new StringBuilder(
            """
            | figure | events/s, median (min – max) | yardstick, median (min – max) | ratio, median (min – max) | p50 ms | p99 ms | CPU % client / Ledger / PostgreSQL / others | Ledger's memory, MB at most | bytes an event: log + views | WAL bytes an event |
            |---|---|---|---|---|---|---|---|---|---|

            """);
        foreach (var figure in samples.GroupBy(s => s.Figure))
        {
            var rates = figure.Select(s => s.Rate).ToArray();
            var cpu = new CpuShares(
                Median(figure.Select(s => s.Cpu.Client)), Median(figure.Select(s => s.Cpu.Ledger)), Median(figure.Select(s => s.Cpu.Postgres)), Median(figure.Select(s => s.Cpu.Others)));
            var yardsticks = figure.Select(s => s.YardstickRate).OfType<double>().ToArray();
            // Each run against the yardstick taken right after it: what else the machine does then weighs on both.
            var ratios = figure.Where(s => s.YardstickRate > 0).Select(s => s.Rate / s.YardstickRate!.Value).ToArray();
            string[] cells =
            [
                figure.Key,
                Spread(rates, Number),
                yardsticks.Length == 0 ? "" : $"{figure.Last().Yardstick}: {Spread(yardsticks, Number)}", // of logs that grow the last one's name, as it tells the largest
                ratios.Length == 0 ? "" : Spread(ratios, r => r.ToString("0.00", CultureInfo.InvariantCulture)),
                Milliseconds(figure.Select(s => s.P50Ms)),
                $"{Milliseconds(figure.Select(s => s.P99Ms))}{(figure.Min(s => s.Timed) is { } times && times < FewTimes ? $" (of {times})" : "")}",
                cpu == default ? "" : cpu.ToString(),
                figure.Max(s => s.LedgerMemory) is { } most ? Number(most) : "",
                figure.All(s => s.LogBytes is null) ? "" : $"{Bytes(figure.Select(s => s.LogBytes))} + {Bytes(figure.Select(s => s.ViewBytes))}",
                Bytes(figure.Select(s => s.WalBytes)),
            ];
            text.Append("| ").AppendJoin(" | ", cells).Append(" |\n");
        }

        return text.Append(Explanation).ToString();
    }

    public static void WriteSamples(IReadOnlyList<Sample> samples, string folder)
    {
        File.WriteAllText(Path.Combine(folder, "samples.json"), JsonSerializer.Serialize(samples, Indented));
        var csv = new StringBuilder("figure,run,rate,p50_ms,p99_ms,timed,yardstick,yardstick_rate,cpu_client,cpu_ledger,cpu_postgres,cpu_others,memory_mb,log_bytes,view_bytes,wal_bytes\n");
        foreach (var s in samples)
        {
            csv.AppendLine(string.Create(CultureInfo.InvariantCulture,
                $"\"{s.Figure}\",{s.Run},{s.Rate:0.0},{s.P50Ms:0.000},{s.P99Ms:0.000},{s.Timed},\"{s.Yardstick}\",{s.YardstickRate:0.0},{s.Cpu.Client:0.000},{s.Cpu.Ledger:0.000},{s.Cpu.Postgres:0.000},{s.Cpu.Others:0.000},{s.LedgerMemory:0},{s.LogBytes:0},{s.ViewBytes:0},{s.WalBytes:0}"));
        }

        File.WriteAllText(Path.Combine(folder, "samples.csv"), csv.ToString());
    }

    /// <summary>The middle one of some values, or what lies between the two in the middle.</summary>
    public static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[(sorted.Length / 2) - 1] + sorted[sorted.Length / 2]) / 2;
    }

    private static string Spread(double[] values, Func<double, string> text) => $"{text(Median(values))} ({text(values.Min())} – {text(values.Max())})";

    private static string Number(double value) => value.ToString(value < 10 ? "0.##" : "#,0", CultureInfo.InvariantCulture).Replace(',', ' ');

    private static string Milliseconds(IEnumerable<double?> values) =>
        values.OfType<double>().ToArray() is { Length: > 0 } known ? Median(known).ToString("0.0#", CultureInfo.InvariantCulture) : "";

    private static string Bytes(IEnumerable<double?> values) => values.OfType<double>().ToArray() is { Length: > 0 } known ? Number(Median(known)) : "";
}
