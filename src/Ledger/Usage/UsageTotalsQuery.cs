using Ledger.Http;
using Ledger.Services;
using Microsoft.AspNetCore.Mvc;

namespace Ledger.Usage;

/// <summary>Which totals are asked for.</summary>
/// <param name="GroupBy">Any of <c>user</c>, <c>service</c>, <c>currency</c> and one of <c>hour</c>, <c>day</c>, <c>month</c>, with commas between.</param>
/// <param name="From">Of calls that happened at this instant or later.</param>
/// <param name="To">Of calls that happened before this instant.</param>
/// <param name="User">Of calls of this user.</param>
/// <param name="Service">Of calls of this service.</param>
/// <param name="Currency">Of calls with a price in this currency.</param>
/// <param name="Interval"><c>PT1H</c>, <c>P1D</c> or <c>P1M</c>: the same as a group by hour, day or month.</param>
/// <param name="TimeZone">The zone whose hours, days and months are meant, such as <c>Europe/Berlin</c>; UTC unless given.</param>
/// <param name="Sort"><c>amount</c> or <c>calls</c>; by the groups unless given.</param>
/// <param name="Order"><c>asc</c> or <c>desc</c>; the largest first unless given, and groups in their order.</param>
public readonly record struct UsageTotalsQuery(
    [FromQuery(Name = "groupBy")] string? GroupBy, [FromQuery(Name = "from")] QueryTime? From, [FromQuery(Name = "to")] QueryTime? To,
    [FromQuery(Name = "user")] string? User, [FromQuery(Name = "service")] string? Service, [FromQuery(Name = "currency")] string? Currency,
    [FromQuery(Name = "interval")] string? Interval, [FromQuery(Name = "timeZone")] string? TimeZone,
    [FromQuery(Name = "sort")] string? Sort, [FromQuery(Name = "order")] string? Order)
{
    internal string?[] Filter => [GroupBy, From?.ToString(), To?.ToString(), User, Service, Currency, Interval, TimeZone, Sort, Order];
}

/// <summary>What totals are grouped by; the order in which groups are named is the order of the answer.</summary>
internal enum UsageGroup
{
    User,
    Service,
    Currency,
    Time,
}

/// <summary>A question for totals, understood.</summary>
internal sealed record UsageTotalsQuestion
{
    private static readonly Dictionary<string, IntervalUnit> s_units = new() { ["hour"] = IntervalUnit.Hour, ["day"] = IntervalUnit.Day, ["month"] = IntervalUnit.Month };
    private static readonly Dictionary<string, IntervalUnit> s_intervals = new() { ["PT1H"] = IntervalUnit.Hour, ["P1D"] = IntervalUnit.Day, ["P1M"] = IntervalUnit.Month };

    public required string TenantId { get; init; }

    public IReadOnlyList<UsageGroup> Groups { get; init; } = [];

    public IntervalUnit? Unit { get; init; }

    public TimeZoneInfo Zone { get; init; } = TimeZoneInfo.Utc;

    public DateTimeOffset? From { get; init; }

    public DateTimeOffset? To { get; init; }

    public string? User { get; init; }

    public string? Service { get; init; }

    public string? Currency { get; init; }

    /// <summary><c>amount</c> or <c>calls</c>; null: by the groups.</summary>
    public string? Sort { get; init; }

    public bool Descending { get; init; }

    /// <summary>Events after this position are not taken into account.</summary>
    public long? Position { get; init; }

    /// <summary>Whether sums by user answer it; those of services alone do otherwise.</summary>
    public bool OfUsers => User is not null || By(UsageGroup.User);

    public bool By(UsageGroup group) => Groups.Contains(group);

