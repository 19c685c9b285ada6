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
}
