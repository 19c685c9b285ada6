using System.Net;
using System.Text;
using Ledger.Testing;
using Npgsql;

namespace Ledger.Tests.Operations;

/// <summary>A node in a process of its own, and a receiver of OTLP on a socket.</summary>
public sealed class Exporting_telemetry(PostgresFixture postgres)
{
    private const string Trace = "0af7651916cd43dd8448eb211c80319c";
    private const string Caller = "b7ad6b7169203331";

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData("grpc")]
    [InlineData("http/protobuf")]
    public async Task shows_a_command_from_its_request_to_the_moment_its_effect_is_visible(string protocol)
    {
        await using var receiver = await OtlpReceiver.Start();
        await using var up = await Start(receiver, protocol, await postgres.CreateDatabase());

        await Put(up, "u1");
        await receiver.Until(() => In(receiver, Trace).Any(s => s.Name == "visible") && In(receiver, Trace).Any(s => s.Scope == "Microsoft.AspNetCore"), "the trace is whole");
        await up.Stop();

        var request = Assert.Single(In(receiver, Trace), s => s.Span.Kind == ReceivedSpan.Server);
        Assert.Equal(("PUT /v1/users/{userId}", Caller), (request.Name, request.Parent));
        Assert.Equal(
            [
                ("http.request.method", "PUT"), ("http.response.status_code", "201"), ("http.route", "/v1/users/{userId}"), ("network.protocol.version", "1.1"),
                ("server.address", "127.0.0.1"), ("server.port", $"{up.Client.BaseAddress!.Port}"), ("url.path", "/v1/users/u1"), ("url.scheme", "http"),
                ("user_agent.original", "tests/1"),
            ],
            request.Tags.OrderBy(t => t.Key, StringComparer.Ordinal).Select(t => (t.Key, t.Value)));
        Assert.Equal("ledger-under-test", request.Resource["service.name"]);
        Assert.Equal("tests", request.Resource["deployment.environment.name"]);
        Assert.True(request.Resource.ContainsKey("service.instance.id") && request.Resource.ContainsKey("service.version"));

        var append = Assert.Single(In(receiver, Trace), s => s.Name == "append");
        Assert.Equal((ReceivedSpan.Producer, request.Id, "1"), (append.Span.Kind, append.Parent, append.Tags["ledger.position"]));
        var store = Assert.Single(In(receiver, Trace), s => s.Name == "store");
        Assert.Equal(append.Id, store.Parent);
        Assert.Contains(receiver.Spans, s => s.Scope == "Npgsql" && s.Parent == store.Id && s.Name.Contains("mt_events", StringComparison.Ordinal));

        var project = Assert.Single(receiver.Spans, s => s.Name == "project" && s.Links.Contains(append.Id));
        Assert.Equal((ReceivedSpan.Consumer, "1", "1"), (project.Span.Kind, project.Tags["ledger.position"], project.Tags["ledger.events"]));
        Assert.Contains(receiver.Spans, s => s.Scope == "Npgsql" && s.Parent == project.Id && s.Name == "select, insert users, insert history_marks, …");
        var visible = Assert.Single(In(receiver, Trace), s => s.Name == "visible");
        Assert.Equal((append.Id, project.Id), (visible.Parent, Assert.Single(visible.Links)));
        Assert.Contains("Users", visible.Tags["ledger.views"], StringComparison.Ordinal);
        Assert.True(visible.Span.EndTimeUnixNano > append.Span.StartTimeUnixNano);

        Assert.All(receiver.Spans.Where(s => s.Scope == "Npgsql"), s =>
        {
            Assert.Matches("^[a-z]+( [a-z_.]+)?(, [a-z]+( [a-z_.]+)?)*(, …)?$", s.Name);
            Assert.Equal("postgresql", s.Tags["db.system.name"]);
        });
        Assert.DoesNotContain(receiver.Spans, s => s.Scope == "Npgsql" && s.Parent == ""); // such as the heartbeat's
        Assert.All(receiver.Requests, r => Assert.EndsWith(" secret", r, StringComparison.Ordinal));
        Assert.Equal(3, receiver.Requests.Count);
    }

    [Fact]
    public async Task shows_what_went_wrong_in_the_span_and_in_a_log_entry_of_the_same_trace()
    {
        var database = await postgres.CreateDatabase();
        await using var receiver = await OtlpReceiver.Start();
        await using var up = await Start(receiver, "grpc", database);
        Assert.Equal(HttpStatusCode.NotFound, (await up.Client.GetAsync("/v1/segments/none", Ct)).StatusCode);
        Assert.Equal(HttpStatusCode.NotFound, (await up.Client.GetAsync("/nowhere/at/all", Ct)).StatusCode);
        await using (var admin = NpgsqlDataSource.Create(database))
        await using (var command = admin.CreateCommand("alter table ledger.users rename to gone"))
        {
            await command.ExecuteNonQueryAsync(Ct);
        }

        using var request = new HttpRequestMessage(HttpMethod.Get, "/v1/users/u1") { Headers = { { "traceparent", $"00-{Trace}-{Caller}-01" } } };
        Assert.Equal(HttpStatusCode.InternalServerError, (await up.Client.SendAsync(request, Ct)).StatusCode);
        await up.Stop();

        var failed = Assert.Single(In(receiver, Trace), s => s.Span.Kind == ReceivedSpan.Server);
        Assert.Equal(("GET /v1/users/{userId}", "500", "Npgsql.PostgresException", ReceivedSpan.Error),
            (failed.Name, failed.Tags["http.response.status_code"], failed.Tags["error.type"], failed.Span.Status.Code));
        var refused = Assert.Single(receiver.Spans, s => s.Name == "GET /v1/segments/{slug}");
        Assert.Equal("404", refused.Tags["http.response.status_code"]);
        Assert.True(refused.Span.Status is null or { Code: 0 });
        Assert.False(refused.Tags.ContainsKey("error.type"));
        Assert.Equal("404", Assert.Single(receiver.Spans, s => s.Name == "GET").Tags["http.response.status_code"]);

        var entry = Assert.Single(receiver.Logs, l => l.Trace == Trace && l.Log.SeverityNumber == 17);
        Assert.Equal("GET /v1/users/u1 failed", entry.Text);
        Assert.Equal(failed.Id, entry.Span);
        Assert.Equal(("GET", "/v1/users/u1", "PostgresException"), (entry.Tags["Method"], entry.Tags["Path"], entry.Tags["exception.type"]));
        var line = Assert.Single(up.Output, l => l.Contains($"trace_id={Trace}", StringComparison.Ordinal) && l.Contains("level=error", StringComparison.Ordinal));
        Assert.Contains($"msg=\"GET /v1/users/u1 failed\" logger=Ledger.Http.ProblemExceptionHandler Method=GET Path=/v1/users/u1 trace_id={Trace} span_id={failed.Id} exception=\"", line, StringComparison.Ordinal);
    }

    [Fact]
    public async Task shows_calls_over_gRPC_by_their_method_and_status()
    {
        await using var receiver = await OtlpReceiver.Start();
        await using var up = await Start(receiver, "grpc", await postgres.CreateDatabase());

        using (var client = new HttpClient { BaseAddress = up.GrpcAddress })
        {
            foreach (var method in (string[])["RegisterService", "NoSuchMethod"])
            {
                using var call = new HttpRequestMessage(HttpMethod.Post, $"/ledger.v1.UsageService/{method}")
                {
                    Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact, Content = new ByteArrayContent(new byte[5]),
                    Headers = { { "traceparent", $"00-{Trace}-{Caller}-01" } },
                };
                call.Content.Headers.TryAddWithoutValidation("Content-Type", "application/grpc");
                using var answer = await client.SendAsync(call, Ct);
                await answer.Content.ReadAsByteArrayAsync(Ct);
            }
        }

        await up.Stop();

        var spans = In(receiver, Trace).Where(s => s.Span.Kind == ReceivedSpan.Server).ToArray();
        Assert.Equal(2, spans.Length);
        var known = Assert.Single(spans, s => s.Name == "ledger.v1.UsageService/RegisterService");
        Assert.Equal(("grpc", "ledger.v1.UsageService", "RegisterService", "3"),
            (known.Tags["rpc.system"], known.Tags["rpc.service"], known.Tags["rpc.method"], known.Tags["rpc.grpc.status_code"]));
        Assert.False(known.Tags.ContainsKey("error.type"));
        var unknown = Assert.Single(spans, s => s != known);
        Assert.Equal(("12", "12", ReceivedSpan.Error), (unknown.Tags["rpc.grpc.status_code"], unknown.Tags["error.type"], unknown.Span.Status.Code));
    }

    [Fact]
    public async Task sends_all_metrics_and_says_nothing_of_single_requests_or_of_probes()
    {
        await using var receiver = await OtlpReceiver.Start();
        await using var up = await Start(receiver, "http/protobuf", await postgres.CreateDatabase(), ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"));
        await receiver.Until(() => receiver.Logs.Any(l => l.Text.StartsWith("This node keeps the views: True", StringComparison.Ordinal)), "the node leads");
        var (lines, entries) = (up.Output.Count, receiver.Logs.Count);

        await Put(up, "u1");
        foreach (var probe in (string[])["/health/live", "/health/ready", "/metrics"])
        {
            using var answer = await up.Client.GetAsync(probe, Ct);
            Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
            Assert.DoesNotContain("Host=", await answer.Content.ReadAsStringAsync(Ct), StringComparison.OrdinalIgnoreCase); // no connection string
        }

        await receiver.Until(() => receiver.Metrics.Any(m => m.Metric.Name == "ledger.append.events"), "the metrics come");
        Assert.Equal((lines, entries), (up.Output.Count, receiver.Logs.Count));
        await up.Stop();

        Assert.DoesNotContain(receiver.Spans, s => s.Tags.GetValueOrDefault("url.path") is { } path && path != "/v1/users/u1");
        var metrics = receiver.Metrics.Select(m => $"{m.Scope}: {m.Metric.Name} {m.Metric.Unit}").ToHashSet();
        Assert.Superset(
            new HashSet<string>
            {
                "Ledger.EventStore: ledger.append.events {event}", "Ledger.EventStore: ledger.append.commit.duration s", "Ledger.EventStore: ledger.projection.lag s",
                "Ledger: ledger.unpriced_calls {call}", "Microsoft.AspNetCore.Hosting: http.server.request.duration s",
                "Microsoft.AspNetCore.Server.Kestrel: kestrel.active_connections {connection}", "System.Runtime: dotnet.gc.collections {collection}",
                "Npgsql: db.client.operation.duration s",
            },
            metrics);
        Assert.All(receiver.Metrics, m => Assert.Equal("ledger-under-test", m.Resource["service.name"]));
        var leads = Assert.Single(receiver.Logs, l => l.Text.StartsWith("This node keeps the views: True", StringComparison.Ordinal));
        Assert.Equal((9, "Ledger.EventStore.Daemon", "1"), (leads.Log.SeverityNumber, leads.Scope, leads.Tags["Epoch"]));
    }

    [Theory]
    [InlineData("OTEL_SDK_DISABLED", "true", "")]
    [InlineData("OTEL_TRACES_SAMPLER", "always_off", "logs metrics")]
    [InlineData("OTEL_TRACES_EXPORTER", "none", "logs metrics")]
    [InlineData("OTEL_METRICS_EXPORTER", "none", "logs traces")]
    [InlineData("OTEL_LOGS_EXPORTER", "none", "metrics traces")]
    [InlineData("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "", "traces")]
    public async Task does_as_the_standard_variables_say(string variable, string value, string signals)
    {
        await using var receiver = await OtlpReceiver.Start();
        var isOnlyEndpoint = value.Length == 0;
        await using var up = await Start(
            receiver, isOnlyEndpoint ? "grpc" : "http/protobuf", await postgres.CreateDatabase(),
            isOnlyEndpoint ? [(variable, receiver.GrpcAddress), ("OTEL_EXPORTER_OTLP_ENDPOINT", "")] : [(variable, value)]);

        using (var response = await up.Client.PutAsync("/v1/users/u1", new StringContent("{}", Encoding.UTF8, "application/json"), Ct))
        {
            Assert.Equal(HttpStatusCode.Created, response.StatusCode);
        }

        await up.Stop();

        string[] sent = [.. receiver.Logs.Count > 0 ? ["logs"] : (string[])[], .. receiver.Metrics.Count > 0 ? ["metrics"] : (string[])[], .. receiver.Spans.Count > 0 ? ["traces"] : (string[])[]];
        Assert.Equal(signals, string.Join(' ', sent));
    }

    private static Task<UpProcess> Start(OtlpReceiver receiver, string protocol, string database, params (string, string)[] more) => UpProcess.Start(
        database,
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", protocol == "grpc" ? receiver.GrpcAddress : receiver.HttpAddress), ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-token=secret"), ("OTEL_SERVICE_NAME", "ledger-under-test"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=tests"), ("OTEL_BSP_SCHEDULE_DELAY", "100"), ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500"), .. more,
        ]);

    private static async Task Put(UpProcess up, string user)
    {
        using var request = new HttpRequestMessage(HttpMethod.Put, $"/v1/users/{user}")
        {
            Content = new StringContent("{}", Encoding.UTF8, "application/json"),
            Headers = { { "traceparent", $"00-{Trace}-{Caller}-01" }, { "User-Agent", "tests/1" } },
        };
        using var response = await up.Client.SendAsync(request, Ct);
        Assert.Equal(HttpStatusCode.Created, response.StatusCode);
    }

    private static IEnumerable<ReceivedSpan> In(OtlpReceiver receiver, string trace) => receiver.Spans.Where(s => s.Trace == trace);
}
