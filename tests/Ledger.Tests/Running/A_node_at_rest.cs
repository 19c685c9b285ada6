using Ledger.Testing;
using Ledger.Tests.Hosting;
using Ledger.Tests.Operations;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>A node that has nothing to do, on a database of its own.</summary>
public sealed class A_node_at_rest(PostgresFixture postgres)
{
    private static readonly TimeSpan Window = TimeSpan.FromSeconds(30);

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    /// <summary>
    /// Only statements are counted, so none of what PostgreSQL does for itself. On a crowded machine a node is busy for longer with what
    /// it was asked before, and a lease that ran out is taken anew: one of several windows has to be quiet.
    /// </summary>
    [Fact]
    public async Task asks_the_database_less_than_twice_a_second()
    {
        var database = await postgres.CreateDatabase();
        using var home = new TempFolder();
        await using var direct = NpgsqlDataSource.Create(database + ";Maximum Pool Size=1");
        await using (var extension = direct.CreateCommand("create extension pg_stat_statements"))
        {
            await extension.ExecuteNonQueryAsync(Ct);
        }

        await using var node = await UpProcess.Start(database, ("LEDGER_HOME", home.Path));
        // A membership that runs out some day, which is no reason to look for it all the time.
        using var join = new StringContent("""{"join":[{"segment":"WAITING","ttl":"P30D"}]}""", System.Text.Encoding.UTF8, "application/json");
        using var segment = new StringContent("""{"slug":"WAITING"}""", System.Text.Encoding.UTF8, "application/json");
        (await node.Client.PostAsync("/v1/segments", segment, Ct)).EnsureSuccessStatusCode();
        (await node.Client.PostAsync("/v1/users/somebody/segments", join, Ct)).EnsureSuccessStatusCode();
        await Patience.Until(async () => (await node.Client.GetAsync("/health/ready", Ct)).IsSuccessStatusCode, "the node is ready");

        var asked = new List<string>();
        for (var windows = 0; windows < 5; windows++)
        {
            var before = await Statements();
            await Task.Delay(Window, Ct);
            var statements = await Statements();
            asked = [.. from statement in statements
                        let times = statement.Value - before.GetValueOrDefault(statement.Key)
                        where times > 0
                        orderby times descending
                        select $"{times} {statement.Key}"];
            var sum = statements.Values.Sum() - before.Values.Sum();
            TestContext.Current.TestOutputHelper?.WriteLine($"{sum} statements in {Window.TotalSeconds} s");
            if (sum >= 15 && sum < 2 * Window.TotalSeconds) // at least the lease's renewals
            {
                Assert.Contains(asked, statement => statement.Contains("daemon_lease", StringComparison.Ordinal));
                return;
            }
        }

        Assert.Fail("The node comes to no rest:\n" + string.Join('\n', asked));

        async Task<Dictionary<string, long>> Statements()
        {
            await using var command = direct.CreateCommand(
                """
                select query, sum(calls)::bigint from pg_stat_statements
                where dbid = (select oid from pg_database where datname = current_database()) and query !~ 'pg_stat_statements' group by query
                """);
            await using var reader = await command.ExecuteReaderAsync(Ct);
            var statements = new Dictionary<string, long>();
            while (await reader.ReadAsync(Ct))
            {
                statements[reader.GetString(0)] = reader.GetInt64(1);
            }

            return statements;
        }
    }
}
