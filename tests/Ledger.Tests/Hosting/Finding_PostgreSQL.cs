using Ledger.Hosting;

namespace Ledger.Tests.Hosting;

public sealed class Finding_PostgreSQL : IDisposable
{
    private readonly TempFolder temp = new();
    private readonly Dictionary<string, string> environment = [];
    private Func<bool> install = () => false;

    public void Dispose() => temp.Dispose();

    [Fact]
    public async Task looks_at_the_variable_then_path_then_pg_config_then_debian_then_homebrew()
    {
        var named = Fake("named", "15.1");
        var onPath = Fake("path", "16.2");
        var configured = Fake("configured", "17.1");
        var debian = Fake("debian/17/bin", "17.2");
        var homebrew = Fake("homebrew/postgresql@18/bin", "18.0");
        var tools = Program("tools/pg_config", $"echo '{configured}'");
        environment["LEDGER_POSTGRES_BIN"] = named;
        environment["PATH"] = $"/does/not/exist:{tools}:{onPath}";

        Assert.Equal(new(named, 15), await FindAsync());

        environment.Remove("LEDGER_POSTGRES_BIN");
        Assert.Equal(new(onPath, 16), await FindAsync());

        environment["PATH"] = tools;
        Assert.Equal(new(configured, 17), await FindAsync());

        environment.Remove("PATH");
        Assert.Equal(new(debian, 17), await FindAsync());

        Directory.Delete(debian, recursive: true);
        Assert.Equal(new(homebrew, 18), await FindAsync());
    }

    [Fact]
    public async Task takes_the_newest_version_that_is_complete_and_runs()
    {
        Fake("debian/9/bin", "9.6.24");
        var newest = Fake("debian/16/bin", "16.9");
        Fake("debian/15/bin", "15.13");
        Program("debian/17/bin/postgres", "echo 'postgres (PostgreSQL) 17.5'");
        Fake("debian/18/bin", "18beta1 but broken", exitCode: 1);

        Assert.Equal(new(newest, 16), await FindAsync());
    }

    [Fact]
    public async Task resolves_links_to_where_the_programs_lie_together()
    {
        var real = Fake("debian/16/bin", "16.9");
        var links = Directory.CreateDirectory(Path.Combine(temp.Path, "links")).FullName;
        foreach (var program in new[] { "postgres", "initdb", "pg_ctl" })
            File.CreateSymbolicLink(Path.Combine(links, program), Path.Combine(real, program));
        environment["PATH"] = links;

        Assert.Equal(new(real, 16), await FindAsync());
    }

    [Theory]
    [InlineData("14.18")]
    [InlineData(null)]
    public async Task names_a_LEDGER_POSTGRES_BIN_that_is_wrong_and_looks_no_further(string? version)
    {
        Fake("debian/17/bin", "17.2");
        environment["LEDGER_POSTGRES_BIN"] = version is null ? "/does/not/exist" : Fake("old", version);

        var error = await Assert.ThrowsAsync<PostgresNotFoundException>(FindAsync);

        Assert.StartsWith($"LEDGER_POSTGRES_BIN is '{environment["LEDGER_POSTGRES_BIN"]}'", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task installs_it_when_it_is_missing_or_too_old()
    {
        Fake("debian/14/bin", "14.18");
        install = () => Fake("debian/17/bin", "17.2").Length > 0;

        Assert.Equal(17, (await FindAsync()).MajorVersion);
    }

    [Fact]
    public async Task says_in_one_sentence_what_to_install_when_it_cannot()
    {
        var error = await Assert.ThrowsAsync<PostgresNotFoundException>(FindAsync);

        Assert.StartsWith("Ledger needs PostgreSQL 15 or newer: install it", error.Message, StringComparison.Ordinal);
        Assert.EndsWith(".", error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain(". ", error.Message, StringComparison.Ordinal);
    }

    private Task<PostgresBinaries> FindAsync() => PostgresBinaries.FindOrInstallAsync(
        new PostgresSearch(
            environment.GetValueOrDefault,
            [(Path.Combine(temp.Path, "debian"), ""), (Path.Combine(temp.Path, "homebrew"), "postgresql@")],
            (_, _) => Task.FromResult(install())),
        _ => { },
        TestContext.Current.CancellationToken);

    private string Fake(string folder, string version, int exitCode = 0)
    {
        Program($"{folder}/initdb", "");
        Program($"{folder}/pg_ctl", "");
        return Program($"{folder}/postgres", $"echo 'postgres (PostgreSQL) {version}'; exit {exitCode}");
    }

    /// <summary>Writes a shell script and returns its folder.</summary>
    private string Program(string path, string script)
    {
        var file = Path.Combine(temp.Path, path);
        var folder = Directory.CreateDirectory(Path.GetDirectoryName(file)!).FullName;
        File.WriteAllText(file, $"#!/bin/sh\n{script}\n");
        if (!OperatingSystem.IsWindows())
            File.SetUnixFileMode(file, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        return folder;
    }
}
