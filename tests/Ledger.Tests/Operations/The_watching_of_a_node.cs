using System.Diagnostics.Metrics;
using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using Ledger.Hosting;
using Ledger.Tests.Conventions;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Ledger.Tests.Operations;

/// <summary>What <c>otel/</c> holds: how Prometheus scrapes and warns, and what Grafana shows.</summary>
public sealed partial class The_watching_of_a_node(TestNode node) : IClassFixture<TestNode>
{
    private static readonly string Folder = Repository.PathOf("otel/prometheus");
    private static readonly string Rules = File.ReadAllText(Path.Combine(Folder, "alerts.yml"));

    private static string[] Alerts => [.. Alert().Matches(Rules).Select(m => m.Groups[1].Value)];

    [Theory]
    [InlineData("check config prometheus.yml")]
    [InlineData("check rules alerts.yml")]
    [InlineData("test rules alerts.test.yml")]
    public async Task is_found_in_order_by_promtool(string command)
    {
        var (exitCode, output) = await Promtool.Run($"cd '{Folder}' && promtool {command}");
        Assert.True(exitCode == 0, output);
        Assert.Contains("SUCCESS", output, StringComparison.Ordinal);
    }

    [Fact]
    public void Warns_of_nothing_that_is_not_tried_both_ways_and_written_down()
    {
        var tests = File.ReadAllText(Path.Combine(Folder, "alerts.test.yml"));
        var described = Documents.Repository.Rows(Documents.Repository.Read("docs/operations.md"), "alert", "when", "severity", "what to do");

        Assert.NotEmpty(Alerts);
        Assert.Equal(Alerts, described.Select(row => row[0].Trim('`')));
        Assert.Equal(Severity().Matches(Rules).Select(m => m.Groups[1].Value), described.Select(row => row[2]));
        Assert.All(Alerts, alert =>
        {
            var outcomes = Outcome().Matches(tests).Where(m => m.Groups[1].Value == alert).Select(m => m.Groups[2].Value.Trim()).ToArray();
            Assert.Contains("[]", outcomes);
            Assert.Contains("", outcomes);
        });
    }

    [Fact]
    public async Task Asks_only_for_metrics_that_there_are()
    {
        (await node.Put("/v1/users/watched", "{}")).Is(HttpStatusCode.Created);
        await node.CatchUp();
        var expressions = Expression().Matches(Rules).Select(m => m.Groups[1].Value).Concat(Panels().SelectMany(p => p.Expressions)).ToArray();
        var asked = expressions.SelectMany(e => MetricName().Matches(Quoted().Replace(e, ""))).Select(m => m.Value).ToHashSet();

        Assert.True(asked.Count > 20, $"Only {string.Join(", ", asked)} were found.");
        Assert.Empty(asked.Except(Samples()).Except(["up"]));
        Assert.All(expressions, e => Assert.Contains(asked, a => e.Contains(a, StringComparison.Ordinal)));
    }

    [Fact]
    public void Asks_in_each_panel_the_source_that_is_provisioned()
    {
        var sources = File.ReadAllText(Repository.PathOf("otel/grafana/datasources.yml"));

        Assert.NotEmpty(Panels());
        Assert.Equal(Panels().Count, Panels().Select(p => p.Id).Distinct().Count());
        Assert.All(Panels(), p =>
        {
            Assert.NotEmpty(p.Expressions);
            Assert.Contains($"uid: {p.Source}\n", sources, StringComparison.Ordinal);
        });
    }

    [Theory]
    [InlineData(PrometheusFormat.Text)]
    [InlineData(PrometheusFormat.OpenMetrics)]
    public async Task Reads_what_the_node_says(PrometheusFormat format)
    {
        var service = await UsageOf.Service(node);
        (await node.Record(new { id = UsageOf.NewId("scraped"), userId = "u", serviceId = service })).Is(HttpStatusCode.OK);
        var page = await node.GetAsIs("/metrics", ("Accept", format == PrometheusFormat.Text ? "text/plain" : "application/openmetrics-text"));

        Assert.DoesNotContain(page.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries), l => !Line().IsMatch(l));
    }

    private static List<(int Id, string? Source, string[] Expressions)> Panels()
    {
        var dashboard = JsonElement.Parse(File.ReadAllText(Repository.PathOf("otel/grafana/ledger.json")));
        return
        [
            .. dashboard.GetProperty("panels").EnumerateArray().Where(p => p.GetProperty("type").GetString() != "row").Select(p => (
                p.GetProperty("id").GetInt32(), p.GetProperty("datasource").GetProperty("uid").GetString(),
                p.GetProperty("targets").EnumerateArray().Select(t => t.GetProperty("expr").GetString()!).ToArray())),
        ];
    }

    /// <summary>The samples of every instrument that is there once a node has worked.</summary>
    private HashSet<string> Samples()
    {
        Assert.NotEmpty(node.Services.GetServices<IHostedService>());
        var samples = new HashSet<string> { "target_info" };
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, _) =>
            {
                if (MetricCollector.Meters.Contains(instrument.Meter.Name) && (instrument.Meter.Scope is null || instrument.Meter.Name != "Ledger"))
                {
                    var measured = new MeasuredInstrument(instrument, _ => { });
                    var sample = PrometheusText.SampleOf(measured.Name, measured.UnitCode, measured.Kind);
                    samples.UnionWith(measured.Kind == MetricKind.Histogram ? [$"{sample}_bucket", $"{sample}_sum", $"{sample}_count"] : [sample]);
                }
            },
        };
        System.Runtime.CompilerServices.RuntimeHelpers.RunClassConstructor(typeof(Ledger.Events.EventMetrics).TypeHandle);
        System.Runtime.CompilerServices.RuntimeHelpers.RunClassConstructor(typeof(Ledger.Segments.SegmentMetrics).TypeHandle);
        System.Runtime.CompilerServices.RuntimeHelpers.RunClassConstructor(typeof(Ledger.Usage.UsageMetrics).TypeHandle);
        listener.Start();
        return samples;
    }

    [GeneratedRegex(@"^      - alert: (\w+)$", RegexOptions.Multiline)]
    private static partial Regex Alert();

    [GeneratedRegex(@"^          severity: (\w+)$", RegexOptions.Multiline)]
    private static partial Regex Severity();

    [GeneratedRegex(@"alertname: (\w+)\n +exp_alerts:(.*)")]
    private static partial Regex Outcome();

    [GeneratedRegex(@"expr: (?:\|\n)?((?:.+\n)+?)(?= +(?:for|labels):)")]
    private static partial Regex Expression();

    [GeneratedRegex(@"\b(?:(?:ledger|http|kestrel|db|dotnet)_[a-z0-9_]+|up|target_info)\b")]
    private static partial Regex MetricName();

    [GeneratedRegex(@"\{[^}]*\}(?=[\[) ])|""[^""]*""|\bby \([^)]*\)")]
    private static partial Regex Quoted();

    [GeneratedRegex(@"^(# (HELP|TYPE|UNIT) [a-z_][a-z0-9_]* .+|# EOF|[a-z_][a-z0-9_]*(\{[a-z_][a-z0-9_]*=""([^""\\\n]|\\[\\""n])*""(,[a-z_][a-z0-9_]*=""([^""\\\n]|\\[\\""n])*"")*\})? (NaN|[+-]Inf|-?[0-9.]+(E[+-]?[0-9]+)?))$")]
    private static partial Regex Line();
}
