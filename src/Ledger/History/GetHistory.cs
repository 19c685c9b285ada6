using System.Runtime.CompilerServices;
using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Segments;
using Ledger.Usage;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.History;

/// <summary>Which entries are asked for.</summary>
/// <param name="User">About this user, also where a roll-out or the deletion of a segment moved the user.</param>
/// <param name="Segment">About this segment.</param>
/// <param name="Service">About this service.</param>
/// <param name="Kind">Of this kind.</param>
/// <param name="Actor">Caused by this actor.</param>
/// <param name="From">Recorded at this instant or later.</param>
/// <param name="To">Recorded before this instant.</param>
/// <param name="Order"><c>newest</c> first, unless <c>oldest</c>.</param>
public readonly record struct HistoryQuery(
    [FromQuery(Name = "user")] string? User, [FromQuery(Name = "segment")] string? Segment, [FromQuery(Name = "service")] string? Service,
    [FromQuery(Name = "kind")] string? Kind, [FromQuery(Name = "actor")] string? Actor, [FromQuery(Name = "from")] QueryTime? From,
    [FromQuery(Name = "to")] QueryTime? To, [FromQuery(Name = "order")] string? Order)
{
    internal string?[] Key => [User, Segment, Service, Kind, Actor, From?.ToString(), To?.ToString(), Order ?? "newest"];

    internal HistoryFilter Filter => new(User, Segment, Service, Kind, Actor, Order != "oldest");

    internal void Check(Validation errors, HistoryKinds kinds)
    {
        errors.Check(User is null || UserId.IsValid(User), "user", UserId.Rule);
        errors.Check(Segment is null || Slug.IsValid(Segment), "segment", Slug.Rule);
        errors.Check(Service is null || Slug.IsValid(Service), "service", Slug.Rule);
        if (Kind is not null && errors.Check(kinds.All.Contains(Kind), "kind", $"must be one of: {string.Join(", ", kinds.All)}"))
        {
            errors.Check(kinds.IsOfEvent(Kind) || User is not null, "kind", "belongs to the history of a user: give user, too");
        }

        errors.Check(Actor is not "", "actor", "must not be empty");
        errors.Check(From is null || To is null || From.Value.Value <= To.Value.Value, "from", "must not be after to");
        errors.Check(Order is null or "newest" or "oldest", "order", "must be newest or oldest");
    }
}

/// <summary>What an entry must be, and in which order entries come.</summary>
internal sealed record HistoryFilter(string? User, string? Segment, string? Service, string? Kind, string? Actor, bool NewestFirst)
{
    /// <summary>The marks that its events have; all events, when it is about none in particular.</summary>
    public IReadOnlyList<HistoryMark> Marks
    {
        get
        {
            HistoryMark?[] marks =
            [
                Of(HistoryMarks.Actor, Actor), Of(HistoryMarks.Segment, Segment), Of(HistoryMarks.Service, Service), Of(HistoryMarks.Kind, Kind),
            ];
            return [.. marks.OfType<HistoryMark>().DefaultIfEmpty(new HistoryMark(HistoryMarks.All, ""))];

            static HistoryMark? Of(string dimension, string? value) => value is null ? null : new HistoryMark(dimension, value);
        }
    }

    public bool Lets(HistoryEntry entry) =>
        (User is null || User == entry.User) && (Segment is null || Segment == entry.Segment) && (Service is null || Service == entry.Service)
        && (Kind is null || Kind == entry.Kind) && (Actor is null || Actor == entry.Actor);
}

/// <summary>Answers who did what when.</summary>
public static class GetHistory
{
    private static readonly CsvTable<HistoryEntry> Csv = new(
        ["position", "at", "recordedAt", "kind", "user", "segment", "service", "actor", "detail"],
        (csv, entry) =>
        {
            csv.Number(entry.Position);
            csv.Time(entry.At);
            csv.Time(entry.RecordedAt);
            csv.Text(entry.Kind);
            csv.Text(entry.User);
            csv.Text(entry.Segment);
            csv.Text(entry.Service);
            csv.Text(entry.Actor);
            csv.Text(entry.Detail.Count == 0 ? null : JsonSerializer.Serialize(entry.Detail, Json.Options));
        });

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/history", Handle)
        .Requires(Scopes.HistoryRead).WithName(nameof(GetHistory)).WithTags("History").WithSummary("Who did what when, the newest first")
        .ProducesList<HistoryEntry>().ProducesQueryProblems(406);

