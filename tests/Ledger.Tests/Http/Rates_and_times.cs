using System.Diagnostics;
using System.IO.Compression;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Google.Protobuf;
using Ledger.Grpc;
using Ledger.Grpc.Health;
using Ledger.Grpc.Rpc;
using Ledger.Hosting;
using Ledger.Http;
using Ledger.Testing;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Timeouts;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Npgsql;
using Proto = Ledger.Grpc.V1;

namespace Ledger.Tests.Http;

public sealed class A_rate(PostgresFixture postgres)
{
    private static LedgerSettings Settings(params (string Name, string Value)[] environment) =>
        LedgerSettings.FromEnvironment(environment.ToDictionary(e => e.Name, e => e.Value).GetValueOrDefault);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public void is_not_set_on_loopback_and_set_where_others_can_reach_the_node()
    {
        (string, string) open = ("LEDGER_I_KNOW_ANYONE_ON_THE_NETWORK_CAN_WRITE", "yes");
        var network = Settings(("LEDGER_URLS", "http://127.0.0.1:8080;http://0.0.0.0:8080"), open);
        var grpc = Settings(("LEDGER_GRPC_URLS", "http://*:8081"), open);

        Assert.Equal(0, Settings().RatePerSecond);
        Assert.Equal((CallRates.DefaultPerSecond, CallRates.DefaultPerSecond * CallRates.DefaultBurstSeconds), (network.RatePerSecond, network.RateBurst));
        Assert.Equal(CallRates.DefaultPerSecond, grpc.RatePerSecond);
        Assert.Equal(0, Settings(("LEDGER_URLS", "http://0.0.0.0:8080"), open, ("LEDGER_RATE_PER_SECOND", "0")).RatePerSecond);
    }

    [Fact]
    public void can_be_set()
    {
        var set = Settings(("LEDGER_RATE_PER_SECOND", "7"), ("LEDGER_RATE_BURST", "100"));

        Assert.Equal((7, 100), (set.RatePerSecond, set.RateBurst));
        Assert.Equal(14, Settings(("LEDGER_RATE_PER_SECOND", "7")).RateBurst);
        Assert.Throws<SettingsException>(() => Settings(("LEDGER_RATE_PER_SECOND", "-1")));
        Assert.Throws<SettingsException>(() => Settings(("LEDGER_RATE_PER_SECOND", "1000001")));
        Assert.Throws<SettingsException>(() => Settings(("LEDGER_RATE_BURST", "0")));
    }

    [Fact]
    public async Task lets_a_caller_do_so_much_and_then_says_when_to_come_again()
    {
        await using var node = new TestNode(postgres) { Configure = s => s.AddSingleton(_ => new CallRates(1, 3)) };
        await node.InitializeAsync();
        Answer answer;
        var allowed = 0;
        while ((answer = await node.GetAsIs("/v1/users")).Status == HttpStatusCode.OK)
        {
            allowed++;
            Assert.True(allowed < 1_000);
        }

        Assert.True(allowed >= 3, $"{allowed}");
        answer.IsProblem(429, "rate-limited");
        Assert.Equal("1", answer.Headers["Retry-After"]);
        (await node.GetAsIs("/health/live")).Is(HttpStatusCode.OK);
        (await node.GetAsIs("/health/ready")).Is(HttpStatusCode.OK);
        var waited = Stopwatch.StartNew();
        while ((await node.GetAsIs("/v1/users")).Status != HttpStatusCode.OK)
        {
            Assert.True(waited.Elapsed < TimeSpan.FromSeconds(20));
            await Task.Delay(50, Cancellation);
        }
    }

    [Fact]
    public async Task takes_a_stream_of_lines_for_one_request_and_stores_nothing_of_what_is_too_much()
    {
        await using var node = new TestNode(postgres) { Configure = s => s.AddSingleton(_ => new CallRates(1, 2)) };
        await node.InitializeAsync();
        (await node.Post("/v1/segments", new { slug = "S" })).Is(HttpStatusCode.Created);
        var receipt = (await node.Import("S", string.Concat(Enumerable.Range(0, 500).Select(i => $"u{i}\n")))).Is(HttpStatusCode.OK);
        Assert.Equal(500, receipt.Json.GetProperty("joined").GetInt64());
        Answer answer;
        while ((answer = await node.Put("/v1/users/late", new { })).Status == HttpStatusCode.Created)
        {
            await node.Delete("/v1/users/late"); // 405, and a token, too
        }

        answer.IsProblem(429, "rate-limited");
    }

