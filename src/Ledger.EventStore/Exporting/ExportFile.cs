using System.Buffers;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;

namespace Ledger.EventStore;

/// <summary>Reads the files of an export.</summary>
internal static class ExportFile
{
    private const int ReadBytes = 256 * 1024;

    /// <summary>
    /// The lines of a file. Who reads on is told what is wrong with the file as a whole; its checksum is known when the last line
    /// was read.
    /// </summary>
    public static async IAsyncEnumerable<ReadOnlyMemory<byte>> Lines(
        string folder, string name, long length, string sha256, Action<string> wrong, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var path = Path.Combine(folder, name);
        if (!File.Exists(path))
        {
            wrong($"{name} is missing.");
            yield break;
        }

        using var hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        await using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.Read, bufferSize: 0);
        if (file.Length != length)
        {
            wrong($"{name} has {file.Length} bytes, and not {length}.");
        }

        var pipe = PipeReader.Create(file, new StreamPipeReaderOptions(bufferSize: ReadBytes));
        try
        {
            while (true)
            {
                var read = await pipe.ReadAsync(cancellation);
                var buffer = read.Buffer;
                while (buffer.PositionOf((byte)'\n') is { } end)
                {
                    var line = buffer.Slice(0, end).ToArray();
                    buffer = buffer.Slice(buffer.GetPosition(1, end));
                    yield return line;
                }

                foreach (var bytes in read.Buffer.Slice(0, buffer.Start))
                {
                    hash.AppendData(bytes.Span);
                }

                if (buffer.Length > ExportManifest.MaxLineBytes)
                {
                    wrong($"{name} has a line of more than {ExportManifest.MaxLineBytes} bytes.");
                    yield break;
                }

                if (read.IsCompleted)
                {
                    if (!buffer.IsEmpty)
                    {
                        wrong($"{name} ends within a line.");
                        yield break;
                    }

                    break;
                }

                pipe.AdvanceTo(buffer.Start, buffer.End);
            }
        }
        finally
        {
            await pipe.CompleteAsync();
        }

        if (Convert.ToHexStringLower(hash.GetHashAndReset()) != sha256)
        {
            wrong($"{name} is not what was exported: its checksum is another one.");
        }
    }
}
