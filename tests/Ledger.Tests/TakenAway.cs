using Npgsql;

namespace Ledger.Tests;

/// <summary>A database that is gone under its name until this is disposed of; whoever was connected is thrown out.</summary>
public sealed class TakenAway : IAsyncDisposable
{
    private readonly string _server;
    private readonly string _name;

    private TakenAway(string server, string name) => (_server, _name) = (server, name);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public static async Task<TakenAway> Database(string connectionString)
    {
        var database = new NpgsqlConnectionStringBuilder(connectionString);
        var away = new TakenAway(new NpgsqlConnectionStringBuilder(connectionString) { Database = "postgres", Pooling = false }.ConnectionString, database.Database!);
        for (var attempt = 0; ; attempt++)
        {
            try
            {
                await away.Execute(
                    $"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{away._name}'", $"alter database {away._name} rename to {away._name}_away");
                return away;
            }
            catch (PostgresException inUse) when (inUse.SqlState == PostgresErrorCodes.ObjectInUse && attempt < 100)
            {
                await Task.Delay(10, Cancellation); // somebody connected again in between
            }
        }
    }

    public async ValueTask DisposeAsync() => await Execute($"alter database {_name}_away rename to {_name}");

    private async Task Execute(params string[] statements)
    {
        await using var connection = new NpgsqlConnection(_server);
        await connection.OpenAsync(Cancellation);
        foreach (var statement in statements)
        {
            await using var command = new NpgsqlCommand(statement, connection);
            await command.ExecuteNonQueryAsync(Cancellation);
        }
    }
}
