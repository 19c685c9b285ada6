using Ledger.EventStore;

namespace Ledger.Hosting;

/// <summary>Asks for a rebuild and waits for it. The node that keeps the views does it; when there is none, this process does.</summary>
internal static class RebuildVerb
{
    public static async Task<int> Run(IServiceProvider services, string view, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        await services.GetRequiredService<SchemaMigrator>().Migrate(cancellation);
        var views = services.GetRequiredService<Views>();
        await views.Register(cancellation);
        if (!await views.Rebuild(view, cancellation))
        {
            await errors.WriteLineAsync($"There is no view '{view}'. There are: {string.Join(", ", views.Names)}.");
            return 1;
        }

        await using var daemon = services.GetRequiredService<Daemon>();
        daemon.Start();
        using var pause = new PeriodicTimer(TimeSpan.FromMilliseconds(200));
        while (await pause.WaitForNextTickAsync(cancellation))
        {
            var status = (await views.Refresh(cancellation)).Single(v => v.Name == view);
            if (status.Rebuild == "failed")
            {
                await errors.WriteLineAsync($"The rebuild failed: {status.RebuildError}");
                return 1;
            }

            if (status.Rebuild is null)
            {
                await output.WriteLineAsync($"{view} was rebuilt up to position {status.Position}.");
                return 0;
            }
        }

        return 1;
    }
}
