namespace Ledger.Hosting;

/// <summary>The account PostgreSQL runs as: this process's own or, as PostgreSQL refuses to be root, another one when this process is root.</summary>
internal sealed class PostgresAccount
{
    private static readonly string[] Preferred = ["postgres", "nobody"];

    private readonly string[] prefix;

    private PostgresAccount(string? name, params string[] prefix)
    {
        Name = name;
        this.prefix = prefix;
    }

    /// <summary>The account's name; null when it is this process's own.</summary>
    public string? Name { get; }

    /// <summary>Chooses the account; data that exists stays with the account that made it.</summary>
    public static async Task<PostgresAccount> ChooseAsync(IEnumerable<string> existingData, CancellationToken ct)
    {
        if (!Environment.IsPrivilegedProcess)
            return new PostgresAccount(null);

        var names = new List<string>();
        foreach (var data in existingData)
            if (await Tool.RunAsync(["stat", "-c", "%U", data], ct) is (0, not "root" and var owner))
                names.Add(owner);

        foreach (var name in names.Concat(Preferred))
        {
            if (await Tool.RunAsync(["id", "-g", name], ct) is not (0, var group))
                continue;
            var account = new PostgresAccount(name, "setpriv", $"--reuid={name}", $"--regid={group}", "--init-groups", "--");
            if (await Tool.RunAsync(account.Command("true"), ct) is (0, _))
                return account;
        }

        throw new PrivateClusterException("PostgreSQL refuses to run as root and there is no way to another account: run Ledger as an ordinary user, or install setpriv (util-linux).");
    }

    /// <summary>The command line that runs <paramref name="command"/> as this account.</summary>
    public string[] Command(params IEnumerable<string> command) => [.. prefix, .. command];

    /// <summary>Creates a folder that only this account enters; leaves an existing one its content.</summary>
    public async Task CreateFolderAsync(string path, CancellationToken ct)
    {
        string[] owner = Name is null ? [] : ["-o", Name];
        if (await Tool.RunAsync(["install", "-d", "-m", "700", .. owner, path], ct) is (not 0, var output))
            throw new PrivateClusterException($"The folder '{path}' cannot be created: {output}");
    }

    /// <summary>Whether the account may reach and write the folder, found out by asking as that account.</summary>
    public async Task<bool> MayWriteAsync(string path, CancellationToken ct) =>
        await Tool.RunAsync(Command("test", "-w", path, "-a", "-x", path), ct) is (0, _);

    /// <summary>Hands a file of this process to the account.</summary>
    public async Task GiveAsync(string path, CancellationToken ct)
    {
        if (Name is not null && await Tool.RunAsync(["chown", Name, path], ct) is (not 0, var output))
            throw new PrivateClusterException($"The file '{path}' cannot be given to {Name}: {output}");
    }
}
