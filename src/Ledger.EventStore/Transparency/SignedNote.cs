using System.Buffers.Binary;
using System.Text;

namespace Ledger.EventStore;

/// <summary>A line under a note: who signed, with which key, and the signature.</summary>
public sealed record NoteSignature(string Name, uint KeyId, ReadOnlyMemory<byte> Signature)
{
    /// <summary>The line, without its end.</summary>
    public override string ToString()
    {
        var bytes = new byte[sizeof(uint) + Signature.Length];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, KeyId);
        Signature.Span.CopyTo(bytes.AsSpan(sizeof(uint)));
        return $"{SignedNote.LineStart}{Name} {Convert.ToBase64String(bytes)}";
    }
}

/// <summary>A text and signatures over it, in the format of C2SP's signed-note.</summary>
public sealed record SignedNote(string Text, IReadOnlyList<NoteSignature> Signatures)
{
    /// <summary>The largest note that is read.</summary>
    public const int MaxBytes = 1_000_000;

    /// <summary>The signatures that are read of one note.</summary>
    public const int MaxSignatures = 100;

    internal const string LineStart = "\u2014 ";

    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Reads a note; no signature is looked at yet.</summary>
    /// <exception cref="InvalidNoteException">It is none.</exception>
    public static SignedNote Parse(ReadOnlySpan<byte> note)
    {
        if (note.Length > MaxBytes)
        {
            throw new InvalidNoteException($"A note has at most {MaxBytes} bytes.");
        }

        string all;
        try
        {
            all = s_strict.GetString(note);
        }
        catch (DecoderFallbackException)
        {
            throw new InvalidNoteException("A note is UTF-8.");
        }

        var split = all.LastIndexOf("\n\n", StringComparison.Ordinal);
        if (split < 0 || all[^1] != '\n' || split + 2 == all.Length || all.Any(c => c < ' ' && c != '\n'))
        {
            throw new InvalidNoteException("A note is text, an empty line, and at least one line with a signature.");
        }

        var lines = all[(split + 2)..^1].Split('\n');
        if (lines.Length > MaxSignatures)
        {
            throw new InvalidNoteException($"A note has at most {MaxSignatures} signatures.");
        }

        return new SignedNote(all[..(split + 1)], Array.ConvertAll(lines, ParseLine));
    }

    /// <summary>
    /// The signatures by keys that are known. Those of others are passed over; a bad one by a known key spoils the note.
    /// </summary>
    /// <exception cref="InvalidNoteException">A signature by a known key is wrong, or there is none.</exception>
    public IReadOnlyList<NoteSignature> Verify(params IEnumerable<NoteKey> keys)
    {
        var known = keys.ToDictionary(k => (k.Name, k.Id));
        var text = Encoding.UTF8.GetBytes(Text);
        var good = new List<NoteSignature>();
        foreach (var signature in Signatures)
        {
            if (known.TryGetValue((signature.Name, signature.KeyId), out var key))
            {
                good.Add(key.Verifies(text, signature.Signature.Span)
                    ? signature
                    : throw new InvalidNoteException($"The signature by {key.Name}, key {key.IdText}, is wrong."));
            }
        }

        return good.Count > 0 ? good : throw new InvalidNoteException("No signature is by a key that is known.");
    }

    /// <summary>The note as it is sent.</summary>
    public override string ToString() => $"{Text}\n{string.Concat(Signatures.Select(s => $"{s}\n"))}";

    /// <summary>The note as it is sent, UTF-8.</summary>
    public byte[] ToBytes() => Encoding.UTF8.GetBytes(ToString());

    private static NoteSignature ParseLine(string line)
    {
        if (!line.StartsWith(LineStart, StringComparison.Ordinal) || line[LineStart.Length..].Split(' ') is not [var name, var encoded]
            || !NoteKey.IsName(name) || !NoteKey.TryBase64(encoded, out var bytes) || bytes.Length <= sizeof(uint))
        {
            throw new InvalidNoteException("A line under the note is no signature.");
        }

        return new NoteSignature(name, BinaryPrimitives.ReadUInt32BigEndian(bytes), bytes.AsMemory(sizeof(uint)));
    }
}

/// <summary>What should be a note is none, or is not signed as it must be.</summary>
public sealed class InvalidNoteException(string message) : Exception(message);
