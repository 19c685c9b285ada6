using System.Net;
using Ledger.Authentication;
using Ledger.Grpc;
using Ledger.Hosting;
using Ledger.Http;
using Ledger.Keys;
using Ledger.Testing;
using Ledger.Tests.Grpc;
using Ledger.Tests.Keys;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Authentication;

public sealed class Every_route(GuardedNode guarded) : IClassFixture<GuardedNode>
{
    private readonly TestNode _node = guarded.Node;

    private IEnumerable<(string Method, string Path, Requirement? Needed)> Routes =>
        from endpoint in _node.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
        from method in endpoint.Metadata.GetRequiredMetadata<IHttpMethodMetadata>().HttpMethods
        select (method, PathOf(endpoint), endpoint.Metadata.GetMetadata<Requirement>());

    private IEnumerable<(string Method, string Path, Requirement Needed)> Guarded => Routes.Where(r => r.Needed != Requirement.Nothing).Select(r => (r.Method, r.Path, r.Needed!));

    /// <summary>With something in the place of each parameter.</summary>
    private static string PathOf(RouteEndpoint endpoint) => "/" + string.Join('/', endpoint.RoutePattern.PathSegments.Select(s => string.Concat(s.Parts.Select(p => p switch
    {
        Microsoft.AspNetCore.Routing.Patterns.RoutePatternLiteralPart literal => literal.Content,
        Microsoft.AspNetCore.Routing.Patterns.RoutePatternSeparatorPart separator => separator.Content,
        _ => "x",
    }))));

    [Fact]
    public void Declares_what_it_asks_of_its_caller() => Assert.All(Routes, r => Assert.NotNull(r.Needed));

    [Fact]
    public void Is_open_to_nobody_but_for_these() => Assert.Equal(
        ["/health/live", "/health/ready", "/openapi/x.json"], Routes.Where(r => r.Needed == Requirement.Nothing).Select(r => r.Path).Order(StringComparer.Ordinal));

    [Fact]
    public void Asks_for_the_scope_of_what_it_is_about()
    {
        Assert.All(Guarded, r => Assert.Equal(Expected(r.Method, r.Path), r.Needed));

        static Requirement Expected(string method, string path)
        {
            var reads = method == "GET";
            return path.Split('/')[1..] switch
            {
                ["metrics"] or ["v1", "projections", ..] => new(Scopes.Admin, OfOperator: true),
                ["v1", "keys", ..] => new(Scopes.Admin),
                ["v1", "users" or "segments", ..] => new(reads ? Scopes.SegmentsRead : Scopes.SegmentsWrite),
                ["v1", "services" or "usage", ..] => new(reads ? Scopes.UsageRead : Scopes.UsageWrite),
                ["v1", "campaigns", ..] => new(reads ? Scopes.CampaignsRead : Scopes.CampaignsWrite),
                ["v1", "history"] => new(Scopes.HistoryRead),
                ["v1", "reports", ..] => new(method == "DELETE" ? Scopes.Admin : Scopes.HistoryRead),
                ["v1", "events" or "streams" or "log", ..] => new(Scopes.LogRead),
                _ => throw new InvalidOperationException(path),
            };
        }
    }

