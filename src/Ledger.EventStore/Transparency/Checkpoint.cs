using System.Globalization;

namespace Ledger.EventStore;

/// <summary>What a log commits to: so many leaves, and the root over them. The text of a note, as C2SP's tlog-checkpoint has it.</summary>
public sealed record Checkpoint(string Origin, long Size, MerkleHash Root)
{
    /// <summary>Characters of an origin.</summary>
    public const int MaxOriginChars = 200;

    /// <summary>Further lines, which say what they say.</summary>
    public IReadOnlyList<string> Extensions { get; init; } = [];

    /// <summary>Reads the text of a note.</summary>
    /// <exception cref="InvalidNoteException">It is no checkpoint.</exception>
    public static Checkpoint Parse(string text)
    {
        var lines = text.Split('\n');
        if (lines is not [var origin, var size, var root, .., ""] || lines[..^1].Any(line => line.Length == 0))
        {
            throw new InvalidNoteException("A checkpoint is an origin, a size and a root, a line each.");
        }

        if (!long.TryParse(size, NumberStyles.None, CultureInfo.InvariantCulture, out var number) || (size.Length > 1 && size[0] == '0'))
        {
            throw new InvalidNoteException("The second line of a checkpoint is a size.");
        }

        if (!NoteKey.TryBase64(root, out var hash) || hash.Length != MerkleHash.Bytes)
        {
            throw new InvalidNoteException("The third line of a checkpoint is a root in base64.");
        }

        return new Checkpoint(origin, number, new MerkleHash(hash)) { Extensions = lines[3..^1] };
    }

    /// <summary>Whether a name can be a log's origin: visible ASCII without a scheme, a plus, or a slash at its end.</summary>
    public static bool IsOrigin(string origin) =>
        origin.Length is > 0 and <= MaxOriginChars && origin.All(c => c is > ' ' and < '\x7F' and not '+') && origin[^1] != '/'
        && !origin.Contains("://", StringComparison.Ordinal);

    /// <summary>The text that is signed.</summary>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Origin}\n{Size}\n{Root}\n{string.Concat(Extensions.Select(e => $"{e}\n"))}");
}
