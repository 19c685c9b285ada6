using System.Globalization;
using System.Text;
using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Log;

/// <summary>
/// What proves that an event is in the log: hashes from its leaf to the root of the tree of <c>size</c> events, which the
/// checkpoint, when it is of that size, is signed over. <c>entry</c> is what the leaf hashes; <c>salt</c> opens its
/// commitments and is null once the event was erased.
/// </summary>
public sealed record InclusionProof(
    long Position, long Index, long Size, string LeafHash, string RootHash, IReadOnlyList<string> Hashes, string Entry, string? Salt, string? Checkpoint);

/// <summary>What proves that the tree of <c>from</c> events is the beginning of that of <c>to</c>.</summary>
public sealed record ConsistencyProof(long From, long To, string FromRootHash, string ToRootHash, IReadOnlyList<string> Hashes);

/// <summary>Answers proofs. Each costs a few tiles, however long the log is.</summary>
public static class LogProofs
{
    private const string ProofType = "text/plain; charset=utf-8";

    /// <summary>The routes.</summary>
    public static void Map(IEndpointRouteBuilder routes)
    {
        routes.MapGet("/v1/log/proofs/inclusion", GetInclusion)
            .Requires(Scopes.LogRead).WithName("GetInclusionProof").WithTags("Log").WithSummary("What proves that the event at a position is in the log")
            .Produces<InclusionProof>().Produces<string>(200, "text/plain").ProducesQueryProblems(404);
        routes.MapGet("/v1/log/proofs/consistency", GetConsistency)
            .Requires(Scopes.LogRead).WithName("GetConsistencyProof").WithTags("Log").WithSummary("What proves that the log has only grown between two sizes")
            .Produces<ConsistencyProof>().ProducesQueryProblems();
    }

    private static Task<IResult> GetInclusion(
        [FromQuery] long? position, [FromQuery] long? size, [FromQuery] string? format,
        HttpContext http, LogQueries queries, TransparencyLog log, EventReader events, CancellationToken cancellation) =>
        queries.Now(http, async checkpoint =>
        {
            var errors = new Validation();
            if (errors.Check(position is not null, "position", "is required") && position > checkpoint.Size && size is null
                && position <= await events.ReadHead(cancellation))
            {
                return Problems.Result("checkpoint-behind", $"No checkpoint covers position {position} yet.");
            }

            errors.Check(position is null || (position >= 1 && position <= checkpoint.Size), "position", $"is not in the log: it must be from 1 to {checkpoint.Size}");
            errors.Check(
                size is null || (size >= (position ?? 1) && size <= checkpoint.Size), "size", $"must be from the position to {checkpoint.Size}, the size of the newest checkpoint");
            errors.Check(format is null or "json" or "tlog-proof", "format", "must be json or tlog-proof");
            errors.Check(format != "tlog-proof" || size is null || size == checkpoint.Size, "size", "can't be an earlier one in a tlog-proof, which holds the newest checkpoint");
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            if (!http.Caller().SeesEveryTenantsEntries && await events.ReadAt(http.TenantId(), position!.Value, cancellation) is null)
            {
                return Problems.Result("event-not-found", $"The event at position {position} is none of the tenant's.");
            }

            var (index, treeSize) = (position!.Value - 1, size ?? checkpoint.Size);
            var tree = new TiledTree(log);
            var proof = await tree.Inclusion(index, treeSize, cancellation);
            var checkpointText = Encoding.UTF8.GetString(checkpoint.Note);
            if (format == "tlog-proof")
            {
                return Results.Text(
                    string.Create(CultureInfo.InvariantCulture, $"c2sp.org/tlog-proof@v1\nindex {index}\n{string.Concat(proof.Select(h => $"{h}\n"))}\n{checkpointText}"),
                    ProofType);
            }

            var entry = await log.ReadEntry(position.Value, cancellation)
                ?? throw new InvalidOperationException($"The event at position {position} was sealed, but is not there.");
            return Results.Ok(new InclusionProof(
                position.Value, index, treeSize, (await tree.Leaf(index, cancellation)).ToString(), (await tree.Root(treeSize, cancellation)).ToString(),
                [.. proof.Select(h => h.ToString())], Convert.ToBase64String(entry.Entry), entry.Salt is { } salt ? Convert.ToBase64String(salt) : null,
                treeSize == checkpoint.Size ? checkpointText : null));
        });

    private static Task<IResult> GetConsistency(
        [FromQuery] long? from, [FromQuery] long? to, HttpContext http, LogQueries queries, TransparencyLog log, CancellationToken cancellation) =>
        queries.Now(http, async checkpoint =>
        {
            var errors = new Validation();
            var end = to ?? checkpoint.Size;
            errors.Check(end >= 0 && end <= checkpoint.Size, "to", $"must be from 0 to {checkpoint.Size}, the size of the newest checkpoint");
            if (errors.Check(from is not null, "from", "is required"))
            {
                errors.Check(from >= 0 && from <= end, "from", "must be 0 or more, and not more than to");
            }

            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            var tree = new TiledTree(log);
            var proof = await tree.Consistency(from!.Value, end, cancellation);
            return Results.Ok(new ConsistencyProof(
                from.Value, end, (await tree.Root(from.Value, cancellation)).ToString(), (await tree.Root(end, cancellation)).ToString(), [.. proof.Select(h => h.ToString())]));
        });
}
