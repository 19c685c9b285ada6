using System.Diagnostics;
using System.Globalization;
using Ledger.EventStore;

namespace Ledger.Hosting;

/// <summary>What is to be verified, and by what.</summary>
/// <param name="Key">A verification key, or a file of them; those listed beside the log unless given.</param>
/// <param name="Since">A file with a checkpoint that was kept.</param>
/// <param name="Export">The folder of an export; a database unless given.</param>
/// <param name="Views">Whether to compare the views with a replay as well.</param>
public sealed record VerifyRequest(string? Key, string? Since, string? Export, bool Views);

/// <summary>Verifies the transparency log of a database or of an export against keys and checkpoints that were kept outside of it.</summary>
internal static class VerifyVerb
{
    private static readonly TimeSpan s_progressInterval = TimeSpan.FromSeconds(1);

    /// <summary>Verifies a database's log, and its views when that is asked for and the log holds.</summary>
    public static async Task<int> Run(
        IServiceProvider services, VerifyRequest request, TextWriter output, TextWriter errors, CancellationToken cancellation) =>
        await Run(services, request.Key, request.Since, output, errors, cancellation) is var code && (code != 0 || !request.Views) ? code
        : await RunViews(services, output, errors, cancellation);

    /// <summary>Verifies a database's log. 0 when everything holds, 1 when something is wrong: the first such thing is named.</summary>
    public static async Task<int> Run(
        IServiceProvider services, string? key, string? since, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        if (!await services.GetRequiredService<SchemaMigrator>().IsUpToDate(cancellation))
        {
            await errors.WriteLineAsync("The schema is not up to date: run 'migrate' or 'up'.");
            return 1;
        }

        var keys = await ReadKeys(
            key, () => services.GetRequiredService<TransparencyLog>().ReadKeys(cancellation), "the database itself lists", errors, cancellation);
        var earlier = keys is null ? null : await ReadCheckpoints([since, await KeptHere(services, cancellation)], errors, cancellation);
        return earlier is null ? 1 : await Verify(services.GetRequiredService<DatabaseLog>(), keys!, earlier, () => [], output, errors, cancellation);
    }

    /// <summary>Verifies the log of an export, with nothing but its files. No database is needed.</summary>
    public static async Task<int> RunExport(string folder, string? key, string? since, TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        try
        {
            using var log = await ExportedLog.Open(folder, cancellation);
            var keys = await ReadKeys(
                key, async () => (await log.ReadClaims(cancellation)).Keys,
                "the export itself lists. That proves less: whoever made the files could have listed his own", errors, cancellation);
            var earlier = keys is null ? null : await ReadCheckpoints([since], errors, cancellation);
            return earlier is null ? 1 : await Verify(log, keys!, earlier, () => log.Faults, output, errors, cancellation);
        }
        catch (Exception exception) when (exception is ExportException or InvalidDataException)
        {
            await output.WriteLineAsync($"WRONG: {exception.Message}");
            return 1;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            await errors.WriteLineAsync(exception.Message);
            return 1;
        }
    }

    /// <summary>Verifies that each view is what a replay of the log gives, at the position the view stands at.</summary>
    public static Task<int> RunViews(IServiceProvider services, TextWriter output, TextWriter errors, CancellationToken cancellation) =>
        ReplayVerb.Run(services, new ReplayRequest(View: null, To: null, Out: null, Compare: true), output, errors, cancellation);

    /// <summary>The keys to verify by; null when one can't be read, which was said.</summary>
    private static async Task<List<NoteKey>?> ReadKeys(
        string? key, Func<Task<IReadOnlyList<string>>> own, string listed, TextWriter errors, CancellationToken cancellation)
    {
        var keys = new List<NoteKey>();
        foreach (var line in key is null ? await own() : File.Exists(key) ? await File.ReadAllLinesAsync(key, cancellation) : [key])
        {
            if (line.Length > 0 && !NoteKey.TryParse(line, out _))
            {
                await errors.WriteLineAsync($"'{line}' is neither a verification key nor a file of them.");
                return null;
            }

            if (line.Length > 0 && NoteKey.TryParse(line, out var read))
            {
                keys.Add(read);
            }
        }

        if (key is null)
        {
            await errors.WriteLineAsync($"No --key: signatures are verified by the keys that {listed}.");
        }

        return keys;
    }

    /// <summary>Checkpoints that were kept; null when one can't be read, which was said.</summary>
    private static async Task<List<(string, byte[])>?> ReadCheckpoints(string?[] files, TextWriter errors, CancellationToken cancellation)
    {
        var earlier = new List<(string, byte[])>();
        foreach (var file in files.OfType<string>())
        {
            try
            {
                earlier.Add(($"the checkpoint in '{file}'", await File.ReadAllBytesAsync(file, cancellation)));
            }
            catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
            {
                await errors.WriteLineAsync($"'{file}' can't be read: {exception.Message}");
                return null;
            }
        }

        return earlier;
    }

    private static async Task<int> Verify(
        IVerifiedLog log, List<NoteKey> keys, List<(string Name, byte[] Note)> earlier, Func<IReadOnlyList<string>> faults,
        TextWriter output, TextWriter errors, CancellationToken cancellation)
    {
        var verifier = new LogVerifier(log, keys);
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
            foreach (var fault in faults().Where(f => f != wrong.What))
            {
                await output.WriteLineAsync($"Also: {fault}");
            }

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
