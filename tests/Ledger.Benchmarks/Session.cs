using System.Diagnostics;
using System.Globalization;
using System.Net.Http.Json;
using System.Text.Json;
using Ledger.Segments;
using Ledger.Users;
using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>
/// A day in the life, as a real process on a private cluster of its own: a large import, single joins with a <c>kill -9</c> of
/// service and PostgreSQL in their midst, roll-out, expiry, deletion, rebuild. Every step says PASS or FAIL.
/// </summary>
internal sealed class Session : CrashSession
{
    private const int DefaultImport = 1_000_000;
    private const int Sample = 2_000;
    private static readonly string[] Tables = ["users", "segments", "rollouts", "memberships", "past_memberships", "membership_terms", "segment_size_changes"];
    private static readonly TimeSpan ImportLimit = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan RolloutLimit = TimeSpan.FromSeconds(1);

    private readonly int _imported;
    private readonly Join[] _joins;

    private Session(int imported, CancellationToken stopping)
        : base(stopping)
    {
        _imported = imported;
        _joins = [.. Enumerable.Range(0, Math.Max(Connections, imported / 10)).Select(n => new Join(UserIds.Numbered(imported + n), $"session-{n}"))];
    }

    /// <summary>A single join: its key, and the position that the answer named, once there was one.</summary>
    private sealed record Join(string User, string Key)
    {
        public long Position { get; set; }
    }

    /// <summary>Runs all steps; false when one of them failed.</summary>
    public static async Task<bool> Run(BenchOptions options)
    {
        await using var session = new Session(options.Events ?? DefaultImport, options.Stopping);
        return await session.Run();
    }

    protected override async Task RunSteps()
    {
        await Step("start on an empty folder", Start);
        await Step("create segments", CreateSegments);
        await Step($"import {_imported} user ids from a CSV", Import, ImportLimit);
        await Step("sizes are exact", () => ExpectMembers("IMPORTED", _imported));
        await Step("a second import of the same file adds nothing", ImportAgain);
        await Step($"raise a roll-out from 10 % to 50 %, seen by {Sample} users", RaiseRollout, RolloutLimit + TimeSpan.FromSeconds(30));
        await Step($"join {_joins.Length} users one by one, kill -9 in the middle", JoinAndKill);
        await Step("start again after the crash", Start);
        await Step("send again what was not acknowledged, with the same keys", SendAgain);
        await Step("every acknowledged join is there exactly once", ExpectEachJoinOnce);
        await Step("sizes are exact", async () =>
        {
            await ExpectMembers("IMPORTED", _imported);
            await ExpectMembers("JOINED", _joins.Length);
        });
        await Step("leave, renew and expire", LeaveAndExpire);
        await Step("delete a segment", Delete);
        await Step("all views equal a rebuild, row for row", () => RebuildAll(Tables));
        await Step("sizes are exact", () => ExpectMembers("JOINED", _joins.Length));
    }

    private async Task CreateSegments()
    {
        await Send(HttpMethod.Post, "/v1/segments", new { slug = "IMPORTED" });
        await Send(HttpMethod.Post, "/v1/segments", new { slug = "JOINED" });
        await Send(HttpMethod.Post, "/v1/segments", new { slug = "SHORT" });
        await Send(HttpMethod.Post, "/v1/segments", new { slug = "ROLLOUT", rolloutPercent = "10" });
    }

    private byte[] File() => ImportScenario.Csv(Enumerable.Range(0, _imported).Select(n => UserIds.Numbered(n)));

    private async Task Import()
    {
        var receipt = await ImportScenario.Import(Http, "IMPORTED", File());
        Expect(receipt is { Renewed: 0, AlreadyMembers: 0, Rejected: 0 } && receipt.Received == _imported && receipt.Joined == _imported, $"The receipt does not balance: {receipt}");
    }

    private async Task ImportAgain()
    {
        var receipt = await ImportScenario.Import(Http, "IMPORTED", File());
        Expect(receipt.Received == _imported && receipt.AlreadyMembers == _imported, $"The receipt does not balance: {receipt}");
    }

