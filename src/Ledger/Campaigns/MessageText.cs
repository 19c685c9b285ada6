using System.Text;

namespace Ledger.Campaigns;

/// <summary>
/// The text of a campaign's messages. <c>{name}</c> stands for an attribute of the recipient; <c>{{</c> and <c>}}</c> are one
/// brace each.
/// </summary>
public sealed class MessageText
{
    /// <summary>Unicode characters of a text, placeholders as they are written.</summary>
    public const int MaxCharacters = 4_096;

    /// <summary>Unicode characters of one message, with what stands for the placeholders.</summary>
    public const int MaxMessageCharacters = 8_192;

    /// <summary>Different placeholders of a text.</summary>
    public const int MaxPlaceholders = 20;

    /// <summary>Characters of a placeholder's name: those that the name of an attribute may have.</summary>
    public const int MaxNameLength = 64;

    private readonly (bool IsPlaceholder, string Text)[] _parts;

    private MessageText(string source, (bool, string)[] parts)
    {
        (Source, _parts) = (source, parts);
        Placeholders = [.. _parts.Where(p => p.IsPlaceholder).Select(p => p.Text).Distinct(StringComparer.Ordinal)];
    }

    /// <summary>The text as it was written.</summary>
    public string Source { get; }

    /// <summary>The names of the attributes that a recipient must have, each once, in the order in which they first occur.</summary>
    public IReadOnlyList<string> Placeholders { get; }

    /// <summary>Reads a text; <paramref name="wrong"/> is the end of a sentence that begins with the name of the field.</summary>
    public static bool TryParse(string source, out MessageText text, out string wrong)
    {
        text = null!;
        var parts = new List<(bool, string)>();
        wrong = Check(source) ?? Split(source, parts) ?? "";
        if (wrong.Length > 0)
        {
            return false;
        }

        text = new MessageText(source, [.. parts]);
        if (text.Placeholders.Count > MaxPlaceholders)
        {
            wrong = $"must have at most {MaxPlaceholders} different placeholders";
        }

        return wrong.Length == 0;
    }

    /// <summary>The placeholders for which a recipient has nothing: no attribute of that name, or an empty one.</summary>
    public IReadOnlyList<string> MissingOf(Func<string, string?> attribute) => [.. Placeholders.Where(name => string.IsNullOrEmpty(attribute(name)))];

    /// <summary>
    /// The message for a recipient. <paramref name="attribute"/> gives the value of a name; what it gives is put in as it is,
    /// braces and all.
    /// </summary>
    /// <exception cref="InvalidOperationException">An attribute is missing, or the message is too long: ask <see cref="TryRender"/> where that can be.</exception>
    public string Render(Func<string, string?> attribute) =>
        TryRender(attribute, out var message, out var wrong) ? message : throw new InvalidOperationException($"The text {wrong}.");

    /// <summary>The message for a recipient; <paramref name="wrong"/> says, as the end of a sentence, why there is none.</summary>
    public bool TryRender(Func<string, string?> attribute, out string message, out string wrong)
    {
        (message, wrong) = ("", "");
        var rendered = new StringBuilder();
        foreach (var (isPlaceholder, part) in _parts)
        {
            var value = isPlaceholder ? attribute(part) : part;
            if (string.IsNullOrEmpty(value))
            {
                wrong = $"needs the attribute '{part}', which is missing";
                return false;
            }

            rendered.Append(value);
        }

        message = rendered.ToString();
        if (CountCharacters(message) > MaxMessageCharacters)
        {
            (message, wrong) = ("", $"must make messages of at most {MaxMessageCharacters} characters");
        }

        return wrong.Length == 0;
    }

    private static string? Check(string source)
    {
        if (string.IsNullOrWhiteSpace(source))
        {
            return "must not be empty";
        }

        for (var rest = source.AsSpan(); !rest.IsEmpty;)
        {
            if (Rune.DecodeFromUtf16(rest, out var rune, out var consumed) != System.Buffers.OperationStatus.Done
                || (Rune.IsControl(rune) && rune.Value is not ('\n' or '\r' or '\t')))
            {
                return "must have no control characters but line ends and tabs";
            }

            rest = rest[consumed..];
        }

        return CountCharacters(source) > MaxCharacters ? $"must have at most {MaxCharacters} characters" : null;
    }

    private static string? Split(string source, List<(bool, string)> parts)
    {
        var literal = new StringBuilder();
        for (var i = 0; i < source.Length; i++)
        {
            var c = source[i];
            if (c is not ('{' or '}'))
            {
                literal.Append(c);
            }
            else if (i + 1 < source.Length && source[i + 1] == c)
            {
                literal.Append(c);
                i++;
            }
            else if (c == '}')
            {
                return $"has a '}}' at character {CharacterAt(source, i)} that ends no placeholder; write '}}}}' for a brace";
            }
            else
            {
                var length = source.AsSpan(i + 1).IndexOfAny('{', '}');
                if (length < 0 || source[i + 1 + length] == '{')
                {
                    return $"has a '{{' at character {CharacterAt(source, i)} without its '}}'; write '{{{{' for a brace";
                }

                if (length is 0 or > MaxNameLength)
                {
                    return $"has a placeholder at character {CharacterAt(source, i)} whose name does not have 1 to {MaxNameLength} characters";
                }

                AddLiteral();
                parts.Add((true, source.Substring(i + 1, length)));
                i += length + 1;
            }
        }

        AddLiteral();
        return null;

        void AddLiteral()
        {
            if (literal.Length > 0)
            {
                parts.Add((false, literal.ToString()));
                literal.Clear();
            }
        }
    }

    private static int CharacterAt(string source, int index) => CountCharacters(source[..index]) + 1;

    private static int CountCharacters(string text) => text.Length - text.Count(char.IsLowSurrogate);
}
