using System.Diagnostics;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Ledger.Authentication;
using Ledger.EventStore;
using Ledger.Keys;
using Ledger.Testing;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Keys;

/// <summary>A node that asks for credentials.</summary>
public sealed class GuardedNode(PostgresFixture postgres) : IAsyncLifetime
{
    public TestNode Node { get; } = new(postgres) { Auth = AccessMode.Required };

    public KeyAnswer Operator { get; private set; } = null!;

    public async ValueTask InitializeAsync()
    {
        await Node.InitializeAsync();
        Operator = await Node.Key(Scopes.Admin, name: "operator");
    }

    public async ValueTask DisposeAsync()
    {
        await Node.DisposeAsync();
        Assert.Empty(Node.Errors);
    }
}

public sealed class A_key(GuardedNode guarded) : IClassFixture<GuardedNode>
{
    private readonly TestNode _node = guarded.Node;
    private readonly (string, string) _operator = guarded.Operator.Bearer();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private Task<Answer> Create(object body, params (string Name, string Value)[] headers) => _node.Post("/v1/keys", body, [_operator, .. headers]);

    private static string[] Of(params string[] scopes) => scopes;

    private static string Secret(Answer created) => created.Json.GetProperty("secret").GetString()!;

    private static string Id(Answer created) => created.Json.GetProperty("keyId").GetString()!;

    /// <summary>What reading users with a secret comes to.</summary>
    private static async Task<HttpStatusCode> Use(TestNode node, string secret) => (await node.GetAsIs("/v1/users", GivenKeys.Bearer(secret))).Status;

    [Fact]
    public async Task Is_not_made_when_the_tenant_has_as_many_as_it_may_have()
    {
        await using var node = await _node.StartAnew();
        var appender = node.Services.GetRequiredService<Appender>();
        async Task Make(string name, DateTimeOffset? expiresAt, bool revoked = false)
        {
            var id = KeySecret.NewId();
            var created = new KeyCreated(name, "full", Of("log:read"), KeySecret.PrefixOf(id), new string('0', 64), expiresAt);
            await appender.Append(
                new AppendRequest
                {
                    TenantId = Ledger.Requests.DefaultTenant,
                    Appends = [new StreamAppend(ApiKey.StreamOf(id).StreamId, ApiKey.StreamType, revoked ? [created, new KeyRevoked()] : [created])],
                },
                Cancellation);
        }

        // Keys of another tenant, revoked and expired ones don't count.
        await Task.WhenAll(Enumerable.Range(0, KeyRules.MaxLiveKeys - 1).Select(i => Make($"k{i}", i == 0 ? node.Clock.Now.AddHours(1) : null)));
        await Make("revoked", null, revoked: true);
        await Make("expired", node.Clock.Now.AddSeconds(-1));
        object Body(string tenant, string name) => new { name, tenant, scopes = Of("log:read") };
        var last = (await node.Post("/v1/keys", Body("full", "last"), ("Idempotency-Key", "k"))).Is(HttpStatusCode.Created);

        (await node.Post("/v1/keys", Body("full", "more"))).IsProblem(409, "too-many-keys");
        Assert.True((await node.Post("/v1/keys", Body("full", "last"), ("Idempotency-Key", "k"))).Is(HttpStatusCode.Created).Replayed);
        (await node.Post("/v1/keys", Body("other", "more"))).Is(HttpStatusCode.Created);
        (await node.Delete($"/v1/keys/{Id(last)}")).Is(HttpStatusCode.NoContent);
        (await node.Post("/v1/keys", Body("full", "again"))).Is(HttpStatusCode.Created);
        node.Clock.Advance(TimeSpan.FromHours(2));
        (await node.Post("/v1/keys", Body("full", "in the place of the one that has expired"))).Is(HttpStatusCode.Created);
        (await node.Post("/v1/keys", Body("full", "more"))).IsProblem(409, "too-many-keys");
    }