    /// <summary>
    /// The change is visible when the first answer shows it: it is one row, whoever it is about. Then each user of the sample is asked,
    /// which takes as long as so many requests take.
    /// </summary>
    private async Task RaiseRollout()
    {
        var before = await InRollout("", 10);
        var taken = Enumerable.Range(0, _imported).Select(n => UserIds.Numbered(n)).First(user => !Rollout.Includes(10, Rollout.BucketOf("ROLLOUT", user)) && Rollout.Includes(50, Rollout.BucketOf("ROLLOUT", user)));
        var started = Stopwatch.GetTimestamp();
        var position = await Send(HttpMethod.Patch, "/v1/segments/ROLLOUT", new { rolloutPercent = "50" });
        using var request = new HttpRequestMessage(HttpMethod.Get, $"/v1/users/{taken}/segments") { Headers = { { "Ledger-Min-Position", $"{position}" } } };
        using var answer = await Http.SendAsync(request);
        var visible = Stopwatch.GetElapsedTime(started);
        Expect((await answer.Content.ReadAsStringAsync()).Contains("\"ROLLOUT\"", StringComparison.Ordinal), $"{taken} is not in the roll-out of 50 %.");
        var after = await InRollout($"{position}", 50);
        Console.WriteLine(string.Create(
            CultureInfo.InvariantCulture,
            $"      visible {visible.TotalSeconds:0.00} s after it was asked for; {before * 100.0 / Sample:0.0} % of the sample in before, {after * 100.0 / Sample:0.0} % after"));
        Expect(visible <= RolloutLimit, $"It took {visible.TotalSeconds:0.00} s to be visible.");
    }

    /// <summary>How many of the sample are in the roll-out; fails when one is in that should not, or the other way round.</summary>
    private async Task<int> InRollout(string minPosition, decimal percent)
    {
        var step = Math.Max(1, _imported / Sample);
        var counts = await OverConnections(Enumerable.Range(0, Sample), async (connection, n) =>
        {
            var user = UserIds.Numbered(n * step);
            var answer = await connection.Send(HttpConnection.Request(
                "GET", $"/v1/users/{user}/segments", null, minPosition.Length == 0 ? [] : [("Ledger-Min-Position", minPosition)]));
            var isIn = answer.Text.Contains("\"ROLLOUT\"", StringComparison.Ordinal);
            Expect(answer.Status == 200 && isIn == Rollout.Includes(percent, Rollout.BucketOf("ROLLOUT", user)), $"{user} at {percent} %: {answer.Status} {answer.Text}");
            return isIn;
        });
        return counts.Count(isIn => isIn);
    }

    private async Task JoinAndKill()
    {
        var acknowledged = await SendAndKill(_joins, Send);
        Console.WriteLine($"      {acknowledged} were acknowledged");
    }

    private async Task SendAgain()
    {
        var replayed = await OverConnections(_joins.Where(j => j.Position == 0), Send);
        Console.WriteLine($"      {replayed.Length} sent, {replayed.Count(r => r)} of them had been stored before the crash");
    }

    /// <summary>Sends a join and notes the position it was answered with; returns whether it was a repeat.</summary>
    private static async Task<bool> Send(HttpConnection connection, Join join)
    {
        var answer = await connection.Send(HttpConnection.Request(
            "POST", $"/v1/users/{join.User}/segments", """{"join":[{"segment":"JOINED"}]}""", ("Idempotency-Key", join.Key)));
        Expect(answer.Status == 200 && answer.Position > 0, $"{join.User}: {answer.Status} {answer.Text}");
        join.Position = answer.Position;
        return answer.Replayed;
    }

