using System.Globalization;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Reports;
using Ledger.Segments;
using Ledger.Testing;
using Ledger.Tests.History;
using Ledger.Tests.Running;
using Ledger.Users;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Reports;

public sealed class Reports_of_months(PostgresFixture postgres, ITestOutputHelper output)
{
    private const string Header = "user;segment;operation;time\r\n";

    private static readonly DateTimeOffset s_december = new(2026, 12, 1, 0, 0, 0, TimeSpan.Zero);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private async Task<TestNode> Node()
    {
        var node = new TestNode(postgres);
        await node.InitializeAsync();
        return node;
    }

    private static Task<Answer> Ask(TestNode node, string month, string? userId = null, params (string, string)[] headers) =>
        node.Post("/v1/reports", new { kind = "memberships", month, userId }, headers);

    /// <summary>Asks for a report and waits until it is there.</summary>
    private static async Task<(Answer Report, string Csv)> Make(TestNode node, string month, string? userId = null)
    {
        var asked = await Ask(node, month, userId);
        Assert.Contains(asked.Status, (HttpStatusCode[])[HttpStatusCode.Created, HttpStatusCode.OK]);
        return await WaitFor(node, asked.Headers["Location"]);
    }

    private static async Task<(Answer Report, string Csv)> WaitFor(TestNode node, string location)
    {
        var begun = DateTimeOffset.UtcNow;
        Answer report;
        while ((report = (await node.GetAsIs(location)).Is(HttpStatusCode.OK)).Json.GetProperty("status").GetString() == "pending")
        {
            Assert.True(DateTimeOffset.UtcNow - begun < TimeSpan.FromSeconds(60), $"The report is still being made: {string.Join('\n', node.Errors)}");
            await Task.Delay(20, Cancellation);
        }

        var file = (await node.GetAsIs(report.Json.GetProperty("url").GetString()!)).Is(HttpStatusCode.OK);
        Assert.Equal("ready", report.Json.GetProperty("status").GetString());
        Assert.Equal("text/csv; charset=utf-8; header=present", file.Headers["Content-Type"]);
        Assert.StartsWith("attachment; filename=", file.Headers["Content-Disposition"], StringComparison.Ordinal);
        Assert.Equal(report.Json.GetProperty("bytes").GetInt64(), Encoding.UTF8.GetByteCount(file.Text));
        Assert.Equal(report.Json.GetProperty("rows").GetInt64(), file.Text.Split("\r\n").Length - 2);
        Assert.Equal(report.Json.GetProperty("sha256").GetString(), Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(file.Text))));
        return (report, file.Text);
    }

    private static string[] Lines(string csv)
    {
        Assert.StartsWith(Header, csv, StringComparison.Ordinal);
        return csv[Header.Length..].Split("\r\n")[..^1];
    }

    [Fact]
    public async Task Say_who_came_and_went_by_UTC_to_the_microsecond_at_the_edges()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "edge" });
        node.Clock.SetTo(s_december.AddMicroseconds(-1));
        await node.Put("/v1/users/last/segments/edge", $$"""{"expiresAt":"{{Rfc3339.Format(s_december)}}"}""");
        await node.Put("/v1/users/leaves/segments/edge", null);
        await node.Delete("/v1/users/leaves/segments/edge");
        node.Clock.SetTo(s_december);
        await node.Put("/v1/users/first/segments/edge", null);
        node.Clock.Advance(TimeSpan.FromDays(31));

        var (november, csv) = await Make(node, "2026-11");

        Assert.Equal(
            [
                "last;edge;joined;2026-11-30T23:59:59.999999Z", "leaves;edge;joined;2026-11-30T23:59:59.999999Z", "leaves;edge;left;2026-11-30T23:59:59.999999Z",
            ], Lines(csv));
        Assert.Equal(4, november.Json.GetProperty("position").GetInt64());
        Assert.Equal(
            ["first;edge;joined;2026-12-01T00:00:00Z", "last;edge;expired;2026-12-01T00:00:00Z"],
            Lines((await Make(node, "2026-12")).Csv).Order(StringComparer.Ordinal));
        Assert.Equal(["last;edge;expired;2026-12-01T00:00:00Z"], Lines((await Make(node, "2026-12", "last")).Csv));
        Assert.Empty(Lines((await Make(node, "2026-10")).Csv));
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Are_what_the_log_says()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var random = new Random(LongTests.Seed);
        await using var node = await Node();
        var world = new RandomWorld(node, random, "of");
        await world.Begin();
        for (var round = 0; round < (LongTests.Wanted ? 20 : 3); round++)
        {
            await world.Run(LongTests.Wanted ? 150 : 60, TimeSpan.FromDays(3));
            var log = await node.Log();
            foreach (var month in log.Select(e => Month.Of(e.RecordedAt)).Append(Month.Of(node.Clock.Now)).Distinct().ToArray())
            {
                foreach (var user in (string?[])[null, world.Users[random.Next(world.Users.Length)]])
                {
                    var (report, csv) = await Make(node, month.ToString(), user);
                    var now = await node.Log();
                    var requestedAt = report.Json.GetProperty("requestedAt").GetDateTimeOffset();
                    var closed = requestedAt >= month.End;
                    var cut = report.Json.GetProperty("position").GetInt64();
                    Assert.Equal(
                        closed ? now.LastOrDefault(e => e.RecordedAt < month.End)?.Position ?? 0 : now.First(e => e.RecordedAt == requestedAt && e.Position == cut + 1).Position - 1,
                        cut);
                    string[] expected = [.. ReportModel.Lines(now, user, cut, month.Begin, closed ? month.End : requestedAt.AddMicroseconds(1))
                        .Select(l => $"{(l.User.StartsWith('=') ? "'" : "")}{l.User};{l.Segment};{l.Operation};{Rfc3339.Format(l.Time)}")];
                    var told = $"Seed {LongTests.Seed}: {month} {user}, cut at {cut}\n{csv}expected:\n{string.Join('\n', expected)}";
                    Assert.True(expected.Order(StringComparer.Ordinal).SequenceEqual(Lines(csv).Order(StringComparer.Ordinal)), told);
                    var times = Lines(csv).Select(l => DateTimeOffset.Parse(l.Split(';')[3], CultureInfo.InvariantCulture)).ToArray();
                    Assert.True(times.Order().SequenceEqual(times), told);
                }
            }
        }

        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Tell_of_what_ran_out_whenever_and_however_that_was_recorded()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "late" });
        await node.Post("/v1/segments", new { slug = "gone" });
        var ranOut = s_december.AddSeconds(-1);
        node.Clock.SetTo(s_december.AddHours(-1));
        foreach (var user in (string[])["swept-late", "renews", "leaves"])
        {
            await node.Put($"/v1/users/{user}/segments/late", $$"""{"expiresAt":"{{Rfc3339.Format(ranOut)}}"}""");
        }

        await node.Put("/v1/users/never-swept/segments/gone", $$"""{"expiresAt":"{{Rfc3339.Format(ranOut)}}"}""");
        await node.CatchUp();
        var late = (await node.Log())[0].Position;
        node.Clock.SetTo(s_december.AddSeconds(2));
        var (_, before) = await Make(node, "2026-11");

        // Decided while they held, recorded after they had run out and the month was over; and the sweeper comes later still.
        await Append("renews", new MembershipRenewed("late", late, TimeSpan.FromDays(1), null));
        await Append("leaves", new UserLeftSegment("late", late));
        node.Clock.Advance(TimeSpan.FromHours(3));
        await node.Delete("/v1/segments/gone");
        Assert.Equal(1, await node.Sweep());
        await node.Delete("/v1/reports/memberships-2026-11");
        var (_, after) = await Make(node, "2026-11");

        var lines = Lines(after).Where(l => l.Contains(";expired;", StringComparison.Ordinal));
        Assert.Equal(
            ((string[])["swept-late;late", "renews;late", "leaves;late", "never-swept;gone"]).Select(l => $"{l};expired;{Rfc3339.Format(ranOut)}").Order(StringComparer.Ordinal),
            lines.Order(StringComparer.Ordinal));
        Assert.Equal(before, after);
        Assert.Equal([$"renews;late;joined;{Rfc3339.Format(s_december.AddSeconds(2))}"], Lines((await Make(node, "2026-12")).Csv));
        foreach (var user in (string[])["swept-late", "renews", "leaves", "never-swept"])
        {
            Assert.Equal(Lines(after).Where(l => l.StartsWith($"{user};", StringComparison.Ordinal)), Lines((await Make(node, "2026-11", user)).Csv));
        }

        Assert.Empty(node.Errors);

        async Task Append(string user, object data)
        {
            Assert.Equal(
                AppendOutcome.Appended,
                (await node.Services.GetRequiredService<Appender>().Append(
                    new AppendRequest
                    {
                        TenantId = Requests.DefaultTenant, Appends = [new StreamAppend(User.StreamOf(user), User.StreamType, [data])],
                        Conditions = [new StreamCondition(User.StreamOf(user), 1)],
                    },
                    Cancellation)).Outcome);
            await node.CatchUp();
        }
    }

    [Fact]
    public async Task Of_a_month_that_is_over_are_made_once_and_have_the_same_bytes_for_ever()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "same" });
        await node.Put("/v1/users/u/segments/same", """{"ttl":"P3D"}""");
        node.Clock.SetTo(s_december.AddDays(5));

        var (first, csv) = await Make(node, "2026-11");
        await node.Sweep();
        await node.Put("/v1/users/u/segments/same", null);
        var again = (await Ask(node, "2026-11")).Is(HttpStatusCode.OK);
        Assert.Equal("/v1/reports/memberships-2026-11", again.Headers["Location"]);
        Assert.Equal(first.Json.GetProperty("requestedAt").GetString(), again.Json.GetProperty("requestedAt").GetString());

        // A file that is lost is made again, and so is a report that was deleted: with the same bytes, on any node.
        await using (var command = node.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand("delete from report_chunks"))
        {
            Assert.Equal(1, await command.ExecuteNonQueryAsync(Cancellation));
        }

        await node.Services.GetRequiredService<ReportMaker>().MakeAll(Cancellation);
        Assert.Equal(csv, (await WaitFor(node, "/v1/reports/memberships-2026-11")).Csv);
        (await node.Delete("/v1/reports/memberships-2026-11")).Is(HttpStatusCode.NoContent);
        (await node.GetAsIs("/v1/reports/memberships-2026-11")).IsProblem(404, "report-not-found");
        (await node.GetAsIs("/v1/reports/memberships-2026-11.csv")).IsProblem(404, "report-not-found");
        (await node.Delete("/v1/reports/memberships-2026-11")).IsProblem(404, "report-not-found");
        Assert.Empty((await node.Get("/v1/reports")).Items);
        (await Ask(node, "2026-11")).Is(HttpStatusCode.Created);
        await using var other = await node.StartBeside();
        var (remade, bytes) = await WaitFor(other, "/v1/reports/memberships-2026-11");
        Assert.Equal(csv, bytes);
        Assert.Equal(first.Json.GetProperty("position").GetInt64(), remade.Json.GetProperty("position").GetInt64());
        Assert.Equal($"u;same;expired;{Rfc3339.Format(TestClock.Start.AddDays(3))}", Lines(csv)[^1]);
    }

    [Fact]
    public async Task Are_so_many_and_no_more_of_a_tenant()
    {
        await using var node = await Node();
        var (made, _) = await Make(node, "2026-10");
        var database = node.Services.GetRequiredService<OwnerDatabase>().Source;
        await Add(Requests.DefaultTenant, "kept", RequestReport.MaxKept - 2, "ready");
        await Add("other", "others", 10, "ready"); // these don't count

        (await Ask(node, "2026-11", null, ("Idempotency-Key", "last"))).Is(HttpStatusCode.Created);

        Assert.Contains("delete some", (await Ask(node, "2026-11")).IsProblem(409, "too-many-reports").Text, StringComparison.Ordinal);
        Assert.True((await Ask(node, "2026-11", null, ("Idempotency-Key", "last"))).Is(HttpStatusCode.Created).Replayed);
        (await Ask(node, "2026-10")).Is(HttpStatusCode.OK);
        (await node.Delete(made.Json.GetProperty("url").GetString()!.Replace(".csv", "", StringComparison.Ordinal))).Is(HttpStatusCode.NoContent);
        (await Ask(node, "2026-10")).Is(HttpStatusCode.Created);

        await Execute("delete from reports where report_id like 'kept-%'");
        await Add(Requests.DefaultTenant, "waits", RequestReport.MaxWaiting, "pending");
        Assert.Contains("wait to be made", (await Ask(node, "2026-11")).IsProblem(409, "too-many-reports").Text, StringComparison.Ordinal);

        Task Add(string tenant, string id, int count, string status) => Execute(
            $"""
             insert into reports (tenant_id, report_id, kind, month, status, requested_position, requested_at, version)
             select '{tenant}', '{id}-' || i, 'memberships', '2026-01-01', '{status}', 1000000 + i, now(), 1 from generate_series(1, {count}) i
             """);

        async Task Execute(string sql)
        {
            await using var command = database.CreateCommand(sql);
            await command.ExecuteNonQueryAsync(Cancellation);
        }
    }

    [Fact]
    public async Task Are_made_of_tenants_in_turn()
    {
        await using var node = await Node();
        await using (var command = node.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand(
            """
            insert into reports (tenant_id, report_id, kind, month, status, requested_position, requested_at, version)
            select t, t || i, 'memberships', '2026-01-01', 'pending', p + i, now(), 1
            from (values ('a', 100), ('b', 200), ('c', 300)) v (t, p), generate_series(1, 2) i
            """))
        {
            await command.ExecuteNonQueryAsync(Cancellation);
        }

        var (turns, tenant, made) = (new List<string>(), "", new List<long>());
        while (await node.Services.GetRequiredService<ReportsReader>().Next(lost: false, tenant, made, Cancellation) is { } next)
        {
            tenant = next.TenantId;
            made.Add(next.Report.RequestedPosition);
            turns.Add(next.Report.Id);
        }

        Assert.Equal("a1 b1 c1 a2 b2 c2", string.Join(' ', turns));
    }

    [Fact]
    public async Task Whose_statements_take_too_long_are_given_up_and_do_not_hold_up_others()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "slow" });
        await node.Put("/v1/users/u/segments/slow", null);
        node.Clock.SetTo(s_december);
        await node.CatchUp();
        var database = node.Services.GetRequiredService<OwnerDatabase>().Source;
        await using (var holding = new NpgsqlConnection(node.Database))
        {
            // Only a report of all users reads this table. PostgreSQL cancels what waits for it.
            await holding.OpenAsync(Cancellation);
            await using var transaction = await holding.BeginTransactionAsync(Cancellation);
            await using var locking = new NpgsqlCommand("lock table ledger.membership_terms in access exclusive mode", holding);
            await locking.ExecuteNonQueryAsync(Cancellation);
            var slow = (await Ask(node, "2026-11")).Is(HttpStatusCode.Created).Headers["Location"];
            await Cancelled(1);

            await Make(node, "2026-11", "u");

            Assert.Equal("pending", await StatusOf(slow));
            await Patience.Until(
                async () =>
                {
                    await Cancelled(0);
                    return await StatusOf(slow) == "failed";
                },
                "the report is given up");
            Assert.Equal(ReportMaker.MaxAttempts, node.Errors.Count(e => e.Contains("could not be made", StringComparison.Ordinal)));
            await transaction.RollbackAsync(Cancellation);
        }

        Assert.Equal(["u;slow;joined;2026-11-20T12:00:00Z"], Lines((await Make(node, "2026-11")).Csv));

        // Cancels what waits for a lock, at least so many statements.
        async Task Cancelled(int atLeast) => await Patience.Until(
            async () =>
            {
                await using var command = database.CreateCommand(
                    "select count(pg_cancel_backend(pid)) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'");
                return (long)(await command.ExecuteScalarAsync(Cancellation))! >= atLeast;
            },
            "a statement waits");

        async Task<string?> StatusOf(string location) => (await node.GetAsIs(location)).Is(HttpStatusCode.OK).Json.GetProperty("status").GetString();
    }

    [Fact]
    public async Task Of_stays_that_run_out_read_those_of_the_time_and_of_segments_that_were_there()
    {
        const int AtOneInstant = StaysOfMonth.MaxStaysAtOnce + 10;
        await using var node = await Node();
        foreach (var slug in (string[])["ends", "gone-before", "gone-within"])
        {
            await node.Post("/v1/segments", new { slug });
        }

        var instant = s_december.AddHours(1);
        await node.Import("ends", string.Concat(Enumerable.Range(0, AtOneInstant).Select(i => $"u{i:00000},{Rfc3339.Format(instant)}\n")));
        await node.Put("/v1/users/next/segments/ends", $$"""{"expiresAt":"{{Rfc3339.Format(instant.AddMicroseconds(1))}}"}""");
        await node.Put("/v1/users/u/segments/gone-before", $$"""{"expiresAt":"{{Rfc3339.Format(instant)}}"}""");
        await node.Put("/v1/users/at/segments/gone-within", $$"""{"expiresAt":"{{Rfc3339.Format(instant)}}"}""");
        await node.Put("/v1/users/after/segments/gone-within", $$"""{"expiresAt":"{{Rfc3339.Format(instant.AddMicroseconds(1))}}"}""");
        await node.Delete("/v1/segments/gone-before");
        node.Clock.SetTo(instant);
        await node.Delete("/v1/segments/gone-within");
        var head = await node.CatchUp();
        var pages = new List<(string UserId, string Segment, DateTimeOffset ExpiresAt)[]>();

        await node.Services.GetRequiredService<StaysOfMonth>().RunOut(
            Requests.DefaultTenant, s_december, s_december.AddMonths(1), head,
            page =>
            {
                pages.Add([.. page]);
                return Task.CompletedTask;
            },
            Cancellation);

        Assert.Equal([StaysOfMonth.MaxStaysAtOnce, 10, 1, 1], pages.Select(p => p.Length)); // none of a segment that was gone by then
        Assert.Equal(AtOneInstant, pages[0].Concat(pages[1]).Where(s => s.ExpiresAt == instant).Select(s => s.UserId).Distinct().Count());
        Assert.Equal(("next", "ends", instant.AddMicroseconds(1)), pages[2][0]);
        Assert.Equal(("at", "gone-within", instant), pages[3][0]);
    }

    [Fact]
    public async Task Leave_no_file_when_they_are_deleted_whoever_dies_or_goes_away_meanwhile()
    {
        await using var node = await Node();
        var database = node.Services.GetRequiredService<OwnerDatabase>().Source;
        var (goes, stays) = ((await Ask(node, "2026-11")).Is(HttpStatusCode.Created), (await Ask(node, "2026-11")).Is(HttpStatusCode.Created));
        foreach (var asked in (Answer[])[goes, stays])
        {
            await WaitFor(node, asked.Headers["Location"]);
        }

        // Who deletes one goes away while the file is held by somebody.
        await using (var holding = await database.OpenConnectionAsync(Cancellation))
        await using (var transaction = await holding.BeginTransactionAsync(Cancellation))
        {
            await Execute(holding, "select 1 from report_chunks for update");
            using var gone = CancellationTokenSource.CreateLinkedTokenSource(Cancellation);
            var deleting = node.Client.DeleteAsync(new Uri(goes.Headers["Location"], UriKind.Relative), gone.Token);
            await Patience.Until(
                async () => await Count("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") > 0, "the file is being removed");
            await gone.CancelAsync();
            await Assert.ThrowsAnyAsync<OperationCanceledException>(() => deleting);
            await Task.Delay(TimeSpan.FromMilliseconds(500), Cancellation); // in which a node that minded would stop
            await transaction.RollbackAsync(Cancellation);
        }

        (await node.GetAsIs(goes.Headers["Location"])).IsProblem(404, "report-not-found");
        await Patience.Until(async () => await Count($"select count(*) from report_chunks where requested_position = {goes.Position}") == 0, "the file is removed");

        // A node died: there are pieces of one that is deleted, and of one that the view may not have heard of yet.
        var head = await node.CatchUp();
        await using (var writing = await database.OpenConnectionAsync(Cancellation))
        {
            await Execute(
                writing,
                $"insert into report_chunks select '{Requests.DefaultTenant}', p, n, ''::bytea from unnest(array[{goes.Position}, {head + 1_000}]) p, generate_series(0, 2) n");
        }

        Assert.Equal(1, await node.Services.GetRequiredService<ReportMaker>().RemoveStrays(Cancellation));
        Assert.Equal(0, await node.Services.GetRequiredService<ReportMaker>().RemoveStrays(Cancellation));
        Assert.Equal(0, await Count($"select count(*) from report_chunks where requested_position = {goes.Position}"));
        Assert.Equal(3, await Count($"select count(*) from report_chunks where requested_position = {head + 1_000}"));
        (await node.GetAsIs($"{stays.Headers["Location"]}.csv")).Is(HttpStatusCode.OK);

        async Task<long> Count(string sql)
        {
            await using var command = database.CreateCommand(sql);
            return (long)(await command.ExecuteScalarAsync(Cancellation))!;
        }

        static async Task Execute(NpgsqlConnection connection, string sql)
        {
            await using var command = new NpgsqlCommand(sql, connection);
            await command.ExecuteNonQueryAsync(Cancellation);
        }
    }

    [Theory]
    [InlineData(0.01)]
    [InlineData(5)]
    [InlineData(24 * 40)] // in another month
    public async Task Of_the_month_under_way_have_the_same_bytes_however_late_an_expiry_was_recorded(double hours)
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "open" });
        await node.Put("/v1/users/u/segments/open", """{"ttl":"PT1H"}""");
        node.Clock.Advance(TimeSpan.FromHours(2));
        var (made, csv) = await Make(node, "2026-11");
        node.Clock.Advance(TimeSpan.FromHours(hours));
        await node.Sweep();
        await node.CatchUp();
        await using (var command = node.Services.GetRequiredService<OwnerDatabase>().Source.CreateCommand("delete from report_chunks"))
        {
            Assert.Equal(1, await command.ExecuteNonQueryAsync(Cancellation));
        }

        await node.Services.GetRequiredService<ReportMaker>().MakeAll(Cancellation);

        Assert.Equal("u;open;expired;2026-11-20T13:00:00Z", Lines(csv)[^1]);
        Assert.Equal(csv, (await node.GetAsIs(made.Json.GetProperty("url").GetString()!)).Is(HttpStatusCode.OK).Text);
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task Of_the_month_under_way_are_cut_at_their_request()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "open" });
        await node.Put("/v1/users/u/segments/open", """{"ttl":"PT1H"}""");
        node.Clock.Advance(TimeSpan.FromHours(1));
        var head = await node.CatchUp();

        var (first, csv) = await Make(node, "2026-11");
        node.Clock.Advance(TimeSpan.FromHours(1));
        await node.Put("/v1/users/v/segments/open", null);
        var (second, more) = await Make(node, "2026-11", "u");

        Assert.Equal(head, first.Json.GetProperty("position").GetInt64());
        Assert.Equal(["u;open;joined;2026-11-20T12:00:00Z", "u;open;expired;2026-11-20T13:00:00Z"], Lines(csv));
        Assert.Equal(Lines(csv), Lines(more));
        Assert.NotEqual(first.Json.GetProperty("reportId").GetString(), second.Json.GetProperty("reportId").GetString());
        Assert.Equal(csv, (await node.GetAsIs(first.Json.GetProperty("url").GetString()!)).Text);
        Assert.Equal([second.Json.GetProperty("reportId").GetString()!, first.Json.GetProperty("reportId").GetString()!], (await node.Get("/v1/reports")).Each("reportId"));
        Assert.Single((await node.Get("/v1/reports?limit=1")).Items);
        Assert.StartsWith("reportId,kind,month,", (await node.Get("/v1/reports", ("Accept", "text/csv"))).Text, StringComparison.Ordinal);
        var keyed = (await Ask(node, "2026-11", null, ("Idempotency-Key", "once"))).Is(HttpStatusCode.Created);
        var replayed = (await Ask(node, "2026-11", null, ("Idempotency-Key", "once"))).Is(HttpStatusCode.Created);
        Assert.Equal((true, keyed.Headers["Location"]), (replayed.Replayed, replayed.Headers["Location"]));
        (await node.Delete(keyed.Headers["Location"], ("If-Match", "\"7\""))).IsProblem(412, "precondition-failed");
    }

    [Fact]
    public async Task Of_thousands_of_lines_come_in_pieces()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "large" });
        await node.Import("large", string.Concat(Enumerable.Range(0, 8_000).Select(i => $"user-number-{i:00000}\n")));
        node.Clock.Advance(TimeSpan.FromHours(1));
        await node.Delete("/v1/segments/large");
        node.Clock.SetTo(s_december);

        var (report, csv) = await Make(node, "2026-11");

        Assert.True(report.Json.GetProperty("bytes").GetInt64() > 2 * ReportFiles.ChunkBytes);
        // Those of one instant are in the order in which they were recorded: an import stores several chunks at once.
        Assert.Equal(
            Enumerable.Range(0, 8_000).Select(i => $"user-number-{i:00000};large;joined;2026-11-20T12:00:00Z"),
            Lines(csv)[..8_000].Order(StringComparer.Ordinal));
        Assert.Equal(
            Enumerable.Range(0, 8_000).Select(i => $"user-number-{i:00000};large;segment-deleted;2026-11-20T13:00:00Z"), Lines(csv)[8_000..]);
    }

    [Fact]
    public async Task Are_made_by_another_node_when_the_first_one_stops_in_the_midst()
    {
        var first = await Node();
        await first.Post("/v1/segments", new { slug = "other" });
        await first.Put("/v1/users/u/segments/other", null);
        await first.CatchUp();
        // A view that stands still holds the making up.
        (await first.Post("/v1/projections/History/pause", null)).Is(HttpStatusCode.Accepted);
        await first.Put("/v1/users/v/segments/other", null);
        first.Clock.SetTo(s_december);
        (await Ask(first, "2026-11")).Is(HttpStatusCode.Created);
        var second = await first.StartBeside();
        await first.DisposeAsync();
        await using (second)
        {
            Assert.Equal("pending", (await second.GetAsIs("/v1/reports/memberships-2026-11")).Json.GetProperty("status").GetString());
            Assert.Equal("1", (await second.GetAsIs("/v1/reports/memberships-2026-11.csv")).IsProblem(503, "report-not-ready").Headers["Retry-After"]);
            (await second.Post("/v1/projections/History/resume", null)).Is(HttpStatusCode.Accepted);
            var (_, csv) = await WaitFor(second, "/v1/reports/memberships-2026-11");
            Assert.Equal(["u;other;joined;2026-11-20T12:00:00Z", "v;other;joined;2026-11-20T12:00:00Z"], Lines(csv));
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData(".csv")]
    public async Task Are_answered_when_the_log_has_reached_the_position_asked_for(string suffix)
    {
        await using var node = await Node();
        var (report, _) = await Make(node, "2026-10");
        var path = $"/v1/reports/{report.Json.GetProperty("reportId").GetString()}{suffix}";
        var head = (await node.GetAsIs(path)).Is(HttpStatusCode.OK).Position!.Value;
        (string, string) next = ("Ledger-Min-Position", $"{head + 1}");

        (await node.GetAsIs(path, next, ("Prefer", "wait=0"))).IsProblem(503, "view-behind");
        var waiting = node.GetAsIs(path, next, ("Prefer", "wait=30"));
        await node.Post("/v1/segments", new { slug = "next" });

        Assert.Equal(head + 1, (await waiting).Is(HttpStatusCode.OK).Position);
        Assert.Equal(["Ledger-Min-Position"], (await node.GetAsIs(path, ("Ledger-Min-Position", "-1"))).IsProblem(400, "invalid-request").Fields);
        Assert.Empty(node.Errors);
    }

    [Fact]
    public async Task That_were_made_before_apostrophes_were_marked_are_made_again_as_they_were()
    {
        await using var node = await Node();
        var files = node.Services.GetRequiredService<ReportFiles>();
        const long position = 1_000_000;
        var before = Encoding.UTF8.GetBytes($"{Header}'=1+1;csv;joined;2026-11-20T12:00:00Z\r\n");
        var sha256 = Convert.ToHexStringLower(SHA256.HashData(before));

        var written = await files.Write(Ledger.Requests.DefaultTenant, position, OneLine(), sha256, Cancellation);

        Assert.Equal((1L, (long)before.Length, sha256), written);
        Assert.Equal(before, await files.Read(Ledger.Requests.DefaultTenant, position, 0, Cancellation));
        await Assert.ThrowsAsync<InvalidOperationException>(() => files.Write(Ledger.Requests.DefaultTenant, position, OneLine(), new string('0', 64), Cancellation));

        static async IAsyncEnumerable<ReportLine> OneLine()
        {
            await Task.Yield();
            yield return new ReportLine("'=1+1", "csv", ReportLine.Joined, TestClock.Start);
        }
    }

    [Fact]
    public async Task Are_no_formula_to_any_spreadsheet()
    {
        await using var node = await Node();
        await node.Post("/v1/segments", new { slug = "csv" });
        string[] users = ["=1+1", "+1", "-1", "@x", "'=1+1", "a;b", "q\"q", "plain"];
        foreach (var user in users)
        {
            await node.Put($"/v1/users/{Uri.EscapeDataString(user)}/segments/csv", null);
        }

        node.Clock.SetTo(s_december);
        var cells = Lines((await Make(node, "2026-11")).Csv).Select(l => l[..l.IndexOf(";csv;", StringComparison.Ordinal)]);

        Assert.Equal(((string[])["'=1+1", "'+1", "'-1", "'@x", "''=1+1", "\"a;b\"", "\"q\"\"q\"", "plain"]), cells);
        Assert.Equal("'=1+1;csv;joined;2026-11-20T12:00:00Z", Assert.Single(Lines((await Make(node, "2026-11", "=1+1")).Csv)));
    }

    [Theory]
    [InlineData("""{"kind":"members","month":"2026-11"}""", "kind")]
    [InlineData("""{"kind":"memberships","month":"2026-13"}""", "month")]
    [InlineData("""{"kind":"memberships","month":"2026-1"}""", "month")]
    [InlineData("""{"kind":"memberships","month":"1969-12"}""", "month")]
    [InlineData("""{"kind":"memberships","month":"2026-12"}""", "month")]
    [InlineData("""{"kind":"memberships","month":"2026-11","userId":" "}""", "userId")]
    [InlineData("""{"kind":"memberships"}""", "month")]
    public async Task Are_refused_for_what_is_wrong(string body, string field)
    {
        await using var node = await Node();

        Assert.Equal([field], (await node.Post("/v1/reports", body)).IsProblem(400, "invalid-request").Fields);
        (await node.GetAsIs("/v1/reports/none")).IsProblem(404, "report-not-found");
        (await node.Post("/v1/reports", """{"kind":"memberships","month":"1970-01"}""")).Is(HttpStatusCode.Created);
    }
}

