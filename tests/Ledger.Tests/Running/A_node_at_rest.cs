using Ledger.Testing;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>A node that has nothing to do, on a database of its own.</summary>
public sealed class A_node_at_rest(PostgresFixture postgres)
{
    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    [Fact]
    public async Task asks_the_database_less_than_twice_a_second()
    {
        var database = await postgres.CreateDatabase();
        using var home = new TempFolder();
        await using var node = await UpProcess.Start(database, ("LEDGER_HOME", home.Path));
        await using var direct = NpgsqlDataSource.Create(database + ";Search Path=ledger;Maximum Pool Size=1");
        // A membership that runs out some day, which is no reason to look for it all the time.
        using var join = new StringContent("""{"join":[{"segment":"WAITING","ttl":"P30D"}]}""", System.Text.Encoding.UTF8, "application/json");
        using var segment = new StringContent("""{"slug":"WAITING"}""", System.Text.Encoding.UTF8, "application/json");
        (await node.Client.PostAsync("/v1/segments", segment, Ct)).EnsureSuccessStatusCode();
        (await node.Client.PostAsync("/v1/users/somebody/segments", join, Ct)).EnsureSuccessStatusCode();
        await Patience.Until(async () => (await node.Client.GetAsync("/health/ready", Ct)).IsSuccessStatusCode, "the node is ready");
        await Task.Delay(TimeSpan.FromSeconds(12), Ct); // what has been done is over, and told

        var before = await Transactions();
        await Task.Delay(TimeSpan.FromSeconds(30), Ct);
        var asked = await Transactions() - before;

        TestContext.Current.TestOutputHelper?.WriteLine($"{asked} transactions in 30 s");
        Assert.InRange(asked, 15, 59); // at least the lease's renewals

        async Task<long> Transactions()
        {
            await using var command = direct.CreateCommand("select xact_commit + xact_rollback from pg_stat_database where datname = current_database()");
            return (long)(await command.ExecuteScalarAsync(Ct))!;
        }
    }
}
