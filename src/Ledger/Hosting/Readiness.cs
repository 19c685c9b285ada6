namespace Ledger.Hosting;

/// <summary>
/// Whether the node is fit for work, as anybody may ask without a credential: what a look found is kept for a moment, and one look
/// runs at a time, so that asking often costs the database no more.
/// </summary>
internal sealed class Readiness(Func<CancellationToken, Task<HealthAnswer>> look, TimeProvider time) : IDisposable
{
    private readonly SemaphoreSlim _looking = new(1, 1);
    private volatile Found? _found;

    /// <summary>What the last look found, or another one if that is too old.</summary>
    public async Task<HealthAnswer> Ask(CancellationToken cancellation)
    {
        if (Known() is { } known)
        {
            return known;
        }

        await _looking.WaitAsync(cancellation);
        try
        {
            if (Known() is { } meanwhile)
            {
                return meanwhile;
            }

            var answer = await look(cancellation);
            _found = new Found(answer, time.GetTimestamp());
            return answer;
        }
        finally
        {
            _looking.Release();
        }
    }

    /// <inheritdoc/>
    public void Dispose() => _looking.Dispose();

    private HealthAnswer? Known() => _found is { } found && time.GetElapsedTime(found.At) < Operations.ReadinessKept ? found.Answer : null;

    private sealed record Found(HealthAnswer Answer, long At);
}
