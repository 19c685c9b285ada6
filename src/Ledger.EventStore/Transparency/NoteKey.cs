using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;

namespace Ledger.EventStore;

/// <summary>
/// A public key that signs notes, in the form of C2SP's signed-note: <c>name+hex(key id)+base64(algorithm || key)</c>.
/// </summary>
public sealed record NoteKey
{
    /// <summary>The algorithm of a log's key: Ed25519 over the text.</summary>
    internal const byte Ed25519Algorithm = 1;

    /// <summary>The algorithm of a witness's key: Ed25519 over the time and the text.</summary>
    internal const byte CosignatureAlgorithm = 4;

    private readonly byte[] _key;

    private NoteKey(string name, byte algorithm, byte[] key)
    {
        (Name, Algorithm, _key) = (name, algorithm, key);
        Id = BinaryPrimitives.ReadUInt32BigEndian(SHA256.HashData([.. Encoding.UTF8.GetBytes(name), (byte)'\n', algorithm, .. key]));
    }

    /// <summary>Whose key it is; a log's is its origin.</summary>
    public string Name { get; }

    /// <summary>The kind of signature.</summary>
    public byte Algorithm { get; }

    /// <summary>The first four bytes of the SHA-256 of name, algorithm and key.</summary>
    public uint Id { get; }

    /// <summary>The id as it is written, eight hexadecimal digits.</summary>
    public string IdText => Id.ToString("x8", CultureInfo.InvariantCulture);

    /// <summary>The key of a log.</summary>
    internal static NoteKey OfEd25519(string name, ReadOnlySpan<byte> publicKey) => new(name, Ed25519Algorithm, publicKey.ToArray());

    /// <summary>Reads a verification key.</summary>
    public static bool TryParse(string text, [NotNullWhen(true)] out NoteKey? key)
    {
        key = null;
        if (text.Split('+', 3) is not [var name, var id, var encoded] || !IsName(name) || !TryBase64(encoded, out var bytes)
            || bytes.Length != 1 + Ed25519.KeyBytes || bytes[0] is not (Ed25519Algorithm or CosignatureAlgorithm))
        {
            return false;
        }

        var read = new NoteKey(name, bytes[0], bytes[1..]);
        key = read.IdText == id ? read : null;
        return key is not null;
    }

    /// <summary>Whether a signature over a note's text is this key's.</summary>
    public bool Verifies(ReadOnlySpan<byte> text, ReadOnlySpan<byte> signature)
    {
        if (Algorithm == Ed25519Algorithm)
        {
            return Ed25519.Verify(_key, text, signature);
        }

        if (signature.Length != sizeof(ulong) + Ed25519.SignatureBytes)
        {
            return false;
        }

        var seconds = BinaryPrimitives.ReadUInt64BigEndian(signature);
        byte[] message = [.. Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"cosignature/v1\ntime {seconds}\n")), .. text];
        return Ed25519.Verify(_key, message, signature[sizeof(ulong)..]);
    }

    /// <summary>Whether two are one key.</summary>
    public bool Equals(NoteKey? other) => other is not null && ToString() == other.ToString();

    /// <inheritdoc/>
    public override int GetHashCode() => (int)Id;

    /// <summary>The key as it is given to whoever verifies.</summary>
    public override string ToString() => $"{Name}+{IdText}+{Convert.ToBase64String([Algorithm, .. _key])}";

    /// <summary>Whether a name can stand before a signature: no space, no plus, no control character.</summary>
    internal static bool IsName(string name) => name.Length > 0 && !name.Any(c => char.IsWhiteSpace(c) || char.IsControl(c) || c == '+');

    /// <summary>Strict: what is not how base64 would be written is none.</summary>
    internal static bool TryBase64(string text, [NotNullWhen(true)] out byte[]? bytes)
    {
        bytes = new byte[(text.Length / 4 * 3) + 3];
        if (!Convert.TryFromBase64String(text, bytes, out var length))
        {
            bytes = null;
            return false;
        }

        bytes = bytes[..length];
        return Convert.ToBase64String(bytes) == text;
    }
}
