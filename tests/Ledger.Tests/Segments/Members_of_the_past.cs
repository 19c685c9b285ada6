using System.Net;
using System.Text.RegularExpressions;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Tests.Usage;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Segments;

/// <summary>Who was in a segment whose members come and go: nearly all that ever were in it are neither in it nor were they then.</summary>
public sealed partial class Members_of_the_past(TestNode node) : IClassFixture<TestNode>
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task are_found_without_passing_over_all_that_had_ended_before()
    {
        await using var own = await node.StartAnew();
        var segment = await Segment(own);
        await own.Import("churn", "a\nb\nc\n");
        own.Clock.Advance(TimeSpan.FromSeconds(1));
        var at = own.Clock.Now;
        own.Clock.Advance(TimeSpan.FromSeconds(1));
        await own.Delete("/v1/users/b/segments/churn");
        await own.CatchUp();
        await Past(own, segment, count: 5_000, endedPosition: segment); // long before
        var members = own.Services.GetRequiredService<MembersAt>();

        var known = new AsOf(at);
        var (page, audience) = (SegmentMembersReader.Past(Requests.DefaultTenant, segment, known, "", 3), MembersAt.NextOf(Requests.DefaultTenant, [segment], known, "", 3));

        Assert.Equal(["a", "b", "c"], (await own.Get($"/v1/segments/churn/members?at={Rfc3339.Format(at)}")).Is(HttpStatusCode.OK).Each("userId"));
        Assert.Equal(["a", "b", "c"], await members.Next(Requests.DefaultTenant, [new SegmentAt("churn", segment, "", 0)], known, "", 10, Cancellation));
        foreach (var command in (NpgsqlBatchCommand[])[page, audience])
        {
            var plan = await Plans.Of(own.Services.GetRequiredService<BackgroundDatabase>().Source, command, analyze: true);
            Assert.DoesNotMatch(@"Rows Removed by Filter: \d{3,}", plan);
            Assert.DoesNotMatch(@"actual rows=\d{3,}", plan);
        }
    }

    [Theory]
    [InlineData(SegmentMembersReader.MaxEndedSince, "past_memberships_by_end")]
    [InlineData(SegmentMembersReader.MaxEndedSince + 1, "past_memberships_pkey")]
    public async Task are_the_same_whichever_way_they_are_looked_for(int ended, string index)
    {
        await using var own = await node.StartAnew();
        var segment = await Segment(own);
        await own.Import("churn", "a\nz\n");
        own.Clock.Advance(TimeSpan.FromSeconds(1));
        var at = own.Clock.Now;
        own.Clock.Advance(TimeSpan.FromSeconds(1));
        var end = await own.Post("/v1/segments", new { slug = "later" });
        await own.CatchUp();
        await Past(own, segment, ended, end.Position!.Value);

        var first = await own.Get($"/v1/segments/churn/members?limit=3&at={Rfc3339.Format(at)}");
        var next = await own.Get($"/v1/segments/churn/members?limit=3&at={Rfc3339.Format(at)}&cursor={first.Json.GetProperty("nextCursor").GetString()}");

        Assert.Equal(["a", "p000001", "p000002"], first.Is(HttpStatusCode.OK).Each("userId"));
        Assert.Equal(["p000003", "p000004", "p000005"], next.Is(HttpStatusCode.OK).Each("userId"));
        var plan = await Plans.Of(
            own.Services.GetRequiredService<BackgroundDatabase>().Source, SegmentMembersReader.Past(Requests.DefaultTenant, segment, new AsOf(at), "p", 3), analyze: true);
        Assert.Equal([index], Read().Matches(plan[plan.IndexOf("Append", StringComparison.Ordinal)..]).Select(m => m.Groups[1].Value));
    }

    private static async Task<long> Segment(TestNode own) => (await own.Post("/v1/segments", new { slug = "churn" })).Is(HttpStatusCode.Created).Position!.Value;

    /// <summary>Rows of stays that began with the segment and ended at a position, as years of coming and going leave them.</summary>
    private static async Task Past(TestNode own, long segment, int count, long endedPosition)
    {
        await using var command = own.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(
            $"""
             insert into past_memberships (tenant_id, user_id, segment_id, joined_position, joined_at, expires_at, source, ended_position, ended_at, end_reason)
             select '{Requests.DefaultTenant}', 'p' || lpad(n::text, 6, '0'), {segment}, {segment}, log_recorded_at({segment}), null, 'import', {endedPosition}, log_recorded_at({endedPosition}), 'left'
             from generate_series(1, {count}) n
             """);
        await command.ExecuteNonQueryAsync(Cancellation);
    }

    [GeneratedRegex(@"Index Scan using (past_memberships_\w+) on past_memberships \w+ .*\(actual rows=[1-9]")]
    private static partial Regex Read();
}
