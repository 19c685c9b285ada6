using Ledger.EventStore;
using Ledger.Hosting;
using Ledger.Http;
using Ledger.Usage;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Benchmarks;

/// <summary>Reads at ten million calls of 20 services by 10 000 users in 30 days, one in a hundred without a price.</summary>
internal static class UsageQueriesScenario
{
    private const int UnpricedEvery = 100;
    private const int PageRows = 101; // of 100 items: one more says whether there is another page
    private static readonly TimeSpan Duration = TimeSpan.FromDays(30);

    public static async Task Run(Bench bench)
    {
        var count = bench.Options.Size(10_000_000, 100_000_000);
        await using var node = await bench.StartNode("usage_queries");
        await GatewayServices.Register(node);
        var before = await node.Head();
        var now = DateTime.UtcNow;
        var end = new DateTime(now.Year, now.Month, now.Day, now.Hour, 0, 0, DateTimeKind.Utc);
        var firstNumber = GatewayCall.NewNumber() + 1; // nobody else takes numbers meanwhile
        for (var done = 0; done < count; done += IngestScenario.DefaultLines)
        {
            var lines = Math.Min(IngestScenario.DefaultLines, count - done);
            var calls = IngestScenario.Until(end - (Duration * ((double)(count - done - lines) / count)), lines, Duration * ((double)lines / count));
            await IngestScenario.Ingest(
                node.Process.Http, GatewayCall.Lines(calls.Select((call, n) => n % UnpricedEvery == 0 ? call with { Images = 1 } : call)), lines);
        }

        await node.VerifyCalls(before, count);
        await node.Settle(before + count);
        await UsageSums.ExpectSame(node.Database);
        await node.Database.Execute("vacuum analyze");
        await node.Database.Execute("checkpoint"); // what the fill left to be written would be written while readers are timed

        await using var here = LedgerHost.Build(new LedgerSettings { PoolSize = LedgerSettings.MinPoolSize + Reads.Readers + 1 }, bench.ConnectionTo(node.Name));
        var reader = here.Services.GetRequiredService<UsageCallsReader>();
        var totals = here.Services.GetRequiredService<UsageTotalsReader>();
        var reads = new Reads(bench, node);
        const string Tenant = Requests.DefaultTenant;
        var (from, to) = (Instant(end - Duration), Instant(end));

        await Calls("100 calls of a user", () => new CallsQuery { User = GatewayCall.AUser() });
        await Calls("100 calls of a service before an instant", () => new CallsQuery { Service = AService(), To = AnInstant() });
        await Calls("100 calls of a user and a service", () => new CallsQuery { User = GatewayCall.AUser(), Service = AService() });
        await Calls("100 calls before an instant", () => new CallsQuery { To = AnInstant() });
        await Calls("100 unpriced calls before an instant", () => new CallsQuery { Status = "unpriced", To = AnInstant() });
        await reads.Figure(
            "one call", () => $"/v1/usage/calls/{GatewayCall.Source}/{AnId()}",
            async () => _ = (await reader.Find(Tenant, GatewayCall.Source, AnId(), default)).Call ?? throw new BenchFailedException("A call was not found."));
        await Totals("totals of a user by day, 30 days", () => new UsageTotalsQuery { GroupBy = "day", User = GatewayCall.AUser(), From = from, To = to });
        await Totals("totals of all by service and hour, 30 days", () => new UsageTotalsQuery { GroupBy = "service,hour", From = from, To = to });

        QueryTime AnInstant() => Instant(end - (Duration * Random.Shared.NextDouble()));

        string AnId() => GatewayCall.Of(Random.Shared.NextInt64(firstNumber, firstNumber + count), default).Id;

        Task Calls(string figure, Func<CallsQuery> query) => reads.Figure(
            figure,
            () =>
            {
                var q = query();
                return Path("/v1/usage/calls", ("user", q.User), ("service", q.Service), ("to", q.To), ("status", q.Status));
            },
            () => reader.List(Tenant, query(), null, PageRows, default));

        Task Totals(string figure, Func<UsageTotalsQuery> query) => reads.Figure(
            figure,
            () =>
            {
                var q = query();
                return Path("/v1/usage/totals", ("groupBy", q.GroupBy), ("user", q.User), ("from", q.From), ("to", q.To));
            },
            async () =>
            {
                var errors = new Validation();
                var question = UsageTotalsQuestion.Read(Tenant, query(), null, null, errors);
                var found = await totals.Read(question, null, PageRows, default);
                if ((errors.Rejection ?? found.Rejection) is { } rejection)
                {
                    throw new BenchFailedException($"{figure}: {rejection}");
                }
            });
    }

    private static string AService() => GatewayServices.IdOf(Random.Shared.Next(GatewayServices.Count));

    private static QueryTime Instant(DateTime time) => new(new DateTimeOffset(time));

    private static string Path(string path, params (string Name, object? Value)[] parameters) =>
        $"{path}?{string.Join('&', parameters.Where(p => p.Value is not null).Select(p => $"{p.Name}={p.Value}"))}";
}
