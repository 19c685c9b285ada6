using System.Globalization;
using System.Text;

namespace Ledger.Hosting;

/// <summary>How metrics are written down.</summary>
public enum PrometheusFormat
{
    /// <summary>Prometheus' own text format, 0.0.4.</summary>
    Text,

    /// <summary>OpenMetrics 1.0.0.</summary>
    OpenMetrics,
}

/// <summary>
/// Writes metrics as Prometheus reads them. Names are made of OpenTelemetry's by its own rules: <c>ledger.append.commit.duration</c>
/// in <c>s</c> becomes <c>ledger_append_commit_duration_seconds</c>, a counter ends in <c>_total</c>.
/// </summary>
internal static class PrometheusText
{
    private static readonly Dictionary<string, string> Units = new()
    {
        ["s"] = "seconds", ["ms"] = "milliseconds", ["us"] = "microseconds", ["ns"] = "nanoseconds", ["min"] = "minutes", ["h"] = "hours", ["d"] = "days",
        ["By"] = "bytes", ["KiBy"] = "kibibytes", ["MiBy"] = "mebibytes", ["GiBy"] = "gibibytes", ["%"] = "percent",
    };

    /// <summary>The name of a metric's family; the samples of a counter have <c>_total</c> behind it.</summary>
    public static (string Family, string? Unit) NameOf(string name, string? unit, MetricKind kind)
    {
        // In Prometheus, _count is a histogram's: what counts things is named by the things.
        const string Count = ".count";
        var family = Clean(name.EndsWith(Count, StringComparison.Ordinal) && kind != MetricKind.Histogram ? Plural(name[..^Count.Length]) : name);
        if (kind == MetricKind.Counter && family.EndsWith("_total", StringComparison.Ordinal))
        {
            family = family[..^"_total".Length];
        }

        var suffix = UnitOf(unit, kind);
        return (suffix is null || family == suffix || family.EndsWith($"_{suffix}", StringComparison.Ordinal) ? family : $"{family}_{suffix}", suffix);
    }

    /// <summary>The name of the sample that carries a metric's value, which queries and alerts use; of a histogram, that of its family.</summary>
    public static string SampleOf(string name, string? unit, MetricKind kind) =>
        NameOf(name, unit, kind).Family + (kind == MetricKind.Counter ? "_total" : "");

    /// <summary>All metrics of a collector, the families in order of their names.</summary>
    public static string Write(
        IEnumerable<(MeasuredInstrument Instrument, IReadOnlyList<MetricSeries> Series)> metrics, PrometheusFormat format,
        IEnumerable<KeyValuePair<string, object?>> target)
    {
        var text = new StringBuilder();
        var head = new Family("target", "What is measured", null, MetricKind.Gauge, []);
        Header(text, head, "target_info", format, format == PrometheusFormat.OpenMetrics ? "info" : "gauge", format == PrometheusFormat.OpenMetrics ? "target" : "target_info");
        text.Append("target_info").Append(Braces(Labels([.. target]))).Append(" 1\n");
        foreach (var family in Families(metrics))
        {
            var sample = family.Kind == MetricKind.Counter ? $"{family.Name}_total" : family.Name;
            Header(text, family, sample, format, family.Kind.ToString().ToLowerInvariant(), format == PrometheusFormat.OpenMetrics ? family.Name : sample);
            foreach (var (labels, value, buckets) in Rows(family))
            {
                if (family.Kind == MetricKind.Histogram)
                {
                    Histogram(text, family, labels, value, buckets, format);
                }
                else
                {
                    text.Append(sample).Append(Braces(labels)).Append(' ').Append(Number(value)).Append('\n');
                }
            }
        }

        return (format == PrometheusFormat.OpenMetrics ? text.Append("# EOF\n") : text).ToString();
    }

    /// <summary>Instruments of one name in several meters are one family; of different kinds, the first one's stands.</summary>
    private static IEnumerable<Family> Families(IEnumerable<(MeasuredInstrument Instrument, IReadOnlyList<MetricSeries> Series)> metrics) =>
        from metric in metrics
        where metric.Series.Count > 0
        group metric by NameOf(metric.Instrument.Name, metric.Instrument.UnitCode, metric.Instrument.Kind) into named
        orderby named.Key.Family
        let first = named.First().Instrument
        select new Family(
            named.Key.Family, first.Description is { Length: > 0 } said ? said : first.Name, named.Key.Unit, first.Kind,
            [.. named.Where(m => m.Instrument.Kind == first.Kind && m.Instrument.Bounds.AsSpan().SequenceEqual(first.Bounds))]);

