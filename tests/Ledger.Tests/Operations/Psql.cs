using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Tests.Hosting;

namespace Ledger.Tests.Operations;

public sealed class Psql(TestNode node) : IClassFixture<TestNode>
{
    [Fact]
    public async Task works_on_the_ledgers_database_and_schema_and_gives_its_exit_code()
    {
        await node.Put("/v1/users/u1", new { });
        using var folder = new TempFolder();
        var answer = Path.Combine(folder.Path, "answer");

        var code = await PsqlVerb.Run(
            node.Database, new EventStoreOptions(), ["-At", "-o", answer, "-c", "select stream_id, current_schema() from mt_events where seq_id = 1"], TextWriter.Null);

        Assert.Equal(0, code);
        Assert.Equal("user-u1|ledger\n", await File.ReadAllTextAsync(answer, TestContext.Current.CancellationToken));
        Assert.Equal(2, await PsqlVerb.Run("Host=127.0.0.1;Port=1;Username=nobody", new EventStoreOptions(), ["-c", "select 1"], TextWriter.Null));
    }

    [Theory]
    [InlineData("SSL Mode=Disable", "PGSSLMODE=disable")]
    [InlineData("SSL Mode=Allow", "PGSSLMODE=allow")]
    [InlineData("SSL Mode=Require", "PGSSLMODE=require")]
    [InlineData(
        "SSL Mode=VerifyCA;Root Certificate=/etc/ca.pem;SSL Certificate=/etc/ledger.pem;SSL Key=/etc/ledger.key",
        "PGSSLCERT=/etc/ledger.pem PGSSLKEY=/etc/ledger.key PGSSLMODE=verify-ca PGSSLROOTCERT=/etc/ca.pem")]
    [InlineData("SSL Mode=VerifyFull;Passfile=/etc/passwords", "PGPASSFILE=/etc/passwords PGSSLMODE=verify-full")]
    [InlineData("", "")]
    public void connects_as_safely_as_the_ledger(string settings, string expected) => Assert.Equal(
        expected,
        string.Join(' ', PsqlVerb.Variables($"Host=db;{settings}", new EventStoreOptions())
            .Where(v => v.Key.StartsWith("PGSSL", StringComparison.Ordinal) || v.Key == "PGPASSFILE")
            .Select(v => $"{v.Key}={v.Value}").Order(StringComparer.Ordinal)));
}
