using System.Net;
using System.Text;
using Ledger.EventStore;
using Ledger.Services;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Services;

public sealed class Keeping_the_view_of_services(TestNode node) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task gives_the_same_rows_however_the_events_are_cut_into_batches_and_when_it_is_rebuilt()
    {
        var random = new Random(LongTests.Seed);
        for (var i = 0; i < 5; i++)
        {
            (await node.Post("/v1/services", new { serviceId = $"s{i}", title = $"T{i}" })).Is(HttpStatusCode.Created);
        }

        for (var i = 0; i < 80; i++)
        {
            var id = $"s{random.Next(5)}";
            var answer = await (random.Next(6) switch
            {
                0 or 1 => node.Post("/v1/services", new { serviceId = id, title = $"T{random.Next(6)}", description = "d" }),
                2 => node.Patch($"/v1/services/{id}", random.Next(2) == 0 ? $$"""{"title":"T{{random.Next(6)}}"}""" : """{"description":null}"""),
                3 when random.Next(12) == 0 => node.Delete($"/v1/services/{id}"),
                _ => node.Post($"/v1/services/{id}/prices", $$"""{"currency":"USD","components":[{"unit":"call","price":"0.{{i}}"}]}"""),
            });
            Assert.True(answer.Status < HttpStatusCode.InternalServerError, $"LEDGER_TEST_SEED={LongTests.Seed}: {answer.Text}");
            node.Clock.Advance(TimeSpan.FromSeconds(random.Next(3)));
        }

        await node.CatchUp();
        var live = await node.Rows("Services");
        Assert.True(live.Split('\n').Length > 15, $"LEDGER_TEST_SEED={LongTests.Seed}: {live}");
        var log = await node.Log();
        foreach (var size in new[] { 1, 2, 3, 7, log.Count })
        {
            Assert.True(live == await Cut(log, size), $"LEDGER_TEST_SEED={LongTests.Seed}, batches of {size}.");
        }

        await node.Rebuild("Services");
        Assert.Equal(live, await node.Rows("Services"));
        Assert.Empty(node.Errors);
    }

    /// <summary>The rows of the view, folded in batches of a size into tables of its own.</summary>
    private async Task<string> Cut(IReadOnlyList<RecordedEvent> log, int size)
    {
        var view = new ServicesProjection();
        var schema = $"cut_{size}";
        await using var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(node.Database) { SearchPath = schema }.ConnectionString);
        await connection.OpenAsync(Cancellation);
        await Execute($"create schema {schema}");
        foreach (var table in view.Tables)
        {
            await Execute(node.Services.GetRequiredService<Migrations>().Creating(table).Sql);
        }

        foreach (var batch in log.Where(e => view.Events.Contains(e.Data!.GetType())).Chunk(size))
        {
            await view.Write(batch, connection, Cancellation);
        }

        var rows = new StringBuilder();
        foreach (var table in view.Tables)
        {
            rows.AppendLine(System.Globalization.CultureInfo.InvariantCulture, $"# {table}");
            await using var command = new NpgsqlCommand($"select t::text from {table} t order by 1", connection);
            await using var reader = await command.ExecuteReaderAsync(Cancellation);
            while (await reader.ReadAsync(Cancellation))
            {
                rows.AppendLine(reader.GetString(0));
            }
        }

        return rows.ToString();

        async Task Execute(string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync(Cancellation);
        }
    }
}
