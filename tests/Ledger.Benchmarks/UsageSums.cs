using Npgsql;

namespace Ledger.Benchmarks;

/// <summary>
/// How many calls of each service there are in each currency (none: not priced) and what they come to, exactly: by the log
/// itself, and by each view that says so. A line each, <c>service currency calls amount</c>.
/// </summary>
internal static class UsageSums
{
    private static readonly (string Name, string Rows)[] Sources =
    [
        ("the log", "select data ->> 'serviceId', coalesce(data ->> 'currency', ''), 1, (data ->> 'amount')::numeric from mt_events where type = 'call_recorded'"),
        ("calls", "select service_id, coalesce(currency, ''), 1, amount from calls"),
        ("usage_totals", "select service_id, currency, calls, amount from usage_totals"),
        ("usage_service_totals", "select service_id, currency, calls, amount from usage_service_totals"),
        ("usage_service_sums by hour", "select service_id, currency, calls, amount from usage_service_sums where minutes = 60"),
        ("usage_service_sums by day", "select service_id, currency, calls, amount from usage_service_sums where minutes = 1440"),
    ];

    /// <summary>A line.</summary>
    public static string Line(string serviceId, string currency, long calls, string amount) => $"{serviceId} {currency} {calls} {amount}";

    /// <summary>Fails unless the log and all views come to the same; the views must have caught up.</summary>
    public static async Task ExpectSame(NpgsqlDataSource database) => await ExpectSame(database, await Of(database, Sources[0].Rows));

    /// <summary>Fails unless the log and all views come to what was expected.</summary>
    public static async Task ExpectSame(NpgsqlDataSource database, IReadOnlyCollection<string> expected)
    {
        foreach (var (name, rows) in Sources)
        {
            ExpectSame(name, expected, await Of(database, rows));
        }
    }

    /// <summary>Fails, and names the first line that differs, unless both are the same lines in any order.</summary>
    public static void ExpectSame(string what, IReadOnlyCollection<string> expected, IReadOnlyCollection<string> found)
    {
        var missing = expected.Except(found).Order(StringComparer.Ordinal).ToArray();
        var unexpected = found.Except(expected).Order(StringComparer.Ordinal).ToArray();
        if (missing.Length > 0 || unexpected.Length > 0 || expected.Count != found.Count)
        {
            throw new BenchFailedException(
                $"{what}: of {found.Count} lines {unexpected.Length} are wrong, and of {expected.Count} {missing.Length} are missing; first '{unexpected.FirstOrDefault()}' instead of '{missing.FirstOrDefault()}'.");
        }
    }

    /// <summary>The lines that a query answers.</summary>
    public static Task<string[]> Lines(NpgsqlDataSource database, string query) => database.Scalar<string[]>($"select coalesce(array_agg(line), '{{}}') from ({query}) x (line)");

    private static Task<string[]> Of(NpgsqlDataSource database, string rows) => Lines(
        database,
        $"""
         select format('%s %s %s %s', service, currency, sum(calls), trim_scale(coalesce(sum(amount), 0)))
         from ({rows}) x (service, currency, calls, amount) group by service, currency
         """);
}
