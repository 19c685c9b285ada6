using System.Text.RegularExpressions;

namespace Ledger.Tests.Hosting;

public sealed partial class The_compose_file
{
    private static readonly string Root = FindRoot(AppContext.BaseDirectory);
    private static readonly string[] Lines = File.ReadAllLines(Path.Combine(Root, "docker-compose.yml"));

    [Fact]
    public void takes_every_password_from_the_environment()
    {
        var passwords = Lines.Where(line => !line.TrimStart().StartsWith('#'))
            .Select(line => Password().Match(line)).Where(match => match.Success).Select(match => match.Groups[1].Value).ToList();

        Assert.Equal(2, passwords.Count);
        Assert.All(passwords, password => Assert.StartsWith("${LEDGER_POSTGRES_PASSWORD:?", password, StringComparison.Ordinal));
    }

    [Fact]
    public void publishes_ports_on_loopback_only()
    {
        string[] published = [.. ListsNamed("ports")];

        Assert.Equal(6, published.Length);
        Assert.All(published, port => Assert.Matches("^\"127\\.0\\.0\\.1:([0-9]+):\\1\"$", port));
    }

    [Fact]
    public void keeps_the_data_in_a_named_volume_and_waits_for_a_healthy_database()
    {
        var trimmed = Lines.Select(line => line.Trim()).ToList();

        Assert.Contains("- postgres:/var/lib/postgresql/data", trimmed);
        Assert.Contains("condition: service_healthy", trimmed);
        Assert.Contains(Lines, line => line == "volumes:");
    }

    [Fact]
    public void builds_an_image_that_does_not_run_as_root()
    {
        string[] images = [.. Lines.Select(line => line.Trim()).Where(line => line.StartsWith("dockerfile: ", StringComparison.Ordinal)).Select(line => line["dockerfile: ".Length..])];
        Assert.Equal(["src/Ledger/Dockerfile", "tests/Ledger.Gateway/Dockerfile"], images);
        Assert.All(images, file => Assert.Contains("USER $APP_UID", File.ReadAllLines(Path.Combine(Root, file))));

        var image = File.ReadAllLines(Path.Combine(Root, images[0]));
        // That account makes the signing key at the first start, and has it again at the next one.
        Assert.Contains("RUN install --directory --owner=$APP_UID --mode=700 /var/lib/ledger", image);
        Assert.Contains(image, line => line.StartsWith("ENV LEDGER_HOME=/var/lib/ledger ", StringComparison.Ordinal));
        Assert.Contains("- ledger:/var/lib/ledger", Lines.Select(line => line.Trim()));
    }

    [Fact]
    public void mounts_what_there_is()
    {
        string[] mounted = [.. ListsNamed("volumes").Select(v => v.Split(':')[0]).Where(v => v.StartsWith('.'))];

        Assert.NotEmpty(mounted);
        Assert.All(mounted, path => Assert.True(Path.Exists(Path.Combine(Root, path)), $"{path} does not exist."));
    }

    /// <summary>The items of all lists of a name.</summary>
    private static IEnumerable<string> ListsNamed(string name) => Lines
        .Select((line, i) => (line, i)).Where(l => l.line.Trim() == $"{name}:")
        .SelectMany(l => Lines.Skip(l.i + 1).TakeWhile(line => line.TrimStart().StartsWith('-')))
        .Select(line => line.Trim()[2..]);

    private static string FindRoot(string folder) =>
        File.Exists(Path.Combine(folder, "Ledger.sln")) ? folder : FindRoot(Path.GetDirectoryName(folder)!);

    [GeneratedRegex(@"PASSWORD['""]?\s*[:=]\s*['""]?(.+)$", RegexOptions.IgnoreCase)]
    private static partial Regex Password();
}
