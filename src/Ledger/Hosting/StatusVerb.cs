using System.Globalization;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Hosting;

/// <summary>Prints positions, lag and sizes.</summary>
internal static class StatusVerb
{
    public static async Task<int> Run(IServiceProvider services, TextWriter output, CancellationToken cancellation)
    {
        if (!await services.GetRequiredService<SchemaMigrator>().IsUpToDate(cancellation))
        {
            await output.WriteLineAsync("The schema is not up to date: run 'migrate' or 'up'.");
            return 1;
        }

        var views = services.GetRequiredService<Views>();
        var head = await services.GetRequiredService<EventReader>().ReadHead(cancellation);
        await output.WriteLineAsync($"log       position {head}");
        await output.WriteLineAsync($"daemon    {(await views.IsKept(cancellation) ? "running" : "not running")}");
        await output.WriteLineAsync($"proof     {await Proof(services.GetRequiredService<NpgsqlDataSource>(), cancellation)}");
        foreach (var view in await views.Refresh(cancellation))
        {
            await output.WriteLineAsync(string.Create(CultureInfo.InvariantCulture,
                $"view      {view.Name,-14} position {view.Position}, lag {view.LagEvents} events / {view.LagSeconds:0.0} s, {view.State}{Detail(view)}"));
        }

        await using var command = services.GetRequiredService<NpgsqlDataSource>().CreateCommand(
            """
            select c.relname, pg_size_pretty(pg_total_relation_size(c.oid)), greatest(c.reltuples, 0)::bigint
            from pg_class c where c.relnamespace = current_schema()::regnamespace and c.relkind = 'r'
            order by pg_total_relation_size(c.oid) desc, c.relname
            """);
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        while (await reader.ReadAsync(cancellation))
        {
            await output.WriteLineAsync($"table     {reader.GetString(0),-24} {reader.GetString(1),10}  about {reader.GetInt64(2)} rows");
        }

        return 0;
    }

    private static async Task<string> Proof(NpgsqlDataSource database, CancellationToken cancellation)
    {
        await using var command = database.CreateCommand(
            "select coalesce(c.size, 0), s.refusal from log_state s left join log_checkpoint c on c.name = s.name where s.name = 'log'");
        await using var reader = await command.ExecuteReaderAsync(cancellation);
        return !await reader.ReadAsync(cancellation) ? "checkpoint 0"
            : $"checkpoint {reader.GetInt64(0)}{(reader.IsDBNull(1) ? "" : $"; no newer one is signed: {reader.GetString(1)}")}";
    }

    private static string Detail(ViewStatus view) =>
        (view.FailedPosition is { } failed ? $" at {failed}: {view.Error?.Split('\n')[0]}" : "")
        + (view.Rebuild is { } rebuild ? $"; rebuild {rebuild} at {view.RebuildPosition}" : "");
}
