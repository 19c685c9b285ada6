namespace Ledger.Benchmarks;

/// <summary>Single calls over HTTP, each of the last minute, of one of 20 services.</summary>
internal static class CallsScenario
{
    public static async Task Run(Bench bench)
    {
        await using var node = await bench.StartNode("calls");
        var pgbench = await PgBench.Prepare(bench);
        await GatewayServices.Register(node);
        foreach (var connections in SingleCommands.Connections)
        {
            await SingleCommands.Run(bench, node, pgbench, "calls", connections, NewCall, node.VerifyCalls);
        }

        await UsageSums.ExpectSame(node.Database);
    }

    /// <summary>A call of the last minute.</summary>
    public static ReadOnlyMemory<byte> NewCall()
    {
        var call = GatewayCall.Of(GatewayCall.NewNumber(), DateTime.UtcNow - TimeSpan.FromSeconds(60 * Random.Shared.NextDouble()));
        return HttpConnection.Request("POST", "/v1/usage", GatewayCall.Json([call]));
    }
}
