using Npgsql;

namespace Ledger.Usage;

/// <summary>Where the calls of a user lie in the log, for other features: off the primary key of the view alone.</summary>
public sealed class CallsOfUser(ViewDatabase views)
{
    /// <summary>The view it rests on.</summary>
    public const string View = CallsProjection.View;

    /// <summary>Positions read at once.</summary>
    public const int MaxPositionsAtOnce = 50_000;

    /// <summary>
    /// The positions of a user's calls (of one service, unless it is null) after <paramref name="after"/> and up to
    /// <paramref name="upTo"/>, the newest or the oldest first. The calls are kept in the order of their own time, so this looks
    /// at an index entry of each of the user's calls: ask for many at once.
    /// </summary>
    public async Task<IReadOnlyList<long>> Positions(
        string tenantId, string userId, string? service, long after, long upTo, bool newestFirst, int limit, CancellationToken cancellation)
    {
        NpgsqlParameter[] parameters =
            [Sql.Value(tenantId), Sql.Value(userId), Sql.Value(after), Sql.Value(upTo), Sql.Value(Math.Min(limit, MaxPositionsAtOnce))];
        return await views.Rows(
            tenantId, Sql.Command(Statement(service is not null, newestFirst), service is null ? parameters : [.. parameters, Sql.Value(service)]),
            row => row.GetInt64(0), cancellation);
    }

    internal static string Statement(bool ofService, bool newestFirst) =>
        $"""
         select c.position from calls c
         where c.tenant_id = $1 and c.user_id = $2 {(ofService ? "and c.service_id = $6" : "")} and c.position > $3 and c.position <= $4
         order by c.position {(newestFirst ? "desc" : "")} limit $5
         """;
}
