using Ledger.Reports;
using Ledger.Testing;
using Ledger.Tests.History;

namespace Ledger.Tests.Reports;

public sealed class The_view_of_reports(PostgresFixture postgres)
{
    [Fact]
    public async Task Is_the_same_when_it_is_rebuilt()
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var world = new RandomWorld(node, new Random(LongTests.Seed), "rows");
        await world.Begin();
        for (var i = 0; i < 4; i++)
        {
            await world.Run(40, TimeSpan.FromDays(5));
            await node.Post("/v1/reports", new { kind = "memberships", month = Month.Of(node.Clock.Now).ToString() });
            await node.Post("/v1/reports", new { kind = "memberships", month = "2026-10", userId = world.Users[i] });
        }

        await node.Delete((await node.Get("/v1/reports")).Each("url")[1].Replace(".csv", "", StringComparison.Ordinal));
        while ((await node.Get("/v1/reports")).Each("status").Contains("pending"))
        {
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }

        await node.CatchUp();
        var live = await node.Rows(ReportsProjection.View);
        await node.Rebuild(ReportsProjection.View);

        Assert.Equal(live, await node.Rows(ReportsProjection.View));
        Assert.Empty(node.Errors);
    }
}