    /// <summary>A row for each set of labels. Series whose tags differ only in what is no text, or in order, are one.</summary>
    private static IEnumerable<(string Labels, double Value, long[] Buckets)> Rows(Family family)
    {
        var rows = new SortedDictionary<string, (double Value, long[] Buckets)>(StringComparer.Ordinal);
        foreach (var (instrument, all) in family.Metrics)
        {
            foreach (var series in all)
            {
                var (labels, value, buckets) = (Labels(series.Tags), series.Value, series.Buckets);
                var isSum = !instrument.IsObserved && rows.TryGetValue(labels, out var other);
                rows[labels] = isSum ? (rows[labels].Value + value, [.. rows[labels].Buckets.Zip(buckets, (a, b) => a + b)]) : (value, buckets);
            }
        }

        return rows.Select(r => (r.Key, r.Value.Value, r.Value.Buckets));
    }

    private static void Header(StringBuilder text, Family family, string sample, PrometheusFormat format, string type, string name)
    {
        var help = family.Help.Replace("\\", @"\\", StringComparison.Ordinal).Replace("\n", @"\n", StringComparison.Ordinal);
        text.Append("# HELP ").Append(name).Append(' ')
            .Append(format == PrometheusFormat.OpenMetrics ? help.Replace("\"", "\\\"", StringComparison.Ordinal) : help).Append('\n')
            .Append("# TYPE ").Append(name).Append(' ').Append(type).Append('\n');
        if (format == PrometheusFormat.OpenMetrics && family.Unit is { } unit && sample.Contains(unit, StringComparison.Ordinal))
        {
            text.Append("# UNIT ").Append(name).Append(' ').Append(unit).Append('\n');
        }
    }

    private static void Histogram(StringBuilder text, Family family, string labels, double sum, long[] buckets, PrometheusFormat format)
    {
        var bounds = family.Metrics[0].Instrument.Bounds;
        var (count, separator) = (0L, labels.Length > 0 ? "," : "");
        for (var i = 0; i < buckets.Length; i++)
        {
            count += buckets[i];
            var bound = i < bounds.Length ? Number(bounds[i]) : "+Inf";
            var isWhole = format == PrometheusFormat.OpenMetrics && i < bounds.Length && bound.All(char.IsAsciiDigit);
            text.Append(family.Name).Append("_bucket{").Append(labels).Append(separator).Append("le=\"").Append(bound).Append(isWhole ? ".0" : "").Append("\"} ").Append(count).Append('\n');
        }

        text.Append(family.Name).Append("_sum").Append(Braces(labels)).Append(' ').Append(Number(sum)).Append('\n')
            .Append(family.Name).Append("_count").Append(Braces(labels)).Append(' ').Append(count).Append('\n');
    }

    private static string Braces(string labels) => labels.Length == 0 ? "" : $"{{{labels}}}";

    private static string Labels(ReadOnlySpan<KeyValuePair<string, object?>> tags)
    {
        var labels = new SortedDictionary<string, string>(StringComparer.Ordinal);
        foreach (var (key, value) in tags)
        {
            var (name, said) = (Clean(key), Convert.ToString(value, CultureInfo.InvariantCulture) ?? "");
            said = value is bool ? said.ToLowerInvariant() : said;
            if (said.Length > 0)
            {
                // Two tags of one label are both told.
                labels[name] = labels.TryGetValue(name, out var other) ? $"{other};{said}" : said;
            }
        }

        return string.Join(',', labels.Select(l => $"{l.Key}=\"{Escape(l.Value)}\""));

        static string Escape(string value) =>
            value.Replace("\\", @"\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal).Replace("\n", @"\n", StringComparison.Ordinal);
    }

    private static string Number(double value) => value switch
    {
        double.PositiveInfinity => "+Inf",
        double.NegativeInfinity => "-Inf",
        _ => value.ToString("R", CultureInfo.InvariantCulture),
    };

    private static string Plural(string name) => name.EndsWith('y') ? $"{name[..^1]}ies" : name.EndsWith('s') ? name : $"{name}s";

    /// <summary>A name of letters, digits and single underscores, which does not begin with a digit.</summary>
    private static string Clean(string name)
    {
        var clean = new StringBuilder(name.Length);
        foreach (var c in name)
        {
            if (char.IsAsciiLetterOrDigit(c))
            {
                _ = clean.Length == 0 && char.IsAsciiDigit(c) ? clean.Append('_').Append(c) : clean.Append(c);
            }
            else if (clean.Length == 0 || clean[^1] != '_')
            {
                clean.Append('_');
            }
        }

        return clean.ToString();
    }

    /// <summary>A unit of UCUM as Prometheus has it at the end of names; what stands in braces is no unit.</summary>
    private static string? UnitOf(string? unit, MetricKind kind)
    {
        if (unit is null or "" or ['{', .., '}'])
        {
            return null;
        }

        return unit == "1" ? (kind == MetricKind.Gauge ? "ratio" : null)
            : unit.Split('/') is [var each, var per] ? $"{UnitOf(each, kind)}_per_{UnitOf(per, kind)?.TrimEnd('s')}".TrimStart('_')
            : Units.GetValueOrDefault(unit, Clean(unit));
    }

    private sealed record Family(
        string Name, string Help, string? Unit, MetricKind Kind, (MeasuredInstrument Instrument, IReadOnlyList<MetricSeries> Series)[] Metrics);
}