    /// <summary>The event at the position that the answer named has the key's id and the user's stream, and there is no other.</summary>
    private async Task ExpectEachJoinOnce()
    {
        await using var command = Database.CreateCommand(
            """
            select count(*) filter (where e.seq_id = k.position and e.stream_id = k.stream_id and e.type = 'user_joined_segment'),
                   (select count(*) from mt_events j where j.type = 'user_joined_segment' and j.data ->> 'segment' = 'JOINED'),
                   (select count(*) from mt_events), (select max(seq_id) from mt_events)
            from unnest($1, $2, $3) k (id, position, stream_id) join mt_events e on e.id = k.id
            """);
        command.CommandTimeout = 0;
        command.Parameters.Add(new NpgsqlParameter<Guid[]> { TypedValue = Array.ConvertAll(_joins, j => EventStore.EventId.From(Requests.DefaultTenant, "command", j.Key)) });
        command.Parameters.Add(new NpgsqlParameter<long[]> { TypedValue = Array.ConvertAll(_joins, j => j.Position) });
        command.Parameters.Add(new NpgsqlParameter<string[]> { TypedValue = Array.ConvertAll(_joins, j => User.StreamOf(j.User)) });
        await using var reader = await command.ExecuteReaderAsync();
        await reader.ReadAsync();
        Expect(
            reader.GetInt64(0) == _joins.Length && reader.GetInt64(1) == _joins.Length && reader.GetInt64(2) == reader.GetInt64(3),
            $"Of {_joins.Length} joins {reader.GetInt64(0)} are where they were acknowledged and {reader.GetInt64(1)} are stored; {reader.GetInt64(2)} events up to position {reader.GetInt64(3)}.");
    }

    /// <summary>Some leave, some stay for a second and expire, some of those are renewed: rows of every table of the views.</summary>
    private async Task LeaveAndExpire()
    {
        var users = Enumerable.Range(0, 300).Select(n => UserIds.Numbered(n)).ToArray();
        await OverConnections(users.Select((user, n) => (User: user, Kind: n % 3)), async (connection, u) =>
        {
            await Command(connection, "PUT", u.User, """{"ttl":"PT3S"}""");
            if (u.Kind == 1)
            {
                await Command(connection, "PUT", u.User, """{"ttl":null}""");
            }
            else if (u.Kind == 2)
            {
                await Command(connection, "DELETE", u.User, null);
            }

            return true;
        });
        var swept = Stopwatch.GetTimestamp();
        while (await Database.Scalar<long>("select count(*) from mt_events where type = 'membership_expired'") < 100 && Stopwatch.GetElapsedTime(swept) < TimeSpan.FromSeconds(30))
        {
            await Task.Delay(100);
        }

        await ExpectMembers("SHORT", 100);
        var past = await Database.Scalar<string>("select string_agg(end_reason || ' ' || n, ', ' order by end_reason) from (select end_reason, count(*) n from past_memberships group by 1) p");
        Expect(past == "expired 100, left 100", $"The past holds {past}.");

        async Task Command(HttpConnection connection, string method, string user, string? json)
        {
            var answer = await connection.Send(HttpConnection.Request(method, $"/v1/users/{user}/segments/SHORT", json));
            Expect(answer.Status is 200 or 204, $"{method} {user}: {answer.Status} {answer.Text}");
        }
    }

    private async Task Delete()
    {
        var before = DateTimeOffset.UtcNow;
        await Send(HttpMethod.Delete, "/v1/segments/IMPORTED", null);
        await WaitForViews();
        var counts = await Counts("");
        Expect(!counts.ContainsKey("IMPORTED"), "It is counted still.");
        Expect((await Counts($"?at={before:yyyy-MM-ddTHH:mm:ss.ffffffZ}")).GetValueOrDefault("IMPORTED") == _imported, "Its size before that instant has changed.");
        var user = await Http.GetStringAsync($"/v1/users/{UserIds.Numbered(0)}/segments");
        Expect(!user.Contains("IMPORTED", StringComparison.Ordinal), $"A user is in it still: {user}");
    }

    private async Task ExpectMembers(string segment, long members)
    {
        await WaitForViews();
        var counted = (await Counts("")).GetValueOrDefault(segment);
        var listed = await Database.Scalar<long>(
            $"select count(*) from memberships m join segments s using (tenant_id, segment_id) where s.slug = '{segment}' and s.deleted_at is null and (m.expires_at is null or m.expires_at > now())");
        Expect(counted == members && listed == members, $"{segment} counts {counted} and lists {listed} members, not {members}.");
    }

    private async Task<Dictionary<string, long>> Counts(string query)
    {
        var counts = await Http.GetFromJsonAsync<JsonElement>($"/v1/segments/counts{query}");
        return counts.GetProperty("items").EnumerateArray().ToDictionary(i => i.GetProperty("segment").GetString()!, i => i.GetProperty("members").GetInt64());
    }
}
