namespace Ledger.Authentication;

/// <summary>What a credential comes to: a caller, or why there is none.</summary>
public readonly record struct Authentication(Caller? Caller, Rejection? Refusal)
{
    /// <summary>A caller.</summary>
    public static implicit operator Authentication(Caller caller) => new(caller, null);

    /// <summary>A refusal. Its detail tells nobody more than whoever holds the credential may know.</summary>
    public static implicit operator Authentication(Rejection refusal) => new(null, refusal);
}

/// <summary>One kind of credentials.</summary>
public interface ICredentials
{
    /// <summary>Whether a bearer token looks like one of this kind. The first kind that says so decides.</summary>
    bool Recognises(ReadOnlySpan<char> token);

    /// <summary>Who a token is.</summary>
    ValueTask<Authentication> Authenticate(ReadOnlyMemory<char> token, CancellationToken cancellation);

    /// <summary>Whether any credential of this kind could ever be taken.</summary>
    Task<bool> AreConfigured(CancellationToken cancellation);
}
