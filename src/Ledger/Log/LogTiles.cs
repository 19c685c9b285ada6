using Ledger.EventStore;
using Ledger.Http;

namespace Ledger.Log;

/// <summary>Answers the tiles that the newest checkpoint implies: hashes of the tree, and the entries that its leaves hash.</summary>
public static class LogTiles
{
    /// <summary>How long others may keep a tile: it never changes.</summary>
    public static readonly TimeSpan MaxAge = TimeSpan.FromDays(365);

    private const string TilesType = "application/octet-stream";
    private const string Rule = "must be a level from 0 to 63 or 'entries', and an index in groups of three digits, all but the last after an 'x', "
        + "then '.p/' and a width from 1 to 255 where the tile is not full";

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes) =>
        routes.MapGet("/v1/log/tile/{level}/{**index}", Get)
            .Requires(Scopes.LogRead).WithName("GetLogTile").WithTags("Log").WithSummary("A tile of the log, as C2SP's tlog-tiles has it: hashes, or entries")
            .Produces<byte[]>(200, TilesType).ProducesQueryProblems(404);

    private static async Task<IResult> Get(string level, string? index, HttpContext http, TransparencyLog log, CancellationToken cancellation)
    {
        if (!TilePath.TryParse(level, index ?? "", out var path))
        {
            return Problems.For(Validation.Field("tile", Rule));
        }

        if (path.Level is null && !http.Caller().SeesEveryTenantsEntries)
        {
            return Problems.Result("forbidden", $"Entries of the log are of all tenants: they are for who reads the log in the tenant {Requests.DefaultTenant}.");
        }

        // Entries, and hashes, that a tile of the newest checkpoint has: a later checkpoint only adds to them.
        var size = (await log.ReadCheckpoint(cancellation))?.Size ?? 0;
        var shift = 8 * (path.Level ?? 0);
        var hashes = shift >= 63 ? 0 : size >> shift;
        var bytes = path.Index > long.MaxValue / TilePath.Width || hashes < (path.Index * TilePath.Width) + path.Count ? null
            : path.Level is { } number ? await log.ReadTile(new TileId(number, path.Index), path.Count, cancellation)
            : await log.ReadEntryTile(path.Index, path.Count, cancellation);
        if (bytes is null)
        {
            return Problems.Result("tile-not-found", $"The log of {size} events has no {path}.");
        }

        http.Response.Headers.CacheControl = $"private, max-age={(long)MaxAge.TotalSeconds}, immutable";
        return Results.Bytes(bytes, TilesType);
    }
}
