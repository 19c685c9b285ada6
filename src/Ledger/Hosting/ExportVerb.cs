using Ledger.EventStore;

namespace Ledger.Hosting;

/// <summary>Writes the log into a folder, and reads it back into an empty database.</summary>
internal static class ExportVerb
{
    private const int EventsBetweenReports = 16 * ExportManifest.EventsPerSegment;

    public static async Task<int> Export(IServiceProvider services, string folder, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        if (!await services.GetRequiredService<SchemaMigrator>().IsUpToDate(cancellation))
        {
            await errors.WriteLineAsync("The schema is not up to date: run 'migrate' or 'up'.");
            return 1;
        }

        return await Run(
            async () =>
            {
                var manifest = await services.GetRequiredService<LogExport>().Write(folder, Progress("Exported", output), cancellation);
                await output.WriteLineAsync($"Exported {manifest.Position} events, {manifest.Bytes} bytes in {manifest.Segments.Count} files, to {folder}");
            }, errors);
    }

    public static async Task<int> Import(
        IServiceProvider services, LedgerSettings settings, string folder, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        var migrator = services.GetRequiredService<SchemaMigrator>();
        await migrator.CheckServer(settings.AcceptLosingEvents, cancellation);
        await migrator.Migrate(cancellation);
        return await Run(
            async () =>
            {
                var manifest = await services.GetRequiredService<LogImport>().Read(folder, Progress("Read", output), cancellation);
                await output.WriteLineAsync($"Imported {manifest.Position} events. The next node that keeps the views folds them.");
            }, errors);
    }

    private static async Task<int> Run(Func<Task> work, TextWriter errors)
    {
        try
        {
            await work();
            return 0;
        }
        catch (Exception exception) when (exception is ExportException or IOException or UnauthorizedAccessException)
        {
            await errors.WriteLineAsync(exception.Message);
            return 1;
        }
    }

    private static Action<long> Progress(string done, TextWriter output)
    {
        var next = (long)EventsBetweenReports;
        return position =>
        {
            if (position >= next)
            {
                output.WriteLine($"{done} {position} events");
                next = position + EventsBetweenReports;
            }
        };
    }
}
