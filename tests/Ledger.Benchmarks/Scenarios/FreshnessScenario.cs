using System.Diagnostics;

namespace Ledger.Benchmarks;

/// <summary>
/// From the answer of a command to the answer of a query that must show it (Ledger-Min-Position), both over HTTP, while other
/// clients send such commands at half the rate that they reach when nothing holds them back.
/// </summary>
internal static class FreshnessScenario
{
    private const int Connections = 16;
    private const int LeastFullRuns = 3;
    private const double ProbesPerSecond = 50;

    /// <summary>So many that a probe is not late because the one before it on its connection takes its time.</summary>
    private const int ProbeConnections = 10;

    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("freshness");
        await node.CreateSegment("BENCH");
        await GatewayServices.Register(node);
        await node.Settle(await node.Head());
        await Figure(bench, node, $"commit to visible, under half load ({Connections} connections)", JoinsScenario.JoinOfNewUser, ProbeJoin, node.Verify);
        await Figure(bench, node, $"commit to visible in usage totals, under half load of calls ({Connections} connections)", CallsScenario.NewCall, ProbeCall, node.VerifyCalls);
    }

    private static async Task Figure(
        Bench bench, Node node, string figure, Func<ReadOnlyMemory<byte>> request, Func<HttpConnection, Task<long>> probe, Func<long, long, Task> verify)
    {
        var half = await FullRate(bench, node, request, verify) / 2;
        for (var run = 0; run <= bench.Options.Runs; run++)
        {
            var head = await node.Head();
            var measurement = await Measurement.Begin(node);
            var probing = Load.PacedHttp(node.Process.Port, ProbeConnections, ProbesPerSecond, bench.Options.Duration, probe);
            var load = await Load.PacedHttp(node.Process.Port, Connections, half, bench.Options.Duration, request);
            var probes = await probing;
            measurement.EndLoad();
            await node.Settle(head + load.Done + probes.Done);
            await verify(head, load.Done + probes.Done);
            if (run > 0)
            {
                var sample = await measurement.Finish(figure, run, load.Rate, 0);
                bench.Add(sample.WithTimes(probes) with { Yardstick = "half of what as many connections reach", YardstickRate = half });
            }
        }
    }

    /// <summary>What the connections reach on a node that has warmed up.</summary>
    private static async Task<double> FullRate(Bench bench, Node node, Func<ReadOnlyMemory<byte>> request, Func<long, long, Task> verify)
    {
        var rates = new List<double>();
        for (var run = 0; run <= Math.Max(LeastFullRuns, bench.Options.Runs); run++)
        {
            var head = await node.Head();
            var load = await Load.Http(node.Process.Port, Connections, bench.Options.Duration, request);
            await node.Settle(head + load.Done);
            await verify(head, load.Done);
            if (run > 0)
            {
                rates.Add(load.Rate);
            }
        }

        return Table.Median(rates);
    }

    /// <summary>Joins, and then asks for the user's segments as of the join.</summary>
    private static async Task<long> ProbeJoin(HttpConnection connection)
    {
        var user = UserIds.New();
        var joined = await connection.Send(HttpConnection.Request("PUT", $"/v1/users/{user}/segments/BENCH", "{}"));
        return await Seen(connection, joined, $"/v1/users/{user}/segments", "\"BENCH\"");
    }

    /// <summary>Reports the only call of a user, and then asks for the totals of the user as of the call.</summary>
    private static async Task<long> ProbeCall(HttpConnection connection)
    {
        var call = GatewayCall.Of(GatewayCall.NewNumber(), DateTime.UtcNow) with { UserId = UserIds.New() };
        var recorded = await connection.Send(HttpConnection.Request("POST", "/v1/usage", GatewayCall.Json([call])));
        return await Seen(connection, recorded, $"/v1/usage/totals?user={call.UserId}", "\"calls\":1,");
    }

    /// <summary>The ticks until a query of a command's position has been answered; fails unless the answer shows the command.</summary>
    private static async Task<long> Seen(HttpConnection connection, HttpAnswer command, string path, string shows)
    {
        var asked = Stopwatch.GetTimestamp();
        var seen = await connection.Send(HttpConnection.Request("GET", path, null, ("Ledger-Min-Position", $"{command.Position}")));
        var ticks = Stopwatch.GetTimestamp() - asked;
        return command.Status == 200 && seen.Status == 200 && seen.Text.Contains(shows, StringComparison.Ordinal)
            ? ticks
            : throw new BenchFailedException($"A command ({command.Status}) did not show: {seen.Status} {seen.Text}");
    }
}
