using System.Diagnostics;
using System.Net.Http.Json;
using System.Text.Json;
using Ledger.Testing;
using Ledger.Tests.Operations;

namespace Ledger.Tests.Authentication;

/// <summary>The program as it is run: keys made on the command line, and what it tells of them.</summary>
public sealed class What_is_secret(PostgresFixture postgres)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Is_told_once_by_the_verb_and_never_in_the_log_the_metrics_or_the_events()
    {
        var database = await postgres.CreateDatabase();
        var (code, secret, told) = await Ledger(database, "keys", "create", "--name", "first", "--scope", "admin");
        Assert.Equal(0, code);
        Assert.Matches(@"^ldg_[0-9a-f]{16}_[A-Za-z0-9_-]{43}\n$", secret);
        Assert.DoesNotContain(secret.Trim(), told, StringComparison.Ordinal);
        secret = secret.Trim();
        using var issuer = new Issuer();
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, Issuer.Set(issuer.SecretJwk()), Cancellation);
        var token = issuer.Token(Issuer.Claims(DateTimeOffset.UtcNow, c => (c["tenant"], c["scope"]) = ("*DEFAULT*", "admin")), "HS256");
        var wrong = token[..^4] + "AAAA";

        string[] output;
        string metrics, events;
        await using (var up = await UpProcess.Start(
            database, ("LEDGER_AUTH", "required"), ("LEDGER_JWT_ISSUER", Issuer.Name), ("LEDGER_JWT_AUDIENCE", Issuer.Audience), ("LEDGER_JWT_KEYS", file)))
        {
            Assert.Contains("Credentials are asked for: './ledger keys create' makes one", up.Output);
            foreach (var credential in (string[])[secret, token, wrong, secret[..^2] + "!!"])
            {
                up.Client.DefaultRequestHeaders.Authorization = new("Bearer", credential);
                foreach (var path in (string[])["/v1/users", "/v1/users/%ff", "/v1/events?after=99", "/v1/segments?limit=0", "/v1/nothing", "/v1/keys"])
                {
                    using var answer = await up.Client.GetAsync(new Uri(path, UriKind.Relative), Cancellation);
                    Assert.True((int)answer.StatusCode < 500, $"{path}: {answer.StatusCode}");
                }

                using var made = await up.Client.PutAsJsonAsync(new Uri("/v1/users/u1", UriKind.Relative), new { attributes = new { } }, Cancellation);
                using var malformed = await up.Client.PostAsync(new Uri("/v1/keys", UriKind.Relative), new StringContent("{"), Cancellation);
            }

            up.Client.DefaultRequestHeaders.Authorization = new("Bearer", secret);
            metrics = await up.Client.GetStringAsync(new Uri("/metrics", UriKind.Relative), Cancellation);
            events = await up.Client.GetStringAsync(new Uri("/v1/events", UriKind.Relative), Cancellation);
            await up.Stop();
            output = [.. up.Output];
        }

        File.Delete(file);
        Assert.Contains("Ledger has stopped", output);
        Assert.Contains("key_created", events, StringComparison.Ordinal);
        Assert.Contains("user_registered", events, StringComparison.Ordinal);
        foreach (var text in (string[])[metrics, events, string.Join('\n', output)])
        {
            foreach (var hidden in (string[])[secret[21..], token.Split('.')[2], Issuer.Encode(issuer.Secret), token.Split('.')[1]])
            {
                Assert.DoesNotContain(hidden, text, StringComparison.Ordinal);
            }
        }
    }

    [Fact]
    public async Task Is_rotated_and_revoked_by_verbs()
    {
        var database = await postgres.CreateDatabase();
        var secret = (await Ledger(database, "keys", "create", "--name", "gateway", "--tenant", "acme", "--scope", "usage:write", "usage:read", "--expires", "P90D")).Output.Trim();
        var id = secret[4..20];

        var rotated = await Ledger(database, "keys", "rotate", id, "--overlap", "PT1H");
        Assert.Equal((0, $"ldg_{id}_"), (rotated.Code, rotated.Output[..21]));
        Assert.NotEqual(secret, rotated.Output.Trim());
        Assert.Equal((0, $"The key {id} is revoked.\n"), await Ledger(database, "keys", "revoke", id) is var revoked ? (revoked.Code, revoked.Output) : default);

        Assert.Equal((1, "", $"There is no key '{id}'.\n"), await Ledger(database, "keys", "revoke", id));
        Assert.Equal((1, "", "--overlap must be a duration such as PT1H; '1h' is none.\n"), await Ledger(database, "keys", "rotate", id, "--overlap", "1h"));
        Assert.StartsWith("--expires must be a time", (await Ledger(database, "keys", "create", "--name", "x", "--scope", "admin", "--expires", "soon")).Errors, StringComparison.Ordinal);
        Assert.StartsWith("scopes[0] must be one of", (await Ledger(database, "keys", "create", "--name", "x", "--scope", "root")).Errors, StringComparison.Ordinal);

        await using var up = await UpProcess.Start(database);
        up.Client.DefaultRequestHeaders.Authorization = new("Bearer", rotated.Output.Trim());
        using var answer = await up.Client.GetAsync(new Uri("/v1/services", UriKind.Relative), Cancellation);
        Assert.Equal(System.Net.HttpStatusCode.Unauthorized, answer.StatusCode);
        Assert.Contains("revoked", JsonElement.Parse(await answer.Content.ReadAsStringAsync(Cancellation)).GetProperty("detail").GetString(), StringComparison.Ordinal);
        var listed = await Ledger(database, "keys", "list");
        Assert.Matches($@"^{id}  revoked  acme  gateway  \[usage:read usage:write\]  expires \S+", listed.Output);
    }

    private static async Task<(int Code, string Output, string Errors)> Ledger(string database, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "Ledger.dll"), .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["LEDGER_DB"] = database;
        using var process = Process.Start(start)!;
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(Cancellation), process.StandardError.ReadToEndAsync(Cancellation));
        await process.WaitForExitAsync(Cancellation);
        return (process.ExitCode, await output, await errors);
    }
}
