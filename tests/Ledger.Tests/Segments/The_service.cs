using System.Net;
using System.Text.Json;
using System.Text.Json.Nodes;
using Ledger.Http;
using Ledger.Segments;

namespace Ledger.Tests.Segments;

public sealed class The_service(TestNode node, ITestOutputHelper output) : IClassFixture<TestNode>
{
    private static readonly string[] Views = ["Memberships", "Segments", "Users"];

    [Fact]
    public async Task Answers_as_the_model_does_now_at_any_instant_and_as_known_at_any_position()
    {
        output.WriteLine($"LEDGER_TEST_SEED={LongTests.Seed}");
        var sequences = new List<Sequence>();
        for (var i = 0; i < (LongTests.Wanted ? 100 : 4); i++)
        {
            var sequence = new Sequence(node, $"m{i}", new Random(unchecked(LongTests.Seed + i)));
            sequences.Add(sequence);
            await sequence.Run(commands: LongTests.Wanted ? 150 : 70);
            await sequence.Check(instants: 8, positions: 5);
        }

        await node.CatchUp();
        foreach (var view in Views)
        {
            var live = await node.Rows(view);
            await node.Rebuild(view);
            Assert.Equal(live, await node.Rows(view));
        }

        await sequences[0].Check(instants: 8, positions: 5);
        Assert.Empty(node.Errors);
        Assert.All((await node.GetAsIs("/v1/projections")).Items, v => Assert.Equal("running", v.GetProperty("state").GetString()));
    }

    private sealed class Sequence(TestNode node, string prefix, Random random)
    {
        private static readonly string[] s_receiptFields = ["received", "joined", "renewed", "alreadyMembers", "rejected"];

        private readonly string[] _users = [.. Enumerable.Range(0, 4).Select(i => $"{prefix}-u{i}")];
        private readonly string[] _slugs = [.. Enumerable.Range(0, 3).Select(i => $"{prefix}-s{i}")];
        private readonly List<(long Position, DateTimeOffset At, Model Model)> _known = [];
        private readonly List<DateTimeOffset> _instants = [];
        private readonly List<string> _told = [];
        private Model _model = new();
        private DateTimeOffset _latest;

        /// <summary>The service's now: never before the newest event.</summary>
        private DateTimeOffset Now => node.Clock.Now > _latest ? node.Clock.Now : _latest;

        private string User => _users[random.Next(_users.Length)];

        private string Slug => _slugs[random.Next(_slugs.Length)];

        public async Task Run(int commands)
        {
            _latest = (await node.Log()) is [.., var last] ? last.RecordedAt : default;
            for (var i = 0; i < commands; i++)
            {
                await (random.Next(20) switch
                {
                    0 or 1 or 2 => Create(),
                    3 => Delete(),
                    4 or 5 => Change(),
                    6 or 7 or 8 => Put(),
                    9 => Leave(),
                    10 or 11 or 12 => Post(),
                    13 or 14 => Import(),
                    15 => Sweep(),
                    16 => Check(instants: 1, positions: 1),
                    _ => Step(),
                });
            }
        }

        private void Tell(string what) => _told.Add($"{Rfc3339.Format(Now)} {what}");

        private async Task Create()
        {
            var (slug, percent, ttl) = (Slug, random.Next(4) == 0 ? random.Next(10_001) / 100m : 0, random.Next(3) == 0 ? Ttl() : (TimeSpan?)null);
            Tell($"create {slug} {percent} {ttl}");
            var answer = await node.Post("/v1/segments", new { slug, rolloutPercent = Decimals.Format(percent), defaultTtl = ttl is { } t ? Iso8601Duration.Format(t) : null });
            Expect(answer, _model.LiveOf(slug) is null ? HttpStatusCode.Created : HttpStatusCode.Conflict);
            if (answer.Status == HttpStatusCode.Created)
            {
                Store(answer, _model.Create(slug, percent, ttl, Now));
            }
        }