    [Fact]
    public async Task Tells_its_secret_once_and_only_its_hash_is_stored()
    {
        var made = (await Create(new { name = "gateway-eu", scopes = Of("usage:write", "segments:read"), expiresAt = "2027-01-01T00:00:00Z" })).Is(HttpStatusCode.Created);
        var (id, secret) = (Id(made), Secret(made));

        Assert.Matches($"^ldg_{id}_[A-Za-z0-9_-]{{43}}$", secret);
        Assert.Equal($"/v1/keys/{id}", made.Headers["Location"]);
        Assert.Equal(
            ("gateway-eu", "*DEFAULT*", "[\"segments:read\",\"usage:write\"]", $"ldg_{id}", "2027-01-01T00:00:00Z"),
            (made.Json.GetProperty("name").GetString(), made.Json.GetProperty("tenant").GetString(), made.Json.GetProperty("scopes").GetRawText(),
                made.Json.GetProperty("prefix").GetString(), made.Json.GetProperty("expiresAt").GetString()));
        Assert.Equal(HttpStatusCode.OK, await Use(_node, secret));

        var recorded = (await _node.Log()).Single(e => e.Position == made.Position);
        Assert.Equal(("operator", "*DEFAULT*", $"key-{id}"), (recorded.Actor, recorded.TenantId, recorded.StreamId));
        Assert.Equal(Convert.ToHexStringLower(SHA256.HashData(Encoding.ASCII.GetBytes(secret))), ((KeyCreated)recorded.Data!).Sha256);
        Assert.DoesNotContain(secret[21..], Encoding.UTF8.GetString(recorded.Json.Span), StringComparison.Ordinal);

        var one = (await _node.Get($"/v1/keys/{id}", _operator)).Is(HttpStatusCode.OK);
        Assert.Equal((made.ETag, "active", "operator"), (one.ETag, one.Json.GetProperty("status").GetString(), one.Json.GetProperty("createdBy").GetString()));
        Assert.DoesNotContain(secret[21..], one.Text, StringComparison.Ordinal);
        Assert.Equal(id, (await _node.Get("/v1/keys?limit=1", _operator)).Each("keyId").Single());
    }

    [Theory]
    [InlineData("""{"name":"","scopes":["admin"]}""", "name")]
    [InlineData("""{"name":" x","scopes":["admin"]}""", "name")]
    [InlineData("""{"name":"x","scopes":[]}""", "scopes")]
    [InlineData("""{"name":"x","scopes":["admin","root"]}""", "scopes[1]")]
    [InlineData("""{"name":"x","scopes":["admin","admin"]}""", "scopes[1]")]
    [InlineData("""{"name":"x","scopes":["ADMIN"]}""", "scopes[0]")]
    [InlineData("""{"name":"x","scopes":["admin"],"tenant":"a b"}""", "tenant")]
    [InlineData("""{"name":"x","scopes":["admin"],"tenant":"*default*"}""", "tenant")]
    [InlineData("""{"name":"x","scopes":["admin"],"expiresAt":"2026-11-20T12:00:00Z"}""", "expiresAt")]
    [InlineData("""{"name":"x"}""", "scopes")]
    [InlineData("""{"name":"x","scopes":["admin"],"secret":"mine"}""", "secret")]
    public async Task Is_refused_where_a_rule_is_broken(string body, string field)
    {
        var answer = await Create(body);

        Assert.Equal((HttpStatusCode.BadRequest, field), (answer.Status, answer.Fields.Single()));
    }

    [Fact]
    public async Task Has_a_name_of_128_characters_at_most()
    {
        (await Create(new { name = new string('x', KeyRules.MaxNameCharacters), scopes = Of("admin") })).Is(HttpStatusCode.Created);
        Assert.Equal("name", (await Create(new { name = new string('x', KeyRules.MaxNameCharacters + 1), scopes = Of("admin") })).Fields.Single());
    }

    [Fact]
    public async Task Is_made_once_under_an_idempotency_key_and_a_repeat_has_no_secret()
    {
        var body = new { name = "once", scopes = Of("log:read") };
        var first = (await Create(body, ("Idempotency-Key", "key-1"))).Is(HttpStatusCode.Created);
        var again = (await Create(body, ("Idempotency-Key", "key-1"))).Is(HttpStatusCode.Created);

        Assert.Equal((Id(first), true, JsonValueKind.Null), (Id(again), again.Replayed, again.Json.GetProperty("secret").ValueKind));
        Assert.NotEqual(JsonValueKind.Null, first.Json.GetProperty("secret").ValueKind);
    }

