namespace Ledger.EventStore.Tests.Support;

/// <summary>A log under test: how one writer stores something, and how a reader that tails it asks for more.</summary>
internal interface IRacingLog
{
    /// <summary>Stores something, or tries to and rolls back.</summary>
    Task Write(int writer, Random chance);

    /// <summary>What the log shows after a position, in the log's order.</summary>
    Task<IReadOnlyList<(long Position, Guid Id)>> ReadAfter(long position);

    /// <summary>Everything committed, in the log's order, when nobody writes any more.</summary>
    Task<IReadOnlyList<(long Position, Guid Id)>> ReadTruth();
}

/// <summary>What a tailing reader was given, against what was committed.</summary>
internal sealed record RaceResult(int Committed, int Missed, int Reordered, int Duplicated, bool Dense)
{
    public bool IsSound => this is { Missed: 0, Reordered: 0, Duplicated: 0, Dense: true };
}

/// <summary>One reader that follows the end of a log while many write to it.</summary>
internal static class Race
{
    public static async Task<RaceResult> Run(IRacingLog log, int writers, int events)
    {
        var chance = Runs.Chance();
        var written = new TaskCompletionSource();
        var delivered = new List<(long Position, Guid Id)>();
        var reading = Task.Run(async () =>
        {
            while (true)
            {
                var last = written.Task.IsCompleted;
                var page = await log.ReadAfter(delivered.Count == 0 ? 0 : delivered[^1].Position);
                delivered.AddRange(page);
                if (page.Count == 0 && last)
                {
                    return;
                }

                await Task.Yield();
            }
        });
        var left = events;
        await Task.WhenAll(Enumerable.Range(0, writers).Select(writer =>
        {
            var own = new Random(chance.Next());
            return Task.Run(async () =>
            {
                while (Interlocked.Decrement(ref left) >= 0)
                {
                    await log.Write(writer, own);
                }
            });
        }));
        written.SetResult();
        await reading;

        return Judge(delivered, await log.ReadTruth());
    }

    public static RaceResult Judge(IReadOnlyList<(long Position, Guid Id)> delivered, IReadOnlyList<(long Position, Guid Id)> truth)
    {
        var ids = delivered.Select(d => d.Id).ToHashSet();
        var result = new RaceResult(
            truth.Count,
            truth.Count(t => !ids.Contains(t.Id)),
            delivered.Zip(delivered.Skip(1)).Count(pair => pair.First.Position >= pair.Second.Position),
            delivered.Count - ids.Count,
            truth.Select((t, index) => t.Position == index + 1).All(dense => dense));
        TestContext.Current.TestOutputHelper?.WriteLine(result.ToString());
        return result;
    }
}