    private static Task<IResult> Handle(
        [AsParameters] HistoryQuery query, [AsParameters] PageQuery page, HttpContext http, Queries queries, HistoryKinds kinds, HistoryReader history,
        CancellationToken cancellation) =>
        queries.Now(http, HistoryReader.ViewsOf(query), async _ =>
        {
            var errors = new Validation();
            query.Check(errors, kinds);
            if (errors.Rejection is { } invalid)
            {
                return Problems.For(invalid);
            }

            // An export goes on where its last page ended, and ends at the position its first page was of.
            IAsyncEnumerator<HistoryEntry>? entries = null;
            return await ListAnswers.Answer<HistoryEntry, long>(
                http, page, "history", query.Key, Csv,
                async (after, rows) =>
                {
                    if (entries is null)
                    {
                        var position = await history.Reached(query, cancellation);
                        http.AnswerPosition(position);
                        entries = history.Entries(http.TenantId(), query, after, position, rows, cancellation).GetAsyncEnumerator(cancellation);
                    }

                    var found = new List<(HistoryEntry, long)>(rows);
                    while (found.Count < rows && await entries.MoveNextAsync())
                    {
                        found.Add((entries.Current, entries.Current.Position));
                    }

                    return found;
                });
        });
}

/// <summary>Reads the log through the view "History". Everything up to the views' position is final, so no snapshot is needed.</summary>
public sealed class HistoryReader(ViewDatabase views, EventReader log, LogTimes times, HistoryMarks marks, UserHistory users)
{
    private static readonly string[] s_views = [HistoryProjection.View];
    private static readonly string[] s_viewsOfUsers = [HistoryProjection.View, CallsOfUser.View, StaysAtDeletion.View];

    /// <summary>The views an answer is made of.</summary>
    public static IReadOnlyCollection<string> ViewsOf(HistoryQuery query) => query.User is null ? s_views : s_viewsOfUsers;

    /// <summary>The position up to which it can be told.</summary>
    public Task<long> Reached(HistoryQuery query, CancellationToken cancellation) =>
        views.Position(ViewsOf(query), cancellation);

    /// <summary>
    /// The entries that a query asks for, as far as <paramref name="reached"/>, streamed; <paramref name="after"/> is the
    /// position of the entry to go on after, or 0.
    /// </summary>
    internal async IAsyncEnumerable<HistoryEntry> Entries(
        string tenantId, HistoryQuery query, long after, long reached, int atOnce, [EnumeratorCancellation] CancellationToken cancellation)
    {
        var filter = query.Filter;
        var from = query.From is { } begin ? await times.LastBefore(begin.Value, cancellation) : 0;
        var upTo = query.To is { } end ? Math.Min(reached, await times.LastBefore(end.Value, cancellation)) : reached;
        (from, upTo) = after == 0 ? (from, upTo) : filter.NewestFirst ? (from, Math.Min(upTo, after - 1)) : (Math.Max(from, after), upTo);
        if (filter.User is not null)
        {
            await foreach (var entry in users.Entries(tenantId, filter, from, upTo, atOnce, cancellation))
            {
                yield return entry;
            }

            yield break;
        }

        var waiting = new List<long>(atOnce + HistoryMarks.BlockPositions);
        await foreach (var positions in marks.Positions(tenantId, filter.Marks, from, upTo, filter.NewestFirst, cancellation))
        {
            waiting.AddRange(positions);
            while (waiting.Count >= atOnce)
            {
                foreach (var entry in await Render(tenantId, waiting[..atOnce], filter.NewestFirst, cancellation))
                {
                    yield return entry;
                }

                waiting.RemoveRange(0, atOnce);
            }
        }

        foreach (var entry in await Render(tenantId, waiting, filter.NewestFirst, cancellation))
        {
            yield return entry;
        }
    }

    private async Task<IEnumerable<HistoryEntry>> Render(string tenantId, List<long> positions, bool newestFirst, CancellationToken cancellation)
    {
        var events = await log.ReadAt(tenantId, [.. positions], cancellation);
        return (newestFirst ? events.OrderByDescending(e => e.Position) : events.OrderBy(e => e.Position)).Select(HistoryEntry.Of);
    }
}
