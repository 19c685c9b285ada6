using System.Security.Cryptography;
using System.Text;

namespace Ledger.EventStore.Tests;

public sealed class Hashes
{
    [Theory] // NIST's examples for FIPS 180-4
    [InlineData("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    [InlineData("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")]
    [InlineData("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")]
    public void are_those_of_the_standard(string input, string expected)
    {
        var hash = new byte[Sha256.Bytes];

        Sha256.Hash(Encoding.UTF8.GetBytes(input), hash);

        Assert.Equal(expected, Convert.ToHexStringLower(hash));
    }

    [Fact]
    public void are_those_of_dotnet_at_every_length()
    {
        var input = new byte[Sha256.MaxShortBytes + 65];
        new Random(20_260_101).NextBytes(input);
        var hash = new byte[Sha256.Bytes];
        for (var length = 0; length <= input.Length; length++)
        {
            Sha256.Hash(input.AsSpan(0, length), hash);
            Assert.Equal(SHA256.HashData(input.AsSpan(0, length)), hash);
        }
    }

    [Fact]
    public void do_not_mix_between_threads()
    {
        Parallel.For(0, 2_000, i =>
        {
            Span<byte> input = stackalloc byte[200];
            input.Fill((byte)i);
            Span<byte> hash = stackalloc byte[Sha256.Bytes];
            Sha256.Hash(input, hash);
            Assert.True(hash.SequenceEqual(SHA256.HashData(input)));
        });
    }

    [Fact]
    public void need_room() => Assert.ThrowsAny<ArgumentException>(() => Sha256.Hash("abc"u8, new byte[Sha256.Bytes - 1]));
}
