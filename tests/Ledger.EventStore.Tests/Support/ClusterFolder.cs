namespace Ledger.EventStore.Tests.Support;

/// <summary>A folder for a PostgreSQL of a test's own, which its account may enter; gone with the test.</summary>
internal sealed class ClusterFolder : IDisposable
{
    public ClusterFolder()
    {
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(Path, (UnixFileMode)0b111_101_101);
        }
    }

    public string Path { get; } = Directory.CreateTempSubdirectory("ledger-tests-").FullName;

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
