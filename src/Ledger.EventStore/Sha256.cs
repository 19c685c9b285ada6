using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Ledger.EventStore;

/// <summary>
/// SHA-256 (FIPS 180-4) of short inputs, many of which are hashed for each event. .NET goes through OpenSSL's EVP for each, which
/// takes several times as long as the hashing; here OpenSSL's own SHA-256 is called without it. Where that is not to be had, and
/// for long inputs, .NET hashes.
/// </summary>
public static class Sha256
{
    /// <summary>Bytes of a hash.</summary>
    public static int Bytes => SHA256.HashSizeInBytes;

    /// <summary>The longest input that is hashed here: a call that the garbage collector waits for must be short.</summary>
    internal const int MaxShortBytes = 4_096;

    private const int StateBytes = 256; // SHA256_CTX has 112
    private static readonly bool s_isThere = IsThere();

    /// <summary>Writes the hash of an input.</summary>
    public static void Hash(ReadOnlySpan<byte> input, Span<byte> hash)
    {
        if (!s_isThere || input.Length > MaxShortBytes)
        {
            SHA256.HashData(input, hash);
            return;
        }

        ArgumentOutOfRangeException.ThrowIfLessThan(hash.Length, Bytes);
        HashShort(input, hash);
    }

    private static void HashShort(ReadOnlySpan<byte> input, Span<byte> hash)
    {
        Span<byte> state = stackalloc byte[StateBytes];
        ref var context = ref MemoryMarshal.GetReference(state);
        if (SHA256_Init(ref context) != 1
            || SHA256_Update(ref context, ref MemoryMarshal.GetReference(input), (nuint)input.Length) != 1
            || SHA256_Final(ref MemoryMarshal.GetReference(hash), ref context) != 1)
        {
            throw new CryptographicException("OpenSSL refused to hash.");
        }
    }

    private static bool IsThere()
    {
        try
        {
            LibCrypto.Find();
            Span<byte> hash = stackalloc byte[Bytes];
            HashShort("abc"u8, hash);
            return hash.SequenceEqual(SHA256.HashData("abc"u8));
        }
        catch (Exception exception) when (exception is DllNotFoundException or EntryPointNotFoundException or CryptographicException)
        {
            return false; // such as a libcrypto that was built without what it calls deprecated
        }
    }

    [DllImport(LibCrypto.Name), SuppressGCTransition, DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SHA256_Init(ref byte context);

    [DllImport(LibCrypto.Name), SuppressGCTransition, DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SHA256_Update(ref byte context, ref byte data, nuint length);

    [DllImport(LibCrypto.Name), SuppressGCTransition, DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int SHA256_Final(ref byte hash, ref byte context);
}
