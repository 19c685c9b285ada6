using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;

namespace Ledger.EventStore;

/// <summary>What an export holds: the file <c>manifest.json</c>, written last. A folder without it is no export.</summary>
/// <param name="Format">Always <see cref="FormatName"/>.</param>
/// <param name="FormatVersion">Always <see cref="CurrentVersion"/>; another one is not read.</param>
/// <param name="Position">The position of the last event; positions are dense, so this is also their number.</param>
/// <param name="Bytes">Bytes of all files together.</param>
/// <param name="Tenants">Whose events there are.</param>
/// <param name="Segments">The files of events, in order.</param>
/// <param name="Sections">What is exported beside the events, by name: the rows of a table a file.</param>
public sealed record ExportManifest(
    string Format, int FormatVersion, long Position, long Bytes, IReadOnlyList<string> Tenants, IReadOnlyList<ExportSegment> Segments,
    IReadOnlyDictionary<string, IReadOnlyList<ExportTable>> Sections)
{
    /// <summary>The name of the file.</summary>
    public const string FileName = "manifest.json";

    /// <summary>What <see cref="Format"/> says.</summary>
    public const string FormatName = "ledger-export";

    /// <summary>Events of a file; the last one has fewer.</summary>
    public const int EventsPerSegment = 65_536;

    /// <summary>Bytes of a line that is read, and so of an event with all that belongs to it.</summary>
    public const int MaxLineBytes = 16 * 1024 * 1024;

    /// <summary>What <see cref="FormatVersion"/> says.</summary>
    public static readonly int CurrentVersion = 1;

    internal static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
        PropertyNameCaseInsensitive = false,
        AllowDuplicateProperties = false,
        NumberHandling = System.Text.Json.Serialization.JsonNumberHandling.Strict,
        UnmappedMemberHandling = System.Text.Json.Serialization.JsonUnmappedMemberHandling.Disallow,
        RespectNullableAnnotations = true,
        RespectRequiredConstructorParameters = true,
    };

    internal static string SegmentFile(long firstPosition) => string.Create(CultureInfo.InvariantCulture, $"events/{firstPosition:00000000000000000000}.ndjson");

    internal static string TableFile(string section, string table) => $"{section}/{table}.ndjson";

    /// <summary>Reads and checks the manifest of an export.</summary>
    /// <exception cref="ExportException">The folder holds no export that this program reads.</exception>
    public static async Task<ExportManifest> Read(string folder, CancellationToken cancellation = default)
    {
        var path = Path.Combine(folder, FileName);
        if (!File.Exists(path))
        {
            throw new ExportException($"'{folder}' is no export: it has no {FileName}. One that was broken off has none either.");
        }

        ExportManifest? manifest;
        try
        {
            manifest = JsonSerializer.Deserialize<ExportManifest>(await File.ReadAllBytesAsync(path, cancellation), Json);
        }
        catch (JsonException exception)
        {
            throw new ExportException($"{FileName} can't be read: {exception.Message}");
        }

        if (manifest is not { Format: FormatName } || manifest.FormatVersion != CurrentVersion)
        {
            throw new ExportException($"{FileName} is of another format than {FormatName} {CurrentVersion}.");
        }

        if (manifest.Segments.Contains(null!) || manifest.Tenants.Contains(null!) || manifest.Sections.Values.Any(tables => tables is null || tables.Contains(null!)))
        {
            throw new ExportException($"{FileName} holds a null where a file or a tenant is expected.");
        }

        var next = 1L;
        foreach (var segment in manifest.Segments)
        {
            if (segment.FirstPosition != next || segment.LastPosition < next || segment.File != SegmentFile(next))
            {
                throw new ExportException($"{FileName} names '{segment.File}' where '{SegmentFile(next)}' is expected.");
            }

            if (segment.LastPosition - segment.FirstPosition >= EventsPerSegment)
            {
                throw new ExportException($"{FileName} says that '{segment.File}' goes up to position {segment.LastPosition}; a file holds {EventsPerSegment} events.");
            }

            next = segment.LastPosition + 1;
        }

        return next == manifest.Position + 1
            ? manifest
            : throw new ExportException($"{FileName} names files up to position {next - 1}, but the export goes up to {manifest.Position}.");
    }
}

/// <summary>A file of events.</summary>
/// <param name="File">Its path in the folder.</param>
/// <param name="FirstPosition">The position of its first line.</param>
/// <param name="LastPosition">The position of its last line.</param>
/// <param name="Bytes">How long it is.</param>
/// <param name="Sha256">Its checksum, hexadecimal.</param>
public sealed record ExportSegment(string File, long FirstPosition, long LastPosition, long Bytes, string Sha256);

/// <summary>A file with the rows of a table.</summary>
/// <param name="Table">The table.</param>
/// <param name="File">Its path in the folder.</param>
/// <param name="Rows">How many lines it has.</param>
/// <param name="Bytes">How long it is.</param>
/// <param name="Sha256">Its checksum, hexadecimal.</param>
public sealed record ExportTable(string Table, string File, long Rows, long Bytes, string Sha256);

/// <summary>
/// Something that belongs to the log beside its events: tables that are exported as they are, row by row, at one snapshot that
/// knows no event that is not exported, and put back as they were.
/// </summary>
/// <param name="Name">The name of its folder.</param>
/// <param name="Tables">Its tables. On import, what they hold in an empty ledger is replaced.</param>
public sealed record ExportSection(string Name, IReadOnlyList<string> Tables);

/// <summary>An export can't be written, or can't be taken for one; nothing was stored.</summary>
public sealed class ExportException(string message) : Exception(message);

/// <summary>Makes names last.</summary>
internal static class Folder
{
    /// <summary>A name that was made is on the disk when its folder is. .NET opens no folders.</summary>
    public static void Flush(string folder)
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
