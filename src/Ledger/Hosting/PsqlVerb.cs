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
        var database = new NpgsqlConnectionStringBuilder(connectionString);
        var program = new ProcessStartInfo("psql", arguments);
        foreach (var (name, value) in ((string, string?)[])[
            ("PGHOST", database.Host), ("PGPORT", database.Port.ToString(CultureInfo.InvariantCulture)), ("PGDATABASE", database.Database),
            ("PGUSER", database.Username), ("PGPASSWORD", database.Password), ("PGAPPNAME", "ledger psql"),
            ("PGOPTIONS", $"-c search_path={options.Schema} -c role=none -c {DatabaseRoles.OwnerSetting}=on")])
        {
            if (!string.IsNullOrEmpty(value))
            {
                program.Environment[name] = value;
            }
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
}
