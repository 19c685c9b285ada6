using System.Diagnostics;
using System.Globalization;
using Ledger.EventStore;

namespace Ledger.Hosting;

/// <summary>Verifies the transparency log of a database against keys and checkpoints that were kept outside of it.</summary>
internal static class VerifyVerb
{
    private static readonly TimeSpan s_progressInterval = TimeSpan.FromSeconds(1);

    /// <summary>0 when everything holds, 1 when something is wrong: the first such thing is named.</summary>
    public static async Task<int> Run(
        IServiceProvider services, string? key, string? since, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        if (!await services.GetRequiredService<SchemaMigrator>().IsUpToDate(cancellation))
        {
            await errors.WriteLineAsync("The schema is not up to date: run 'migrate' or 'up'.");
            return 1;
        }

        var log = services.GetRequiredService<TransparencyLog>();
        var keys = new List<NoteKey>();
        foreach (var line in key is null ? await log.ReadKeys(cancellation) : File.Exists(key) ? await File.ReadAllLinesAsync(key, cancellation) : [key])
        {
            if (line.Length > 0 && !NoteKey.TryParse(line, out _))
            {
                await errors.WriteLineAsync($"'{line}' is neither a verification key nor a file of them.");
                return 1;
            }

            if (line.Length > 0 && NoteKey.TryParse(line, out var read))
            {
                keys.Add(read);
            }
        }

        if (key is null)
        {
            await errors.WriteLineAsync("No --key: signatures are verified by the keys that the database itself lists.");
        }

        var earlier = new List<(string, byte[])>();
        foreach (var file in new[] { since, await KeptHere(services, cancellation) }.OfType<string>())
        {
            try
            {
                earlier.Add(($"the checkpoint in '{file}'", await File.ReadAllBytesAsync(file, cancellation)));
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                await errors.WriteLineAsync($"'{file}' can't be read: {exception.Message}");
                return 1;
            }
        }

        var verifier = new LogVerifier(services.GetRequiredService<DatabaseLog>(), keys);
        var started = Stopwatch.GetTimestamp();
        var verifying = verifier.Verify(earlier, cancellation);
        while (await Task.WhenAny(verifying, Task.Delay(s_progressInterval, cancellation)) != verifying && !cancellation.IsCancellationRequested)
        {
            await errors.WriteLineAsync($"{verifier.Verified} events verified");
        }

        var verdict = await verifying;
        if (verdict.Finding is { } wrong)
        {
            await output.WriteLineAsync(wrong.Position is { } position ? $"WRONG at position {position}: {wrong.What}" : $"WRONG: {wrong.What}");
            return 1;
        }

        await output.WriteLineAsync(string.Create(
            CultureInfo.InvariantCulture,
            $"OK: {verdict.Events} events, {verdict.Covered} of them under a signed checkpoint, {verdict.Erased} erased, {earlier.Count} earlier checkpoints, {Stopwatch.GetElapsedTime(started).TotalSeconds:0.0} s"));
        return 0;
    }

    /// <summary>The checkpoint that a node on this machine keeps beside its key.</summary>
    private static async Task<string?> KeptHere(IServiceProvider services, CancellationToken cancellation)
    {
        var identity = await services.GetRequiredService<LogKeyring>().Find(cancellation);
        return identity is not null && File.Exists(identity.CheckpointPath) ? identity.CheckpointPath : null;
    }
}
