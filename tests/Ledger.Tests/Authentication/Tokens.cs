using System.Buffers.Text;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using Ledger.Authentication;
using Ledger.Hosting;
using Ledger.Testing;
using Ledger.Tests.Keys;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;

namespace Ledger.Tests.Authentication;

/// <summary>An issuer of tokens, with the keys that it signs by.</summary>
internal sealed class Issuer : IDisposable
{
    public const string Name = "https://issuer.example/", Audience = "ledger";

    public static readonly TokenSettings Settings = new(Name, Audience, "");

    public RSA Rsa { get; } = RSA.Create(2048);

    public ECDsa Ecdsa { get; } = ECDsa.Create(ECCurve.NamedCurves.nistP256);

    public byte[] Secret { get; } = RandomNumberGenerator.GetBytes(32);

    public static string Encode(byte[] bytes) => Base64Url.EncodeToString(bytes);

    public static string Encode(string text) => Encode(Encoding.UTF8.GetBytes(text));

    public JsonObject RsaJwk(string? kid = "rsa")
    {
        var p = Rsa.ExportParameters(false);
        return new() { ["kty"] = "RSA", ["kid"] = kid, ["n"] = Encode(p.Modulus!), ["e"] = Encode(p.Exponent!) };
    }

    public JsonObject EcJwk(string? kid = "ec")
    {
        var q = Ecdsa.ExportParameters(false).Q;
        return new() { ["kty"] = "EC", ["crv"] = "P-256", ["kid"] = kid, ["x"] = Encode(q.X!), ["y"] = Encode(q.Y!) };
    }

    public JsonObject SecretJwk(string? kid = "hs") => new() { ["kty"] = "oct", ["kid"] = kid, ["k"] = Encode(Secret) };

    public static string Set(params JsonObject[] keys) => new JsonObject { ["keys"] = new JsonArray([.. keys]) }.ToJsonString();

    /// <summary>The claims of a token that is taken.</summary>
    public static JsonObject Claims(DateTimeOffset now, Action<JsonObject>? change = null)
    {
        var claims = new JsonObject
        {
            ["iss"] = Name, ["aud"] = Audience, ["sub"] = "somebody", ["tenant"] = "acme", ["scope"] = "openid segments:read segments:write",
            ["exp"] = now.AddMinutes(5).ToUnixTimeSeconds(), ["nbf"] = now.ToUnixTimeSeconds(),
        };
        change?.Invoke(claims);
        return claims;
    }

    public static JsonObject Header(string algorithm, string? kid) => kid is null ? new() { ["alg"] = algorithm, ["typ"] = "JWT" } : new() { ["alg"] = algorithm, ["typ"] = "JWT", ["kid"] = kid };

    public string Sign(string header, string payload, string algorithm)
    {
        var input = $"{Encode(header)}.{Encode(payload)}";
        return $"{input}.{Encode(SignBytes(Encoding.ASCII.GetBytes(input), algorithm))}";
    }

    public string Token(JsonObject claims, string algorithm = "RS256", string? kid = "?") => Sign(
        Header(algorithm, kid == "?" ? algorithm switch { "RS256" => "rsa", "ES256" => "ec", _ => "hs" } : kid).ToJsonString(), claims.ToJsonString(), algorithm);

    public byte[] SignBytes(byte[] input, string algorithm) => algorithm switch
    {
        "RS256" => Rsa.SignData(input, HashAlgorithmName.SHA256, RSASignaturePadding.Pkcs1),
        "ES256" => Ecdsa.SignData(input, HashAlgorithmName.SHA256, DSASignatureFormat.IeeeP1363FixedFieldConcatenation),
        _ => HMACSHA256.HashData(Secret, input),
    };

    public void Dispose()
    {
        Rsa.Dispose();
        Ecdsa.Dispose();
    }
}

public sealed class A_signature
{
    private const string Payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    public static TheoryData<string, string, string, string> Vectors => new()
    {
        {
            "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "HS256",
            """{"kty":"oct","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"""
        },
        {
            "eyJhbGciOiJSUzI1NiJ9",
            "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw",
            "RS256",
            """{"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}"""
        },
        {
            "eyJhbGciOiJFUzI1NiJ9", "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", "ES256",
            """{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"""
        },
    };

