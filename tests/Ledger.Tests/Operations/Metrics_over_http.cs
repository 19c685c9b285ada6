using System.Diagnostics.Metrics;
using System.Globalization;
using System.IO.Compression;
using System.Net;
using System.Text.RegularExpressions;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging.Abstractions;

namespace Ledger.Tests.Operations;

public sealed partial class The_metrics_page(TestNode node) : IClassFixture<TestNode>
{
    private const string PrometheusAccept =
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

    [Fact]
    public async Task tells_what_was_done()
    {
        var before = await Scrape();
        var service = await UsageOf.Service(node, priced: false);
        (await node.Record(new { id = "m1", userId = "u", serviceId = service })).Is(HttpStatusCode.OK);
        (await node.Record(new { id = "m1", userId = "u", serviceId = service })).Is(HttpStatusCode.OK);
        (await node.Put("/v1/users/measured", "{}")).Is(HttpStatusCode.Created);
        await node.CatchUp();

        var after = await Scrape();

        Assert.True(Grown("ledger_append_events_total") >= 3);
        Assert.True(Grown("ledger_append_requests_total{outcome=\"duplicate\"}") >= 1);
        Assert.True(Grown("ledger_append_commit_duration_seconds_count") >= 3);
        Assert.True(Grown("ledger_calls_total{outcome=\"recorded\"}") >= 1);
        Assert.True(Grown("ledger_calls_total{outcome=\"duplicate\"}") >= 1);
        Assert.True(Grown("ledger_calls_recorded_unpriced_total") >= 1);
        Assert.True(Grown("ledger_projection_events_total{view=\"Users\"}") >= 1);
        var created = after.Keys.Single(k => k.StartsWith("http_server_request_duration_seconds_count", StringComparison.Ordinal)
            && k.Contains("http_route=\"/v1/users/{userId}\"", StringComparison.Ordinal) && k.Contains("http_response_status_code=\"201\"", StringComparison.Ordinal));
        Assert.Contains("http_request_method=\"PUT\"", created, StringComparison.Ordinal);
        Assert.Equal(1, Grown(created));

        double Grown(string series) => after[series] - before.GetValueOrDefault(series);
    }

