using System.Runtime.InteropServices;

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
            FlushFolder(Path.GetDirectoryName(Path.GetFullPath(path))!);
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

    /// <summary>A name that was changed is on the disk when its folder is. .NET opens no folders.</summary>
    private static void FlushFolder(string folder)
    {
        if (OperatingSystem.IsWindows())
        {
            return; // there it is not needed
        }

        var descriptor = open(folder, 0);
        if (descriptor < 0)
        {
            throw new IOException($"The folder '{folder}' can't be opened (error {Marshal.GetLastPInvokeError()}).");
        }

        var (result, error) = (fsync(descriptor), Marshal.GetLastPInvokeError());
        _ = close(descriptor);
        if (result != 0)
        {
            throw new IOException($"The folder '{folder}' can't be written to the disk (error {error}).");
        }
    }

    [DllImport("libc", SetLastError = true), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int open([MarshalAs(UnmanagedType.LPUTF8Str)] string path, int flags);

    [DllImport("libc", SetLastError = true), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int fsync(int descriptor);

    [DllImport("libc", SetLastError = true), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int close(int descriptor);
}
