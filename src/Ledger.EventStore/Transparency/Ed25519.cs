using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Ledger.EventStore;

/// <summary>Ed25519 (RFC 8032), which .NET does not have: by OpenSSL's libcrypto, which .NET itself uses.</summary>
internal static class Ed25519
{
    public const int KeyBytes = 32;
    public const int SeedBytes = 32;
    public const int SignatureBytes = 64;

    private const int KeyType = 1087; // NID_ED25519

    static Ed25519() => LibCrypto.Find();

    /// <summary>The public key of a seed.</summary>
    public static byte[] PublicKey(ReadOnlySpan<byte> seed)
    {
        using var key = PrivateKey(seed);
        var bytes = new byte[KeyBytes];
        nuint length = KeyBytes;
        Check(EVP_PKEY_get_raw_public_key(key, bytes, ref length));
        return bytes;
    }

    /// <summary>Signs a message.</summary>
    public static byte[] Sign(ReadOnlySpan<byte> seed, ReadOnlySpan<byte> message)
    {
        using var key = PrivateKey(seed);
        using var context = Context();
        Check(EVP_DigestSignInit(context, 0, 0, 0, key));
        var signature = new byte[SignatureBytes];
        nuint length = SignatureBytes;
        Check(EVP_DigestSign(context, signature, ref length, message.ToArray(), (nuint)message.Length));
        return signature;
    }

    /// <summary>Whether a signature over a message is by the owner of a public key.</summary>
    public static bool Verify(ReadOnlySpan<byte> publicKey, ReadOnlySpan<byte> message, ReadOnlySpan<byte> signature)
    {
        if (publicKey.Length != KeyBytes || signature.Length != SignatureBytes)
        {
            return false;
        }

        using var key = EVP_PKEY_new_raw_public_key(KeyType, 0, publicKey.ToArray(), KeyBytes);
        if (key.IsInvalid)
        {
            ERR_clear_error();
            return false;
        }

        using var context = Context();
        Check(EVP_DigestVerifyInit(context, 0, 0, 0, key));
        var good = EVP_DigestVerify(context, signature.ToArray(), SignatureBytes, message.ToArray(), (nuint)message.Length) == 1;
        ERR_clear_error(); // a refusal leaves word on this thread, which somebody else would take for his own
        return good;
    }

    private static KeyHandle PrivateKey(ReadOnlySpan<byte> seed)
    {
        var bytes = seed.ToArray();
        try
        {
            var key = EVP_PKEY_new_raw_private_key(KeyType, 0, bytes, (nuint)bytes.Length);
            Check(key.IsInvalid ? 0 : 1);
            return key;
        }
        finally
        {
            CryptographicOperations.ZeroMemory(bytes);
        }
    }

    private static ContextHandle Context()
    {
        var context = EVP_MD_CTX_new();
        Check(context.IsInvalid ? 0 : 1);
        return context;
    }

    private static void Check(int result)
    {
        if (result != 1)
        {
            ERR_clear_error();
            throw new CryptographicException("OpenSSL refused an operation with an Ed25519 key.");
        }
    }

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern KeyHandle EVP_PKEY_new_raw_private_key(int type, nint engine, byte[] key, nuint length);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern KeyHandle EVP_PKEY_new_raw_public_key(int type, nint engine, byte[] key, nuint length);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int EVP_PKEY_get_raw_public_key(KeyHandle key, byte[] bytes, ref nuint length);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern void EVP_PKEY_free(nint key);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern ContextHandle EVP_MD_CTX_new();

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern void EVP_MD_CTX_free(nint context);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int EVP_DigestSignInit(ContextHandle context, nint keyContext, nint digest, nint engine, KeyHandle key);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int EVP_DigestSign(ContextHandle context, byte[] signature, ref nuint signatureLength, byte[] message, nuint length);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int EVP_DigestVerifyInit(ContextHandle context, nint keyContext, nint digest, nint engine, KeyHandle key);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern int EVP_DigestVerify(ContextHandle context, byte[] signature, nuint signatureLength, byte[] message, nuint length);

    [DllImport(LibCrypto.Name), DefaultDllImportSearchPaths(DllImportSearchPath.SafeDirectories)]
    private static extern void ERR_clear_error();

    private sealed class KeyHandle() : SafeHandle(0, ownsHandle: true)
    {
        public override bool IsInvalid => handle == 0;

        protected override bool ReleaseHandle()
        {
            EVP_PKEY_free(handle);
            return true;
        }
    }

    private sealed class ContextHandle() : SafeHandle(0, ownsHandle: true)
    {
        public override bool IsInvalid => handle == 0;

        protected override bool ReleaseHandle()
        {
            EVP_MD_CTX_free(handle);
            return true;
        }
    }
}
