using System.Globalization;
using System.Reflection;
using System.Security.Cryptography;
using System.Text;
using System.Text.RegularExpressions;

namespace Ledger.EventStore;

/// <summary>One SQL file, <c>NNNN-object.sql</c>: it runs once, forward only, in the order of its number.</summary>
public sealed partial record Migration(int Number, string Name, string Sql)
{
    /// <summary>SHA-256 of the file, hexadecimal: an applied file must not change.</summary>
    public string Checksum { get; } = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(Sql)));

    /// <summary>What it does but for some indexes, by name; and the statements that make those, where they are not there yet.</summary>
    public (string Sql, IReadOnlyList<string> Indexes) Without(IReadOnlyCollection<string> indexes)
    {
        var left = new List<string>();
        var sql = CreateIndex().Replace(Sql, statement =>
        {
            if (!indexes.Contains(statement.Groups["name"].Value))
            {
                return statement.Value;
            }

            left.Add($"create index if not exists {statement.Groups["rest"].Value}");
            return "";
        });
        return (sql, left);
    }

    [GeneratedRegex(@"^create index (?<rest>(?<name>\w+) [^;]+);", RegexOptions.Multiline)]
    private static partial Regex CreateIndex();
}

/// <summary>The SQL files of all parts of the program, in order.</summary>
public sealed class Migrations
{
    /// <summary>Collects the embedded <c>.sql</c> files of the event store and of <paramref name="assemblies"/>.</summary>
    public Migrations(params IEnumerable<Assembly> assemblies)
        : this(assemblies.Prepend(typeof(Migrations).Assembly).Distinct().SelectMany(Read).ToList())
    {
    }

    internal Migrations(IReadOnlyList<Migration> files)
    {
        All = [.. files.OrderBy(m => m.Number)];
        if (All.GroupBy(m => m.Number).FirstOrDefault(g => g.Count() > 1) is { } twice)
        {
            throw new InvalidOperationException($"Migration {twice.Key} is there twice: {string.Join(", ", twice.Select(m => m.Name))}.");
        }
    }

    /// <summary>All, by number.</summary>
    public IReadOnlyList<Migration> All { get; }

    /// <summary>What makes an object as it is now, such as a view's table: the file that creates it and those of its name that change it.</summary>
    public Migration Creating(string name)
    {
        var files = All.Where(m => m.Name == name).ToArray();
        return new Migration(files[0].Number, name, string.Concat(files.Select(f => f.Sql)));
    }

    private static IEnumerable<Migration> Read(Assembly assembly)
    {
        foreach (var resource in assembly.GetManifestResourceNames().Where(n => n.EndsWith(".sql", StringComparison.Ordinal)))
        {
            using var reader = new StreamReader(assembly.GetManifestResourceStream(resource)!);
            var dash = resource.IndexOf('-', StringComparison.Ordinal);
            yield return new Migration(
                int.Parse(resource[..dash], CultureInfo.InvariantCulture), resource[(dash + 1)..^".sql".Length], reader.ReadToEnd());
        }
    }
}
