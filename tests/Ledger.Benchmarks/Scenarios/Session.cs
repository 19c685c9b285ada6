namespace Ledger.Benchmarks;
internal static class Session { public static Task<bool> Run(BenchOptions o, CancellationToken c) => Task.FromResult(true); }
