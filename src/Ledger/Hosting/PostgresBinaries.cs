using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;

namespace Ledger.Hosting;

/// <summary>A folder with PostgreSQL's server programs.</summary>
/// <param name="Directory">The folder that holds <c>initdb</c>, <c>postgres</c> and <c>pg_ctl</c>, links resolved.</param>
/// <param name="MajorVersion">The major version that <c>postgres --version</c> tells.</param>
public sealed partial record PostgresBinaries(string Directory, int MajorVersion)
{
    /// <summary>The oldest PostgreSQL that Ledger runs on.</summary>
    public const int OldestMajorVersion = 15;

    /// <summary>The environment variable that names the folder to use, instead of a search.</summary>
    public const string EnvironmentVariable = "LEDGER_POSTGRES_BIN";

    private static readonly string[] Programs = ["postgres", "initdb", "pg_ctl"];

    /// <summary>The newest suitable binaries of the first place that has any; installs Debian's package when none has and it may.</summary>
    /// <exception cref="PostgresNotFoundException">There are none and none could be installed, or <c>LEDGER_POSTGRES_BIN</c> is wrong.</exception>
    public static Task<PostgresBinaries> FindOrInstallAsync(Action<string> say, CancellationToken ct) =>
        FindOrInstallAsync(PostgresSearch.OfThisMachine, say, ct);

    internal static async Task<PostgresBinaries> FindOrInstallAsync(PostgresSearch search, Action<string> say, CancellationToken ct)
    {
        if (search.Environment(EnvironmentVariable) is { Length: > 0 } named)
            return await ProbeAsync(named, ct) ?? throw new PostgresNotFoundException(
                $"{EnvironmentVariable} is '{named}', which does not hold initdb, pg_ctl and a postgres of version {OldestMajorVersion} or newer.");

        return await FindAsync(search, ct)
            ?? (await search.InstallAsync(say, ct) ? await FindAsync(search, ct) : null)
            ?? throw new PostgresNotFoundException(
                $"Ledger needs PostgreSQL {OldestMajorVersion} or newer: install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql@17), name its folder in {EnvironmentVariable}, or name a running server in LEDGER_DB.");
    }

    internal string PathOf(string program) => Path.Combine(Directory, program);

    private static async Task<PostgresBinaries?> FindAsync(PostgresSearch search, CancellationToken ct)
    {
        await foreach (var candidate in CandidatesAsync(search, ct))
            if (await ProbeAsync(candidate, ct) is { } found)
                return found;
        return null;
    }

    private static async IAsyncEnumerable<string> CandidatesAsync(PostgresSearch search, [EnumeratorCancellation] CancellationToken ct)
    {
        var path = (search.Environment("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries);
        foreach (var folder in path)
            yield return folder;

        if (path.Select(folder => Path.Combine(folder, "pg_config")).FirstOrDefault(File.Exists) is { } pgConfig
            && await Tool.RunAsync([pgConfig, "--bindir"], ct) is (0, var binDirectory))
            yield return binDirectory;

        foreach (var (root, prefix) in search.VersionedFolders)
            foreach (var version in VersionsIn(root, prefix).OrderDescending())
                yield return Path.Combine(root, $"{prefix}{version}", "bin");
    }

    private static IEnumerable<int> VersionsIn(string root, string prefix)
    {
        if (!System.IO.Directory.Exists(root))
            yield break;
        foreach (var folder in System.IO.Directory.EnumerateDirectories(root, prefix + "*"))
            if (int.TryParse(Path.GetFileName(folder)[prefix.Length..], NumberStyles.None, CultureInfo.InvariantCulture, out var version))
                yield return version;
    }

    private static async Task<PostgresBinaries?> ProbeAsync(string folder, CancellationToken ct)
    {
        if (!IsComplete(folder))
            return null;

        // initdb seeks its siblings beside the real file, so single links in a folder of PATH stand for that file's folder.
        var postgres = Path.GetFullPath(Path.Combine(folder, "postgres"));
        if (File.ResolveLinkTarget(postgres, returnFinalTarget: true) is { } target && IsComplete(Path.GetDirectoryName(target.FullName)!))
            postgres = target.FullName;

        return await Tool.RunAsync([postgres, "--version"], ct) is (0, var text)
            && Version().Match(text) is { Success: true } match
            && int.Parse(match.Groups[1].ValueSpan, CultureInfo.InvariantCulture) is >= OldestMajorVersion and var major
                ? new PostgresBinaries(Path.GetDirectoryName(postgres)!, major)
                : null;
    }

    private static bool IsComplete(string folder) => Programs.All(program => File.Exists(Path.Combine(folder, program)));

    [GeneratedRegex(@"\(PostgreSQL\) (\d+)")]
    private static partial Regex Version();
}

/// <summary>There is no PostgreSQL to run; the message says in one sentence what to do.</summary>
public sealed class PostgresNotFoundException(string message) : Exception(message);

/// <summary>Where PostgreSQL may lie, and how to install it.</summary>
/// <param name="Environment">The value of an environment variable.</param>
/// <param name="VersionedFolders">Folders with one subfolder a version, and what stands before the version in its name.</param>
/// <param name="InstallAsync">Tries to install PostgreSQL; false when it could not.</param>
internal sealed record PostgresSearch(
    Func<string, string?> Environment,
    IReadOnlyList<(string Root, string Prefix)> VersionedFolders,
    Func<Action<string>, CancellationToken, Task<bool>> InstallAsync)
{
    public static readonly PostgresSearch OfThisMachine = new(
        System.Environment.GetEnvironmentVariable,
        [("/usr/lib/postgresql", ""), ("/opt/homebrew/opt", "postgresql@"), ("/usr/local/opt", "postgresql@")],
        DebianPackage.InstallAsync);
}
