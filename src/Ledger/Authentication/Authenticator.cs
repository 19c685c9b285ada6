using System.Net;
using Ledger.Http;
using Microsoft.Net.Http.Headers;

namespace Ledger.Authentication;

/// <summary>Says who makes a request, by <c>Authorization: Bearer</c> (RFC 6750), and whether that is enough.</summary>
public sealed class Authenticator(Access access, IEnumerable<ICredentials> kinds)
{
    /// <summary>The longest token that is looked at.</summary>
    public const int MaxTokenChars = 8_192;

    private const string Scheme = "Bearer ";

    private static readonly Rejection s_missing = new("unauthorized", "The request needs a credential: Authorization: Bearer, with an API key or a token.") { CountedAs = "missing" };
    private static readonly Rejection s_foreign = new(
        "unauthorized", "Where no credential is asked for, the request must be made for localhost, and not by another site's page.") { CountedAs = "cross_site" };

    private static readonly Rejection s_unknown = new("unauthorized", "The credential is no valid one.");

    private static readonly Rejection s_malformed = Validation.Field(
        HeaderNames.Authorization, $"must be given once, as 'Bearer' and a token of at most {MaxTokenChars} characters");

    private readonly ICredentials[] _kinds = [.. kinds];

    /// <summary>The credential that a request shows is no valid one.</summary>
    internal static Rejection Invalid(string detail) => new("unauthorized", detail);

    /// <summary>Who makes a request. It costs nothing that grows, and what is known already is answered without waiting.</summary>
    public ValueTask<Authentication> Identify(HttpRequest request, CancellationToken cancellation)
    {
        var header = request.Headers.Authorization;
        if (header.Count == 0)
        {
            return ValueTask.FromResult<Authentication>(!access.IsOpen ? s_missing : access.IsOpenToBrowsers || IsLocal(request) ? Caller.Anonymous : s_foreign);
        }

        if (header.Count > 1 || !TryReadToken(header[0]!, out var token))
        {
            return ValueTask.FromResult<Authentication>(header is [{ } other] && !IsBearer(other) ? s_missing : s_malformed);
        }

        foreach (var kind in _kinds)
        {
            if (kind.Recognises(token.Span))
            {
                return kind.Authenticate(token, cancellation);
            }
        }

        return ValueTask.FromResult<Authentication>(s_unknown);
    }

    /// <summary>Why a caller may not do what needs this; null when it may.</summary>
    public static Rejection? Refuse(Caller caller, Requirement needed) =>
        caller.May(needed) ? null
        : !caller.May(needed.Scopes) ? new Rejection("insufficient-scope", $"This needs the scope {ScopeNames.Of(needed.Scopes)[0]}, which the credential does not have.")
        : new Rejection("forbidden", $"This is for the operator: it needs the scope admin in the tenant {Requests.DefaultTenant}.");

    /// <summary>Says in the answer which credential would do, as RFC 6750 has it.</summary>
    public static void Challenge(HttpContext http, Rejection rejection, Requirement needed) => http.Response.Headers.WWWAuthenticate = rejection.Code switch
    {
        "unauthorized" when ReferenceEquals(rejection, s_missing) || ReferenceEquals(rejection, s_foreign) => "Bearer",
        "unauthorized" => $"Bearer error=\"invalid_token\", error_description=\"{rejection.Detail}\"",
        "invalid-request" => "Bearer error=\"invalid_request\"",
        "insufficient-scope" or "forbidden" => $"Bearer error=\"insufficient_scope\", scope=\"{ScopeNames.Of(needed.Scopes)[0]}\"",
        _ => default,
    };

    /// <summary>Any page in a browser can send requests to this machine, under a name of its own that leads here; what it cannot do is lie about that.</summary>
    private static bool IsLocal(HttpRequest request) =>
        (!request.Host.HasValue || IsLoopback(request.Host.Value))
        && (request.Headers.Origin is not [{ } origin] || (Uri.TryCreate(origin, UriKind.Absolute, out var page) && IsLoopback(page.Authority)));

    private static bool IsLoopback(ReadOnlySpan<char> authority)
    {
        var end = authority.StartsWith('[') ? authority.IndexOf(']') + 1 : authority.IndexOf(':');
        var host = end > 0 ? authority[..end] : authority;
        return host.Equals("localhost", StringComparison.OrdinalIgnoreCase) || host.SequenceEqual("127.0.0.1") || (IPAddress.TryParse(host.Trim("[]"), out var ip) && IPAddress.IsLoopback(ip));
    }

    private static bool IsBearer(string header) =>
        header.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase) || header.Equals(Scheme.TrimEnd(), StringComparison.OrdinalIgnoreCase);

    private static bool TryReadToken(string header, out ReadOnlyMemory<char> token)
    {
        token = header.StartsWith(Scheme, StringComparison.OrdinalIgnoreCase) ? header.AsMemory(Scheme.Length).Trim(' ') : default;
        return token.Length is > 0 and <= MaxTokenChars && !token.Span.ContainsAnyExceptInRange('!', '~');
    }
}
