using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Segments;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Benchmarks;

/// <summary>Reads at ten million memberships (10 segments of a million users): over HTTP, and as the service reads them in the database.</summary>
internal static class QueriesScenario
{
    private const int Segments = 10;

    public static async Task Run(Bench bench)
    {
        var users = bench.Options.Size(10_000_000, 50_000_000) / Segments;
        await using var node = await bench.StartNode("queries");
        var csv = ImportScenario.Csv(Enumerable.Range(0, users).Select(n => UserIds.Of(n)));
        for (var i = 0; i < Segments; i++)
        {
            await node.CreateSegment($"SEGMENT_{i}");
            await ImportScenario.Import(node.Process.Http, $"SEGMENT_{i}", csv);
        }

        await node.Settle(await node.Head());
        await node.Database.Execute("vacuum analyze");
        await node.Database.Execute("checkpoint"); // what the fill left to be written would be written while readers are timed
        var before = DateTimeOffset.UtcNow;

        await using var here = LedgerHost.Build(new LedgerSettings { PoolSize = LedgerSettings.MinPoolSize + Reads.Readers + 1 }, bench.ConnectionTo(node.Name));
        var segments = here.Services.GetRequiredService<UserSegmentsReader>();
        var sizes = here.Services.GetRequiredService<SegmentSizesReader>();
        var members = here.Services.GetRequiredService<SegmentMembersReader>();
        var reads = new Reads(bench, node);
        const string Tenant = Requests.DefaultTenant;
        var life = (await members.FindSegment(Tenant, "SEGMENT_0", new AsOf(before, IsNow: true), default))!.Value;

        await reads.Figure("one user's segments", () => $"/v1/users/{AUser()}/segments", () => segments.Now(Tenant, AUser(), DateTimeOffset.UtcNow, default));
        await reads.Figure("one user's segments at an instant", () => $"/v1/users/{AUser()}/segments?at={before:O}", () => segments.AsOf(Tenant, AUser(), new AsOf(before), default));
        await reads.Figure("counts", () => "/v1/segments/counts", () => sizes.List(Tenant, new AsOf(DateTimeOffset.UtcNow, IsNow: true), "", 1000, default));
        await reads.Figure("counts at an instant", () => $"/v1/segments/counts?at={before:O}", () => sizes.List(Tenant, new AsOf(before), "", 1000, default));
        // A page begins anywhere; the first one over HTTP, as a cursor is opaque.
        await reads.Figure("100 members", () => "/v1/segments/SEGMENT_0/members", () => members.List(Tenant, life, new AsOf(DateTimeOffset.UtcNow, IsNow: true), AUser(), 101, default));
        await reads.Figure("100 members at an instant", () => $"/v1/segments/SEGMENT_0/members?at={before:O}", () => members.List(Tenant, life, new AsOf(before), AUser(), 101, default));

        string AUser() => UserIds.Of(Random.Shared.Next(users));
    }
}