    [Fact]
    public void counts_credentials_where_there_are_any_and_else_addresses()
    {
        static CallRates.Counted Of(string address, string? tenant = null, string? name = null)
        {
            var http = new DefaultHttpContext { Connection = { RemoteIpAddress = IPAddress.Parse(address) } };
            if (name is not null)
            {
                http.Features.Set(new Caller(tenant!, name, Scopes.All));
            }

            return CallRates.Of(http);
        }

        Assert.Equal(Of("10.0.0.1", "t", "gateway"), Of("10.0.0.2", "t", "gateway"));
        Assert.NotEqual(Of("10.0.0.1", "t", "gateway"), Of("10.0.0.1", "u", "gateway"));
        Assert.NotEqual(Of("10.0.0.1", "t", "gateway"), Of("10.0.0.1", "t", "other"));
        Assert.NotEqual(Of("10.0.0.1"), Of("10.0.0.2"));
        Assert.Equal(Of("10.0.0.1"), Of("::ffff:10.0.0.1"));
        Assert.Equal(Of("2001:db8:1:2::1"), Of("2001:db8:1:2:ffff::9"));
        Assert.NotEqual(Of("2001:db8:1:2::1"), Of("2001:db8:1:3::1"));
    }

    [Fact]
    public async Task holds_for_gRPC_and_is_told_by_its_status()
    {
        await using var node = new TestNode(postgres) { GrpcUrls = "http://127.0.0.1:0", Configure = s => s.AddSingleton(_ => new CallRates(1, 2)) };
        await node.InitializeAsync();
        using var client = new HttpClient { BaseAddress = node.GrpcAddress };
        (GrpcCode Code, string? Details) answer;
        var allowed = 0;
        while ((answer = await Call(client, "/ledger.v1.UsageService/QueryTotals", new Proto.QueryTotalsRequest())).Code == GrpcCode.Ok)
        {
            allowed++;
            Assert.True(allowed < 1_000);
        }

        Assert.True(allowed >= 2, $"{allowed}");
        Assert.Equal(GrpcCode.ResourceExhausted, answer.Code);
        var details = Status.Parser.ParseFrom(Convert.FromBase64String(answer.Details!.PadRight((answer.Details!.Length + 3) / 4 * 4, '='))).Details;
        Assert.Equal("rate-limited", details.First(d => d.Is(ErrorInfo.Descriptor)).Unpack<ErrorInfo>().Reason);
        Assert.Equal(1, details.First(d => d.Is(RetryInfo.Descriptor)).Unpack<RetryInfo>().RetryDelay.Seconds);
        Assert.Equal(GrpcCode.Ok, (await Call(client, "/grpc.health.v1.Health/Check", new HealthCheckRequest())).Code);
    }

    private static async Task<(GrpcCode Code, string? Details)> Call(HttpClient client, string path, IMessage message)
    {
        var bytes = message.ToByteArray();
        using var request = new HttpRequestMessage(HttpMethod.Post, path)
        {
            Version = HttpVersion.Version20, VersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Content = new ByteArrayContent([0, 0, 0, (byte)(bytes.Length >> 8), (byte)bytes.Length, .. bytes]) { Headers = { ContentType = new("application/grpc") } },
        };
        using var response = await client.SendAsync(request, Cancellation);
        await response.Content.ReadAsByteArrayAsync(Cancellation);
        return (
            (GrpcCode)int.Parse(response.TrailingHeaders.GetValues("grpc-status").Single(), System.Globalization.CultureInfo.InvariantCulture),
            response.TrailingHeaders.TryGetValues("grpc-status-details-bin", out var details) ? details.Single() : null);
    }
}

public sealed class A_request_that_takes_long(PostgresFixture postgres)
{
    private static readonly TimeSpan Short = TimeSpan.FromMilliseconds(300);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private static void InShortTime(IServiceCollection services) => services.Configure<RequestTimeoutOptions>(options =>
        options.DefaultPolicy = new RequestTimeoutPolicy { Timeout = Short, WriteTimeoutResponse = options.DefaultPolicy!.WriteTimeoutResponse });

