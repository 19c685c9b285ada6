using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Text.RegularExpressions;
using System.Text.Json.Serialization;
using Ledger.Http;

namespace Ledger.Usage;

/// <summary>
/// What the calls of a group come to. Of <c>user</c>, <c>service</c>, <c>start</c>, <c>end</c> and <c>currency</c> those are
/// there that were asked to group by; the currency of calls without a price is null. Sums are exact, however many digits they
/// have; <c>calls</c> counts those without a price, too.
/// </summary>
public sealed record UsageTotal
{
    /// <summary>The user.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? User { get; init; }

    /// <summary>The service.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public string? Service { get; init; }

    /// <summary>The first instant of the hour, day or month, which may lie before <c>from</c>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? Start { get; init; }

    /// <summary>The first instant after it, which may lie after <c>to</c>.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
    public DateTimeOffset? End { get; init; }

    /// <summary>The currency; null for calls without a price.</summary>
    public Patch<string> Currency { get; init; }

    /// <summary>How many calls there are.</summary>
    public required long Calls { get; init; }

    /// <summary>How much of each unit, as exact decimals.</summary>
    public required IReadOnlyDictionary<string, string> Quantities { get; init; }

    /// <summary>What they cost, by currency, as exact decimals.</summary>
    public required IReadOnlyDictionary<string, string> Amounts { get; init; }

    /// <summary>How many of the calls have no price.</summary>
    public required long UnpricedCalls { get; init; }

    internal static UsageTotal None { get; } =
        new() { Calls = 0, Quantities = new Dictionary<string, string>(), Amounts = new Dictionary<string, string>(), UnpricedCalls = 0 };
}

/// <summary>A page of totals. <c>total</c> is that of everything the filters let pass, on every page.</summary>
public sealed record UsageTotalsPage(IReadOnlyList<UsageTotal> Items, UsageTotal Total, string? NextCursor);

/// <summary>Answers what calls come to, by user, service, currency and time.</summary>
public static partial class UsageTotals
{
    /// <summary>Groups of an export that are read at once.</summary>
    public const int ExportedAtOnce = 50_000;

    /// <summary>One row an item and currency, with its calls, quantities and amount: the rows add up. Calls without a price have no currency.</summary>
    private static readonly CsvTable<UsageTotal> s_csv = new(
        ["user", "service", "start", "end", "currency", "calls", "unpricedCalls", "amount", "quantities"],
        (csv, total) =>
        {
            csv.Text(total.User);
            csv.Text(total.Service);
            csv.Time(total.Start);
            csv.Time(total.End);
            csv.Text(total.Currency.Value);
            csv.Number(total.Calls);
            csv.Number(total.UnpricedCalls);
            csv.Text(total.Amounts.Values.SingleOrDefault());
            csv.Text(string.Join(';', total.Quantities.Select(q => $"{q.Key}={q.Value}")));
        });

    /// <summary>The route.</summary>
    public static void Map(IEndpointRouteBuilder routes) => routes
        .MapGet("/v1/usage/totals", Handle)
        .Requires(Scopes.UsageRead).WithName("GetUsageTotals").WithTags("Usage").WithSummary("What calls come to, by user, service, currency and time, now or as known at a position")
        .Produces<UsageTotalsPage>().Produces<string>(200, Formats.NdjsonType, Formats.CsvType).ProducesQueryProblems(406);

    private static Task<IResult> Handle(
        [AsParameters] UsageTotalsQuery query, [AsParameters] AsOfQuery asOfQuery, [AsParameters] PageQuery page, HttpContext http, Queries queries,
        UsageTotalsReader totals, CancellationToken cancellation) =>
        queries.AsOf(http, UsageTotalsReader.Views, asOfQuery, async asOf =>
        {
            if (!TryRead(http.TenantId(), query, asOfQuery, asOf, page, out var question, out var list, out var rejection)
                || !Formats.TryNegotiate(http.Request, out var format, out rejection))
            {
                return Problems.For(rejection);
            }

            if (format == ListFormat.Csv && !question.By(UsageGroup.Currency))
            {
                question = question with { Groups = [.. question.Groups, UsageGroup.Currency] };
            }

            // Read before anything is sent: it may turn out that there are too many intervals.
            var first = await totals.Read(question, list.After, format == ListFormat.Json ? list.Fetch : ExportedAtOnce, cancellation);
            if (first.Rejection is { } tooMany)
            {
                return Problems.For(tooMany);
            }

            http.AnswerPosition(first.Position);
            return format == ListFormat.Json ? Results.Ok(PageOf(list, first)) : Formats.Stream(format, All(totals, question, first, cancellation), s_csv);
        });

    /// <summary>Answers a page, whichever way it was asked for.</summary>
    internal static async Task<(Rejection? Rejection, long Position, UsageTotalsPage? Page)> Run(
        string tenantId, UsageTotalsQuery query, AsOfQuery asOfQuery, AsOf asOf, PageQuery page, UsageTotalsReader totals, CancellationToken cancellation)
    {
        if (!TryRead(tenantId, query, asOfQuery, asOf, page, out var question, out var list, out var rejection))
        {
            return (rejection, 0, null);
        }

        var found = await totals.Read(question, list.After, list.Fetch, cancellation);
        return found.Rejection is { } tooMany ? (tooMany, 0, null) : (null, found.Position, PageOf(list, found));
    }

    private static bool TryRead(
        string tenantId, UsageTotalsQuery query, AsOfQuery asOfQuery, AsOf asOf, PageQuery page, out UsageTotalsQuestion question,
        [NotNullWhen(true)] out ListQuery<UsageTotalKey>? list, [NotNullWhen(false)] out Rejection? rejection)
    {
        var errors = new Validation();
        question = UsageTotalsQuestion.Read(tenantId, query, asOfQuery.At?.Value, asOf.Position, errors);
        list = null;
        rejection = errors.Rejection;
        if (rejection is not null || !Lists.TryRead(page, "totals", [.. query.Filter, .. asOfQuery.Filter], out list, out rejection))
        {
            return false;
        }

        // What a caller made of a cursor must not reach the database.
        if (list.After?.Number is { } number && !CursorNumber().IsMatch(number))
        {
            (list, rejection) = (null, new Rejection("invalid-cursor", "The cursor does not belong to this list."));
            return false;
        }

        return true;
    }

    [GeneratedRegex(@"^-?[0-9]{1,200}(\.[0-9]{1,60})?$")]
    private static partial Regex CursorNumber();

    private static UsageTotalsPage PageOf(ListQuery<UsageTotalKey> list, UsageTotalsFound found)
    {
        var page = list.Page(found.Items, i => i.Key);
        return new UsageTotalsPage([.. page.Items.Select(i => i.Total)], found.Total, page.NextCursor);
    }

    private static async IAsyncEnumerable<UsageTotal> All(
        UsageTotalsReader totals, UsageTotalsQuestion question, UsageTotalsFound page, [EnumeratorCancellation] CancellationToken cancellation)
    {
        while (true)
        {
            foreach (var (total, _) in page.Items)
            {
                yield return total;
            }

            if (page.Items.Count < ExportedAtOnce)
            {
                yield break;
            }

            page = await totals.Read(question, page.Items[^1].Key, ExportedAtOnce, cancellation);
            if (page.Rejection is { } rejection)
            {
                throw new RefusedRequestException(rejection); // the connection breaks off: better than an end that looks like one
            }
        }
    }
}
