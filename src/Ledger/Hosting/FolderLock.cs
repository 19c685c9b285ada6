using System.Globalization;

namespace Ledger.Hosting;

/// <summary>Makes this process the one owner of a folder until disposed; the kernel lets go of the lock when the process dies.</summary>
internal sealed class FolderLock : IDisposable
{
    private readonly FileStream file;

    private FolderLock(FileStream file) => this.file = file;

    /// <exception cref="PrivateClusterException">Another process owns the folder, or this account may not write there.</exception>
    public static FolderLock Take(string folder)
    {
        // A file of its own, as nobody else can open the locked one.
        var owner = Path.Combine(folder, "owner");
        try
        {
            Directory.CreateDirectory(folder);
            var taken = new FolderLock(new FileStream(Path.Combine(folder, "lock"), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None));
            File.WriteAllText(owner, Environment.ProcessId.ToString(CultureInfo.InvariantCulture));
            return taken;
        }
        catch (UnauthorizedAccessException e)
        {
            throw new PrivateClusterException($"This account may not write to '{folder}': run Ledger as the account that owns it, or choose another folder.", e);
        }
        catch (IOException e) when (File.Exists(owner))
        {
            throw new PrivateClusterException($"'{folder}' is already in use by process {File.ReadAllText(owner)}.", e);
        }
    }

    /// <summary>Whether some process owns the folder.</summary>
    public static bool IsTaken(string folder)
    {
        try
        {
            if (File.Exists(Path.Combine(folder, "lock")))
                new FileStream(Path.Combine(folder, "lock"), FileMode.Open, FileAccess.ReadWrite, FileShare.None).Dispose();
            return false;
        }
        catch (IOException)
        {
            return true;
        }
    }

    public void Dispose() => file.Dispose();
}