    [Fact]
    public async Task is_ended()
    {
        await using var node = new TestNode(postgres) { Configure = InShortTime };
        await node.InitializeAsync();
        await using var held = await Hold(node.Database, "users");
        var took = Stopwatch.StartNew();

        var answer = (await node.GetAsIs("/v1/users")).IsProblem(503, "timeout");

        Assert.Equal("1", answer.Headers["Retry-After"]);
        Assert.Equal("nosniff", answer.Headers["X-Content-Type-Options"]);
        Assert.True(took.Elapsed < TimeSpan.FromSeconds(15), $"{took.Elapsed}");
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task may_stream_for_as_long_as_it_flows()
    {
        await using var node = new TestNode(postgres) { Configure = InShortTime };
        await node.InitializeAsync();
        (await node.Post("/v1/segments", new { slug = "S" })).Is(HttpStatusCode.Created);
        using var request = new HttpRequestMessage(HttpMethod.Post, "/v1/segments/S/members") { Content = new Slowly(5 * Short) };
        request.Content.Headers.TryAddWithoutValidation("Content-Type", "text/csv");

        var receipt = (await node.Send(request)).Is(HttpStatusCode.OK);
        using var following = new HttpRequestMessage(HttpMethod.Get, "/v1/events?limit=3&stream=user-") { Headers = { { "Accept", "text/event-stream" } } };
        using var events = await node.Client.SendAsync(following, HttpCompletionOption.ResponseHeadersRead, Cancellation);
        await Task.Delay(3 * Short, Cancellation);
        (await node.Put("/v1/users/third/segments/S", new { })).Is(HttpStatusCode.OK);

        Assert.Equal(2, receipt.Json.GetProperty("joined").GetInt64());
        Assert.Contains("\"user-third\"", await events.Content.ReadAsStringAsync(Cancellation), StringComparison.Ordinal);
    }

    [Fact]
    public async Task in_the_database_is_cancelled_there()
    {
        var connectionString = await postgres.CreateDatabase();
        await using var node = new TestNode(postgres) { Database = $"{connectionString};Command Timeout=1" };
        await node.InitializeAsync();
        var held = await Hold(connectionString, "users");

        (await node.GetAsIs("/v1/users")).IsProblem(503, "timeout");

        await using var command = new NpgsqlCommand("select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()", held);
        var waited = Stopwatch.StartNew();
        while ((long)(await command.ExecuteScalarAsync(Cancellation))! > 0)
        {
            Assert.True(waited.Elapsed < TimeSpan.FromSeconds(20), "The statement still waits.");
        }

        await held.DisposeAsync();
        (await node.GetAsIs("/v1/users")).Is(HttpStatusCode.OK);
    }

    /// <summary>Keeps everybody else from a table until it is disposed of.</summary>
    private static async Task<NpgsqlConnection> Hold(string connectionString, string table)
    {
        var connection = new NpgsqlConnection($"{connectionString};Pooling=false");
        await connection.OpenAsync(Cancellation);
        await using var command = new NpgsqlCommand($"begin; lock table ledger.{table} in access exclusive mode", connection);
        await command.ExecuteNonQueryAsync(Cancellation);
        return connection;
    }

    /// <summary>Two lines with a pause between them.</summary>
    private sealed class Slowly(TimeSpan pause) : HttpContent
    {
        protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
        {
            await stream.WriteAsync("first\n"u8.ToArray(), Cancellation);
            await stream.FlushAsync(Cancellation);
            await Task.Delay(pause, Cancellation);
            await stream.WriteAsync("second\n"u8.ToArray(), Cancellation);
        }

        protected override bool TryComputeLength(out long length)
        {
            length = 0;
            return false;
        }
    }
}

public sealed class A_body_that_unpacks(TestNode node) : IClassFixture<TestNode>
{
    private static byte[] Packed(long bytes, byte fill, string encoding)
    {
        var packed = new MemoryStream();
        using (Stream packing = encoding == "br" ? new BrotliStream(packed, CompressionLevel.Fastest) : new GZipStream(packed, CompressionLevel.Optimal))
        {
            var block = new byte[65_536];
            block.AsSpan().Fill(fill);
            for (; bytes > 0; bytes -= block.Length)
            {
                packing.Write(block, 0, (int)Math.Min(bytes, block.Length));
            }
        }

        return packed.ToArray();
    }