    [Fact]
    public async Task Refuses_who_shows_no_credential_or_none_that_is_valid()
    {
        foreach (var (method, path, _) in Guarded)
        {
            var none = (await _node.Send(new HttpMethod(method), path, null)).IsProblem(401, "unauthorized");
            Assert.Equal("Bearer", none.Headers["WWW-Authenticate"]);
            var wrong = (await _node.Send(new HttpMethod(method), path, null, GivenKeys.Bearer("ldg_nonsense"))).IsProblem(401, "unauthorized");
            Assert.StartsWith("Bearer error=\"invalid_token\"", wrong.Headers["WWW-Authenticate"], StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task Lets_in_who_has_its_scope_and_nobody_else()
    {
        var scopes = Enum.GetValues<Scopes>().Where(s => s is not (Scopes.None or Scopes.All)).ToArray();
        var keys = new Dictionary<Scopes, KeyAnswer>();
        foreach (var scope in scopes)
        {
            keys[scope] = await _node.Key(scope, name: $"{scope}");
        }

        foreach (var (method, path, needed) in Guarded)
        {
            foreach (var scope in scopes)
            {
                var answer = await _node.Send(new HttpMethod(method), path, null, keys[scope].Bearer());
                if (scope == needed.Scopes || scope == Scopes.Admin)
                {
                    Assert.False(answer.Status is HttpStatusCode.Unauthorized or HttpStatusCode.Forbidden, $"{method} {path} with {scope}: {answer.Text}");
                    continue;
                }

                answer.IsProblem(403, "insufficient-scope");
                var name = ScopeNames.Of(needed.Scopes).Single();
                Assert.Equal($"Bearer error=\"insufficient_scope\", scope=\"{name}\"", answer.Headers["WWW-Authenticate"]);
            }
        }
    }

    [Fact]
    public async Task Of_no_tenant_is_the_operators()
    {
        var admin = await _node.Key(Scopes.All, "acme");
        foreach (var (method, path, needed) in Guarded)
        {
            var answer = await _node.Send(new HttpMethod(method), path, null, admin.Bearer());
            Assert.Equal(needed.OfOperator, answer.Status == HttpStatusCode.Forbidden);
            if (needed.OfOperator)
            {
                answer.IsProblem(403, "forbidden");
            }
        }
    }

    [Fact]
    public async Task Says_in_the_description_which_scope_it_needs()
    {
        var document = (await _node.GetAsIs("/openapi/v1.json")).Json;
        Assert.Equal("bearer", document.GetProperty("components").GetProperty("securitySchemes").GetProperty("bearer").GetProperty("scheme").GetString());
        var described =
            from path in document.GetProperty("paths").EnumerateObject()
            from operation in path.Value.EnumerateObject()
            let security = operation.Value.GetProperty("security")
            select $"{operation.Name.ToUpperInvariant()} {(security.GetArrayLength() == 0 ? "" : security[0].GetProperty("bearer")[0].GetString())}";

        Assert.Equal(
            Routes.Where(r => !r.Path.StartsWith("/openapi", StringComparison.Ordinal)).Select(r => $"{r.Method} {ScopeNames.Of(r.Needed!.Scopes).SingleOrDefault()}").Order(),
            described.Order());
    }

    [Theory]
    [InlineData("Basic dXNlcjpwYXNz", 401)]
    [InlineData("Bearer", 400)]
    [InlineData("Bearer ", 400)]
    [InlineData("Bearer a b", 400)]
    [InlineData("Bearer nothing-we-know", 401)]
    [InlineData("Bearer ldg_", 401)]
    [InlineData("Bearer ldg_0123456789ABCDEF_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 401)]
    public async Task Understands_what_is_no_credential(string header, int status)
    {
        var answer = (await _node.GetAsIs("/v1/users", ("Authorization", header))).IsProblem(status, status == 400 ? "invalid-request" : "unauthorized");
        if (status == 400)
        {
            Assert.Equal(("Authorization", "Bearer error=\"invalid_request\""), (answer.Fields.Single(), answer.Headers["WWW-Authenticate"]));
        }
    }

    [Fact]
    public async Task Counts_whom_it_refuses_by_reason_and_by_nothing_else()
    {
        var expired = await _node.Key(Scopes.LogRead, "acme", expiresAt: _node.Clock.Now.AddMinutes(1));
        var (reader, revoked) = (await _node.Key(Scopes.LogRead, "acme"), await _node.Key(Scopes.LogRead, "acme"));
        var admin = await _node.Key(Scopes.Admin, "acme");
        (await _node.Delete($"/v1/keys/{revoked.KeyId}", admin.Bearer())).Is(HttpStatusCode.NoContent);
        _node.Clock.Advance(TimeSpan.FromMinutes(2));
        (string Reason, string Path, (string, string)[] Headers)[] refused =
        [
            ("missing", "/v1/users", []), ("malformed", "/v1/users", [("Authorization", "Bearer a b")]), ("invalid", "/v1/users", [GivenKeys.Bearer("nothing")]),
            ("expired", "/v1/users", [expired.Bearer()]), ("revoked", "/v1/users", [revoked.Bearer()]),
            ("scope", "/v1/users", [reader.Bearer()]), ("operator", "/v1/projections", [admin.Bearer()]),
        ];
        var before = await Counted();
        foreach (var (reason, path, headers) in refused)
        {
            var answer = await _node.GetAsIs(path, headers);
            Assert.True((int)answer.Status is 400 or 401 or 403, $"{reason}: {answer.Status}");
        }

        var after = await Counted();
        Assert.All(refused, r => Assert.True(after.GetValueOrDefault(r.Reason) > before.GetValueOrDefault(r.Reason), r.Reason));
        Assert.Subset(new HashSet<string> { "missing", "malformed", "invalid", "expired", "revoked", "cross_site", "scope", "operator", "too_many", "unavailable" }, after.Keys.ToHashSet());

        async Task<Dictionary<string, double>> Counted() => (await _node.GetAsIs("/metrics", guarded.Operator.Bearer())).Is(HttpStatusCode.OK).Text.Split('\n')
            .Where(l => l.StartsWith("ledger_credentials_refused_total{", StringComparison.Ordinal))
            .ToDictionary(l => l.Split('"')[1], l => double.Parse(l.Split(' ')[^1], System.Globalization.CultureInfo.InvariantCulture));
    }

    [Fact]
    public async Task Refuses_a_secret_that_a_key_does_not_have_and_looks_for_it_now_and_then_only()
    {
        var began = System.Diagnostics.Stopwatch.GetTimestamp();
        var answers = await Task.WhenAll(Enumerable.Range(0, 100).Select(_ => _node.GetAsIs("/v1/users", GivenKeys.Bearer(KeySecret.New(guarded.Operator.KeyId)))));
        Assert.All(answers, a => a.IsProblem(401, "unauthorized"));
        (await _node.GetAsIs("/v1/users", guarded.Operator.Bearer())).Is(HttpStatusCode.OK);
        Assert.True(System.Diagnostics.Stopwatch.GetElapsedTime(began) < TimeSpan.FromSeconds(20));
    }

    [Fact]
    public async Task Takes_a_credential_once_and_its_scheme_in_any_case()
    {
        using var twice = new HttpRequestMessage(HttpMethod.Get, "/v1/users");
        twice.Headers.TryAddWithoutValidation("Authorization", [$"Bearer {guarded.Operator.Secret}", $"Bearer {guarded.Operator.Secret}"]);
        Assert.Equal("Authorization", (await _node.Send(twice)).Fields.Single());
        (await _node.GetAsIs("/v1/users", ("Authorization", $"bEARER  {guarded.Operator.Secret}"))).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Looks_at_tokens_up_to_a_length()
    {
        (await _node.GetAsIs("/v1/users", GivenKeys.Bearer(new string('x', Authenticator.MaxTokenChars)))).IsProblem(401, "unauthorized");
        (await _node.GetAsIs("/v1/users", GivenKeys.Bearer(new string('x', Authenticator.MaxTokenChars + 1)))).IsProblem(400, "invalid-request");
    }

    [Fact]
    public async Task That_does_not_exist_asks_for_nothing()
    {
        (await _node.GetAsIs("/v1/nothing")).IsProblem(404, "not-found");
        (await _node.Send(HttpMethod.Patch, "/v1/users", null)).IsProblem(405, "method-not-allowed");
        (await _node.GetAsIs("/docs/index.html")).Is(HttpStatusCode.OK);
    }
}

public sealed class Every_method_of_grpc(PostgresFixture postgres)
{
    [Fact]
    public async Task Asks_for_its_scope_by_metadata()
    {
        await using var node = new GrpcNode(postgres, AccessMode.Required);
        await node.InitializeAsync();
        var methods = node.Http.Services.GetRequiredService<GrpcTransport>().Methods.ToDictionary(m => m.Path, m => m.Needed);
        Assert.Equal("/grpc.health.v1.Health/Check", methods.Single(m => m.Value == Requirement.Nothing).Key);
        Assert.Equal(0, (await node.Call(new GrpcCall("Check", new { }) { Service = "grpc.health.v1.Health" })).Code);
        methods.Remove("/grpc.health.v1.Health/Check");
        var keys = new Dictionary<Scopes, KeyAnswer>();
        foreach (var scope in (Scopes[])[Scopes.UsageRead, Scopes.UsageWrite, Scopes.SegmentsWrite, Scopes.Admin])
        {
            keys[scope] = await node.Http.Key(scope, "acme", $"{scope}");
        }

        foreach (var (path, needed) in methods)
        {
            var method = path.Split('/')[^1];
            Assert.Equal(method == "QueryTotals" ? Scopes.UsageRead : Scopes.UsageWrite, needed.Scopes);
            (await node.Call(method, new { })).IsRefused(16, "unauthorized");
            (await node.Call(method, new { }, ("authorization", "Bearer nonsense"))).IsRefused(16, "unauthorized");
            foreach (var (scope, key) in keys)
            {
                var outcome = await node.Call(method, new { }, ("authorization", $"Bearer {key.Secret}"));
                if (scope == needed.Scopes || scope == Scopes.Admin)
                {
                    Assert.False(outcome.Code is 7 or 16, $"{method} with {scope}: {outcome.Message}");
                }
                else
                {
                    outcome.IsRefused(7, "insufficient-scope");
                }
            }
        }

        (string, string) writer = ("authorization", $"Bearer {keys[Scopes.UsageWrite].Secret}");
        (await node.Call("RegisterService", new { service_id = "s", title = "s" }, writer)).IsOk();
        (await node.Call("RecordCall", new { call = new { id = "1", user_id = "u", service_id = "s" } }, writer)).IsOk();
        var call = (await node.Http.Log()).Single(e => e.Data is Ledger.Usage.CallRecorded);
        Assert.Equal(("acme", "UsageWrite", "UsageWrite"), (call.TenantId, call.Actor, ((Ledger.Usage.CallRecorded)call.Data!).Source));
    }
}

public sealed class A_node_without_credentials(PostgresFixture postgres)
{
    private static readonly string[] s_writes = ["segments:write"];

    [Fact]
    public async Task Lets_everybody_do_everything_on_loopback_until_there_is_a_key_when_it_starts()
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var made = (await node.Post("/v1/keys", new { name = "first", scopes = s_writes })).Is(HttpStatusCode.Created);
        var secret = made.Json.GetProperty("secret").GetString()!;
        (await node.Put("/v1/users/u1", new { attributes = new { } })).Is(HttpStatusCode.Created);
        (await node.Put("/v1/users/u2", new { attributes = new { } }, GivenKeys.Bearer(secret))).Is(HttpStatusCode.Created);
        (await node.GetAsIs("/v1/users", GivenKeys.Bearer(secret))).IsProblem(403, "insufficient-scope"); // what is shown counts
        (await node.GetAsIs("/v1/users", GivenKeys.Bearer(secret[..^1]))).IsProblem(401, "unauthorized");
        Assert.Equal([("key-" + made.Json.GetProperty("keyId").GetString(), "anonymous"), ("user-u1", "anonymous"), ("user-u2", "first")],
            (await node.Log()).Select(e => (e.StreamId, e.Actor!)));

        await using var next = await node.StartBeside();
        (await next.GetAsIs("/v1/users")).IsProblem(401, "unauthorized");
        (await next.Put("/v1/users/u3", new { attributes = new { } }, GivenKeys.Bearer(secret))).Is(HttpStatusCode.Created);
    }

    [Theory]
    [InlineData("Host", "localhost:8080", true), InlineData("Host", "LOCALHOST", true), InlineData("Host", "127.0.0.2", true), InlineData("Host", "[::1]:8080", true)]
    [InlineData("Host", "evil.example:8080", false), InlineData("Host", "localhost.evil.example", false), InlineData("Host", "192.168.1.1", false)]
    [InlineData("Origin", "http://localhost:8080", true), InlineData("Origin", "https://evil.example", false), InlineData("Origin", "null", false)]
    public async Task Is_not_open_to_pages_of_other_sites(string header, string value, bool isAnswered)
    {
        await using var node = new TestNode(postgres);
        await node.InitializeAsync();
        var answer = await node.Put("/v1/users/u", new { attributes = new { } }, (header, value));
        if (isAnswered)
        {
            answer.Is(HttpStatusCode.Created);
        }
        else
        {
            Assert.Equal("Bearer", answer.IsProblem(401, "unauthorized").Headers["WWW-Authenticate"]);
            await using var off = await node.StartBeside(settings: s => s with { Auth = AccessMode.Off });
            (await off.Put("/v1/users/u", new { attributes = new { } }, (header, value))).Is(HttpStatusCode.Created);
        }
    }

    [Fact]
    public async Task Does_not_start_where_others_reach_it()
    {
        foreach (var (urls, grpcUrls) in ((string, string)[])[("http://0.0.0.0:0", ""), ("http://127.0.0.1:0", "http://*:0"), ("http://127.0.0.1:0;http://ledger:0", "")])
        {
            await using var node = new TestNode(postgres) { Settings = s => s with { Urls = urls, GrpcUrls = grpcUrls } };
            var refused = await Assert.ThrowsAsync<SettingsException>(async () => await node.InitializeAsync());
            Assert.Contains("is open to the network, and there is no credential that a caller could show", refused.Message, StringComparison.Ordinal);
        }

        await using var required = new TestNode(postgres) { Auth = AccessMode.Required, Settings = s => s with { Urls = "http://0.0.0.0:0" } };
        await Assert.ThrowsAsync<SettingsException>(async () => await required.InitializeAsync());
    }

    [Fact]
    public async Task Starts_where_others_reach_it_when_there_is_a_key_or_it_is_told_that_everybody_may_do_everything()
    {
        await using var first = new TestNode(postgres);
        await first.InitializeAsync();
        await first.Key(Scopes.Admin);
        await using var guarded = await first.StartBeside(settings: s => s with { Urls = "http://0.0.0.0:0" });
        (await guarded.GetAsIs("/v1/users")).IsProblem(401, "unauthorized");

        await using var off = new TestNode(postgres) { Auth = AccessMode.Off, Settings = s => s with { Urls = "http://0.0.0.0:0" } };
        await off.InitializeAsync();
        (await off.GetAsIs("/v1/users")).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Knows_whether_there_are_keys_while_the_view_of_keys_is_behind()
    {
        await using var first = new TestNode(postgres);
        await first.InitializeAsync();
        (await first.Post("/v1/projections/Keys/pause", null)).Is(HttpStatusCode.Accepted);
        await first.Put("/v1/users/u", "{}");

        await using var open = await first.StartBeside();
        (await open.GetAsIs("/v1/users")).Is(HttpStatusCode.OK);

        await first.UnseenKey(Scopes.Admin);
        await using var closed = await first.StartBeside();
        (await closed.GetAsIs("/v1/users")).IsProblem(401, "unauthorized");
        var keys = (await first.GetAsIs("/v1/projections")).Items.Single(v => v.GetProperty("name").GetString() == "Keys");
        Assert.True(keys.GetProperty("lagEvents").GetInt64() > 0, "The view shows the key already.");
    }

    [Fact]
    public async Task Asks_for_them_when_it_is_told_to()
    {
        await using var node = new TestNode(postgres) { Auth = AccessMode.Required };
        await node.InitializeAsync();
        (await node.GetAsIs("/v1/users")).IsProblem(401, "unauthorized");
        (await node.GetAsIs("/health/ready")).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Shows_its_metrics_to_everybody_only_when_it_is_told_to()
    {
        await using var closed = new TestNode(postgres) { Auth = AccessMode.Required };
        await closed.InitializeAsync();
        await using var open = await closed.StartBeside(settings: s => s with { OpenMetrics = true });
        (await closed.GetAsIs("/metrics")).IsProblem(401, "unauthorized");
        (await open.GetAsIs("/metrics")).Is(HttpStatusCode.OK);
        (await closed.GetAsIs("/metrics", (await closed.Key(Scopes.Admin)).Bearer())).Is(HttpStatusCode.OK);
    }

    [Theory]
    [InlineData("LEDGER_AUTH", "on", "LEDGER_AUTH must be auto, required or off; it is 'on'.")]
    [InlineData("LEDGER_METRICS", "yes", "LEDGER_METRICS must be operator or open; it is 'yes'.")]
    public void Names_a_setting_that_it_does_not_understand(string variable, string value, string message) => Assert.Equal(
        message, Assert.Throws<SettingsException>(() => LedgerSettings.FromEnvironment(name => name == variable ? value : null)).Message);
}
