using System.Globalization;
using System.Runtime.CompilerServices;
using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Events;

/// <summary>Which events are asked for.</summary>
/// <param name="After">Events after this position; from the first on unless given.</param>
/// <param name="Limit">At most so many: 1 to 1000. A page of JSON has 100 unless given, a stream as many as there are.</param>
/// <param name="Cursor">The <c>nextCursor</c> of the page before, instead of <c>after</c>.</param>
/// <param name="Stream">Events of streams whose id begins so, such as <c>user-</c>.</param>
/// <param name="Type">Events of this kind, such as <c>user_joined_segment</c>.</param>
/// <param name="Follow">Whether a stream goes on with what comes. Server-sent events always do.</param>
public readonly record struct EventsQuery(
    [FromQuery(Name = "after")] long? After, [FromQuery(Name = "limit")] int? Limit, [FromQuery(Name = "cursor")] string? Cursor,
    [FromQuery(Name = "stream")] string? Stream, [FromQuery(Name = "type")] string? Type, [FromQuery(Name = "follow")] bool? Follow);

/// <summary>Answers the log, in order of position: a page, all of it, or all of it and what comes.</summary>
public static class ListEvents
{
    /// <summary>The longest <c>stream</c> and <c>type</c>.</summary>
    public const int MaxFilterChars = 500;

    /// <summary>
    /// Pages of the log that are looked through for one page of JSON, each of at most <see cref="LogPages.MaxPositions"/>. With a
    /// filter that hardly anything matches, a page has fewer items than asked for, and a cursor to go on with.
    /// </summary>
    public const int MaxPagesLookedThrough = 10;

    private const string LastEventId = "Last-Event-ID";

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/events", Handle)
        .Requires(Scopes.LogRead).WithName("ListEvents").WithTags("Events").WithSummary("The log: pages, all of it as NDJSON, or following it as server-sent events or NDJSON")
        .Produces<Page<EventAnswer>>().Produces<string>(200, Formats.NdjsonType, Formats.EventStreamType).ProducesQueryProblems(406);

    private static async Task<IResult> Handle(
        [AsParameters] EventsQuery query, HttpContext http, LogPages pages, EventReader log, Followers followers, CancellationToken cancellation)
    {
        ListFormat[] offered = query.Follow == true ? [ListFormat.Ndjson, ListFormat.EventStream] : [ListFormat.Ndjson, ListFormat.Json, ListFormat.EventStream];
        if (!Formats.TryNegotiate(http.Request, out var format, out var rejection, offered))
        {
            return Problems.For(rejection);
        }

        if (await Positions.AwaitAsync(http, followers.WaitForHead) is { } behind)
        {
            return Problems.For(behind);
        }

        if (!Lists.TryRead<long>(new PageQuery(query.Limit, query.Cursor), "events", Cursored(query), out var list, out rejection))
        {
            return Problems.For(rejection);
        }

        var errors = new Validation();
        var filter = new LogFilter(http.TenantId(), query.Stream, query.Type);
        CheckText(query.Stream, "stream");
        CheckText(query.Type, "type");
        errors.Check(query.Cursor is null || query.After is null, "cursor", "can't be given together with after");
        var (after, from) = query.Cursor is null ? (query.After ?? 0, "after") : (list.After, "cursor");
        if (format == ListFormat.EventStream && http.Request.Headers[LastEventId] is { Count: > 0 } seen && seen.ToString().Length > 0)
        {
            // A client that comes back says what it has seen; the address it was started with is older.
            from = LastEventId;
            errors.Check(
                long.TryParse(seen.ToString(), NumberStyles.None, CultureInfo.InvariantCulture, out after),
                LastEventId, "must be a position: a whole number, 0 or more");
        }

        errors.Check(after >= 0, from, "must be 0 or more");
        var head = await log.ReadHead(cancellation);
        errors.Check(after <= head, from, $"is beyond the end of the log, which is at {head}");
        if (errors.Rejection is { } wrong)
        {
            return Problems.For(wrong);
        }

        http.AnswerPosition(head);
        if (format == ListFormat.Json)
        {
            return await Page(query, filter, after, list.Limit, http, pages, cancellation);
        }

        return format == ListFormat.EventStream || query.Follow == true
            ? followers.Follow(filter, after, query.Limit, format)
            : Formats.Ndjson(All(pages, filter, after, head, query.Limit ?? int.MaxValue, http.RequestAborted));

        void CheckText(string? text, string field) => errors.Check(
            text is null || (text.Length is > 0 and <= MaxFilterChars && !text.Any(char.IsControl)),
            field, $"must be 1 to {MaxFilterChars} characters, none of them a control character");
    }

    private static string?[] Cursored(EventsQuery query) => [query.Stream, query.Type];

    private static async Task<IResult> Page(
        EventsQuery query, LogFilter filter, long after, int limit, HttpContext http, LogPages pages, CancellationToken cancellation)
    {
        var items = new List<EventAnswer>();
        LogPage page;
        var bytes = 0L;
        var looked = 0;
        do
        {
            page = await pages.Read(filter, after, limit - items.Count, cancellation: cancellation);
            items.AddRange(page.Events.Select(EventAnswer.Of));
            bytes += page.Events.Sum(e => (long)e.Json.Length);
            after = page.Position;
        }
        while (items.Count < limit && !page.IsLast && ++looked < MaxPagesLookedThrough && bytes < LogPages.MaxPageBytes);

        http.AnswerPosition(page.Head);
        return Results.Ok(new Page<EventAnswer>(items, page.IsLast ? null : Lists.Cursor("events", Cursored(query), after)));
    }

    /// <summary>Everything up to a position, page by page, so that a slow reader holds no connection.</summary>
    private static async IAsyncEnumerable<EventAnswer> All(
        LogPages pages, LogFilter filter, long after, long to, int limit, [EnumeratorCancellation] CancellationToken cancellation)
    {
        LogPage page;
        do
        {
            page = await pages.Read(filter, after, Math.Min(limit, Lists.MaxLimit), to, cancellation);
            foreach (var recorded in page.Events)
            {
                yield return EventAnswer.Of(recorded);
            }

            after = page.Position;
            limit -= page.Events.Count;
        }
        while (limit > 0 && !page.IsLast);
    }
}
