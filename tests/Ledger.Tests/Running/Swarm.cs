using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using Npgsql;

namespace Ledger.Tests.Running;

/// <summary>An event as it is stored.</summary>
internal sealed record LoggedEvent(long Position, string Stream, long Version, string What);

/// <summary>
/// Clients that join, leave and record calls, each one command at a time. Whatever is not answered with success is sent again,
/// with the same key, to whichever node comes next. So when they have stopped, every command of theirs was acknowledged, and
/// they know what must be in the log: every command once, those of a user in their order, and nothing else.
/// </summary>
internal sealed class Swarm : IDisposable
{
    public const string Service = "model-a";
    private const string Brief = "brief";
    private const decimal PricePerCall = 0.0015m;
    private const decimal PricePerToken = 0.15m / 1_000_000;

    /// <summary>After this a node that does not answer is given up.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(4);

    private static readonly string[] s_segments = ["s0", "s1", "s2", "s3", "s4"];
    private readonly HttpClient _http = new(new SocketsHttpHandler { ConnectTimeout = TimeSpan.FromSeconds(2) }) { Timeout = Timeout.InfiniteTimeSpan };
    private readonly Func<IReadOnlyList<Uri>> _nodes;
    private readonly int _seed;
    private readonly ConcurrentDictionary<string, List<string>> _streams = new();
    private readonly ConcurrentDictionary<string, HashSet<string>> _members = new();
    private readonly ConcurrentDictionary<string, decimal> _calls = new();
    private readonly ConcurrentQueue<(string Stream, string What, long Position)> _acknowledged = new();
    private readonly ConcurrentQueue<string> _unexpected = new();
    private readonly ConcurrentDictionary<string, int> _refusals = new();
    private Task[] _clients = [];
    private volatile bool _stopping;
    private int _commands;

    private Swarm(Func<IReadOnlyList<Uri>> nodes, int seed) => (_nodes, _seed) = (nodes, seed);

    /// <summary>Commands acknowledged so far.</summary>
    public int Commands => Volatile.Read(ref _commands);

    /// <summary>How often a command was not answered with success, by what was answered instead.</summary>
    public IReadOnlyDictionary<string, int> Refusals => _refusals;

    /// <summary>Creates what the clients need, and lets them begin.</summary>
    public static async Task<Swarm> Start(Func<IReadOnlyList<Uri>> nodes, int seed, int clients = 6)
    {
        var swarm = new Swarm(nodes, seed);
        var chance = new Random(seed);
        foreach (var slug in s_segments.Append(Brief))
        {
            await swarm.Send(chance, HttpMethod.Post, "/v1/segments", new { slug }, $"segment-{slug}");
        }

        await swarm.Send(chance, HttpMethod.Post, "/v1/services", new { serviceId = Service, title = Service }, "service");
        await swarm.Send(
            chance, HttpMethod.Post, $"/v1/services/{Service}/prices",
            new
            {
                effectiveFrom = "2020-01-01T00:00:00Z", currency = "USD",
                components = new object[] { new { unit = "call", price = "0.0015" }, new { unit = "inputToken", price = "0.15", per = 1_000_000 } },
            }, "price");
        swarm._clients = [.. Enumerable.Range(0, clients).Select(i => Task.Run(() => swarm.Work(i)))];
        return swarm;
    }

    /// <summary>Whether nothing is acknowledged for a while.</summary>
    public async Task<bool> IsStill(TimeSpan time)
    {
        var before = Commands;
        await Task.Delay(time);
        return Commands == before;
    }

