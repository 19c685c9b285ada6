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
