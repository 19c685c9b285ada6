using System.Net;
using System.Text.Json;
using System.Text.RegularExpressions;
using Ledger.Authentication;
using Ledger.EventStore;
using Ledger.Keys;
using Ledger.Testing;
using Ledger.Tests.Keys;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;
using Microsoft.AspNetCore.Routing.Patterns;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;

namespace Ledger.Tests.Tenants;

/// <summary>
/// Every route, asked by an admin of one tenant with the ids of another's things: no answer shows anything of what is in them, and
/// nothing of the other tenant's is changed.
/// </summary>
public sealed class Another_tenants_ids(PostgresFixture postgres) : IAsyncLifetime
{
    /// <summary>Stands in all content of the other tenant, and in none of its ids.</summary>
    private const string Marker = "theirs-alone";

    private static readonly string[] s_segments = ["s1"];
    private static readonly string[] s_admin = ["admin"];

    private readonly TestNode _node = new(postgres) { Auth = AccessMode.Required };
    private readonly Dictionary<string, string> _ids = [];
    private long _head;
    private KeyAnswer _theirs = null!;
    private KeyAnswer _mine = null!;

    private static CancellationToken Ct => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        await _node.InitializeAsync();
        _theirs = await _node.Key(Scopes.Admin, "acme", Marker);
        _mine = await _node.Key(Scopes.Admin, "other", "me");
        (string, string) key = _theirs.Bearer();
        (await _node.Put("/v1/users/u1", new { attributes = new { colour = Marker } }, key)).Is(HttpStatusCode.Created);
        (await _node.Post("/v1/segments", new { slug = "s1", description = Marker, rolloutPercent = "100" }, key)).Is(HttpStatusCode.Created);
        (await _node.Post("/v1/segments", new { slug = Marker }, key)).Is(HttpStatusCode.Created);
        (await _node.Put("/v1/users/u1/segments/s1", new { ttl = "P1D" }, key)).Is(HttpStatusCode.OK);
        (await _node.Put($"/v1/users/u1/segments/{Marker}", new { }, key)).Is(HttpStatusCode.OK);
        (await _node.Put($"/v1/users/{Marker}/segments/s1", new { }, key)).Is(HttpStatusCode.OK);
        (await _node.Post("/v1/services", new { serviceId = "v1", title = Marker }, key)).Is(HttpStatusCode.Created);
        foreach (var id in (string[])["c1", "c2"])
        {
            (await _node.Post("/v1/usage", new { id, source = "src", userId = "u1", serviceId = "v1", tags = new { team = Marker } }, key)).Is(HttpStatusCode.OK);
        }

        (await _node.Post("/v1/services/v1/prices", new { currency = "USD", components = new[] { new { unit = Marker, price = "1" } } }, key)).Is(HttpStatusCode.Created);
        (await _node.Post("/v1/usage/calls/src/c2/void", new { reason = Marker }, key)).Is(HttpStatusCode.OK);
        var report = (await _node.Post("/v1/reports", new { kind = "memberships", month = "2026-11" }, key)).Is(HttpStatusCode.Created);
        var (startsAt, endsAt) = (_node.Clock.Now.AddDays(1), _node.Clock.Now.AddDays(2));
        var campaign = (await _node.Post("/v1/campaigns", new { name = Marker, text = Marker, audience = new { segments = new { any = s_segments } }, startsAt, endsAt }, key))
            .Is(HttpStatusCode.Created);
        await _node.ReportMade(report.Headers["Location"], key);
        await _node.CatchUp();
        while ((await _node.GetAsIs("/v1/log/checkpoint", key)).Position is not { } sealedUpTo || sealedUpTo < _node.Position)
        {
            await Task.Delay(20, Ct);
        }

