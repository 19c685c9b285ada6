using Ledger.EventStore;

namespace Ledger.Hosting;

/// <summary>Shows the transparency log's verification keys, or puts a new one in the current one's place.</summary>
internal static class KeyVerb
{
    public static async Task<int> Show(IServiceProvider services, TextWriter output, CancellationToken cancellation)
    {
        await services.GetRequiredService<SchemaMigrator>().Migrate(cancellation);
        await services.GetRequiredService<LogKeyring>().Open(cancellation);
        foreach (var key in await services.GetRequiredService<TransparencyLog>().ReadKeys(cancellation))
        {
            await output.WriteLineAsync(key);
        }

        return 0;
    }

    public static async Task<int> Rotate(IServiceProvider services, TextWriter output, CancellationToken cancellation)
    {
        await services.GetRequiredService<SchemaMigrator>().Migrate(cancellation);
        await output.WriteLineAsync((await services.GetRequiredService<LogKeyring>().Rotate(cancellation)).ToString());
        return 0;
    }
}