public sealed class Deciding_on_a_report
{
    private static readonly RequestReport s_request = new("memberships", "2026-10");

    [Fact]
    public void Asks_for_it_once() => s_request.Decide(Folded(s_october)).Then();

    [Fact]
    public void Asks_again_when_it_was_deleted_or_could_not_be_made()
    {
        s_request.Decide(Report.Initial("r")).Then(new ReportRequested("memberships", "2026-10", null));
        s_request.Decide(Folded(s_october, new ReportDeleted())).Then(new ReportRequested("memberships", "2026-10", null));
        s_request.Decide(Folded(s_october, new ReportFailed("why"))).Then(new ReportRequested("memberships", "2026-10", null));
        s_request.Decide(Folded(s_october, new ReportCompleted(1, 2, 3, "s"))).Then();
    }

    [Fact]
    public void Deletes_what_is_there()
    {
        DeleteReport.Decide(Folded(s_october)).Then(new ReportDeleted());
        DeleteReport.Decide(Folded(s_october, new ReportDeleted())).ThenRefused("report-not-found");
    }

    [Fact]
    public void Knows_whether_the_month_was_over()
    {
        Assert.True(Folded(s_october).IsOfClosedMonth);
        var open = Folded(new ReportRequested("memberships", "2026-11", null));
        Assert.False(open.IsOfClosedMonth);
        Assert.Equal(open.RequestedAt.AddMicroseconds(1), open.Until);
        Assert.Throws<InvalidOperationException>(() => Folded(new UserLeftSegment("s", 1)));
    }

    private static readonly ReportRequested s_october = new("memberships", "2026-10", null);

    private static Report Folded(params object[] events) => Given.Stream("report-r", events).Aggregate(Report.Initial("r"), Report.Evolve);
}
