using System.Collections.Concurrent;
using System.Text.RegularExpressions;

namespace Ledger;

/// <summary>The zones of the IANA time zone database, by their ids.</summary>
public static partial class TimeZones
{
    /// <summary>What to say of a value that is none.</summary>
    public const string Rule = "is not a zone of the IANA time zone database, such as Europe/Berlin";

    // Only what was found is kept, so there are never more than the database has.
    private static readonly ConcurrentDictionary<string, TimeZoneInfo> s_found = new(StringComparer.Ordinal);

    /// <summary>
    /// Finds a zone. Ids are case-sensitive. What lies beside the zones on a machine is none: the machine's own zone, and the
    /// copies of the database that count leap seconds.
    /// </summary>
    public static bool TryFind(string id, out TimeZoneInfo zone)
    {
        if (s_found.TryGetValue(id, out zone!))
        {
            return true;
        }

        zone = TimeZoneInfo.Utc;
        if (!ZoneId().IsMatch(id) || id is "localtime" or "posixrules" or "Factory")
        {
            return false; // a zone is a file: the name must not lead anywhere else
        }

        try
        {
            var found = TimeZoneInfo.FindSystemTimeZoneById(id);
            if (found.Id != id)
            {
                return false; // in other letters, which only works once the zone was asked for by its own
            }

            zone = s_found[id] = found;
            return true;
        }
        catch (Exception exception) when (exception is TimeZoneNotFoundException or InvalidTimeZoneException or System.Security.SecurityException or IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    [GeneratedRegex(@"^(?!posix/|right/)[A-Za-z][A-Za-z0-9_+-]{0,31}(/[A-Za-z0-9_+-]{1,31}){0,2}\z")]
    private static partial Regex ZoneId();
}
