using System.Security.Cryptography;
using System.Text;

namespace Ledger.EventStore;

/// <summary>Signs notes. A file does; a hardware or cloud key store could.</summary>
public interface INoteSigner
{
    /// <summary>The key that verifies what this signs.</summary>
    NoteKey Key { get; }

    /// <summary>The signature over a text.</summary>
    ValueTask<byte[]> Sign(ReadOnlyMemory<byte> text, CancellationToken cancellation = default);
}

/// <summary>
/// A log's signing key in a file outside of the database, in the form of Go's sumdb/note:
/// <c>PRIVATE+KEY+name+hex(key id)+base64(1 || seed)</c>. Nobody but the file's owner may read it.
/// </summary>
public sealed class SigningKeyFile : INoteSigner
{
    private const string Prefix = "PRIVATE+KEY+";
    private const UnixFileMode OwnerOnly = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    private readonly byte[] _seed;

    private SigningKeyFile(string name, byte[] seed)
    {
        _seed = seed;
        Key = NoteKey.OfEd25519(name, Ed25519.PublicKey(seed));
    }

    /// <inheritdoc/>
    public NoteKey Key { get; }

    /// <summary>Reads a key.</summary>
    /// <exception cref="SigningKeyException">There is none, it is damaged, or others may read it.</exception>
    public static SigningKeyFile Load(string path)
    {
        try
        {
            if (!OperatingSystem.IsWindows() && (File.GetUnixFileMode(path) & ~OwnerOnly) != 0)
            {
                throw new SigningKeyException($"The signing key '{path}' may be used by others than its owner: run chmod 600 on it.");
            }

            return Parse(File.ReadAllText(path)) ?? throw new SigningKeyException($"'{path}' holds no signing key.");
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SigningKeyException($"The signing key '{path}' can't be read: {exception.Message}", exception);
        }
    }

    /// <summary>A new key in a new file, which is on the disk when this returns.</summary>
    /// <exception cref="SigningKeyException">The file is there already, or can't be written.</exception>
    public static SigningKeyFile Create(string path, string name)
    {
        var key = new SigningKeyFile(name, RandomNumberGenerator.GetBytes(Ed25519.SeedBytes));
        try
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Path.GetFullPath(path))!);
            DurableFile.Write(path, Encoding.ASCII.GetBytes(key.ToText() + "\n"), mayReplace: false, OwnerOnly);
            return key;
        }
        catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
        {
            throw new SigningKeyException($"The signing key '{path}' can't be written: {exception.Message}", exception);
        }
    }

    /// <inheritdoc/>
    public ValueTask<byte[]> Sign(ReadOnlyMemory<byte> text, CancellationToken cancellation = default) => new(Ed25519.Sign(_seed, text.Span));

    /// <summary>The key in a text; null when there is none.</summary>
    internal static SigningKeyFile? Parse(string text)
    {
        text = text.TrimEnd();
        if (!text.StartsWith(Prefix, StringComparison.Ordinal) || text[Prefix.Length..].Split('+', 3) is not [var name, var id, var encoded]
            || !NoteKey.IsName(name) || !NoteKey.TryBase64(encoded, out var bytes)
            || bytes.Length != 1 + Ed25519.SeedBytes || bytes[0] != NoteKey.Ed25519Algorithm)
        {
            return null;
        }

        var key = new SigningKeyFile(name, bytes[1..]);
        return key.Key.IdText == id ? key : null;
    }

    /// <summary>The secret in the form it is kept in.</summary>
    internal string ToText() => $"{Prefix}{Key.Name}+{Key.IdText}+{Convert.ToBase64String([NoteKey.Ed25519Algorithm, .. _seed])}";
}

/// <summary>The signing key can't be used; the message says why.</summary>
public sealed class SigningKeyException(string message, Exception? inner = null) : Exception(message, inner);
