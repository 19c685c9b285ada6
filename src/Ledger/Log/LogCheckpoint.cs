using System.Security.Cryptography;
using Ledger.EventStore;
using Ledger.Http;
using Microsoft.Net.Http.Headers;

namespace Ledger.Log;

/// <summary>Answers what the log commits to, and with which keys that is verified.</summary>
public static class LogCheckpoint
{
    /// <summary>How long others may keep a checkpoint.</summary>
    public static readonly TimeSpan MaxAge = TimeSpan.FromSeconds(1);

    /// <summary>How long others may keep the list of keys.</summary>
    public static readonly TimeSpan MaxKeyAge = TimeSpan.FromSeconds(60);

    private const string TextType = "text/plain; charset=utf-8";

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/log/checkpoint", Get)
            .Requires(Scopes.LogRead).WithName("GetLogCheckpoint").WithTags("Log").WithSummary("The newest signed checkpoint of the log, a C2SP signed note")
            .Produces<string>(200, "text/plain").ProducesQueryProblems();
        routes.MapGet("/v1/log/key", GetKeys)
            .Requires(Scopes.LogRead).WithName("GetLogKeys").WithTags("Log").WithSummary("The keys that verify checkpoints, one a line, the current one first")
            .Produces<string>(200, "text/plain").ProducesQueryProblems();
    }

    private static Task<IResult> Get(HttpContext http, LogQueries queries) => queries.Now(http, checkpoint =>
    {
        http.Response.Headers.CacheControl = $"private, max-age={(int)MaxAge.TotalSeconds}";
        return Task.FromResult(Results.Bytes(
            checkpoint.Note, TextType, entityTag: new EntityTagHeaderValue($"\"{Convert.ToHexStringLower(SHA256.HashData(checkpoint.Note)[..16])}\"")));
    });

    private static async Task<IResult> GetKeys(HttpContext http, TransparencyLog log, CancellationToken cancellation)
    {
        var keys = await log.ReadKeys(cancellation);
        if (keys.Count == 0)
        {
            return Problems.Result("checkpoint-behind", "No key of the log is known yet.");
        }

        http.Response.Headers.CacheControl = $"private, max-age={(int)MaxKeyAge.TotalSeconds}";
        return Results.Text(string.Concat(keys.Select(k => $"{k}\n")), TextType);
    }
}