    /// <summary>Returns when the clients have been acknowledged so many commands more.</summary>
    public async Task Acknowledges(int more)
    {
        var enough = Commands + more;
        var clock = Stopwatch.StartNew();
        while (Commands < enough)
        {
            Assert.False(_clients.Any(c => c.IsFaulted), $"{_clients.FirstOrDefault(c => c.IsFaulted)?.Exception}");
            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(90), $"{Commands} of {enough} commands were acknowledged. {Summary()}");
            await Task.Delay(20, TestContext.Current.CancellationToken);
        }
    }

    /// <summary>Lets each client finish its command, and says what they saw.</summary>
    public async Task Stop()
    {
        _stopping = true;
        await Task.WhenAll(_clients);
        TestContext.Current.TestOutputHelper?.WriteLine(Summary());
    }

    public string Summary() =>
        $"{Commands} commands acknowledged; not at first: {string.Join(", ", _refusals.OrderBy(r => r.Key).Select(r => $"{r.Value} {r.Key}"))}";

    public void Dispose() => _http.Dispose();

    /// <summary>Reads the log from the database, once all that was to expire is in it.</summary>
    public async Task<IReadOnlyList<LoggedEvent>> ReadLog(string database)
    {
        var expiries = _streams.Values.Count(s => s.Contains($"membership_expired {Brief}"));
        var clock = Stopwatch.StartNew();
        while (true)
        {
            var log = await Read(database);
            if (log.Count(e => e.What.StartsWith("membership_expired", StringComparison.Ordinal)) >= expiries)
            {
                return log;
            }

            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(60), $"{expiries} memberships should have expired.");
            await Task.Delay(200, TestContext.Current.CancellationToken);
        }
    }

    /// <summary>What is wrong with a log; nothing when every acknowledged command is in it once, where it was said to be.</summary>
    public IReadOnlyList<string> FaultsOf(IReadOnlyList<LoggedEvent> log)
    {
        var faults = new List<string>(_unexpected);
        faults.AddRange(log.Where((e, i) => e.Position != i + 1).Take(1).Select(e => $"Position {e.Position} is not where it belongs."));
        var stored = log.GroupBy(e => e.Stream).ToDictionary(g => g.Key, g => g.ToArray());
        faults.AddRange(stored.Where(s => s.Value.Where((e, i) => e.Version != i + 1).Any()).Select(s => $"The versions of {s.Key} are not 1, 2, 3 and so on."));
        foreach (var stream in _streams.Keys.Union(stored.Keys.Where(k => k.StartsWith("user-", StringComparison.Ordinal))))
        {
            string[] expected = [.. _streams.GetValueOrDefault(stream, [])];
            string[] found = [.. stored.GetValueOrDefault(stream, []).Select(e => e.What)];
            if (!expected.SequenceEqual(found))
            {
                faults.Add($"{stream} should be [{string.Join(", ", expected)}] and is [{string.Join(", ", found)}].");
            }
        }

        var calls = log.Where(e => e.Stream.StartsWith("usage-", StringComparison.Ordinal)).Select(e => e.What).ToArray();
        var expectedCalls = _calls.Select(c => Recorded(c.Key, c.Value)).ToHashSet();
        faults.AddRange(expectedCalls.Except(calls).Select(c => $"The log lacks {c}."));
        faults.AddRange(calls.Where(c => !expectedCalls.Contains(c)).Select(c => $"Nobody sent {c}."));
        faults.AddRange(calls.GroupBy(c => c).Where(g => g.Count() > 1).Select(g => $"{g.Key} is there {g.Count()} times."));
        foreach (var (stream, what, position) in _acknowledged)
        {
            var found = position >= 1 && position <= log.Count ? log[(int)position - 1] : null;
            if (found?.What != what || !found.Stream.StartsWith(stream, StringComparison.Ordinal))
            {
                faults.Add($"{what} of {stream} was acknowledged at position {position}, where there is {found?.What} of {found?.Stream}.");
            }
        }

        return faults;
    }

    /// <summary>Logs that are wrong in a way each; <see cref="FaultsOf"/> must see it.</summary>
    public static IEnumerable<(string How, IReadOnlyList<LoggedEvent> Log)> Spoiled(IReadOnlyList<LoggedEvent> log, Random chance)
    {
        foreach (var kind in (string[])["user_joined_segment s", "user_left_segment", "call_recorded", "membership_expired"])
        {
            var of = log.Where(e => e.What.StartsWith(kind, StringComparison.Ordinal)).ToArray();
            var one = of[chance.Next(of.Length)];
            var at = (int)one.Position - 1;
            // As if it had never been stored: all that follows moves up, in the log and in its stream.
            yield return ($"{one} is lost", [.. log.Take(at), .. log.Skip(at + 1).Select(e => e with
            {
                Position = e.Position - 1, Version = e.Stream == one.Stream ? e.Version - 1 : e.Version,
            })]);
            yield return ($"{one} is there twice", [.. log, one with { Position = log.Count + 1, Version = log.Count(e => e.Stream == one.Stream) + 1 }]);
            yield return ($"{one} is another", [.. log.Take(at), one with { What = one.What + "0" }, .. log.Skip(at + 1)]);
        }
    }

    /// <summary>Asks a node for what the clients know: who is in what, and what all calls cost.</summary>
    public async Task AssertAnswers(HttpClient node, long position)
    {
        foreach (var (user, segments) in _members)
        {
            var answer = await Get($"/v1/users/{user}/segments");
            Assert.Equal(segments.Order(), answer.GetProperty("segments").EnumerateArray().Select(s => s.GetProperty("segment").GetString()).Order());
        }

        var total = (await Get($"/v1/usage/totals?service={Service}")).GetProperty("total");
        Assert.Equal(_calls.Count, total.GetProperty("calls").GetInt32());
        Assert.Equal(_calls.Values.Sum(), decimal.Parse(total.GetProperty("amounts").GetProperty("USD").GetString()!, CultureInfo.InvariantCulture));

        async Task<JsonElement> Get(string path)
        {
            using var request = new HttpRequestMessage(HttpMethod.Get, path);
            request.Headers.Add("Ledger-Min-Position", $"{position}");
            request.Headers.Add("Prefer", "wait=30");
            using var response = await node.SendAsync(request, TestContext.Current.CancellationToken);
            var text = await response.Content.ReadAsStringAsync(TestContext.Current.CancellationToken);
            Assert.True(response.IsSuccessStatusCode, text);
            return JsonElement.Parse(text);
        }
    }

    private static async Task<IReadOnlyList<LoggedEvent>> Read(string database)
    {
        await using var connection = new NpgsqlConnection(database + ";Pooling=false");
        await connection.OpenAsync(TestContext.Current.CancellationToken);
        await using var command = new NpgsqlCommand(
            """
            select seq_id, stream_id, version,
                   case type when 'call_recorded' then concat_ws(' ', type, data ->> 'callId', (data ->> 'amount')::numeric::text)
                   else concat_ws(' ', type, data ->> 'segment') end
            from ledger.mt_events order by seq_id
            """, connection) { CommandTimeout = 60 };
        await using var reader = await command.ExecuteReaderAsync(TestContext.Current.CancellationToken);
        var log = new List<LoggedEvent>();
        while (await reader.ReadAsync(TestContext.Current.CancellationToken))
        {
            log.Add(new LoggedEvent(reader.GetInt64(0), reader.GetString(1), reader.GetInt64(2), reader.GetString(3)));
        }

        return log;
    }

    private static string Recorded(string id, decimal amount) => string.Create(CultureInfo.InvariantCulture, $"call_recorded {id} {amount / 1.0000000000000000000000000000m}");

    private async Task Work(int client)
    {
        var chance = new Random(_seed + 1 + client);
        for (var number = 0; !_stopping; number++)
        {
            switch (chance.Next(10))
            {
                case 0:
                    await JoinBriefly(chance, client, number);
                    break;
                case < 4:
                    await Record(chance, client, number);
                    break;
                default:
                    await Change(chance, client, number);
                    break;
            }

            await Task.Delay(chance.Next(10)); // the machine has other things to do, too
        }
    }

    private async Task Change(Random chance, int client, int number)
    {
        var user = $"u{client}-{chance.Next(5)}";
        var members = _members.GetOrAdd(user, _ => []);
        var segment = s_segments[chance.Next(s_segments.Length)];
        var leaves = members.Contains(segment);
        var (_, position) = await Send(
            chance, HttpMethod.Post, $"/v1/users/{user}/segments",
            leaves ? new { leave = new[] { segment } } : new { join = new[] { new { segment } } }, $"change-{client}-{number}");
        _ = leaves ? members.Remove(segment) : members.Add(segment);
        Acknowledge($"user-{user}", $"{(leaves ? "user_left_segment" : "user_joined_segment")} {segment}", position);
    }

    private async Task JoinBriefly(Random chance, int client, int number)
    {
        var user = $"brief-{client}-{number}";
        var (_, position) = await Send(
            chance, HttpMethod.Post, $"/v1/users/{user}/segments", new { join = new[] { new { segment = Brief, ttl = "PT1S" } } }, $"brief-{client}-{number}");
        Acknowledge($"user-{user}", $"user_joined_segment {Brief}", position);
        _streams[$"user-{user}"].Add($"membership_expired {Brief}");
    }

    private async Task Record(Random chance, int client, int number)
    {
        var calls = Enumerable.Range(0, chance.Next(1, 4)).Select(i => (Id: $"{client}-{number}-{i}", Tokens: chance.Next(10_000))).ToArray();
        object[] body =
        [
            .. calls.Select(c => new
            {
                id = c.Id, source = "swarm", userId = $"u{client}-{chance.Next(5)}", serviceId = Service, occurredAt = "2026-11-20T12:00:00Z",
                quantities = new { inputToken = c.Tokens },
            }),
        ];
        var (first, _) = await Send(chance, HttpMethod.Post, "/v1/usage", body, null);
        var positions = Positions(first);
        for (var i = 0; i < calls.Length; i++)
        {
            var amount = PricePerCall + (PricePerToken * calls[i].Tokens);
            _calls[calls[i].Id] = amount;
            _acknowledged.Enqueue(($"usage-{Service}-", Recorded(calls[i].Id, amount), positions[i]));
        }

        if (chance.Next(3) == 0)
        {
            var (again, _) = await Send(chance, HttpMethod.Post, "/v1/usage", body, null);
            if (again.GetProperty("duplicates").GetInt32() != calls.Length || !positions.SequenceEqual(Positions(again)))
            {
                _unexpected.Enqueue($"Calls {string.Join(", ", calls)}, sent again, were answered {again}.");
            }
        }

        static long[] Positions(JsonElement answer) => [.. answer.GetProperty("results").EnumerateArray().Select(r => r.GetProperty("position").GetInt64())];
    }

    private void Acknowledge(string stream, string what, long position)
    {
        _streams.GetOrAdd(stream, _ => []).Add(what);
        _acknowledged.Enqueue((stream, what, position));
    }

    /// <summary>Sends a command to one node after another until it is acknowledged.</summary>
    private async Task<(JsonElement Answer, long Position)> Send(Random chance, HttpMethod method, string path, object body, string? key)
    {
        var clock = Stopwatch.StartNew();
        var json = JsonSerializer.Serialize(body, JsonSerializerOptions.Web);
        while (true)
        {
            var nodes = _nodes();
            using var request = new HttpRequestMessage(method, new Uri(nodes[chance.Next(nodes.Count)], path)) { Content = new StringContent(json, Encoding.UTF8, "application/json") };
            if (key is not null)
            {
                request.Headers.TryAddWithoutValidation("Idempotency-Key", key);
            }

            try
            {
                using var patience = new CancellationTokenSource(s_patience);
                using var response = await _http.SendAsync(request, patience.Token);
                var text = await response.Content.ReadAsStringAsync(patience.Token);
                if (response.IsSuccessStatusCode)
                {
                    Interlocked.Increment(ref _commands);
                    return (JsonElement.Parse(text), long.Parse(response.Headers.GetValues("Ledger-Position").Single(), CultureInfo.InvariantCulture));
                }

                Refused(response, text);
            }
            catch (Exception exception) when (exception is HttpRequestException or OperationCanceledException or IOException)
            {
                _refusals.AddOrUpdate("no answer", 1, (_, n) => n + 1);
            }

            Assert.True(clock.Elapsed < TimeSpan.FromSeconds(90), $"{method} {path} was never acknowledged. {Summary()} {string.Join(' ', _unexpected)}");
            await Task.Delay(chance.Next(20, 100));
        }
    }

    private void Refused(HttpResponseMessage response, string text)
    {
        var code = response.Content.Headers.ContentType?.MediaType == "application/problem+json" ? JsonElement.Parse(text).GetProperty("code").GetString() : "no problem";
        _refusals.AddOrUpdate($"{(int)response.StatusCode} {code}", 1, (_, n) => n + 1);
        if (response.StatusCode != HttpStatusCode.ServiceUnavailable)
        {
            _unexpected.Enqueue($"{(int)response.StatusCode} {text}");
        }
        else if (response.Headers.RetryAfter is not { Delta: not null })
        {
            _unexpected.Enqueue($"A 503 without Retry-After: {text}");
        }
    }
}
