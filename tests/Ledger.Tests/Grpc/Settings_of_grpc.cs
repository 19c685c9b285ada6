using Ledger.Hosting;
using Ledger.Testing;
using Microsoft.Extensions.Logging;

namespace Ledger.Tests.Grpc;

public sealed class The_port_of_grpc(PostgresFixture postgres)
{
    private static LedgerSettings Settings(params (string Name, string Value)[] environment) =>
        LedgerSettings.FromEnvironment(environment.ToDictionary(e => e.Name, e => e.Value).GetValueOrDefault);

    [Fact]
    public void is_8081_when_nothing_is_said_of_addresses()
    {
        Assert.Equal("http://127.0.0.1:8081", Settings().GrpcUrls);
        Assert.Equal("", Settings(("LEDGER_URLS", "http://127.0.0.1:9000")).GrpcUrls);
        Assert.Equal("", Settings(("LEDGER_GRPC_URLS", "")).GrpcUrls);
        Assert.Equal("http://[::1]:7", Settings(("LEDGER_URLS", "http://127.0.0.1:9000"), ("LEDGER_GRPC_URLS", "http://[::1]:7")).GrpcUrls);
    }

    [Fact]
    public void is_refused_when_it_is_none() => Assert.Equal(
        "LEDGER_GRPC_URLS must hold addresses such as http://127.0.0.1:8080; '127.0.0.1:8081' is none.",
        Assert.Throws<SettingsException>(() => Settings(("LEDGER_GRPC_URLS", "127.0.0.1:8081"))).Message);

    [Theory]
    [InlineData("http://127.0.0.1:0", "", 0)]
    [InlineData("http://127.0.0.1:0", "http://127.0.0.1:0", 1)]
    [InlineData("http://127.0.0.1:0; http://127.0.0.1:0;", "http://127.0.0.1:0;http://127.0.0.1:0", 2)]
    public async Task is_told_from_that_of_http(string urls, string grpcUrls, int count)
    {
        await using var node = LedgerHost.Build(
            new LedgerSettings { Urls = urls, GrpcUrls = grpcUrls }, await postgres.CreateDatabase(), configure: b => b.Logging.SetMinimumLevel(LogLevel.Critical));
        await node.StartAsync(TestContext.Current.CancellationToken);
        using var client = new HttpClient();

        Assert.Equal(count, node.GrpcUrls().Count);
        foreach (var url in node.Urls)
        {
            using var response = await client.GetAsync(new Uri($"{url}/health/live"), TestContext.Current.CancellationToken);
            Assert.Equal(!node.GrpcUrls().Contains(url), response.IsSuccessStatusCode);
        }

        await node.StopAsync(CancellationToken.None);
    }
}
