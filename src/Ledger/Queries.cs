using Ledger.EventStore;
using Ledger.Http;
using Microsoft.AspNetCore.Mvc;

namespace Ledger;

/// <summary>The instant and the state of knowledge a query asks for. Bind it with <c>[AsParameters]</c>.</summary>
/// <param name="At">The answer for this instant, past or to come; now unless given.</param>
/// <param name="Position">The answer by what was known when this event was recorded, at that instant unless <c>at</c> is given.</param>
public readonly record struct AsOfQuery([FromQuery(Name = "at")] QueryTime? At, [FromQuery(Name = "position")] long? Position)
{
    /// <summary>What decides about the answer, for cursors.</summary>
    public string?[] Filter => [At?.ToString(), Position?.ToString(System.Globalization.CultureInfo.InvariantCulture)];
}

/// <summary>An instant, and the position after which events are not taken into account.</summary>
public sealed record AsOf(DateTimeOffset At, long? Position = null, bool IsNow = false)
{
    /// <summary>Events after this position are not taken into account.</summary>
    public long KnownAt => Position ?? long.MaxValue;
}

/// <summary>Waiting for a position, and resolving "as of", for every query.</summary>
public sealed class Queries(Views views, EventReader log, LedgerClock clock)
{
    /// <summary>Answers a query of the present once its views have reached the position asked for.</summary>
    public async Task<IResult> Now(HttpContext http, IReadOnlyCollection<string> names, Func<DateTimeOffset, Task<IResult>> answer) =>
        await WaitForMinPosition(http, names) is { } behind ? Problems.For(behind) : await answer(clock.GetUtcNow());

    /// <summary>Answers a query for the present, an instant, what was known at a position, or both.</summary>
    public async Task<IResult> AsOf(HttpContext http, IReadOnlyCollection<string> names, AsOfQuery query, Func<AsOf, Task<IResult>> answer)
    {
        var (asOf, rejection) = await Resolve(http, names, query);
        return asOf is null ? Problems.For(rejection!) : await answer(asOf);
    }

    /// <summary>Says what a query asks about, once its views have reached the positions asked for; or why it can't be answered.</summary>
    public async Task<(AsOf? AsOf, Rejection? Rejection)> Resolve(HttpContext http, IReadOnlyCollection<string> names, AsOfQuery query)
    {
        if (await WaitForMinPosition(http, names) is { } behind)
        {
            return (null, behind);
        }

        if (query.Position is not { } known)
        {
            return (query.At is { } at ? new AsOf(at.Value) : new AsOf(clock.GetUtcNow(), IsNow: true), null);
        }

        if (known < 1 || await log.RecordedAt(known, http.RequestAborted) is not { } recordedAt)
        {
            var head = await log.ReadHead(http.RequestAborted);
            return (null, Validation.Field("position", head == 0 ? "is not in the log, which is empty" : $"is not in the log: it must be from 1 to {head}"));
        }

        return await views.WaitFor(names, known, Positions.WaitOf(http.Request), http.RequestAborted)
            ? (new AsOf(query.At?.Value ?? recordedAt, known), null)
            : (null, new Rejection("view-behind", $"The view has not reached position {known} yet."));
    }

    private ValueTask<Rejection?> WaitForMinPosition(HttpContext http, IReadOnlyCollection<string> names) =>
        Positions.AwaitAsync(http, (position, wait, cancellation) => views.WaitFor(names, position, wait, cancellation));
}