        _head = _node.Position;
        foreach (var (name, value) in (ReadOnlySpan<(string, string)>)
        [
            ("userId", "u1"), ("slug", "s1"), ("serviceId", "v1"), ("source", "src"), ("id", "c1"), ("reportId", report.Headers["Location"].Split('/')[^1]),
            ("keyId", _theirs.KeyId), ("campaignId", campaign.Headers["Location"].Split('/')[^1]), ("streamId", "user-u1"), ("priceVersion", "1"), ("version", "1"), ("name", "Users"), ("level", "entries"), ("index", "000.p/1"), ("documentName", "v1"),
        ])
        {
            _ids[name] = value;
        }
    }

    public async ValueTask DisposeAsync() => await _node.DisposeAsync();

    private IEnumerable<(string Method, string Path)> Routes =>
        from endpoint in _node.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
        where endpoint.Metadata.GetMetadata<Requirement>() != Requirement.Nothing
        from method in endpoint.Metadata.GetRequiredMetadata<IHttpMethodMetadata>().HttpMethods
        select (method, "/" + string.Join('/', endpoint.RoutePattern.PathSegments.Select(s => string.Concat(s.Parts.Select(p => p switch
        {
            RoutePatternLiteralPart literal => literal.Content,
            RoutePatternSeparatorPart separator => separator.Content,
            RoutePatternParameterPart parameter => _ids.GetValueOrDefault(parameter.Name) ?? throw new InvalidOperationException($"What is another tenant's {parameter.Name}, of {endpoint.RoutePattern.RawText}?"),
            _ => throw new InvalidOperationException(endpoint.RoutePattern.RawText),
        })))));

    [Fact]
    public async Task show_and_change_nothing_on_any_route()
    {
        var before = await Theirs();
        Assert.All(before, a => Assert.Contains(Marker, a.Text, StringComparison.Ordinal));
        var log = (await _node.Log()).Count(e => e.TenantId == "acme");
        var shown = new List<string>();
        var (statuses, tried) = (new HashSet<HttpStatusCode>(), 0);
        foreach (var (method, path) in Routes)
        {
            foreach (var target in method == "GET" ? (string[])[path, .. Queries(path)] : [path])
            {
                foreach (var accept in method == "GET" ? (string[])["application/json", "text/csv", "application/x-ndjson"] : ["application/json"])
                {
                    foreach (var body in Bodies(method, path))
                    {
                        var answer = await _node.Send(new HttpMethod(method), target, body, _mine.Bearer(), ("Accept", accept), ("Prefer", "wait=0"));
                        tried++;
                        statuses.Add(answer.Status);
                        if (answer.Text.Contains(Marker, StringComparison.Ordinal) || answer.Text.Contains(_theirs.Prefix, StringComparison.Ordinal) || (int)answer.Status >= 500)
                        {
                            shown.Add($"{method} {target} ({accept}): {(int)answer.Status} {answer.Text}");
                        }
                    }
                }
            }
        }

        Assert.Empty(shown);
        Assert.True(tried > 100, $"{tried} requests");
        Assert.Superset(new HashSet<HttpStatusCode> { HttpStatusCode.OK, HttpStatusCode.NotFound, HttpStatusCode.Forbidden }, statuses);
        await _node.CatchUp();
        Assert.Equal(log, (await _node.Log()).Count(e => e.TenantId == "acme"));
        Assert.Equal(before, await Theirs());
        Assert.Empty(_node.Errors);
    }

    [Fact]
    public async Task are_hidden_even_from_a_statement_that_forgets_its_tenant()
    {
        var views = _node.Services.GetRequiredService<ViewDatabase>();
        Task<List<string>> Slugs(string tenant) => views.Rows(tenant, Sql.Command("select s.slug from segments s order by s.slug"), row => row.GetString(0), Ct);

        Assert.Equal(["s1", Marker], await Slugs("acme"));
        Assert.Empty(await Slugs("other"));
        Assert.Empty(await Slugs(TenantScope.Every));
    }

    [Fact]
    public async Task prove_nothing_of_their_events()
    {
        var position = (await _node.Log()).First(e => e.TenantId == "acme").Position;

        (await _node.GetAsIs($"/v1/log/proofs/inclusion?position={position}", _mine.Bearer())).IsProblem(404, "event-not-found");
        (await _node.GetAsIs("/v1/log/tile/entries/000.p/1", _mine.Bearer())).IsProblem(403, "forbidden");
        (await _node.GetAsIs("/v1/log/tile/0/000.p/1", _mine.Bearer())).Is(HttpStatusCode.OK);
        (await _node.GetAsIs("/v1/log/proofs/consistency?from=1", _mine.Bearer())).Is(HttpStatusCode.OK);
        (await _node.GetAsIs($"/v1/log/proofs/inclusion?position={position}", _theirs.Bearer())).Is(HttpStatusCode.OK);
        var auditor = await _node.Key(Scopes.LogRead, name: "auditor");
        (await _node.GetAsIs($"/v1/log/proofs/inclusion?position={position}", auditor.Bearer())).Is(HttpStatusCode.OK);
        (await _node.GetAsIs("/v1/log/tile/entries/000.p/1", auditor.Bearer())).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task leave_every_statement_on_the_indexes_that_it_has_without_policies()
    {
        foreach (var path in Routes.Where(r => r.Method == "GET").SelectMany(r => (string[])[r.Path, .. Queries(r.Path)]).Where(p => !p.StartsWith("/metrics", StringComparison.Ordinal)))
        {
            for (var i = 0; i < 3; i++) // a statement is kept prepared from its second use on
            {
                await _node.GetAsIs(path, _theirs.Bearer());
            }
        }

        var requests = _node.Services.GetRequiredService<NpgsqlDataSource>();
        var owner = _node.Services.GetRequiredService<OwnerDatabase>().Source; // a superuser, whom no policy binds
        var statements = new Dictionary<string, string[]>();
        var held = new List<NpgsqlConnection>();
        for (var i = 0; i < _node.Services.GetRequiredService<Ledger.Hosting.LedgerSettings>().RequestPoolSize; i++)
        {
            var connection = await requests.OpenConnectionAsync(Ct);
            held.Add(connection);
            await using var list = new NpgsqlCommand("select statement, parameter_types::text[] from pg_prepared_statements where not from_sql", connection);
            await using var reader = await list.ExecuteReaderAsync(Ct);
            while (await reader.ReadAsync(Ct))
            {
                statements[reader.GetString(0)] = reader.GetFieldValue<string[]>(1);
            }
        }

        foreach (var connection in held)
        {
            await connection.DisposeAsync();
        }

        var (compared, differing) = (0, new List<string>());
        foreach (var (statement, types) in statements.Where(s => s.Key.Contains(" from ", StringComparison.Ordinal) && !s.Key.Contains("pg_prepared", StringComparison.Ordinal)))
        {
            var (with, without) = (await Plan(requests, statement, types), await Plan(owner, statement, types));
            if (!with.SequenceEqual(without))
            {
                differing.Add($"{statement}\nwith policies:\n{string.Join('\n', with)}\nwithout:\n{string.Join('\n', without)}");
            }

            compared += with.Length > 0 ? 1 : 0;
        }

        TestContext.Current.TestOutputHelper?.WriteLine($"{compared} statements");
        Assert.True(differing.Count == 0, string.Join("\n\n", differing));
        Assert.True(compared >= 30, $"{compared} statements");
    }

    /// <summary>Which indexes a generic plan reads, and by which conditions.</summary>
    private static async Task<string[]> Plan(NpgsqlDataSource database, string statement, string[] types)
    {
        await using var connection = await database.OpenConnectionAsync(Ct);
        foreach (var sql in (string[])[$"prepare planned{(types.Length == 0 ? "" : $" ({string.Join(", ", types)})")} as {statement}"])
        {
            await using var prepare = new NpgsqlCommand(sql, connection);
            await prepare.ExecuteNonQueryAsync(Ct);
        }

        var lines = new List<string>();
        await using (var explain = new NpgsqlCommand($"explain (costs off) execute planned{(types.Length == 0 ? "" : $" ({string.Join(", ", types.Select(_ => "null"))})")}", connection))
        {
            await using var reader = await explain.ExecuteReaderAsync(Ct);
            while (await reader.ReadAsync(Ct))
            {
                var line = reader.GetString(0).TrimStart(' ', '-', '>');
                if (line.Contains("Scan", StringComparison.Ordinal) || line.StartsWith("Index Cond", StringComparison.Ordinal))
                {
                    lines.Add(Regex.Replace(line, @"\$\d+", "$")); // a policy's subquery has a number, too
                }
            }
        }

        await using var forget = new NpgsqlCommand("deallocate planned", connection);
        await forget.ExecuteNonQueryAsync(Ct);
        return [.. lines];
    }

    /// <summary>What the other tenant is answered itself.</summary>
    private async Task<IReadOnlyList<(string Path, string Text)>> Theirs()
    {
        var answers = new List<(string, string)>();
        foreach (var path in (string[])["/v1/users/u1", "/v1/users/u1/segments", "/v1/segments", "/v1/segments/s1/members", "/v1/services/v1", "/v1/services/v1/prices", "/v1/usage/calls", "/v1/history", "/v1/streams/user-u1", "/v1/campaigns", $"/v1/keys/{_theirs.KeyId}"])
        {
            var text = (await _node.Get(path, _theirs.Bearer())).Is(HttpStatusCode.OK).Text;
            answers.Add((path, path.StartsWith("/v1/keys", StringComparison.Ordinal) ? $"{JsonElement.Parse(text).GetProperty("name")} {JsonElement.Parse(text).GetProperty("status")}" : text));
        }

        return answers;
    }

    /// <summary>What narrows a list down to another tenant's things, and what asks for the past.</summary>
    private string[] Queries(string path) => path switch
    {
        "/v1/history" => ["/v1/history?user=u1", "/v1/history?segment=s1", "/v1/history?service=v1", "/v1/history?kind=joined"],
        "/v1/usage/calls" => ["/v1/usage/calls?user=u1", "/v1/usage/calls?service=v1", "/v1/usage/calls?user=u1&service=v1", "/v1/usage/calls?status=voided"],
        "/v1/usage/totals" => ["/v1/usage/totals?groupBy=user,service,day&user=u1", "/v1/usage/totals?service=v1", "/v1/usage/totals?groupBy=user", $"/v1/usage/totals?groupBy=user&position={_head}"],
        "/v1/events" => ["/v1/events?after=0", "/v1/events?after=0&stream=user-"],
        "/v1/users/u1/segments" or "/v1/segments/s1/members" or "/v1/segments/counts" or "/v1/users/u1/segments/s1" =>
            [$"{path}?position={_head}", $"{path}?at=2026-11-20T12:00:00Z", $"{path}?at=2099-01-01T00:00:00Z"],
        "/v1/services/v1/prices" => [$"{path}?at=2099-01-01T00:00:00Z"],
        "/v1/log/proofs/inclusion" => [.. Enumerable.Range(1, (int)_head).Select(p => $"{path}?position={p}")],
        "/v1/log/proofs/consistency" => [$"{path}?from=1"],
        _ => [],
    };

    private static object?[] Bodies(string method, string path) => (method, path) switch
    {
        ("GET" or "DELETE", _) => [null],
        (_, "/v1/usage") => [new { id = "c1", source = "src", userId = "u1", serviceId = "v1" }],
        (_, "/v1/users/u1") => [new { attributes = new { mine = 1 } }],
        (_, "/v1/users/u1/segments") => [new { join = new[] { new { segment = "s1" } } }, new { leave = new[] { "s1" } }],
        (_, "/v1/users/u1/segments/s1") => [new { }],
        ("PATCH", "/v1/segments/s1") => [new { description = "mine" }],
        (_, "/v1/segments") => [new { slug = "of-me" }],
        (_, "/v1/services") => [new { serviceId = "of-me", title = "of me" }],
        ("PATCH", "/v1/services/v1") => [new { description = "mine" }],
        (_, "/v1/services/v1/prices") => [new { currency = "USD", components = new[] { new { unit = "call", price = "1" } } }],
        (_, "/v1/usage/calls/src/c1/void") => [new { reason = "mine" }],
        (_, "/v1/usage/unpriced/price") => [new { serviceId = "v1" }],
        (_, "/v1/reports") => [new { kind = "memberships", month = "2026-10", userId = "u1" }],
        (_, "/v1/keys") => [new { name = "mine", scopes = s_admin, tenant = "acme" }],
        (_, "/v1/campaigns") => [new { name = "mine", text = "mine", audience = new { segments = new { any = s_segments } }, endsAt = "2099-01-01T00:00:00Z" }],
        ("PATCH", _) when path.StartsWith("/v1/campaigns/", StringComparison.Ordinal) => [new { name = "mine" }],
        _ => [new { }],
    };
}