        private async Task Delete()
        {
            var slug = Slug;
            Tell($"delete {slug}");
            var answer = await node.Delete($"/v1/segments/{slug}");
            Expect(answer, _model.LiveOf(slug) is null ? HttpStatusCode.NotFound : HttpStatusCode.NoContent);
            Store(answer, _model.Change(slug, l => l with { DeletedAt = Now }));
        }

        private async Task Change()
        {
            var slug = Slug;
            var live = _model.LiveOf(slug) is not null;
            if (random.Next(2) == 0)
            {
                var percent = random.Next(5) switch { 0 => 0, 1 => 100, _ => random.Next(10_001) / 100m };
                Tell($"roll out {slug} {percent}");
                var answer = await node.Patch($"/v1/segments/{slug}", new { rolloutPercent = Decimals.Format(percent) });
                Expect(answer, live ? HttpStatusCode.OK : HttpStatusCode.NotFound);
                Store(answer, _model.Change(slug, l => l.Rollouts[^1].Percent == percent ? l : l with { Rollouts = l.Rollouts.Add((Now, percent)) }));
            }
            else
            {
                var ttl = random.Next(2) == 0 ? Ttl() : (TimeSpan?)null;
                Tell($"default {slug} {ttl}");
                var answer = await node.Patch($"/v1/segments/{slug}", new JsonObject { ["defaultTtl"] = ttl is { } t ? Iso8601Duration.Format(t) : null }.ToJsonString());
                Expect(answer, live ? HttpStatusCode.OK : HttpStatusCode.NotFound);
                Store(answer, _model.Change(slug, l => l with { DefaultTtl = ttl }));
            }
        }

        private async Task Put()
        {
            var (user, slug, (term, json)) = (User, Slug, Term());
            Tell($"put {user} {slug} {json.ToJsonString()}");
            var answer = await node.Put($"/v1/users/{user}/segments/{slug}", json.ToJsonString());
            Expect(answer, _model.LiveOf(slug) is null ? HttpStatusCode.NotFound : HttpStatusCode.OK);
            if (answer.Status == HttpStatusCode.OK)
            {
                Store(answer, _model.Join(user, slug, term, "explicit", Now).Model);
                Assert.Contains(Segment(answer.Json), _model.SegmentsOf(user, Now));
            }
        }

        private async Task Leave()
        {
            var (user, slug) = (User, Slug);
            Tell($"leave {user} {slug}");
            var answer = await node.Delete($"/v1/users/{user}/segments/{slug}");
            Expect(answer, _model.LiveOf(slug) is null ? HttpStatusCode.NotFound : HttpStatusCode.NoContent);
            if (answer.Status == HttpStatusCode.NoContent)
            {
                Store(answer, _model.Leave(user, slug, Now));
            }
        }

        private async Task Post()
        {
            var (user, after) = (User, _model);
            var (join, leave) = (new JsonArray(), new JsonArray());
            var found = true;
            foreach (var slug in _slugs.OrderBy(_ => random.Next()).Take(random.Next(1, 4)))
            {
                found &= _model.LiveOf(slug) is not null;
                if (random.Next(3) == 0)
                {
                    leave.Add(slug);
                    after = found ? after.Leave(user, slug, Now) : after;
                    continue;
                }

                var (term, json) = Term();
                json["segment"] = slug;
                join.Add(json);
                after = found ? after.Join(user, slug, term, "explicit", Now).Model : after;
            }

            var body = new JsonObject { ["join"] = join, ["leave"] = leave }.ToJsonString();
            Tell($"post {user} {body}");
            await node.CatchUp();
            var answer = await node.Post($"/v1/users/{user}/segments", body);
            Expect(answer, found ? HttpStatusCode.OK : HttpStatusCode.NotFound);
            if (found)
            {
                Store(answer, after);
                Same(_model.SegmentsOf(user, Now), Segments(answer), "answer");
            }
        }

