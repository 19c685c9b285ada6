using System.Runtime.CompilerServices;
using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Events;

/// <summary>Which events of a stream are asked for.</summary>
/// <param name="After">Events after this version; from the first on unless given.</param>
/// <param name="Limit">At most so many: 1 to 1000. A page of JSON has 100 unless given, NDJSON as many as there are.</param>
/// <param name="Cursor">The <c>nextCursor</c> of the page before, instead of <c>after</c>.</param>
public readonly record struct StreamQuery(
    [FromQuery(Name = "after")] long? After, [FromQuery(Name = "limit")] int? Limit, [FromQuery(Name = "cursor")] string? Cursor);

/// <summary>Answers the events of one stream, in order of version.</summary>
public static class StreamEvents
{
    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/streams/{streamId}", Handle)
        .Requires(Scopes.LogRead).WithName("GetStream").WithTags("Events").WithSummary("The events of one stream; its version is the ETag")
        .Produces<Page<EventAnswer>>().Produces<string>(200, Formats.NdjsonType).ProducesQueryProblems(404, 406);

    private static async Task<IResult> Handle(
        string streamId, [AsParameters] StreamQuery query, HttpContext http, LogPages pages, EventReader log, Followers followers,
        CancellationToken cancellation)
    {
        if (!Formats.TryNegotiate(http.Request, out var format, out var rejection, ListFormat.Json, ListFormat.Ndjson))
        {
            return Problems.For(rejection);
        }

        if (await Positions.AwaitAsync(http, followers.WaitForHead) is { } behind)
        {
            return Problems.For(behind);
        }

        var errors = new Validation();
        errors.Check(query.After is null or >= 0, "after", "must be 0 or more");
        errors.Check(query.Cursor is null || query.After is null, "cursor", "can't be given together with after");
        if (errors.Rejection is { } wrong)
        {
            return Problems.For(wrong);
        }

        if (!Lists.TryRead<long>(new PageQuery(query.Limit, query.Cursor), "stream", [streamId], out var list, out rejection))
        {
            return Problems.For(rejection);
        }

        http.AnswerPosition(await log.ReadHead(cancellation));
        var stream = new StreamKey(http.TenantId(), streamId);
        var after = query.After ?? list.After;
        var (version, events) = await pages.ReadStream(stream, after, list.Limit, cancellation);
        if (version == 0)
        {
            return Problems.Result("stream-not-found", $"There is no stream '{streamId}'.");
        }

        ETags.Write(http.Response, version);
        if (format == ListFormat.Ndjson)
        {
            return Formats.Ndjson(All(pages, stream, after, version, query.Limit ?? int.MaxValue, http.RequestAborted));
        }

        var last = events.Count == 0 ? version : events[^1].Version;
        return Results.Ok(new Page<EventAnswer>(
            [.. events.Select(EventAnswer.Of)], last >= version ? null : Lists.Cursor("stream", [streamId], last)));
    }

    /// <summary>Everything up to the version that the answer names.</summary>
    private static async IAsyncEnumerable<EventAnswer> All(
        LogPages pages, StreamKey stream, long after, long to, int limit, [EnumeratorCancellation] CancellationToken cancellation)
    {
        while (limit > 0 && after < to)
        {
            var (_, events) = await pages.ReadStream(stream, after, (int)Math.Min(Math.Min(limit, to - after), Lists.MaxLimit), cancellation);
            foreach (var recorded in events)
            {
                yield return EventAnswer.Of(recorded);
            }

            limit -= events.Count;
            after = events.Count == 0 ? to : events[^1].Version;
        }
    }
}