    /// <summary>Reads a query; what is wrong with it goes to <paramref name="errors"/>.</summary>
    public static UsageTotalsQuestion Read(string tenantId, UsageTotalsQuery query, DateTimeOffset? at, long? position, Validation errors)
    {
        var groups = new List<UsageGroup>();
        IntervalUnit? unit = null;
        foreach (var name in (query.GroupBy ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        {
            UsageGroup? group = name switch
            {
                "user" => UsageGroup.User,
                "service" => UsageGroup.Service,
                "currency" => UsageGroup.Currency,
                _ => s_units.ContainsKey(name) ? UsageGroup.Time : null,
            };
            if (errors.Check(group is not null, "groupBy", "must be any of user, service, currency and one of hour, day, month, with commas between")
                && errors.Check(!groups.Contains(group!.Value), "groupBy", group == UsageGroup.Time ? "names more than one of hour, day, month" : $"names '{name}' twice"))
            {
                groups.Add(group.Value);
                unit = group == UsageGroup.Time ? s_units[name] : unit;
            }
        }

        if (query.Interval is { } interval && errors.Check(s_intervals.TryGetValue(interval, out var asked), "interval", "must be PT1H, P1D or P1M")
            && errors.Check(unit is null || unit == asked, "interval", "is not what groupBy names"))
        {
            if (unit is null)
            {
                groups.Add(UsageGroup.Time);
            }

            unit = asked;
        }

        var zone = TimeZoneInfo.Utc;
        errors.Check(query.TimeZone is null || TimeZones.TryFind(query.TimeZone, out zone), "timeZone", TimeZones.Rule);
        errors.Check(query.User is null || UserId.IsValid(query.User), "user", UserId.Rule);
        errors.Check(query.Service is null || Slug.IsValid(query.Service), "service", Slug.Rule);
        errors.Check(query.Currency is null || Services.Currency.IsValid(query.Currency), "currency", Services.Currency.Rule);
        errors.Check(query.Sort is null or "amount" or "calls", "sort", "must be one of: amount, calls");
        errors.Check(query.Order is null or "asc" or "desc", "order", "must be one of: asc, desc");
        errors.Check(query.From is null || query.To is null || query.From.Value.Value <= query.To.Value.Value, "from", "must not be after to");
        var to = query.To?.Value;
        return new UsageTotalsQuestion
        {
            TenantId = tenantId, Groups = groups, Unit = unit, Zone = zone, From = query.From?.Value, To = at < to || to is null ? at ?? to : to,
            User = query.User, Service = query.Service, Currency = query.Currency, Sort = query.Sort,
            Descending = query.Order is { } order ? order == "desc" : query.Sort is not null, Position = position,
        };
    }
}

/// <summary>
/// Which rows answer a question: ranges of whole buckets, whose sums are kept, by the buckets' width; and ranges of time whose
/// calls are added up one by one: the parts of quarters of an hour at bounds that lie within one, or everything when it is asked
/// what was known at a position.
/// </summary>
internal sealed record UsageRanges(
    IReadOnlyDictionary<TimeSpan, List<(DateTimeOffset Since, DateTimeOffset Below)>> Whole, IReadOnlyList<(DateTimeOffset Since, DateTimeOffset Below)> Single)
{
    /// <summary>No call happens later.</summary>
    public static readonly DateTimeOffset End = UsageBuckets.Of(DateTimeOffset.MaxValue);

    /// <summary>
    /// The ranges that are [<paramref name="from"/>, <paramref name="to"/>), so that no bucket lies in two of the intervals, in
    /// as wide buckets as can be with <paramref name="wide"/>, in quarters of an hour without.
    /// </summary>
    public static UsageRanges Of(DateTimeOffset from, DateTimeOffset to, ZonedIntervals? intervals, bool wide, bool single)
    {
        var (whole, rest) = (new Dictionary<TimeSpan, List<(DateTimeOffset, DateTimeOffset)>>(), new List<(DateTimeOffset, DateTimeOffset)>());
        DateTimeOffset[] bounds = [.. (intervals is null ? [] : intervals.Starts.ToArray()).Where(start => start > from && start < to)];
        TimeSpan[] widths = single ? []
            : [.. wide ? UsageBuckets.Wider.Where(width => Array.TrueForAll(bounds, b => UsageBuckets.IsStart(b, width))) : [], UsageBuckets.Width];
        var since = from;
        foreach (var bound in bounds)
        {
            if (!single && !UsageBuckets.IsStart(bound, UsageBuckets.Width))
            {
                Cut(since, bound, widths);
                since = bound;
            }
        }

        Cut(since, to, widths);
        return new UsageRanges(whole, rest);

        void Cut(DateTimeOffset since, DateTimeOffset below, ReadOnlySpan<TimeSpan> widths)
        {
            if (since >= below)
            {
                return;
            }

            if (widths.IsEmpty)
            {
                rest.Add((since, below));
                return;
            }

            var width = widths[0].Ticks;
            var (first, last) = ((since.UtcTicks + width - 1) / width * width, below.UtcTicks / width * width);
            if (first >= last)
            {
                Cut(since, below, widths[1..]); // no whole one of this width
                return;
            }

            var middle = (Since: new DateTimeOffset(first, TimeSpan.Zero), Below: new DateTimeOffset(last, TimeSpan.Zero));
            Cut(since, middle.Since, widths[1..]);
            if (!whole.TryGetValue(widths[0], out var ranges))
            {
                whole.Add(widths[0], ranges = []);
            }

            ranges.Add(middle);
            Cut(middle.Below, below, widths[1..]);
        }
    }
}
