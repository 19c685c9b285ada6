namespace Ledger.Hosting;

/// <summary>Installs the <c>postgresql</c> package of Debian and its kin.</summary>
internal static class DebianPackage
{
    // The package would create and start a cluster of its own, which nobody here asked for.
    private const string Script = """
        export DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1
        conf=/etc/postgresql-common/createcluster.conf
        [ -e "$conf" ] || { mkdir -p "${conf%/*}" && echo 'create_main_cluster = false' > "$conf"; } || exit 1
        install() { apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=60 -o Dpkg::Options::=--force-confold postgresql; }
        install || { apt-get update && install; }
        """;

    /// <summary>Installs the package where apt-get is there and this account may; false when it did not.</summary>
    public static async Task<bool> InstallAsync(Action<string> say, CancellationToken ct)
    {
        if (await Tool.RunAsync(["apt-get", "--version"], ct) is not (0, _))
            return false;
        if (!Environment.IsPrivilegedProcess && await Tool.RunAsync(["sudo", "-n", "true"], ct) is not (0, _))
            return false;

        say("Installing PostgreSQL with apt-get, once.");
        string[] shell = ["sh", "-c", Script];
        var (exitCode, output) = await Tool.RunAsync(Environment.IsPrivilegedProcess ? shell : ["sudo", "-n", .. shell], ct);
        if (exitCode != 0)
            say($"apt-get could not install PostgreSQL: {output.Split('\n')[^1]}");
        return exitCode == 0;
    }
}
