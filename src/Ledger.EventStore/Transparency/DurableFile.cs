namespace Ledger.EventStore;

/// <summary>Files that are whole or not there, whatever fails.</summary>
internal static class DurableFile
{
    /// <summary>Writes beside the file, waits for the disk, and takes its place.</summary>
    public static void Write(string path, ReadOnlySpan<byte> content, bool mayReplace, UnixFileMode mode)
    {
        var beside = $"{path}.{Guid.NewGuid():N}.tmp";
        try
        {
            var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
            if (!OperatingSystem.IsWindows())
            {
                options.UnixCreateMode = mode;
            }

            using (var file = new FileStream(beside, options))
            {
                file.Write(content);
                file.Flush(flushToDisk: true);
            }

            File.Move(beside, path, mayReplace);
            Folder.Flush(Path.GetDirectoryName(Path.GetFullPath(path))!);
        }
        finally
        {
            File.Delete(beside);
        }
    }

    /// <summary>Makes this the only one, in any process of this machine, until disposed.</summary>
    public static async Task<IDisposable> Lock(string path, CancellationToken cancellation)
    {
        const int Attempts = 100;
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException) when (attempt < Attempts && File.Exists(path))
            {
                await Task.Delay(TimeSpan.FromMilliseconds(20), cancellation);
            }
        }
    }
}