    /// <summary>RFC 7515, A.1, A.2 and A.3.</summary>
    [Theory, MemberData(nameof(Vectors))]
    public void Is_verified_as_the_appendix_of_the_RFC_has_it(string header, string signature, string algorithm, string jwk)
    {
        Assert.True(VerificationKey.TryRead(JsonElement.Parse(jwk), takeSecrets: true, out var key, out _));
        Assert.True(JsonWebSignature.TryRead($"{header}.{Payload}.{signature}", out var jws, out _));
        Assert.Equal((algorithm, algorithm), (key.Algorithm, jws.Algorithm));
        Assert.Equal("{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}", Encoding.UTF8.GetString(jws.Payload));
        Assert.True(jws.IsOf([key]));

        jws.Signature[7] ^= 1;
        Assert.False(jws.IsOf([key]));
        jws.Signature[7] ^= 1;
        jws.SigningInput[^1] ^= 1;
        Assert.False(jws.IsOf([key]));
        Assert.False((jws with { Signature = [] }).IsOf([key]));
    }

    /// <summary>RFC 7515, A.5, and what resembles it.</summary>
    [Theory]
    [InlineData("eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.")]
    [InlineData("eyJhbGciOiJOb25FIn0.e30.")]
    [InlineData("eyJhbGciOiIifQ.e30.")]
    public void Is_none_when_there_is_none(string token)
    {
        using var issuer = new Issuer();
        var (keys, _) = TokenKeys.Read(Encoding.UTF8.GetBytes(Issuer.Set(issuer.RsaJwk(), issuer.EcJwk(), issuer.SecretJwk())), takeSecrets: true);
        Assert.True(JsonWebSignature.TryRead(token, out var jws, out _));
        Assert.False(jws.IsOf(keys));
    }

    [Theory]
    [InlineData("""{"kty":"RSA","n":"AQAB","e":"AQAB"}""")]
    [InlineData("""{"kty":"RSA","n":"not base64url","e":"AQAB"}""")]
    [InlineData("""{"kty":"EC","crv":"P-384","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}""")]
    [InlineData("""{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}""")]
    [InlineData("""{"kty":"EC","crv":"P-256","d":"AA","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}""")]
    [InlineData("""{"kty":"oct","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}""")]
    [InlineData("""{"kty":"oct","alg":"HS512","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}""")]
    [InlineData("""{"kty":"oct","use":"enc","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}""")]
    [InlineData("""{"kty":"oct","key_ops":["sign"],"k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}""")]
    [InlineData("""{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}""")]
    [InlineData("[]")]
    public void Is_not_verified_by_a_key_that_is_not_fit_for_it(string jwk) =>
        Assert.False(VerificationKey.TryRead(JsonElement.Parse(jwk), takeSecrets: true, out _, out _));

    [Fact]
    public void Is_not_verified_by_a_secret_that_anybody_could_fetch()
    {
        using var issuer = new Issuer();
        var (keys, unusable) = TokenKeys.Read(Encoding.UTF8.GetBytes(Issuer.Set(issuer.SecretJwk(), issuer.EcJwk())), takeSecrets: false);
        Assert.Equal(("ES256", "keys[0] is a secret, which does not come from a URL"), (keys.Single().Algorithm, unusable.Single()));
    }

    [Fact]
    public void Of_a_token_that_names_no_key_is_verified_only_when_there_is_one_for_the_algorithm()
    {
        using var issuer = new Issuer();
        using var other = new Issuer();
        var token = issuer.Token(Issuer.Claims(TestClock.Start), "ES256", kid: null);
        Assert.True(JsonWebSignature.TryRead(token, out var jws, out _));
        Assert.True(jws.IsOf(Keys(issuer.EcJwk(), issuer.RsaJwk())));
        Assert.False(jws.IsOf(Keys(issuer.EcJwk(), other.EcJwk("other"))));

        static IReadOnlyList<VerificationKey> Keys(params JsonObject[] keys) => TokenKeys.Read(Encoding.UTF8.GetBytes(Issuer.Set(keys)), takeSecrets: true).Keys;
    }
}