    [Fact]
    public async Task counts_calls_that_wait_for_a_price_and_those_no_more_that_got_one()
    {
        await using var own = await node.StartAnew();
        var service = await UsageOf.Service(own, priced: false);
        (await own.Record(new { id = "w1", userId = "u", serviceId = service, quantities = new { inputToken = 1 } })).Is(HttpStatusCode.OK);
        await own.CatchUp();
        var gauge = own.Services.GetServices<Microsoft.Extensions.Hosting.IHostedService>().OfType<Ledger.Usage.UnpricedCallsGauge>().Single();
        await gauge.Refresh(TestContext.Current.CancellationToken);
        Assert.Equal([("amount-out-of-range", 0), ("no-component", 0), ("no-price", 1)], gauge.Calls.OrderBy(c => c.Key, StringComparer.Ordinal).Select(c => (c.Key, c.Value)));

        await UsageOf.SetPrice(own, service);
        (await own.Post("/v1/usage/unpriced/price", new { serviceId = service })).Is(HttpStatusCode.OK);
        (await own.Record(new { id = "w2", userId = "u", serviceId = service, quantities = new { minute = 1 } })).Is(HttpStatusCode.OK);
        (await own.Record(new { id = "w3", userId = "u", serviceId = service, quantities = new { second = 1 } })).Is(HttpStatusCode.OK);
        await own.CatchUp();
        Assert.Equal(1, await gauge.Refresh(TestContext.Current.CancellationToken)); // however many units there are
        Assert.Equal([("amount-out-of-range", 0), ("no-component", 2), ("no-price", 0)], gauge.Calls.OrderBy(c => c.Key, StringComparer.Ordinal).Select(c => (c.Key, c.Value)));
        Assert.Contains("ledger_unpriced_calls{reason=\"no-component\"}", (await own.GetAsIs("/metrics")).Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task holds_the_server_the_runtime_the_database_and_the_ledger()
    {
        await node.Put("/v1/users/everything", "{}");
        await node.CatchUp();
        var page = (await node.GetAsIs("/metrics")).Text;

        Assert.All(
            (string[])[
                "http_server_request_duration_seconds histogram", "http_server_active_requests gauge",
                "kestrel_active_connections gauge",
                "dotnet_gc_collections_total counter", "dotnet_process_memory_working_set_bytes gauge", "dotnet_thread_pool_threads gauge",
                "dotnet_thread_pool_queue_length gauge", "dotnet_thread_pool_work_items_total counter", "dotnet_process_cpus gauge",
                "db_client_operation_duration_seconds histogram", "db_client_connections gauge",
                "ledger_append_batch_size histogram", "ledger_append_queue_duration_seconds histogram", "ledger_append_lock_duration_seconds histogram",
                "ledger_append_commit_duration_seconds histogram", "ledger_projection_lag_seconds gauge", "ledger_projection_batch_duration_seconds histogram",
                "target_info gauge",
            ],
            family => Assert.Contains($"# TYPE {family}\n", page, StringComparison.Ordinal));
        Assert.Contains("ledger_projection_lag_seconds{view=\"Memberships\"}", page, StringComparison.Ordinal);
        Assert.Contains("service_name=\"ledger\"", page, StringComparison.Ordinal);
        Assert.Contains("db_client_connection_pool_name=\"ledger\"", page, StringComparison.Ordinal);
    }

    [Fact]
    public async Task is_found_in_order_by_promtool()
    {
        await node.Put("/v1/users/linted", "{}");
        await node.GetAsIs("/nowhere");
        await node.CatchUp();

        await Promtool.FindsNothingIn((await node.GetAsIs("/metrics")).Text, "check", "metrics");
    }

    [Fact]
    public async Task does_not_measure_itself()
    {
        for (var i = 0; i < 3; i++)
        {
            (await node.GetAsIs("/metrics")).Is(HttpStatusCode.OK);
        }

        Assert.DoesNotContain("http_route=\"/metrics\"", (await node.GetAsIs("/metrics")).Text, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(null, "text/plain; version=0.0.4; charset=utf-8")]
    [InlineData("*/*", "text/plain; version=0.0.4; charset=utf-8")]
    [InlineData("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8")]
    [InlineData("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/plain; version=0.0.4; charset=utf-8")]
    [InlineData(PrometheusAccept, "application/openmetrics-text; version=1.0.0; charset=utf-8")]
    [InlineData("application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,*/*;q=0.2", "application/openmetrics-text; version=1.0.0; charset=utf-8")]
    [InlineData("application/openmetrics-text;q=0.3,text/plain;q=0.5", "text/plain; version=0.0.4; charset=utf-8")]
    [InlineData("application/openmetrics-text;version=9.0.0,text/plain;q=0.1", "text/plain; version=0.0.4; charset=utf-8")]
    [InlineData("application/openmetrics-text;q=0,*/*;q=0.1", "text/plain; version=0.0.4; charset=utf-8")]
    public async Task is_given_in_the_format_that_the_scraper_prefers(string? accept, string contentType)
    {
        var page = (await node.GetAsIs("/metrics", accept is null ? [] : [("Accept", accept)])).Is(HttpStatusCode.OK);

        Assert.Equal(contentType, page.Headers["Content-Type"]);
        Assert.Equal(contentType.StartsWith("application", StringComparison.Ordinal), page.Text.EndsWith("\n# EOF\n", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("application/json")]
    [InlineData("text/plain;version=9.9.9")]
    [InlineData("text/plain;q=0")]
    public async Task is_not_given_in_another_format(string accept) => (await node.GetAsIs("/metrics", ("Accept", accept))).IsProblem(406, "not-acceptable");

    [Fact]
    public async Task is_packed_for_who_takes_it_packed()
    {
        (await node.Put("/v1/users/packed", "{}")).Is(HttpStatusCode.Created);
        using var request = new HttpRequestMessage(HttpMethod.Get, "/metrics");
        request.Headers.TryAddWithoutValidation("Accept-Encoding", "gzip");
        using var response = await node.Client.SendAsync(request, TestContext.Current.CancellationToken);

        Assert.Equal(["gzip"], response.Content.Headers.ContentEncoding);
        using var reader = new StreamReader(new GZipStream(await response.Content.ReadAsStreamAsync(TestContext.Current.CancellationToken), CompressionMode.Decompress));
        Assert.Contains("# TYPE ledger_append_events_total counter", await reader.ReadToEndAsync(TestContext.Current.CancellationToken), StringComparison.Ordinal);
    }

    [Fact]
    public async Task is_as_OpenMetrics_has_it()
    {
        await node.Put("/v1/users/open", "{}");
        var page = (await node.GetAsIs("/metrics", ("Accept", PrometheusAccept))).Text;

        Assert.Contains("# TYPE target info\ntarget_info{", page, StringComparison.Ordinal);
        Assert.Contains("# TYPE ledger_append_events counter\nledger_append_events_total ", page, StringComparison.Ordinal);
        Assert.Contains("# TYPE ledger_append_commit_duration_seconds histogram\n# UNIT ledger_append_commit_duration_seconds seconds\n", page, StringComparison.Ordinal);
        Assert.Contains("ledger_append_commit_duration_seconds_bucket{le=\"1.0\"}", page, StringComparison.Ordinal);
        var families = Comment().Matches(page).Where(m => m.Groups[1].Value == "TYPE").Select(m => m.Groups[2].Value).ToArray();
        Assert.Equal(families.Distinct(), families);
        Assert.All(
            Comment().Matches(page).Where(m => m.Groups[1].Value == "UNIT"),
            m => Assert.EndsWith(m.Groups[3].Value, m.Groups[2].Value, StringComparison.Ordinal));
    }

    private async Task<Dictionary<string, double>> Scrape() => (await node.GetAsIs("/metrics")).Is(HttpStatusCode.OK).Text
        .Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(l => !l.StartsWith('#'))
        .ToDictionary(l => l[..l.LastIndexOf(' ')], l => double.Parse(l[(l.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture));

    [GeneratedRegex(@"^# (HELP|TYPE|UNIT) (\S+) (.*)$", RegexOptions.Multiline)]
    private static partial Regex Comment();
}

public sealed class Collected_metrics
{
    [Theory]
    [InlineData("ledger.append.commit.duration", "s", "Histogram", "ledger_append_commit_duration_seconds")]
    [InlineData("ledger.projection.lag", "s", "Gauge", "ledger_projection_lag_seconds")]
    [InlineData("ledger.checkpoint.age", "s", "Gauge", "ledger_checkpoint_age_seconds")]
    [InlineData("ledger.memberships.expired", "{membership}", "Counter", "ledger_memberships_expired_total")]
    [InlineData("ledger.calls", "{call}", "Counter", "ledger_calls_total")]
    [InlineData("ledger.unpriced_calls", "{call}", "Gauge", "ledger_unpriced_calls")]
    [InlineData("dotnet.process.cpu.time", "s", "Counter", "dotnet_process_cpu_time_seconds_total")]
    [InlineData("dotnet.assembly.count", "{assembly}", "Gauge", "dotnet_assemblies")]
    [InlineData("dotnet.thread_pool.work_item.count", "{work_item}", "Counter", "dotnet_thread_pool_work_items_total")]
    [InlineData("x.size_bytes", "By", "Gauge", "x_size_bytes")]
    [InlineData("x.rate", "By/s", "Gauge", "x_rate_bytes_per_second")]
    [InlineData("x.rate", "{event}/s", "Gauge", "x_rate_per_second")]
    [InlineData("x.used", "1", "Gauge", "x_used_ratio")]
    [InlineData("x.total", null, "Counter", "x_total")]
    [InlineData("2x..é-y", null, "Gauge", "_2x_y")]
    public void are_named_as_Prometheus_names_them(string name, string? unit, string kind, string sample) =>
        Assert.Equal(sample, PrometheusText.SampleOf(name, unit, Enum.Parse<MetricKind>(kind)));

    [Fact]
    public void are_written_with_every_sign_that_has_a_meaning_escaped()
    {
        using var own = new OwnMeter();
        own.Meter.CreateCounter<long>("odd", null, "Back\\slash\nand \"quotes\"").Add(2, new("a.b", "x"), new("a_b", "\\ \" \n"), new("none", null), new("is", true));

        Assert.Contains(
            """
            # HELP odd_total Back\\slash\nand "quotes"
            # TYPE odd_total counter
            odd_total{a_b="x;\\ \" \n",is="true"} 2

            """,
            own.Page(),
            StringComparison.Ordinal);
        Assert.Contains("# HELP odd Back\\\\slash\\nand \\\"quotes\\\"\n", own.Page(PrometheusFormat.OpenMetrics), StringComparison.Ordinal);
    }

    [Fact]
    public void fall_into_the_bucket_whose_bound_they_do_not_pass()
    {
        using var own = new OwnMeter();
        var sizes = own.Meter.CreateHistogram("sizes", null, "Sizes", advice: new InstrumentAdvice<int> { HistogramBucketBoundaries = [1, 5] });
        foreach (var size in (int[])[0, 1, 2, 5, 6, 100])
        {
            sizes.Record(size);
        }

        Assert.Contains(
            """
            # TYPE sizes histogram
            sizes_bucket{le="1"} 2
            sizes_bucket{le="5"} 4
            sizes_bucket{le="+Inf"} 6
            sizes_sum 114
            sizes_count 6

            """,
            own.Page(),
            StringComparison.Ordinal);
    }

    [Fact]
    public void of_more_sets_of_tags_than_are_told_apart_are_added_up_and_counted()
    {
        using var own = new OwnMeter();
        var counter = own.Meter.CreateCounter<int>("wide");
        for (var i = 0; i < MetricCollector.MaxSeriesPerInstrument; i++)
        {
            counter.Add(1, new KeyValuePair<string, object?>("i", i));
        }

        Assert.DoesNotContain("otel_metric_overflow", own.Page(), StringComparison.Ordinal);
        counter.Add(1, new KeyValuePair<string, object?>("i", "one more"));
        counter.Add(2, new KeyValuePair<string, object?>("i", "and another"));
        counter.Add(1, new KeyValuePair<string, object?>("i", 7));

        var page = own.Page();
        Assert.Contains("wide_total{otel_metric_overflow=\"true\"} 3\n", page, StringComparison.Ordinal);
        Assert.Contains("wide_total{i=\"7\"} 2\n", page, StringComparison.Ordinal);
        Assert.Contains("ledger_metrics_overflowed_total{instrument=\"wide\"} 2\n", page, StringComparison.Ordinal);
        Assert.Equal(MetricCollector.MaxSeriesPerInstrument + 1, page.Split('\n').Count(l => l.StartsWith("wide_total", StringComparison.Ordinal)));
    }

    [Fact]
    public void that_are_asked_for_are_those_of_now()
    {
        using var own = new OwnMeter();
        var there = new List<Measurement<long>> { new(1, new KeyValuePair<string, object?>("pool", "a")), new(2, new KeyValuePair<string, object?>("pool", "b")) };
        own.Meter.CreateObservableUpDownCounter("pools", () => there);
        Assert.Contains("pools{pool=\"a\"} 1\npools{pool=\"b\"} 2\n", own.Page(), StringComparison.Ordinal);

        there.RemoveAt(0);

        Assert.DoesNotContain("pool=\"a\"", own.Page(), StringComparison.Ordinal);
        Assert.Contains("pools{pool=\"b\"} 2\n", own.Page(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task add_up_whatever_thread_they_come_from()
    {
        using var own = new OwnMeter();
        var (counter, histogram) = (own.Meter.CreateCounter<double>("added"), own.Meter.CreateHistogram<double>("recorded", "s"));
        await Task.WhenAll(Enumerable.Range(0, 4).Select(thread => Task.Run(() =>
        {
            for (var i = 0; i < 10_000; i++)
            {
                counter.Add(0.5, new KeyValuePair<string, object?>("of", i % 3));
                histogram.Record(2);
            }
        })));

        var page = own.Page();
        Assert.Equal(20_000, page.Split('\n').Where(l => l.StartsWith("added_total{", StringComparison.Ordinal)).Sum(l => double.Parse(l.Split(' ')[1], CultureInfo.InvariantCulture)));
        Assert.Contains("recorded_seconds_bucket{le=\"1\"} 0\nrecorded_seconds_bucket{le=\"2.5\"} 40000\n", page, StringComparison.Ordinal);
        Assert.Contains("recorded_seconds_sum 80000\n", page, StringComparison.Ordinal);
    }

    /// <summary>A meter that no other collector hears, as it belongs to a host of its own.</summary>
    private sealed class OwnMeter : IMeterFactory
    {
        private readonly MetricCollector _collector;

        public OwnMeter()
        {
            _collector = new MetricCollector(this, NullLogger<MetricCollector>.Instance);
            Meter = Create(new MeterOptions("Ledger"));
            _ = _collector.StartingAsync(CancellationToken.None);
        }

        public Meter Meter { get; }

        public Meter Create(MeterOptions options) => new(options.Name, null, null, this);

        public string Page(PrometheusFormat format = PrometheusFormat.Text) => PrometheusText.Write(_collector.Collect(), format, []);

        public void Dispose()
        {
            _collector.Dispose();
            Meter.Dispose();
        }
    }
}
