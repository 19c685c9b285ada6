namespace Ledger.EventStore;

/// <summary>The answers to requests that are awaited together: it is complete when the last of them has one.</summary>
internal sealed class AppendCompletion(int requests)
{
    private readonly TaskCompletionSource<AppendResult[]> _source = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly AppendResult[] _results = new AppendResult[requests];
    private int _left = requests;

    public Task<AppendResult[]> Results => _source.Task;

    public void Complete(int place, AppendResult result)
    {
        _results[place] = result;
        if (Interlocked.Decrement(ref _left) == 0)
        {
            _source.TrySetResult(_results);
        }
    }

    public void Fail(Exception exception) => _source.TrySetException(exception);

    public void Cancel(CancellationToken cancellation) => _source.TrySetCanceled(cancellation);
}