/// <summary>A node that takes tokens by keys of a file.</summary>
public sealed class TokenNode(PostgresFixture postgres) : IAsyncLifetime
{
    private readonly string _file = Path.GetTempFileName();
    private TestNode? _node;

    internal Issuer Issuer { get; } = new();

    public TestNode Node => _node!;

    public async ValueTask InitializeAsync()
    {
        await File.WriteAllTextAsync(_file, Issuer.Set(Issuer.RsaJwk(), Issuer.EcJwk(), Issuer.SecretJwk()));
        _node = new TestNode(postgres) { Settings = s => s with { Tokens = Issuer.Settings with { Keys = _file } } };
        await _node.InitializeAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await Node.DisposeAsync();
        Issuer.Dispose();
        File.Delete(_file);
        Assert.Empty(Node.Errors);
    }
}

public sealed class A_token(TokenNode tokens) : IClassFixture<TokenNode>
{
    private readonly TestNode _node = tokens.Node;
    private readonly Issuer _issuer = tokens.Issuer;

    private JsonObject Claims(Action<JsonObject>? change = null) => Issuer.Claims(_node.Clock.Now, change);

    private Task<Answer> Use(string token) => _node.GetAsIs("/v1/users", GivenKeys.Bearer(token));

    private async Task Refused(string token, string why)
    {
        var answer = (await Use(token)).IsProblem(401, "unauthorized");
        Assert.Equal(why, answer.Json.GetProperty("detail").GetString());
        Assert.Equal($"Bearer error=\"invalid_token\", error_description=\"{why}\"", answer.Headers["WWW-Authenticate"]);
    }

    private Task Refused(Action<JsonObject> change, string why) => Refused(_issuer.Token(Claims(change)), why);

    [Fact]
    public async Task Is_asked_for_when_it_is_configured() => (await _node.GetAsIs("/v1/users")).IsProblem(401, "unauthorized");

    [Theory]
    [InlineData("RS256"), InlineData("ES256"), InlineData("HS256")]
    public async Task Gives_what_it_does_its_name_and_its_tenant(string algorithm)
    {
        var token = _issuer.Token(Claims(c => (c["sub"], c["tenant"]) = ($"by {algorithm}", $"tenant-{algorithm}")), algorithm);
        for (var i = 0; i < 2; i++)
        {
            (await _node.Put($"/v1/users/u{i}", new { attributes = new { } }, GivenKeys.Bearer(token))).Is(HttpStatusCode.Created);
        }

        Assert.Equal(
            [($"by {algorithm}", $"tenant-{algorithm}"), ($"by {algorithm}", $"tenant-{algorithm}")],
            (await _node.Log()).Where(e => e.Actor == $"by {algorithm}").Select(e => (e.Actor!, e.TenantId)));
        (await _node.GetAsIs("/v1/history", GivenKeys.Bearer(token))).IsProblem(403, "insufficient-scope");
    }

    [Fact]
    public async Task Has_its_scopes_as_a_text_or_a_list_and_others_count_for_nothing()
    {
        foreach (var change in (Action<JsonObject>[])
        [
            c => c["scope"] = "a segments:read  b", c => { c.Remove("scope"); c["scp"] = "segments:read"; },
            c => { c.Remove("scope"); c["scp"] = new JsonArray("x", "segments:read"); }, c => c["scope"] = new JsonArray("admin"),
        ])
        {
            (await Use(_issuer.Token(Claims(change)))).Is(HttpStatusCode.OK);
        }

        foreach (var change in (Action<JsonObject>[])[c => c.Remove("scope"), c => c["scope"] = "SEGMENTS:READ", c => c["scope"] = 7, c => c["scope"] = new JsonArray("segments:read", 7)])
        {
            (await Use(_issuer.Token(Claims(change)))).IsProblem(403, "insufficient-scope");
        }
    }

