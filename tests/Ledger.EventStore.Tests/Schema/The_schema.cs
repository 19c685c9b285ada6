using Ledger.Testing;
using Npgsql;

namespace Ledger.EventStore.Tests;

public sealed class The_schema(PostgresFixture postgres)
{
    [Fact]
    public async Task Is_there_in_a_fresh_database()
    {
        await using var connection = new NpgsqlConnection(await postgres.CreateDatabase());
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand("select to_regclass('ledger.mt_events') is not null", connection);
        Assert.Equal(true, await command.ExecuteScalarAsync(TestContext.Current.CancellationToken));
    }
}