    [Theory]
    [InlineData("/v1/usage", "application/x-ndjson", "gzip")]
    [InlineData("/v1/usage", "application/x-ndjson", "br")]
    [InlineData("/v1/segments/Bomb/members", "text/csv", "br")]
    public async Task to_endless_lines_is_cut_off(string path, string mediaType, string encoding)
    {
        await node.Post("/v1/segments", new { slug = "Bomb" });
        var before = await node.CatchUp();

        (await Send(path, Packed(4L * Bodies.FreeUnpackedBytes, (byte)'a', encoding), mediaType, encoding)).IsProblem(413, "body-too-large");

        Assert.Equal(before, await node.CatchUp());
    }

    [Fact]
    public async Task to_much_less_than_that_is_read()
    {
        await node.Post("/v1/segments", new { slug = "Tight" });
        var receipt = (await Send("/v1/segments/Tight/members", Packed(Bodies.FreeUnpackedBytes, (byte)'a', "gzip"), "text/csv", "gzip")).Is(HttpStatusCode.OK);

        Assert.Equal(1, receipt.Json.GetProperty("rejected").GetInt64()); // one line, and too long
    }

    [Fact]
    public async Task to_more_than_a_command_may_have_is_refused() =>
        (await Send("/v1/segments", Packed(Limits.MaxCommandBodyBytes + 1, (byte)' ', "gzip"), "application/json", "gzip")).IsProblem(413, "body-too-large");

    private async Task<Answer> Send(string path, byte[] body, string mediaType, string encoding)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new ByteArrayContent(body) { Headers = { ContentType = new(mediaType), ContentEncoding = { encoding } } } };
        return await node.Send(request);
    }
}

public sealed class Connections(PostgresFixture postgres)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task are_as_many_as_the_limits_say_and_one_more_is_closed()
    {
        await using var node = new TestNode(postgres) { Configure = s => s.Configure<KestrelServerOptions>(o => o.Limits.MaxConcurrentConnections = 2) };
        await node.InitializeAsync();
        using var one = new Hostile.RawConnection(node.Client.BaseAddress!);
        using var two = new Hostile.RawConnection(node.Client.BaseAddress!);
        var request = new Hostile.RawRequest("GET", "/health/live") { Headers = [("Host", "x")] };
        Assert.Equal((200, 200), ((await one.Send(request)).Status, (await two.Send(request)).Status));

        using var three = new Hostile.RawConnection(node.Client.BaseAddress!);
        await Assert.ThrowsAnyAsync<Exception>(() => three.Send(request));

        one.Close();
        var waited = Stopwatch.StartNew();
        while (true)
        {
            try
            {
                three.Close();
                Assert.Equal(200, (await three.Send(request)).Status);
                break;
            }
            catch (Exception exception) when (exception is IOException or SocketException && waited.Elapsed < TimeSpan.FromSeconds(20))
            {
                // until the server has seen that the first is gone
            }
        }
    }

    [Fact]
    public async Task of_a_node_have_the_limits_that_are_documented()
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var limits = node.Services.GetRequiredService<IOptions<KestrelServerOptions>>().Value.Limits;

        Assert.Equal((Limits.MaxConnections, 0), (limits.MaxConcurrentConnections, limits.MaxConcurrentUpgradedConnections));
        Assert.Equal((Limits.MaxStreamsPerConnection, Limits.MaxHeaderFieldBytes), (limits.Http2.MaxStreamsPerConnection, limits.Http2.MaxRequestHeaderFieldSize));
        Assert.Equal((Limits.MinBodyBytesPerSecond, Limits.MinAnswerBytesPerSecond), (limits.MinRequestBodyDataRate!.BytesPerSecond, limits.MinResponseDataRate!.BytesPerSecond));
        Assert.Equal(Limits.RequestTimeout, node.Services.GetRequiredService<IOptions<RequestTimeoutOptions>>().Value.DefaultPolicy!.Timeout);
    }
}