    [Fact]
    public async Task Is_of_one_issuer_and_for_one_audience()
    {
        const string issuer = "The token is of another issuer.", audience = "The token is for another audience.";
        (await Use(_issuer.Token(Claims(c => c["aud"] = new JsonArray("other", Issuer.Audience))))).Is(HttpStatusCode.OK);
        await Refused(c => c["iss"] = Issuer.Name.TrimEnd('/'), issuer);
        await Refused(c => c["iss"] = Issuer.Name.ToUpperInvariant(), issuer);
        await Refused(c => c["iss"] = new JsonArray(Issuer.Name), issuer);
        await Refused(c => c.Remove("iss"), issuer);
        await Refused(c => c["aud"] = "ledger2", audience);
        await Refused(c => c["aud"] = "Ledger", audience);
        await Refused(c => c["aud"] = new JsonArray(), audience);
        await Refused(c => c["aud"] = new JsonArray(Issuer.Audience, 7), audience);
        await Refused(c => c.Remove("aud"), audience);
    }

    [Fact]
    public async Task Has_an_end_and_perhaps_a_beginning_with_30_seconds_of_skew()
    {
        const string times = "The token must have exp, and exp and nbf must be seconds since 1970.";
        var now = _node.Clock.Now.ToUnixTimeSeconds();
        var skew = (long)JsonWebTokens.MaxSkew.TotalSeconds;
        (await Use(_issuer.Token(Claims(c => c["exp"] = now - skew + 1)))).Is(HttpStatusCode.OK);
        (await Use(_issuer.Token(Claims(c => c["nbf"] = now + skew)))).Is(HttpStatusCode.OK);
        (await Use(_issuer.Token(Claims(c => c.Remove("nbf"))))).Is(HttpStatusCode.OK);
        (await Use(_issuer.Token(Claims(c => c["exp"] = now + 60.5)))).Is(HttpStatusCode.OK);
        await Refused(c => c["exp"] = now - skew, "The token has expired.");
        await Refused(c => c["nbf"] = now + skew + 1, "The token does not hold yet.");
        await Refused(c => c.Remove("exp"), times);
        await Refused(c => c["exp"] = $"{now + 60}", times);
        await Refused(c => c["exp"] = -1, times);
        await Refused(c => c["exp"] = 1e300, times);
        await Refused(c => c["nbf"] = true, times);
    }

    [Fact]
    public async Task That_was_verified_before_is_refused_when_it_has_expired()
    {
        var token = _issuer.Token(Claims());
        (await Use(token)).Is(HttpStatusCode.OK);
        _node.Clock.Advance(TimeSpan.FromMinutes(5) + JsonWebTokens.MaxSkew);
        await Refused(token, "The token has expired.");
    }

    [Fact]
    public async Task Names_a_tenant_and_a_caller()
    {
        await Refused(c => c.Remove("tenant"), "The token names no tenant.");
        await Refused(c => c["tenant"] = "", "The token names no tenant.");
        await Refused(c => c["tenant"] = "a b", "The token names no tenant.");
        await Refused(c => c["tenant"] = new JsonArray("acme"), "The token names no tenant.");
        await Refused(c => c.Remove("sub"), "The token names no caller.");
        await Refused(c => c["sub"] = "", "The token names no caller.");
        await Refused(c => c["sub"] = "a\nb", "The token names no caller.");
        await Refused(c => c["sub"] = new string('x', JsonWebTokens.MaxNameCharacters + 1), "The token names no caller.");
        (await Use(_issuer.Token(Claims(c => c["sub"] = new string('x', JsonWebTokens.MaxNameCharacters))))).Is(HttpStatusCode.OK);
    }

