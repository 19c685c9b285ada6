namespace Ledger.Hosting;

/// <summary>What a private cluster is to be.</summary>
/// <param name="Directory">The folder that belongs to the cluster, usually <c>.ledger</c>; created when missing.</param>
public sealed record PrivateClusterOptions(string Directory)
{
    /// <summary>PostgreSQL settings that add to or replace the defaults.</summary>
    public IReadOnlyDictionary<string, string> Settings { get; init; } = new Dictionary<string, string>();

    /// <summary>The binaries to run; searched for, or installed, when null.</summary>
    public PostgresBinaries? Binaries { get; init; }

    /// <summary>Where the data goes when PostgreSQL's account may not reach <see cref="Directory"/>.</summary>
    internal string FallbackRoot { get; init; } = "/var/lib/ledger";
}

/// <summary>How to stop PostgreSQL.</summary>
public enum PostgresStop
{
    /// <summary>Break off the clients, write everything, exit.</summary>
    Fast,

    /// <summary>Exit at once; the next start recovers from the log.</summary>
    Immediate,
}

/// <summary>The private cluster cannot start; the message says in one sentence why.</summary>
public sealed class PrivateClusterException(string message, Exception? inner = null) : Exception(message, inner);