    [Fact]
    public async Task Idempotency_keys_are_those_of_the_callers_tenant()
    {
        var (a, b) = (await _node.Key(Scopes.Admin, "idem-a"), await _node.Key(Scopes.Admin, "idem-b"));
        var body = new { name = "same", scopes = Of("log:read") };
        var ofA = (await _node.Post("/v1/keys", body, a.Bearer(), ("Idempotency-Key", "shared"))).Is(HttpStatusCode.Created);
        var ofB = (await _node.Post("/v1/keys", body, b.Bearer(), ("Idempotency-Key", "shared"))).Is(HttpStatusCode.Created);

        Assert.NotEqual(Id(ofA), Id(ofB));
        Assert.Equal(("idem-b", false), (ofB.Json.GetProperty("tenant").GetString(), ofB.Replayed));
    }

    [Fact]
    public async Task Is_rotated_with_an_overlap_after_which_the_old_secret_holds_no_more()
    {
        var made = await Create(new { name = "rotated", scopes = Of("segments:read") });
        Assert.Equal(HttpStatusCode.OK, await Use(_node, Secret(made)));

        var rotated = (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "PT1H" }, _operator)).Is(HttpStatusCode.OK);

        Assert.NotEqual(Secret(made), Secret(rotated));
        Assert.Equal(_node.Clock.Now.AddHours(1), rotated.Json.GetProperty("oldSecretUntil").GetDateTimeOffset());
        Assert.Equal(HttpStatusCode.OK, await Use(_node, Secret(rotated))); // at once, whatever is remembered
        Assert.Equal(HttpStatusCode.OK, await Use(_node, Secret(made)));
        _node.Clock.Advance(TimeSpan.FromHours(1));
        Assert.Equal(HttpStatusCode.OK, await Use(_node, Secret(rotated)));
        (await _node.GetAsIs("/v1/users", GivenKeys.Bearer(Secret(made)))).IsProblem(401, "unauthorized");

        var atOnce = (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "PT0S" }, _operator)).Is(HttpStatusCode.OK);
        Assert.Equal(HttpStatusCode.OK, await Use(_node, Secret(atOnce)));
        Assert.Equal(HttpStatusCode.Unauthorized, await Use(_node, Secret(rotated)));
    }

    [Theory]
    [InlineData("PT-1S"), InlineData("P30DT1S"), InlineData("P1M")]
    public async Task Is_not_rotated_with_an_overlap_beyond_the_limits(string overlap) => Assert.Equal(
        "overlap", (await _node.Post($"/v1/keys/{guarded.Operator.KeyId}/rotate", new { overlap }, _operator)).Fields.Single());

    [Fact]
    public async Task Is_rotated_at_the_longest_overlap()
    {
        var made = await Create(new { name = "longest", scopes = Of("segments:read") });
        (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "P30D" }, _operator, ("If-Match", "\"2\""))).IsProblem(412, "precondition-failed");
        (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "P30D" }, _operator, ("If-Match", "\"1\""))).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Is_taken_by_no_node_within_a_second_of_its_revocation()
    {
        await using var other = await _node.StartBeside();
        var made = await Create(new { name = "revoked", scopes = Of("segments:read") });
        Assert.Equal((HttpStatusCode.OK, HttpStatusCode.OK), (await Use(_node, Secret(made)), await Use(other, Secret(made))));

        (await _node.Delete($"/v1/keys/{Id(made)}", _operator)).Is(HttpStatusCode.NoContent);
        var revoked = Stopwatch.GetTimestamp();
        foreach (var node in (TestNode[])[other, _node])
        {
            while (await Use(node, Secret(made)) != HttpStatusCode.Unauthorized)
            {
                Assert.True(Stopwatch.GetElapsedTime(revoked) < TimeSpan.FromSeconds(1), "The key is still taken.");
                await Task.Delay(20, Cancellation);
            }
        }

        var refused = (await other.GetAsIs("/v1/users", GivenKeys.Bearer(Secret(made)))).IsProblem(401, "unauthorized");
        Assert.Equal("Bearer error=\"invalid_token\", error_description=\"The key was revoked.\"", refused.Headers["WWW-Authenticate"]);
        (await _node.Delete($"/v1/keys/{Id(made)}", _operator)).IsProblem(404, "key-not-found");
        (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "PT0S" }, _operator)).IsProblem(404, "key-not-found");
        Assert.DoesNotContain(Id(made), (await _node.Get("/v1/keys", _operator)).Each("keyId"));
        Assert.Contains(Id(made), (await _node.Get("/v1/keys?includeRevoked=true", _operator)).Each("keyId"));
        Assert.Equal("revoked", (await _node.Get($"/v1/keys/{Id(made)}", _operator)).Json.GetProperty("status").GetString());
    }

    [Theory]
    [InlineData("/v1/events?after=0", "text/event-stream", null)]
    [InlineData("/v1/events/?after=0", "text/event-stream", 100_000)]
    [InlineData("/V1/Events?after=0", "text/*", 1_000)]
    public async Task That_is_revoked_cuts_off_what_it_began(string path, string accept, int? uploadBytes)
    {
        var (reader, writer) = (await _node.Key(Scopes.LogRead, "cut"), await _node.Key(Scopes.UsageWrite, "cut"));
        using var follow = new HttpRequestMessage(HttpMethod.Get, path);
        follow.Headers.TryAddWithoutValidation("Accept", accept);
        follow.Headers.TryAddWithoutValidation("Authorization", reader.Bearer().Value);
        using var following = await _node.Client.SendAsync(follow, HttpCompletionOption.ResponseHeadersRead, Cancellation);
        await using var events = await following.Content.ReadAsStreamAsync(Cancellation);
        await Task.Delay(TimeSpan.FromSeconds(1), Cancellation);
        using var pipe = new EndlessLines(uploadBytes);
        using var upload = new HttpRequestMessage(HttpMethod.Post, "/v1/usage") { Content = pipe };
        upload.Headers.TryAddWithoutValidation("Authorization", writer.Bearer().Value);
        var uploading = _node.Client.SendAsync(upload, Cancellation);
        await pipe.Begun.Task.WaitAsync(Cancellation);

        (await _node.Delete($"/v1/keys/{reader.KeyId}", _operator)).Is(HttpStatusCode.NoContent);
        (await _node.Delete($"/v1/keys/{writer.KeyId}", _operator)).Is(HttpStatusCode.NoContent);

        var revoked = Stopwatch.GetTimestamp();
        await Assert.ThrowsAnyAsync<IOException>(async () =>
        {
            var buffer = new byte[4096];
            while (await events.ReadAsync(buffer, Cancellation) > 0)
            {
            }

            throw new IOException("The stream has ended.");
        });
        Assert.True(Stopwatch.GetElapsedTime(revoked) < TimeSpan.FromSeconds(2), "The stream went on.");
        await Assert.ThrowsAnyAsync<HttpRequestException>(() => uploading);
        Assert.True(Stopwatch.GetElapsedTime(revoked) < TimeSpan.FromSeconds(3), "The upload went on.");
    }

    [Fact]
    public async Task Holds_until_it_expires()
    {
        var made = await Create(new { name = "short", scopes = Of("segments:read"), expiresAt = _node.Clock.Now.AddMinutes(5) });
        _node.Clock.Advance(TimeSpan.FromMinutes(5) - TimeSpan.FromMicroseconds(1));
        Assert.Equal(HttpStatusCode.OK, await Use(_node, Secret(made)));
        _node.Clock.Advance(TimeSpan.FromMicroseconds(1));
        var refused = (await _node.GetAsIs("/v1/users", GivenKeys.Bearer(Secret(made)))).IsProblem(401, "unauthorized");

        Assert.Contains("expired", refused.Json.GetProperty("detail").GetString(), StringComparison.Ordinal);
        (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "PT0S" }, _operator)).IsProblem(409, "key-expired");
        Assert.Equal("expired", (await _node.Get($"/v1/keys/{Id(made)}", _operator)).Json.GetProperty("status").GetString());
    }

    [Fact]
    public async Task Of_a_tenant_is_seen_and_changed_by_its_admins_and_by_operators_only()
    {
        var (mine, theirs) = (await _node.Key(Scopes.Admin, "acme"), await _node.Key(Scopes.Admin, "globex"));
        var made = (await _node.Post("/v1/keys", new { name = "app", scopes = Of("segments:read") }, mine.Bearer())).Is(HttpStatusCode.Created);

        Assert.Equal("acme", made.Json.GetProperty("tenant").GetString());
        Assert.Equal([Id(made), mine.KeyId], (await _node.Get("/v1/keys", mine.Bearer())).Each("keyId"));
        Assert.Equal([theirs.KeyId], (await _node.Get("/v1/keys", theirs.Bearer())).Each("keyId"));
        Assert.Equal([guarded.Operator.KeyId, Id(made), theirs.KeyId, mine.KeyId], (await _node.Get("/v1/keys", _operator)).Each("keyId")
            .Where(id => id == Id(made) || id == mine.KeyId || id == theirs.KeyId || id == guarded.Operator.KeyId)
            .OrderByDescending(id => id == guarded.Operator.KeyId));
        (await _node.Get($"/v1/keys/{Id(made)}", theirs.Bearer())).IsProblem(404, "key-not-found");
        (await _node.Delete($"/v1/keys/{Id(made)}", theirs.Bearer())).IsProblem(404, "key-not-found");
        (await _node.Delete($"/v1/keys/{Id(made)}", theirs.Bearer(), ("If-Match", "\"1\""))).IsProblem(412, "precondition-failed");
        (await _node.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "PT0S" }, theirs.Bearer())).IsProblem(404, "key-not-found");
        (await _node.Post("/v1/keys", new { name = "x", scopes = Of("admin"), tenant = "acme" }, theirs.Bearer())).IsProblem(403, "forbidden");
        (await _node.Post("/v1/keys", new { name = "x", scopes = Of("admin"), tenant = "*DEFAULT*" }, theirs.Bearer())).IsProblem(403, "forbidden");
        (await _node.Delete($"/v1/keys/{Id(made)}", _operator)).Is(HttpStatusCode.NoContent);
    }

    [Fact]
    public async Task Gives_what_it_does_its_name_and_its_tenant()
    {
        var key = await _node.Key(Scopes.UsageWrite | Scopes.UsageRead | Scopes.LogRead, "initech", "gateway-7");
        (await _node.Post("/v1/services", new { serviceId = "s", title = "s" }, key.Bearer())).Is(HttpStatusCode.Created);
        var recorded = (await _node.Post("/v1/usage", new { id = "1", userId = "u", serviceId = "s" }, key.Bearer())).Is(HttpStatusCode.OK);

        (await _node.Get("/v1/usage/calls/gateway-7/1", key.Bearer())).Is(HttpStatusCode.OK);
        (await _node.Get("/v1/usage/calls/gateway-7/1", _operator)).IsProblem(404, "call-not-found");
        (await _node.Get("/v1/services/s", _operator)).IsProblem(404, "service-not-found");
        var call = (await _node.Log()).Single(e => e.Position == recorded.Position);
        Assert.Equal(("gateway-7", "initech"), (call.Actor, call.TenantId));
        Assert.Equal(
            ["initech"], (await _node.Log()).Where(e => e.Actor == "gateway-7").Select(e => e.TenantId).Distinct());
    }

    [Fact]
    public async Task Shows_when_it_was_last_used_and_is_noted_once_a_minute_at_most()
    {
        var (key, uses) = (await _node.Key(Scopes.SegmentsRead, "used"), _node.Services.GetRequiredService<KeyUses>());
        Assert.Null(await LastUsed());
        var first = _node.Clock.Now;
        await Use(_node, key.Secret!);
        Assert.Equal(first, await LastUsed());
        _node.Clock.Advance(KeyUses.NoteInterval - TimeSpan.FromMicroseconds(1));
        await Use(_node, key.Secret!);
        Assert.Equal(first, await LastUsed());
        _node.Clock.Advance(TimeSpan.FromMicroseconds(1));
        await Use(_node, key.Secret!);
        Assert.Equal(first + KeyUses.NoteInterval, await LastUsed());

        async Task<DateTimeOffset?> LastUsed()
        {
            await uses.Write(Cancellation);
            return (await _node.Get($"/v1/keys/{key.KeyId}", _operator)).Json.GetProperty("lastUsedAt") is { ValueKind: JsonValueKind.String } at ? at.GetDateTimeOffset() : null;
        }
    }

    [Fact]
    public async Task Is_listed_page_by_page_and_as_csv()
    {
        var tenant = await _node.Key(Scopes.Admin, "pages", "=pages");
        var ids = new List<string> { tenant.KeyId };
        for (var i = 0; i < 4; i++)
        {
            ids.Insert(0, (await _node.Key(Scopes.LogRead, "pages", $"n{i}")).KeyId);
        }

        await _node.CatchUp();
        var (seen, cursor) = (new List<string>(), "");
        do
        {
            var page = await _node.Get($"/v1/keys?limit=2&cursor={cursor}", tenant.Bearer());
            seen.AddRange(page.Each("keyId"));
            cursor = page.Json.GetProperty("nextCursor").GetString();
        }
        while (cursor is not null);

        Assert.Equal(ids, seen);
        var csv = (await _node.Get("/v1/keys", tenant.Bearer(), ("Accept", "text/csv"))).Text.Split("\r\n");
        Assert.Equal("keyId,name,tenant,scopes,prefix,status,createdAt,createdBy,expiresAt,rotatedAt,oldSecretUntil,revokedAt,lastUsedAt", csv[0]);
        Assert.StartsWith($"{tenant.KeyId},'=pages,pages,admin,ldg_{tenant.KeyId},active,", csv[5], StringComparison.Ordinal);
    }

    [Fact]
    public async Task Costs_no_look_up_when_it_is_guessed_again_and_few_when_many_are_guessed()
    {
        await using var fresh = await _node.StartAnew();
        var own = await fresh.Key(Scopes.SegmentsRead);
        Assert.Equal(HttpStatusCode.OK, await Use(fresh, own.Secret!));
        var guess = KeySecret.New(KeySecret.NewId());
        Assert.Equal(HttpStatusCode.Unauthorized, await Use(fresh, guess));
        var answers = await Task.WhenAll(Enumerable.Range(0, 6 * KnownKeys.MaxSearchesPerSecond)
            .Select(_ => fresh.GetAsIs("/v1/users", GivenKeys.Bearer(KeySecret.New(KeySecret.NewId())))));

        Assert.Equal(HttpStatusCode.Unauthorized, await Use(fresh, guess)); // known to be none
        Assert.All(answers, a => Assert.True(a.Status is HttpStatusCode.Unauthorized or HttpStatusCode.TooManyRequests));
        Assert.Equal("1", answers.First(a => a.Status == HttpStatusCode.TooManyRequests).IsProblem(429, "rate-limited").Headers["Retry-After"]);
        Assert.Equal(HttpStatusCode.OK, await Use(fresh, own.Secret!)); // who is known is not kept out
    }

    [Fact]
    public async Task Is_in_the_same_rows_when_the_view_is_rebuilt()
    {
        await using var fresh = await _node.StartAnew();
        for (var i = 0; i < 6; i++)
        {
            var tenant = i % 2 == 0 ? "acme" : "*DEFAULT*";
            var made = await fresh.Post("/v1/keys", new { name = $"n{i}", scopes = Of("log:read", "usage:write"), tenant });
            if (i > 1)
            {
                await fresh.Post($"/v1/keys/{Id(made)}/rotate", new { overlap = "PT1H" });
            }

            if (i > 3)
            {
                await fresh.Delete($"/v1/keys/{Id(made)}");
            }
        }

        await fresh.CatchUp();
        var live = await fresh.Rows(KeysProjection.View);
        Assert.Equal(10, live.Split('\n', StringSplitOptions.RemoveEmptyEntries).Length); // with the line that names the table
        await fresh.Rebuild(KeysProjection.View);

        Assert.Equal(live, await fresh.Rows(KeysProjection.View));
        Assert.Empty(fresh.Errors);
    }
}

/// <summary>A body of empty lines without an end, or with one that is far off when a length is announced.</summary>
internal sealed class EndlessLines : HttpContent
{
    private readonly int? _bytes;

    public EndlessLines(int? bytes)
    {
        _bytes = bytes;
        Headers.ContentType = new("application/x-ndjson");
    }

    public TaskCompletionSource Begun { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    protected override async Task SerializeToStreamAsync(Stream stream, TransportContext? context)
    {
        while (true)
        {
            await stream.WriteAsync("\n"u8.ToArray());
            await stream.FlushAsync();
            Begun.TrySetResult();
            await Task.Delay(20);
        }
    }

    protected override bool TryComputeLength(out long length)
    {
        length = _bytes ?? 0;
        return _bytes is not null;
    }
}