    [Fact]
    public async Task Is_not_taken_by_another_algorithm_than_its_keys()
    {
        const string why = "The token is not signed by a key of the issuer.";
        var claims = Claims().ToJsonString();
        await Refused($"{Issuer.Encode("{\"alg\":\"none\"}")}.{Issuer.Encode(claims)}.", why);
        await Refused($"{Issuer.Encode("{\"alg\":\"none\",\"kid\":\"rsa\"}")}.{Issuer.Encode(claims)}.", why);

        // The public key as the secret of an HMAC: the old confusion.
        foreach (var secret in (byte[][])[_issuer.Rsa.ExportRSAPublicKey(), _issuer.Rsa.ExportSubjectPublicKeyInfo(), Encoding.ASCII.GetBytes(_issuer.Rsa.ExportSubjectPublicKeyInfoPem()), _issuer.Rsa.ExportParameters(false).Modulus!])
        {
            foreach (var kid in (string?[])["rsa", "hs", null])
            {
                var input = $"{Issuer.Encode(Issuer.Header("HS256", kid).ToJsonString())}.{Issuer.Encode(claims)}";
                await Refused($"{input}.{Issuer.Encode(HMACSHA256.HashData(secret, Encoding.ASCII.GetBytes(input)))}", why);
            }
        }

        foreach (var algorithm in (string[])["RS512", "PS256", "ES384", "rs256", "HS384"])
        {
            await Refused(_issuer.Sign($$"""{"alg":"{{algorithm}}","kid":"rsa"}""", claims, "RS256"), why);
        }

        await Refused(_issuer.Token(Claims(), "RS256", kid: "ec"), why);
        await Refused(_issuer.Token(Claims(), "RS256", kid: "unknown"), why);
        using var other = new Issuer();
        await Refused(other.Token(Claims()), why);
        var der = _issuer.Ecdsa.SignData("x"u8, HashAlgorithmName.SHA256, DSASignatureFormat.Rfc3279DerSequence);
        await Refused($"{Issuer.Encode(Issuer.Header("ES256", "ec").ToJsonString())}.{Issuer.Encode(claims)}.{Issuer.Encode(der)}", why);
        await Refused($"{Issuer.Encode(Issuer.Header("ES256", "ec").ToJsonString())}.{Issuer.Encode(claims)}.{Issuer.Encode(new byte[64])}", why);
    }

    [Fact]
    public async Task Does_not_bring_its_own_key()
    {
        using var attacker = new Issuer();
        var jwk = attacker.RsaJwk().ToJsonString();
        foreach (var member in (string[])[$"\"jwk\":{jwk}", "\"jku\":\"https://attacker.example/keys\"", "\"x5u\":\"https://attacker.example/cert\"", "\"x5c\":[\"MIIB\"]"])
        {
            await Refused(attacker.Sign($$"""{"alg":"RS256","kid":"rsa",{{member}}}""", Claims().ToJsonString(), "RS256"), "The token is not signed by a key of the issuer.");
            (await Use(_issuer.Sign($$"""{"alg":"RS256","kid":"rsa",{{member}}}""", Claims().ToJsonString(), "RS256"))).Is(HttpStatusCode.OK);
        }
    }

    [Theory]
    [InlineData("""{"alg":"RS256","kid":"rsa","crit":["exp"]}""", "The token's header has extensions that must be understood, and are not.")]
    [InlineData("""{"alg":"RS256","kid":"rsa","crit":["b64"],"b64":false}""", "The token's header has extensions that must be understood, and are not.")]
    [InlineData("""{"alg":"RS256","kid":"rsa","alg":"RS256"}""", "The token's header is no object of JSON whose members are told once.")]
    [InlineData("""["RS256"]""", "The token's header is no object of JSON whose members are told once.")]
    [InlineData("not JSON", "The token's header is no object of JSON whose members are told once.")]
    [InlineData("""{"kid":"rsa"}""", "The token's header must have alg, and kid only as a text.")]
    [InlineData("""{"alg":["RS256"],"kid":"rsa"}""", "The token's header must have alg, and kid only as a text.")]
    [InlineData("""{"alg":"RS256","kid":7}""", "The token's header must have alg, and kid only as a text.")]
    [InlineData("""{"alg":"RS256","kid":"rsa","typ":"logout+jwt"}""", "The token is of another type than JWT and at+jwt.")]
    [InlineData("""{"alg":"RS256","kid":"\ud800"}""", null)]
    public async Task Is_refused_for_its_header(string header, string? why)
    {
        var token = _issuer.Sign(header, Claims().ToJsonString(), "RS256");
        if (why is null)
        {
            (await Use(token)).IsProblem(401, "unauthorized");
        }
        else
        {
            await Refused(token, why);
        }
    }