        private async Task Import()
        {
            var (slug, after) = (Slug, _model);
            var lines = new List<string>();
            var outcomes = new Dictionary<string, int> { ["joined"] = 0, ["renewed"] = 0, ["already"] = 0 };
            for (var i = random.Next(1, 8); i > 0; i--)
            {
                var (user, (term, json)) = (User, Term());
                json["userId"] = user;
                lines.Add(json.ToJsonString());
                if (after.LiveOf(slug) is not null)
                {
                    (after, var outcome) = after.Join(user, slug, term, "import", Now);
                    outcomes[outcome]++;
                }
            }

            Tell($"import {slug} {string.Join(' ', lines)}");
            var answer = await node.Import(slug, string.Join('\n', lines), "application/x-ndjson");
            Expect(answer, _model.LiveOf(slug) is null ? HttpStatusCode.NotFound : HttpStatusCode.OK);
            if (answer.Status == HttpStatusCode.OK)
            {
                Same(
                    [$"{lines.Count} {outcomes["joined"]} {outcomes["renewed"]} {outcomes["already"]} 0"],
                    [string.Join(' ', s_receiptFields.Select(f => answer.Json.GetProperty(f).GetInt64()))], "receipt");
                Store(answer, after);
            }
        }

        private async Task Sweep()
        {
            Tell("sweep");
            if (await node.Sweep() > 0)
            {
                _latest = Now;
            }
        }

        private Task Step()
        {
            var expiries = _model.Stays.Select(s => s.Terms[^1].ExpiresAt).OfType<DateTimeOffset>().Where(e => e > Now && e < Now.AddDays(2)).ToArray();
            switch (random.Next(8))
            {
                case 0 when _latest == node.Clock.Now: // so that it is known what the service has seen
                    node.Clock.Advance(TimeSpan.FromMilliseconds(-random.Next(2_000)));
                    break;
                case 1 or 2 when expiries.Length > 0:
                    node.Clock.SetTo(expiries[random.Next(expiries.Length)].AddMicroseconds(random.Next(-1, 1)));
                    break;
                case 3:
                    node.Clock.Advance(TimeSpan.FromMicroseconds(1));
                    break;
                default:
                    node.Clock.Advance(TimeSpan.FromMicroseconds(random.NextInt64(1, 100_000_000)));
                    break;
            }

            _instants.Add(Now);
            return Task.CompletedTask;
        }

        /// <summary>Asks everything for now, for instants, and for what was known at positions.</summary>
        public async Task Check(int instants, int positions)
        {
            await Compare("", _model, Now);
            for (var i = 0; i < instants && _instants.Count > 0; i++)
            {
                var at = Instant();
                await Compare($"?at={Rfc3339.Format(at)}", _model, at);
            }

            for (var i = 0; i < positions && _known.Count > 0; i++)
            {
                var (position, recordedAt, model) = _known[random.Next(_known.Count)];
                await Compare($"?position={position}", model, recordedAt);
                var at = Instant();
                await Compare($"?position={position}&at={Rfc3339.Format(at)}", model, at);
            }

            DateTimeOffset Instant()
            {
                var some = random.Next(3) == 0 && _model.Stays.SelectMany(s => s.Terms).Select(t => t.ExpiresAt).OfType<DateTimeOffset>().ToArray() is { Length: > 0 } expiries
                    ? expiries[random.Next(expiries.Length)] : _instants.Count > 0 ? _instants[random.Next(_instants.Count)] : Now;
                return some.AddMicroseconds(random.Next(-1, 2));
            }
        }

