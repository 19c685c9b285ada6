using System.Diagnostics;
using System.Net;
using Ledger.DemoGateway;

namespace Ledger.Tests.Campaigns;

/// <summary>What other tests rely on.</summary>
public sealed class The_gateway_of_tests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task records_what_it_receives_and_counts_what_it_accepts_twice()
    {
        await using var gateway = await GatewayProcess.Start();
        Assert.Equal((HttpStatusCode.OK, """{"code":0,"message":"accepted"}"""), await gateway.Post("a%2F1", """{"id":"a/1","phone":"+491","text":"one"}"""));
        Assert.Equal((HttpStatusCode.OK, """{"code":0,"message":"accepted"}"""), await gateway.Post("a%2F1", """{"id":"a/1","phone":"+491","text":"one"}"""));
        await gateway.Post("b", """{"id":"b","phone":"+492","text":"two"}""");
        await gateway.SetFaults(new { deduplicate = true });
        Assert.Equal((HttpStatusCode.OK, """{"code":0,"message":"accepted before"}"""), await gateway.Post("b", """{"id":"b","phone":"+492","text":"another"}"""));

        Assert.Equal(
            [("a/1", "+491", "one", 1, true), ("a/1", "+491", "one", 2, true), ("b", "+492", "two", 1, true), ("b", "+492", "another", 2, false)],
            (await gateway.Received()).Select(c => (c.Id, c.Phone, c.Text, c.Attempt, c.IsAccepted)));
        var summary = await gateway.Summarise();
        Assert.Equal((4, 2, 2, 1, 1, 0, 4), (summary.Calls, summary.Messages, summary.Accepted, summary.AcceptedMoreThanOnce, summary.Unlike, summary.Refused, summary.Answers["accept"]));
        Assert.Equal(0, await gateway.Stop());
    }

    [Theory]
    [InlineData("""{"id":"other","phone":"+491","text":"one"}""", GatewayProcess.Token, HttpStatusCode.BadRequest)]
    [InlineData("""{"id":"m","phone":"+491"}""", GatewayProcess.Token, HttpStatusCode.BadRequest)]
    [InlineData("""{"id":"m","phone":"+491","text":"one","more":1}""", GatewayProcess.Token, HttpStatusCode.BadRequest)]
    [InlineData("{", GatewayProcess.Token, HttpStatusCode.BadRequest)]
    [InlineData("""{"id":"m","phone":"+491","text":"one"}""", "another", HttpStatusCode.Unauthorized)]
    [InlineData("""{"id":"m","phone":"+491","text":"one"}""", null, HttpStatusCode.Unauthorized)]
    public async Task takes_nothing_else(string body, string? token, HttpStatusCode status)
    {
        await using var gateway = await GatewayProcess.Start();
        Assert.Equal(status, (await gateway.Post("m", body, token)).Status);
        Assert.Equal((0, 1), ((await gateway.Summarise()).Calls, (await gateway.Summarise()).Refused));
    }

    [Fact]
    public async Task keeps_its_journal_when_it_is_killed()
    {
        var journal = Path.Combine(Directory.CreateTempSubdirectory("gateway-").FullName, "received.ndjson");
        await using (var gateway = await GatewayProcess.Start(journal: journal))
        {
            await gateway.Post("a", """{"id":"a","phone":"+491","text":"é"}""");
            await gateway.Kill();
        }

        await File.AppendAllTextAsync(journal, """{"id":"cut""", Cancellation);
        await using var back = await GatewayProcess.Start(journal: journal);
        await back.Post("a", """{"id":"a","phone":"+491","text":"é"}""");
        Assert.Equal([("a", 1, "é"), ("a", 2, "é")], (await back.Received()).Select(c => (c.Id, c.Attempt, c.Text)));
        Assert.Equal(1, (await back.Summarise()).AcceptedMoreThanOnce);
        await back.Stop();
        Directory.Delete(Path.GetDirectoryName(journal)!, recursive: true);
    }

    [Fact]
    public void does_wrong_as_much_as_it_is_told_and_the_same_each_time()
    {
        var faults = new Faults { ErrorPercent = 30, HangPercent = 5, RefusePercent = 2, ResetPercent = 10, AcceptedAnywayPercent = 20 };
        var treated = Enumerable.Range(0, 20_000).Select(i => faults.Of($"m{i}", 1)).ToArray();

        Assert.Equal(treated, Enumerable.Range(0, 20_000).Select(i => faults.Of($"m{i}", 1)));
        Assert.InRange(Share(Treatment.Refuse), 1.7, 2.3);
        Assert.InRange(Share(Treatment.Error), 28.4, 30.4);
        Assert.InRange(Share(Treatment.Hang), 4.4, 5.4);
        Assert.InRange(Share(Treatment.Reset), 9.1, 10.5);
        Assert.InRange(treated.Count(t => t is { Treatment: Treatment.Reset or Treatment.Hang, IsAccepted: true }) / (double)treated.Count(t => t.Treatment is Treatment.Reset or Treatment.Hang), 0.17, 0.23);
        Assert.All(treated, t => Assert.True(t.Treatment is Treatment.Reset or Treatment.Hang || t.IsAccepted == (t.Treatment == Treatment.Accept)));
        Assert.NotEqual(treated, Enumerable.Range(0, 20_000).Select(i => faults.Of($"m{i}", 2)));
        Assert.NotEqual(treated, Enumerable.Range(0, 20_000).Select(i => (faults with { Seed = 2 }).Of($"m{i}", 1)));
        Assert.All(Enumerable.Range(0, 500), i => Assert.Equal(faults.Of($"m{i}", 1).Treatment == Treatment.Refuse, faults.Of($"m{i}", 7).Treatment == Treatment.Refuse));

        double Share(Treatment treatment) => treated.Count(t => t.Treatment == treatment) / 200.0;
    }

    [Theory]
    [InlineData("""{"errorPercent":101}""")]
    [InlineData("""{"errorPercent":60,"hangPercent":50}""")]
    [InlineData("""{"hangPercent":-1}""")]
    [InlineData("""{"errorPercentage":1}""")]
    [InlineData("""{"latencyMilliseconds":1.5}""")]
    [InlineData("null")]
    [InlineData("[]")]
    public void refuses_faults_that_make_no_sense(string json)
    {
        Assert.False(Faults.TryRead(json, out _, out var wrong));
        Assert.NotEmpty(wrong);
    }

    [Fact]
    public async Task says_what_it_can_do()
    {
        using var process = Process.Start(new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "Ledger.Gateway.dll"), "--help"]) { RedirectStandardOutput = true })!;
        var help = await process.StandardOutput.ReadToEndAsync(Cancellation);
        await process.WaitForExitAsync(Cancellation);
        Assert.Equal(0, process.ExitCode);
        Assert.All(typeof(Faults).GetProperties(), p => Assert.Contains(System.Text.Json.JsonNamingPolicy.CamelCase.ConvertName(p.Name), help, StringComparison.Ordinal));
    }
}
