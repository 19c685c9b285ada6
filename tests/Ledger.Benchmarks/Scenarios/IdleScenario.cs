namespace Ledger.Benchmarks;

/// <summary>A node at rest that keeps the views and seals: what it asks of the database, and the CPU that both take.</summary>
internal static class IdleScenario
{
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(15);
    private static readonly TimeSpan Duration = TimeSpan.FromSeconds(60);

    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("idle");
        await node.CreateSegment("BENCH");
        await node.Settle(await node.Head());
        await Task.Delay(Settling);
        var measurement = await Measurement.Begin(node);
        var before = await Transactions();
        await Task.Delay(Duration);
        measurement.EndLoad();
        var transactions = await Transactions() - before;
        bench.Add(await measurement.Finish("transactions of a node at rest", 1, transactions / Duration.TotalSeconds, 0));

        // A connection tells its transactions some time after them; over a minute that makes no difference.
        Task<long> Transactions() => node.Scalar<long>("select xact_commit + xact_rollback from pg_stat_database where datname = current_database()");
    }
}
