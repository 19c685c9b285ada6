using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Hosting;

/// <summary>Runs psql on the database that Ledger works on, which may be the private one, whose port and password only Ledger knows.</summary>
internal static class PsqlVerb
{
    /// <summary>Runs it to its end, with the terminal as it is; returns its exit code.</summary>
    public static async Task<int> Run(
        string connectionString, EventStoreOptions options, IReadOnlyList<string> arguments, TextWriter errors)
    {
        var program = new ProcessStartInfo("psql", arguments);
        foreach (var (name, value) in Variables(connectionString, options))
        {
            program.Environment[name] = value;
        }

        using var psql = new Process { StartInfo = program };
        try
        {
            psql.Start();
        }
        catch (Win32Exception)
        {
            await errors.WriteLineAsync("There is no psql on the PATH: install PostgreSQL's client (Debian, Ubuntu: apt-get install postgresql-client; macOS: brew install libpq).");
            return Tool.NotFound;
        }

        await psql.WaitForExitAsync(CancellationToken.None); // an interrupt is psql's as well: it ends a statement, or psql
        return psql.ExitCode;
    }

    /// <summary>What tells psql how to connect, as safely as Ledger does. What the connection string leaves open stays as the environment has it.</summary>
    internal static Dictionary<string, string> Variables(string connectionString, EventStoreOptions options)
    {
        var database = new NpgsqlConnectionStringBuilder(connectionString);
        (string Name, string? Value)[] all =
        [
            ("PGHOST", database.Host), ("PGPORT", database.Port.ToString(CultureInfo.InvariantCulture)), ("PGDATABASE", database.Database),
            ("PGUSER", database.Username), ("PGPASSWORD", database.Password), ("PGPASSFILE", database.Passfile),
            ("PGSSLMODE", NameOf(database.SslMode)), ("PGSSLROOTCERT", database.RootCertificate), ("PGSSLCERT", database.SslCertificate),
            ("PGSSLKEY", database.SslKey), ("PGAPPNAME", "ledger psql"),
            ("PGOPTIONS", $"-c search_path={options.Schema} -c role=none -c {DatabaseRoles.OwnerSetting}=on"),
        ];
        return all.Where(v => !string.IsNullOrEmpty(v.Value)).ToDictionary(v => v.Name, v => v.Value!);
    }

    /// <summary>As libpq calls it; null for what both do unless told otherwise.</summary>
    private static string? NameOf(SslMode mode) => mode switch
    {
        SslMode.Disable => "disable",
        SslMode.Allow => "allow",
        SslMode.Prefer => null,
        SslMode.Require => "require",
        SslMode.VerifyCA => "verify-ca",
        SslMode.VerifyFull => "verify-full",
        _ => throw new ArgumentOutOfRangeException(nameof(mode), mode, "There is no such mode."),
    };
}
