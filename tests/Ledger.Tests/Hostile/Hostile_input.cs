using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Tests.Conventions;

namespace Ledger.Tests.Hostile;

/// <summary>
/// Every operation of the OpenAPI document with every value of a table in the place of every parameter, header and field, and with
/// every wrong body: none is answered with a 5xx, none makes the node log an error, no refusal leaks anything or stores anything,
/// and what is accepted is stored as it was sent.
/// </summary>
public sealed partial class Hostile_input(TestNode node) : IClassFixture<TestNode>
{
    private const int Connections = 4;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private static int s_number;

    private static readonly JsonSerializerOptions s_plain = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static TheoryData<string> Operations { get; } =
        [.. ApiOperation.In(JsonElement.Parse(File.ReadAllBytes(Repository.PathOf("tests/Ledger.Tests/Conventions/Snapshots/openapi.json")))).Select(o => o.Id)];

    /// <summary>An attempt: a request, known again by its trace; and what must be stored of it when it is accepted.</summary>
    private sealed record Attempt(RawRequest Request, string? Stored = null, string TraceId = "");

    [Theory]
    [MemberData(nameof(Operations))]
    public async Task breaks_no_operation(string id)
    {
        var operation = ApiOperation.In((await node.GetAsIs("/openapi/v1.json")).Json).Single(o => o.Id == id);
        var world = await MakeWorld(id);
        var attempts = new List<Attempt>();
        if (operation.Method != "DELETE")
        {
            attempts.Add(new(Good(operation, world)));
        }

        attempts.AddRange(Targets(operation, world));
        attempts.AddRange(HeadersOf(operation, world));
        attempts.AddRange(BodiesOf(operation, world));
        var before = await node.CatchUp();

        var answers = await SendAll(attempts);
        var events = (await node.Log(before)).ToLookup(e => e.CorrelationId ?? "");

        var wrong = answers.SelectMany(a => Judge(a.Attempt, a.Answer, a.Took, [.. events[a.Attempt.TraceId]]).Select(what => $"{what}: {a.Answer.Status} for {a.Attempt.Request}: {Start(a.Answer.Text)}")).ToArray();
        Assert.True(wrong.Length == 0, $"{wrong.Length} of {answers.Count}:\n{string.Join('\n', wrong.Take(12))}");
        Assert.Empty(node.Errors);
        await Resume(operation);
    }

    [Fact]
    public async Task is_tried_on_every_operation_with_a_request_that_would_be_fine_otherwise()
    {
        // Only what lies behind a request that is taken is reached at all.
        foreach (var operation in ApiOperation.In((await node.GetAsIs("/openapi/v1.json")).Json).Where(o => !o.Path.StartsWith("/v1/log/", StringComparison.Ordinal)))
        {
            var world = await MakeWorld($"good-{operation.Id}");
            using var connection = new RawConnection(node.Client.BaseAddress!);
            var answer = await connection.Send(WithTrace(Good(operation, world)).Request);
            Assert.True(answer.Status < 400, $"{operation.Id}: {answer.Status} {answer.Text}");
            if (Sample(operation, world) is { } sample)
            {
                Assert.Subset(sample.Select(f => f.Key).Union(Alternatives).ToHashSet(), operation.Fields.ToHashSet());
            }

            await Resume(operation);
        }
    }

