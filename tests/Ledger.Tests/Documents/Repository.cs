using System.Text.RegularExpressions;

namespace Ledger.Tests.Documents;

/// <summary>The repository's documents, and what the tests look for in them.</summary>
internal static partial class Repository
{
    public static string Root { get; } = FindRoot(AppContext.BaseDirectory);

    /// <summary>README.md and everything in docs, as paths from the root.</summary>
    public static IReadOnlyList<string> Documents { get; } =
        [.. Directory.EnumerateFiles(Path.Combine(Root, "docs"), "*.md", SearchOption.AllDirectories).Select(f => Path.GetRelativePath(Root, f)).Order(), "README.md"];

    public static string Read(string document) => File.ReadAllText(Path.Combine(Root, document));

    /// <summary>The fenced blocks of a language, each without its fences.</summary>
    public static IReadOnlyList<string> Blocks(string text, string language) =>
        [.. Block().Matches(text).Where(m => m.Groups["language"].Value == language).Select(m => m.Groups["body"].Value)];

    /// <summary>The rows of all tables whose first line of headings is <paramref name="header"/>, cell by cell.</summary>
    public static IReadOnlyList<string[]> Rows(string text, params string[] header) =>
    [
        .. from table in Table().Matches(text)
           let lines = table.Value.TrimEnd().Split('\n').Select(Cells).ToArray()
           where lines[0].SequenceEqual(header)
           from row in lines.Skip(2)
           select row,
    ];

    private static string[] Cells(string line) => [.. line.Trim('|').Split(" | ").Select(cell => cell.Trim().Trim('|').Trim())];

    private static string FindRoot(string folder) =>
        File.Exists(Path.Combine(folder, "Ledger.sln")) ? folder : FindRoot(Path.GetDirectoryName(folder)!);

    [GeneratedRegex(@"^```(?<language>\w+)\n(?<body>.*?)^```$", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Block();

    [GeneratedRegex(@"^(\|.*\n)+", RegexOptions.Multiline)]
    private static partial Regex Table();
}