    [Theory]
    [InlineData("not JSON"), InlineData("[]"), InlineData("null"), InlineData("""{"sub":"a","sub":"b"}"""), InlineData("{\"sub\":\"\\ud800\"}")]
    [InlineData("""{"iss":"https://issuer.example/","iss":"https://issuer.example/"}""")]
    [InlineData("""{"a":[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]}""")]
    public async Task Is_refused_for_its_payload(string payload) =>
        (await Use(_issuer.Sign(Issuer.Header("RS256", "rsa").ToJsonString(), payload, "RS256"))).IsProblem(401, "unauthorized");

    [Fact]
    public async Task Is_refused_when_it_is_not_spelled_as_one()
    {
        const string why = "The token is no JSON Web Signature of three parts in base64url.";
        var token = _issuer.Token(Claims(), "HS256");
        var parts = token.Split('.');
        await Refused($"{parts[0]}.{parts[1]}", why);
        await Refused($"{token}.{parts[2]}", why);
        await Refused($"{token}=", why);
        await Refused($"{parts[0]}.{parts[1]}+.{parts[2]}", why);
        await Refused($"{parts[0]}.{parts[1]}/.{parts[2]}", why);

        // 32 bytes leave two bits over in the last character, which must be 0: else a token would have several spellings.
        Assert.Equal(43, parts[2].Length);
        var last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".IndexOf(parts[2][^1], StringComparison.Ordinal);
        await Refused($"{parts[0]}.{parts[1]}.{parts[2][..^1]}{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[last | 1]}", why);
        (await Use(_issuer.Token(Claims(c => c["x"] = new string('x', Authenticator.MaxTokenChars))))).IsProblem(400, "invalid-request");
    }
}

