using System.Reflection;
using System.Runtime.InteropServices;

namespace Ledger.EventStore;

/// <summary>OpenSSL's libcrypto, which .NET itself uses on Linux.</summary>
internal static class LibCrypto
{
    /// <summary>What imports of it name.</summary>
    public const string Name = "ledger-libcrypto";

    private static readonly string[] s_names = ["libcrypto.so.3", "libcrypto.3.dylib", "libcrypto-3-x64.dll", "libcrypto-3-arm64.dll", "libcrypto"];

    static LibCrypto() => NativeLibrary.SetDllImportResolver(typeof(LibCrypto).Assembly, Resolve);

    /// <summary>Lets imports find it. Call it before the first.</summary>
    public static void Find()
    {
        // The static constructor does it, once.
    }

    private static nint Resolve(string name, Assembly assembly, DllImportSearchPath? path)
    {
        if (name != Name)
        {
            return 0;
        }

        foreach (var candidate in s_names)
        {
            if (NativeLibrary.TryLoad(candidate, assembly, path, out var library))
            {
                return library;
            }
        }

        throw new DllNotFoundException("OpenSSL 3 is needed to sign and to verify checkpoints: libcrypto was not found.");
    }
}