        private async Task Compare(string query, Model model, DateTimeOffset at)
        {
            foreach (var user in _users)
            {
                var segments = (await node.Get($"/v1/users/{user}/segments{query}")).Is(HttpStatusCode.OK);
                Same(model.SegmentsOf(user, at), Segments(segments), $"segments of {user}{query}");
                foreach (var slug in _slugs)
                {
                    var why = await node.Get($"/v1/users/{user}/segments/{slug}{query}");
                    Same([model.Why(user, slug, at) ?? "404"], [why.Status == HttpStatusCode.NotFound ? "404" : Why(why.Is(HttpStatusCode.OK).Json)], $"why {user} {slug}{query}");
                }
            }

            foreach (var slug in _slugs)
            {
                var members = await node.Get($"/v1/segments/{slug}/members{query}");
                Same(
                    model.MembersOf(slug, at) ?? ["404"],
                    members.Status == HttpStatusCode.NotFound ? ["404"] : members.Is(HttpStatusCode.OK).Items.Select(m => $"{m.GetProperty("userId").GetString()} {m.GetProperty("source").GetString()} {Time(m, "joinedAt")} {Time(m, "expiresAt")}"),
                    $"members of {slug}{query}");
            }

            var counts = (await node.Get($"/v1/segments/counts{query}")).Is(HttpStatusCode.OK);
            Same(
                model.Counts(at),
                counts.Items.Select(c => $"{c.GetProperty("segment").GetString()} {c.GetProperty("members").GetInt64()}").Where(s => s.StartsWith($"{prefix}-", StringComparison.Ordinal)),
                $"counts{query}");
            if (query.Length == 0)
            {
                foreach (var slug in _slugs.Where(s => model.LiveOf(s) is not null))
                {
                    Same([model.Counts(at).Single(c => c.StartsWith($"{slug} ", StringComparison.Ordinal))], [$"{slug} {(await node.Get($"/v1/segments/{slug}")).Json.GetProperty("members").GetInt64()}"], $"size of {slug}");
                }
            }
        }

        /// <summary>Takes note of what a command has stored and when, if it has stored anything.</summary>
        private void Store(Answer answer, Model after)
        {
            if ((int)answer.Status >= 300 || after == _model || answer.Position <= (_known.Count > 0 ? _known[^1].Position : 0))
            {
                return;
            }

            _latest = Now;
            _model = after;
            _known.Add((answer.Position!.Value, Now, after));
            _instants.Add(Now);
        }

        private (Term Term, JsonObject Json) Term()
        {
            var json = new JsonObject();
            switch (random.Next(5))
            {
                case 0:
                    var ttl = Ttl();
                    json["ttl"] = Iso8601Duration.Format(ttl);
                    return (new Term(true, ttl, null), json);
                case 1:
                    var expiresAt = Now + Ttl();
                    json["expiresAt"] = Rfc3339.Format(expiresAt);
                    return (new Term(true, null, expiresAt), json);
                case 2:
                    json[random.Next(2) == 0 ? "ttl" : "expiresAt"] = null;
                    return (new Term(true, null, null), json);
                default:
                    return (default, json);
            }
        }

        private TimeSpan Ttl() => TimeSpan.FromMicroseconds(random.Next(4) switch { 0 => 1, 1 => random.NextInt64(1, 10_000_000), 2 => random.NextInt64(1, 1_000_000_000), _ => random.NextInt64(1, 90_000_000_000_000) });

        /// <summary>The segments of an answer, those that are not of another sequence.</summary>
        private IEnumerable<string> Segments(Answer answer) =>
            answer.Json.GetProperty("segments").EnumerateArray().Select(Segment).Where(s => s.StartsWith($"{prefix}-", StringComparison.Ordinal));

        private static string Segment(JsonElement s) => $"{s.GetProperty("segment").GetString()} {s.GetProperty("source").GetString()} {Time(s, "joinedAt")} {Time(s, "expiresAt")}";

        private static string Why(JsonElement w) => $"{w.GetProperty("member").GetBoolean()} {w.GetProperty("reason").GetString()} {Time(w, "joinedAt")} {Time(w, "expiresAt")} {Time(w, "leftAt")}";

        private static string Time(JsonElement element, string field) =>
            element.GetProperty(field).GetString() is { } text && Rfc3339.TryParse(text, out var time) ? $"{time:O}" : "";

        private void Expect(Answer answer, HttpStatusCode status) => Assert.True(status == answer.Status, Failure($"{(int)status}", $"{(int)answer.Status} {answer.Text}", "status"));

        private void Same(IEnumerable<string> expected, IEnumerable<string> actual, string what)
        {
            var (e, a) = (string.Join('\n', expected), string.Join('\n', actual));
            Assert.True(e == a, Failure(e, a, what));
        }

        private string Failure(string expected, string actual, string what) =>
            $"{what} (LEDGER_TEST_SEED={LongTests.Seed}, {prefix})\nExpected:\n{expected}\nActual:\n{actual}\nAfter:\n{string.Join('\n', _told)}";
    }
}