    [Fact]
    public async Task is_tried_as_lines_of_an_import_whose_receipt_balances_and_whose_members_are_as_they_were_sent()
    {
        var slug = $"lines-{Interlocked.Increment(ref s_number)}";
        (await node.Post("/v1/segments", new { slug })).Is(HttpStatusCode.Created);
        string[] lines = [.. HostileValues.Texts.Where(t => !t.AsSpan().ContainsAny('\r', '\n') && t != "userId").Distinct()];
        var valid = lines.Where(t => UserId.IsValid(t)).ToArray();
        Assert.True(valid.Length > 50);
        var csv = string.Concat(lines.Select(t => $"\"{t.Replace("\"", "\"\"", StringComparison.Ordinal)}\"\n"));
        var ndjson = string.Concat(lines.Select(t => $"{JsonSerializer.Serialize(new { userId = t })}\n"));

        var joined = (await node.Import(slug, $"userId\n{csv}")).Is(HttpStatusCode.OK).Json;
        var again = (await node.Import(slug, ndjson, "application/x-ndjson")).Is(HttpStatusCode.OK).Json;

        Assert.Equal((lines.Length, valid.Length, lines.Length - valid.Length), (joined.GetProperty("received").GetInt32(), joined.GetProperty("joined").GetInt32(), joined.GetProperty("rejected").GetInt32()));
        Assert.Equal((lines.Length, valid.Length, lines.Length - valid.Length), (again.GetProperty("received").GetInt32(), again.GetProperty("alreadyMembers").GetInt32(), again.GetProperty("rejected").GetInt32()));
        Assert.Equal(valid.Order(StringComparer.Ordinal), (await node.Get($"/v1/segments/{slug}/members?limit=1000")).Each("userId").Order(StringComparer.Ordinal));
        var cells = (await node.Get($"/v1/segments/{slug}/members", ("Accept", "text/csv"))).Text.Split("\r\n").Skip(1).Where(l => l.Length > 0).Select(l => l.TrimStart('"')).ToArray();
        Assert.Equal(valid.Length, cells.Length);
        Assert.DoesNotContain(cells, c => c[0] is '=' or '+' or '-' or '@' or '\t');
        foreach (var user in valid)
        {
            Assert.Equal(user, (await node.Get($"/v1/users/{PathIds.Encode(user)}")).Is(HttpStatusCode.OK).Json.GetProperty("userId").GetString());
        }
    }

    /// <summary>What stopped a view would stop whoever comes next.</summary>
    private async Task Resume(ApiOperation operation)
    {
        if (operation.Path.Contains("/projections/", StringComparison.Ordinal))
        {
            (await node.Post("/v1/projections/Reports/resume", null)).Is(HttpStatusCode.Accepted);
        }
    }

    /// <summary>Fields that can't be given together with one that a sample has.</summary>
    private static readonly string[] Alternatives = ["expiresAt"];

    private static IEnumerable<string> Judge(Attempt attempt, RawAnswer answer, TimeSpan took, RecordedEvent[] events)
    {
        if (took > Patience)
        {
            yield return $"took {took.TotalSeconds:0.0} s";
        }

        if (answer.Headers.ContainsKey("X-Injected") || answer.Headers.ContainsKey("Server"))
        {
            yield return "has a header that it should not have";
        }

        if (answer.IsBare && answer.Status is 400 or 405 or 411 or 413 or 414 or 431 or 501 or 505)
        {
            if (events.Length > 0)
            {
                yield return "stored something";
            }

            yield break;
        }

        if (answer.Headers.GetValueOrDefault("X-Content-Type-Options") != "nosniff" || !answer.Headers.ContainsKey("Content-Security-Policy") || !answer.Headers.ContainsKey("Cache-Control"))
        {
            yield return "has no security headers";
        }

        if (answer.Status < 400)
        {
            if (attempt.Stored is { } stored && events.Length > 0 && !events.Any(e => e.StreamId.EndsWith(stored, StringComparison.Ordinal) || Strings(JsonElement.Parse(e.Json.Span)).Contains(stored)))
            {
                yield return $"did not store '{stored}'";
            }

            yield break;
        }

        if (events.Length > 0)
        {
            yield return "stored something";
        }

        if (attempt.Request.Method == "HEAD")
        {
            yield break;
        }

        if (answer.Headers.GetValueOrDefault("Content-Type") != "application/problem+json")
        {
            yield return "is no problem";
            yield break;
        }

        var problem = JsonElement.Parse(answer.Body);
        var code = problem.GetProperty("code").GetString()!;
        if (problem.GetProperty("status").GetInt32() != answer.Status || !Problems.All.Any(p => p.Code == code && p.Status == answer.Status))
        {
            yield return "is not in the table of problems";
        }

        if (answer.Status >= 500 && code is not ("view-behind" or "checkpoint-behind" or "report-not-ready"))
        {
            yield return "is our fault";
        }

        if (Leak().Match(answer.Text) is { Success: true } leak)
        {
            yield return $"leaks '{leak.Value}'";
        }

        if (answer.Body.Length > 64 * 1024)
        {
            yield return $"is {answer.Body.Length} bytes long";
        }
    }

    /// <summary>Paths and queries.</summary>
    private static IEnumerable<Attempt> Targets(ApiOperation operation, World world)
    {
        var good = Good(operation, world);
        string[] values = [.. HostileValues.Texts.Select(Uri.EscapeDataString), .. HostileValues.NoTexts];
        var (path, query) = good.Target.Split('?') is [var p, var q] ? (p, $"?{q}&") : (good.Target, "?");
        foreach (var parameter in operation.PathParameters)
        {
            foreach (var value in values.Concat(HostileValues.Texts.SelectMany(HostileValues.AsItComes)))
            {
                yield return new(good with { Target = Target(operation, world, (parameter, value)) });
            }
        }

        foreach (var parameter in operation.QueryParameters)
        {
            var others = string.Concat(query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries).Where(o => !o.StartsWith($"{parameter}=", StringComparison.Ordinal)).Select(o => $"{o}&"));
            foreach (var value in values)
            {
                yield return new(good with { Target = $"{path}?{others}{parameter}={value}" });
            }

            yield return new(good with { Target = $"{path}?{others}{parameter}=1&{parameter}=2" });
            yield return new(good with { Target = $"{path}?{others}{parameter}" });
            yield return new(good with { Target = $"{path}?{others}{parameter}[]=1" });
            yield return new(good with { Target = $"{path}?{others}{parameter.ToUpperInvariant()}=1" });
        }

        foreach (var value in values)
        {
            yield return new(good with { Target = $"{path}{query}{value}=1" });
        }

        yield return new(good with { Target = $"{path}{query}x={new string('a', 20_000)}" });
        yield return new(good with { Target = $"{path}{query}{string.Concat(Enumerable.Range(0, 1_500).Select(i => $"a{i}&"))}" });
        yield return new(good with { Target = $"{path}/" });
        yield return new(good with { Target = $"/{path}" });
        yield return new(good with { Target = $"{path}/../../{path}" });
        yield return new(good with { Target = $"http://evil.example{path}" });
        yield return new(good with { Target = "*" });
        foreach (var method in HostileValues.Methods.Where(m => m != operation.Method))
        {
            yield return new(good with { Method = method });
        }

        if (operation.Method == "GET")
        {
            yield return new(good with { Method = "HEAD" });
        }
    }

    private static IEnumerable<Attempt> HeadersOf(ApiOperation operation, World world) =>
        from header in HostileValues.Headers
        let good = Good(operation, world)
        select new Attempt(good with { Headers = [.. good.Headers.Where(h => h.Name != header.Name), header] });

    private static IEnumerable<Attempt> BodiesOf(ApiOperation operation, World world)
    {
        foreach (var type in operation.BodyTypes.DefaultIfEmpty("application/json"))
        {
            foreach (var (encoding, bytes) in HostileValues.Bodies)
            {
                var good = Good(operation, world);
                yield return new(good with { Body = bytes, Headers = [.. good.Headers.Where(h => h.Name != "Content-Type"), ("Content-Type", type), .. encoding.Length > 0 ? [("Content-Encoding", encoding)] : Array.Empty<(string, string)>()] });
            }
        }

        foreach (var type in HostileValues.ContentTypes)
        {
            var good = Good(operation, world);
            yield return new(good with { Headers = [.. good.Headers.Where(h => h.Name != "Content-Type"), .. type is null ? Array.Empty<(string, string)>() : [("Content-Type", type)]] });
        }

        string[] values = [.. HostileValues.Json, .. HostileValues.Texts.Select(t => JsonSerializer.Serialize(t))];
        foreach (var type in operation.BodyTypes)
        {
            // What is read of a field is the same in every format; what is JSON at all is not.
            var tried = type == operation.BodyTypes[0] ? values : HostileValues.Json;
            var places = Sample(operation, world, type) is { } sample ? Places(sample) : 0;
            for (var place = 0; place < places; place++)
            {
                foreach (var value in tried)
                {
                    yield return With(operation, world, type, place, value);
                }
            }
        }
    }

    /// <summary>The operation's sample with a value in another's place: a field's, an item's, or (with an even more hostile one) a name's.</summary>
    private static Attempt With(ApiOperation operation, World world, string type, int place, string value)
    {
        const string Mark = "@@here@@";
        var sample = Sample(operation, world, type)!;
        var (parent, name, index) = Place(sample, ref place);
        string? field = name;
        if (parent is JsonArray array)
        {
            array[index] = Mark;
        }
        else
        {
            parent![name!] = Mark;
        }

        var json = Lines(type, sample.ToJsonString(s_plain)).Replace($"\"{Mark}\"", value, StringComparison.Ordinal);
        var good = Good(operation, world);
        var isText = value is ['"', ..] && Plain.Contains(field ?? "") && type == "application/json" && !value.Contains('\u00ff') && !value.Contains('\ud800');
        string? stored = null;
        if (isText)
        {
            try
            {
                stored = JsonElement.Parse(Encoding.Latin1.GetBytes(value)).GetString();
            }
            catch (Exception exception) when (exception is JsonException or InvalidOperationException)
            {
                // then nobody can store it
            }
        }

        return new(good with { Body = Encoding.Latin1.GetBytes(json), Headers = [.. good.Headers.Where(h => h.Name != "Content-Type"), ("Content-Type", type)] }, stored);
    }

    /// <summary>Fields whose text is kept as it is.</summary>
    private static readonly HashSet<string> Plain = ["description", "title", "userId", "id", "source", "reason", "country", "team"];

    private static int Places(JsonNode node) => node switch
    {
        JsonObject fields => fields.Sum(f => 1 + (f.Value is null ? 0 : Places(f.Value))),
        JsonArray items => items.Sum(i => 1 + (i is null ? 0 : Places(i))),
        _ => 0,
    };

    private static (JsonNode? Parent, string? Name, int Index) Place(JsonNode node, ref int place)
    {
        var children = node switch
        {
            JsonObject fields => fields.Select(f => (Name: (string?)f.Key, Index: 0, f.Value)).ToArray(),
            JsonArray items => [.. items.Select((item, i) => (Name: (string?)null, Index: i, Value: item))],
            _ => [],
        };
        foreach (var (name, index, value) in children)
        {
            if (place-- == 0)
            {
                return (node, name, index);
            }

            if (value is not null && Place(value, ref place) is { Parent: not null } found)
            {
                return found;
            }
        }

        return default;
    }

    /// <summary>What there is for an operation to work on, fresh for each, because some take it away.</summary>
    private sealed record World(string Slug, string UserId, string ServiceId, string Source, string CallId, string ReportId, string KeyId, string CampaignId);

    private async Task<World> MakeWorld(string id)
    {
        var name = $"{id}-{Interlocked.Increment(ref s_number)}";
        (await node.Post("/v1/segments", new { slug = name })).Is(HttpStatusCode.Created);
        (await node.Put($"/v1/users/{name}/segments/{name}", new { ttl = "P1D" })).Is(HttpStatusCode.OK);
        (await node.Post("/v1/services", new { serviceId = name, title = name })).Is(HttpStatusCode.Created);
        (await node.Post($"/v1/services/{name}/prices", new { currency = "USD", effectiveFrom = "2026-01-01T00:00:00Z", components = new[] { new { unit = "call", price = "0.01" } } })).Is(HttpStatusCode.Created);
        (await node.Post("/v1/usage", new { id = name, source = name, userId = name, serviceId = name })).Is(HttpStatusCode.OK);
        var report = (await node.Post("/v1/reports", new { kind = "memberships", month = "2026-10", userId = name })).Is(HttpStatusCode.Created).Json.GetProperty("reportId").GetString()!;
        await node.ReportMade($"/v1/reports/{report}");
        var key = (await node.Post("/v1/keys", $$"""{"name":"{{name}}","scopes":["usage:read"]}""")).Is(HttpStatusCode.Created).Json.GetProperty("keyId").GetString()!;
        var campaign = (await node.Post("/v1/campaigns", Campaign(name, name).ToJsonString())).Is(HttpStatusCode.Created).Json.GetProperty("id").GetString()!;
        await node.CatchUp(); // keys are read from a view
        return new(name, name, name, name, name, report, key, campaign);
    }

    /// <summary>A campaign that has not begun.</summary>
    private static JsonObject Campaign(string name, string slug) => new()
    {
        ["name"] = name, ["text"] = "Hello {name}!",
        ["audience"] = new JsonObject
        {
            ["segments"] = new JsonObject { ["any"] = new JsonArray(slug), ["all"] = new JsonArray(), ["none"] = new JsonArray() },
            ["attributes"] = new JsonObject { ["tag"] = "vip" },
        },
        ["startsAt"] = "2026-12-20T12:00:00Z", ["endsAt"] = "2026-12-21T12:00:00Z", ["window"] = new JsonObject { ["from"] = "09:00", ["to"] = "21:00" },
        ["ratePerSecond"] = 5, ["onUnknown"] = "keep",
    };

    /// <summary>A request that would be taken.</summary>
    private static RawRequest Good(ApiOperation operation, World world)
    {
        var type = operation.BodyTypes.FirstOrDefault();
        return new(operation.Method, Target(operation, world))
        {
            Headers =
            [
                ("Host", "localhost"), ("Accept", "application/json, text/plain;q=0.9, text/csv;q=0.8, */*;q=0.1"), ("Prefer", operation.Id == "PriceUnpriced" ? "wait=10" : "wait=0"),
                .. type is null ? Array.Empty<(string, string)>() : [("Content-Type", type)],
            ],
            Body = type is null ? null : Encoding.UTF8.GetBytes(Lines(type, Sample(operation, world, type)?.ToJsonString(s_plain) ?? "userId\nu1,P1D\n")),
        };
    }

    private static string Target(ApiOperation operation, World world, (string Name, string Value) instead = default)
    {
        var path = operation.Path;
        foreach (var name in operation.PathParameters)
        {
            var value = name == instead.Name ? instead.Value : name switch
            {
                "slug" => world.Slug,
                "userId" => world.UserId,
                "serviceId" => world.ServiceId,
                "source" => world.Source,
                "id" => world.CallId,
                "reportId" => world.ReportId,
                "keyId" => world.KeyId,
                "campaignId" => world.CampaignId,
                "streamId" => $"user-{world.UserId}",
                "priceVersion" or "level" => "1",
                "index" => "000",
                "name" => "Reports",
                _ => "x",
            };
            path = path.Replace($"{{{name}}}", value, StringComparison.Ordinal);
        }

        return path + operation.Id switch
        {
            "GetInclusionProof" => "?position=1",
            "GetSegmentCounts" => "?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=PT1H",
            _ when operation.Path == "/v1/segments/{slug}/counts" => "?from=2026-11-20T00:00:00Z&to=2026-11-21T00:00:00Z&interval=PT1H",
            _ when operation.Path == "/v1/events" => "?limit=5",
            _ => "",
        };
    }

    /// <summary>A good body with every field; null for one that is not JSON.</summary>
    private static JsonObject? Sample(ApiOperation operation, World world, string type = "application/json")
    {
        var next = $"{world.Slug}-{Interlocked.Increment(ref s_number)}";
        return operation.Id switch
        {
            _ when operation.BodyTypes.Length == 0 => null,
            "ImportMembers" => null,
            "PutUser" => new() { ["attributes"] = new JsonObject { ["country"] = "DE", ["age"] = 31, ["beta"] = true } },
            "CreateSegment" => new() { ["slug"] = next, ["description"] = "d", ["rolloutPercent"] = "12.5", ["defaultTtl"] = "P14D" },
            "ChangeSegment" => new() { ["description"] = next, ["rolloutPercent"] = "12.5", ["defaultTtl"] = "P14D" },
            "ChangeMemberships" => new() { ["join"] = new JsonArray(new JsonObject { ["segment"] = world.Slug, ["ttl"] = "P2D" }), ["leave"] = new JsonArray() },
            "JoinSegment" => new() { ["ttl"] = "P2D" },
            "RegisterService" => new() { ["title"] = next, ["serviceId"] = next, ["description"] = "d" },
            "ChangeService" => new() { ["title"] = next, ["description"] = "d" },
            "SetPrice" => new() { ["currency"] = "USD", ["components"] = new JsonArray(new JsonObject { ["unit"] = "call", ["price"] = "0.01", ["per"] = 1 }), ["effectiveFrom"] = "2026-02-01T00:00:00Z" },
            "RecordCalls" when type.StartsWith("application/cloudevents", StringComparison.Ordinal) => new()
            {
                ["specversion"] = "1.0", ["id"] = next, ["source"] = "hostile", ["type"] = "call", ["subject"] = world.UserId, ["time"] = "2026-11-20T11:00:00Z",
                ["data"] = new JsonObject { ["serviceId"] = world.ServiceId, ["quantities"] = new JsonObject { ["call"] = "1" }, ["tags"] = new JsonObject { ["team"] = "search" } },
            },
            "RecordCalls" => new()
            {
                ["id"] = next, ["source"] = "hostile", ["userId"] = world.UserId, ["serviceId"] = world.ServiceId, ["occurredAt"] = "2026-11-20T11:00:00Z",
                ["quantities"] = new JsonObject { ["call"] = "1" }, ["tags"] = new JsonObject { ["team"] = "search" },
            },
            "VoidCall" => new() { ["reason"] = "r" },
            "PriceUnpriced" => new() { ["serviceId"] = world.ServiceId, ["from"] = "2026-11-01T00:00:00Z", ["to"] = "2026-12-01T00:00:00Z", ["dryRun"] = false },
            "RequestReport" => new() { ["kind"] = "memberships", ["month"] = "2026-09", ["userId"] = next },
            "CreateKey" => new() { ["name"] = next, ["scopes"] = new JsonArray("usage:read"), ["tenant"] = "acme", ["expiresAt"] = "2099-01-01T00:00:00Z" },
            "CreateCampaign" => Campaign(next, world.Slug),
            "ChangeCampaign" => Campaign(next, world.Slug),
            "RotateKey" => new() { ["overlap"] = "PT1H" },
            _ => operation.Guess(),
        };
    }

    /// <summary>The sample in the format that goes by a content type.</summary>
    private static string Lines(string type, string json) => type.Contains("batch", StringComparison.Ordinal) ? $"[{json}]" : json;

    private async Task<IReadOnlyList<(Attempt Attempt, RawAnswer Answer, TimeSpan Took)>> SendAll(List<Attempt> attempts)
    {
        var waiting = new ConcurrentQueue<Attempt>(attempts);
        var answers = new ConcurrentBag<(Attempt, RawAnswer, TimeSpan)>();
        await Task.WhenAll(Enumerable.Range(0, Connections).Select(_ => Task.Run(async () =>
        {
            using var connection = new RawConnection(node.Client.BaseAddress!);
            while (waiting.TryDequeue(out var next))
            {
                var attempt = WithTrace(next.Request) with { Stored = next.Stored };
                var took = Stopwatch.StartNew();
                try
                {
                    answers.Add((attempt, await connection.Send(attempt.Request).WaitAsync(Patience * 2, TestContext.Current.CancellationToken), took.Elapsed));
                }
                catch (Exception exception) when (exception is IOException or TimeoutException or System.Net.Sockets.SocketException or FormatException or IndexOutOfRangeException or KeyNotFoundException)
                {
                    answers.Add((attempt, new RawAnswer(999, new Dictionary<string, string>(), Encoding.UTF8.GetBytes($"no answer: {exception.Message}")), took.Elapsed));
                    connection.Close();
                }
            }
        })));
        return [.. answers];
    }

    private static Attempt WithTrace(RawRequest request)
    {
        var trace = Guid.NewGuid().ToString("n");
        return new(request with { Headers = [.. request.Headers, ("traceparent", $"00-{trace}-{trace[..16]}-00")] }, null, trace);
    }

    private static IEnumerable<string> Strings(JsonElement element) => element.ValueKind switch
    {
        JsonValueKind.String => [element.GetString()!],
        JsonValueKind.Array => element.EnumerateArray().SelectMany(Strings),
        JsonValueKind.Object => element.EnumerateObject().SelectMany(p => Strings(p.Value)),
        _ => [],
    };

    private static string Start(string text) => text.Length <= 300 ? text : $"{text[..300]}…";

    /// <summary>What only our side knows: types, stacks, statements, files.</summary>
    [GeneratedRegex(@"\bSystem\.(?!String)|Microsoft\.|Npgsql|Exception|StackTrace|\n\s+at |\bselect\b.+\bfrom\b|\binsert into\b|pg_catalog|\.cs:|/src/|SqlState|\b[0-9A-Z]{5}: ")]
    private static partial Regex Leak();
}