public sealed class Keys_of_an_issuer(PostgresFixture postgres)
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Are_fetched_and_again_when_a_token_names_a_new_one_and_serve_for_an_hour_when_they_cannot_be()
    {
        using var issuer = new Issuer();
        var (set, fetches, isAway) = (Issuer.Set(issuer.EcJwk()), 0, false);
        var builder = WebApplication.CreateEmptyBuilder(new());
        builder.WebHost.UseKestrelCore();
        builder.Services.AddRoutingCore();
        await using var server = builder.Build();
        server.Urls.Add("http://127.0.0.1:0");
        server.MapGet("/keys", () =>
        {
            Interlocked.Increment(ref fetches);
            return isAway ? Results.StatusCode(500) : Results.Text(set, "application/json");
        });
        server.MapGet("/moved", () => Results.Redirect("/keys"));
        await server.StartAsync(Cancellation);
        await using var node = new TestNode(postgres) { Settings = s => s with { Tokens = Issuer.Settings with { Keys = $"{server.Urls.Single()}/keys" } } };
        await node.InitializeAsync();

        // Many at once ask for the keys once.
        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => Use(Token("ES256", "ec", $"n{i}"))));
        Assert.All(answers, a => a.Is(HttpStatusCode.OK));
        Assert.Equal(1, fetches);

        // A key that is new is fetched, but not for every token that names one.
        set = Issuer.Set(issuer.EcJwk(), issuer.RsaJwk());
        node.Clock.Advance(TokenKeys.MinFetchInterval);
        (await Use(Token("RS256", "rsa"))).Is(HttpStatusCode.OK);
        Assert.Equal(2, fetches);
        for (var i = 0; i < 5; i++)
        {
            (await Use(Token("RS256", $"unknown-{i}"))).IsProblem(401, "unauthorized");
        }

        Assert.Equal(2, fetches);
        node.Clock.Advance(TokenKeys.MinFetchInterval);
        (await Use(Token("RS256", "unknown"))).IsProblem(401, "unauthorized");
        Assert.Equal(3, fetches);

        // One that is withdrawn is taken no more, after a refresh, though its token was verified before.
        var withdrawn = Token("RS256", "rsa", "withdrawn", minutes: 30);
        (await Use(withdrawn)).Is(HttpStatusCode.OK);
        set = Issuer.Set(issuer.EcJwk());
        node.Clock.Advance(TokenKeys.RefreshInterval);
        while ((await Use(withdrawn)).Status == HttpStatusCode.OK)
        {
            await Task.Delay(10, Cancellation);
        }

        // An outage: the last keys serve, for a while.
        isAway = true;
        node.Clock.Advance(TokenKeys.MaxAge - TimeSpan.FromSeconds(1));
        (await Use(Token("ES256", "ec"))).Is(HttpStatusCode.OK);
        node.Clock.Advance(TimeSpan.FromSeconds(11));
        var away = (await Use(Token("ES256", "ec"))).IsProblem(503, "issuer-unavailable");
        Assert.Equal("5", away.Headers["Retry-After"]);
        isAway = false;
        node.Clock.Advance(TokenKeys.MinFetchInterval);
        (await Use(Token("ES256", "ec"))).Is(HttpStatusCode.OK);
        Assert.Empty(node.Errors);

        await using var moved = new TestNode(postgres) { Settings = s => s with { Tokens = Issuer.Settings with { Keys = $"{server.Urls.Single()}/moved" } } };
        await moved.InitializeAsync();
        (await moved.GetAsIs("/v1/users", GivenKeys.Bearer(Token("ES256", "ec")))).IsProblem(503, "issuer-unavailable");

        string Token(string algorithm, string kid, string name = "somebody", int minutes = 5) => issuer.Token(
            Issuer.Claims(node.Clock.Now, c => (c["sub"], c["exp"]) = (name, node.Clock.Now.AddMinutes(minutes).ToUnixTimeSeconds())), algorithm, kid);

        Task<Answer> Use(string token) => node.GetAsIs("/v1/users", GivenKeys.Bearer(token));
    }

    [Fact]
    public async Task May_be_of_one_tenant_only()
    {
        using var issuer = new Issuer();
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, Issuer.Set(issuer.EcJwk()), Cancellation);
        await using var node = new TestNode(postgres) { Settings = s => s with { Tokens = Issuer.Settings with { Keys = file, TenantClaim = "", NameClaim = "client_id" } } };
        await node.InitializeAsync();
        var token = issuer.Token(Issuer.Claims(node.Clock.Now, c => (c["client_id"], c["tenant"]) = ("gateway", "acme")), "ES256");
        (await node.Put("/v1/users/u", new { attributes = new { } }, GivenKeys.Bearer(token))).Is(HttpStatusCode.Created);
        Assert.Equal(("*DEFAULT*", "gateway"), (await node.Log()).Select(e => (e.TenantId, e.Actor!)).Single());
        File.Delete(file);
    }

    [Theory]
    [InlineData("{}", "can't be read as a JSON Web Key Set")]
    [InlineData("nothing", "can't be read as a JSON Web Key Set")]
    [InlineData("""{"keys":[]}""", "holds no key")]
    [InlineData("""{"keys":[{"kty":"oct","k":"AA"}]}""", "keys[0] must have k, at least 32 bytes in base64url")]
    public async Task In_a_file_must_be_of_use(string json, string why)
    {
        var file = Path.GetTempFileName();
        await File.WriteAllTextAsync(file, json, Cancellation);
        await using var node = new TestNode(postgres) { Settings = s => s with { Tokens = Issuer.Settings with { Keys = file } } };
        Assert.Contains(why, (await Assert.ThrowsAsync<SettingsException>(async () => await node.InitializeAsync())).Message, StringComparison.Ordinal);
        File.Delete(file);
    }

    [Theory]
    [InlineData("LEDGER_JWT_ISSUER=a;LEDGER_JWT_AUDIENCE=b", "go together")]
    [InlineData("LEDGER_JWT_KEYS=keys.json", "go together")]
    [InlineData("LEDGER_JWT_ISSUER=a;LEDGER_JWT_AUDIENCE=b;LEDGER_JWT_KEYS=http://issuer.example/keys", "LEDGER_JWT_KEYS must be a file or an https address")]
    [InlineData("LEDGER_JWT_ISSUER=a;LEDGER_JWT_AUDIENCE=b;LEDGER_JWT_KEYS=ftp://issuer.example/keys", "LEDGER_JWT_KEYS must be a file or an https address")]
    public void Are_named_with_issuer_and_audience(string environment, string why)
    {
        var variables = environment.Split(';').ToDictionary(v => v.Split('=')[0], v => v.Split('=')[1]);
        Assert.Contains(why, Assert.Throws<SettingsException>(() => LedgerSettings.FromEnvironment(variables.GetValueOrDefault)).Message, StringComparison.Ordinal);
    }
}
