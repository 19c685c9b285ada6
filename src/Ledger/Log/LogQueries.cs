using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Log;

/// <summary>What every answer of the log is of: its newest checkpoint, once that has reached the position asked for.</summary>
public sealed class LogQueries(TransparencyLog log)
{
    /// <summary>How often a query that waits for a checkpoint looks for it.</summary>
    public static readonly TimeSpan LookInterval = TimeSpan.FromMilliseconds(50);

    /// <summary>Answers by the newest checkpoint.</summary>
    public async Task<IResult> Now(HttpContext http, Func<PublishedCheckpoint, Task<IResult>> answer)
    {
        if (await Positions.AwaitAsync(http, WaitFor) is { } behind)
        {
            return Problems.For(behind);
        }

        if (await log.ReadCheckpoint(http.RequestAborted) is not { } checkpoint)
        {
            return Problems.Result("checkpoint-behind", "No checkpoint of the log has been signed yet.");
        }

        http.AnswerPosition(checkpoint.Size);
        return await answer(checkpoint);
    }

    private async ValueTask<bool> WaitFor(long position, TimeSpan wait, CancellationToken cancellation)
    {
        using var patience = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        patience.CancelAfter(wait);
        using var look = new PeriodicTimer(LookInterval);
        while (await log.ReadCheckpoint(cancellation) is not { } checkpoint || checkpoint.Size < position)
        {
            try
            {
                await look.WaitForNextTickAsync(patience.Token);
            }
            catch (OperationCanceledException) when (!cancellation.IsCancellationRequested)
            {
                return false;
            }
        }

        return true;
    }
}
