using System.Text.Json;
using Ledger.EventStore;
using Ledger.Http;
using Npgsql;

namespace Ledger.Usage;

/// <summary>Where a page of totals ends: the number it is sorted by, and the groups.</summary>
public sealed record UsageTotalKey(string? Number, string? User, string? Service, DateTimeOffset? Start, string? Currency);

/// <summary>Totals that were found, or why they were not looked for.</summary>
internal sealed record UsageTotalsFound(long Position, IReadOnlyList<(UsageTotal Total, UsageTotalKey Key)> Items, UsageTotal Total, Rejection? Rejection = null);

/// <summary>
/// Reads the view "UsageTotals", and, where a bound lies within a quarter of an hour, the view "Calls". An answer costs the
/// rows of its range: those of the services, one a service, currency, set of units and day, hour or quarter in which there were
/// calls, whichever is the widest that lies in one interval; or, where users are grouped or filtered by, one a user as well and
/// quarter; and the single calls of two quarters where <c>from</c> and <c>to</c> lie within one. How many calls the rows are
/// made of does not matter. What was known at a
/// position is added up from all calls in the range. All sums are PostgreSQL's.
/// </summary>
public sealed class UsageTotalsReader(ViewDatabase views)
{
    /// <summary>How many units the sums are made for: the time it takes goes by them, and a set of more is seldom. Never fewer than there are: then it is asked again.</summary>
    private volatile int _units = 4;

    /// <summary>The views an answer is made of.</summary>
    public static readonly string[] Views = [UsageTotalsProjection.View, CallsProjection.View];

    /// <summary>A page of the totals that a question asks for, and the total of everything.</summary>
    internal async Task<UsageTotalsFound> Read(UsageTotalsQuestion question, UsageTotalKey? after, int limit, CancellationToken cancellation)
    {
        var bounded = question is { Unit: null } or { From: not null, To: not null };
        (DateTimeOffset First, DateTimeOffset Last)? span = null;
        if (!bounded)
        {
            await views.Read(question.TenantId, Views, [UsageTotalsStatement.SpanOf(question)], async reader => span = await ReadSpan(reader, cancellation), cancellation);
        }

        while (true)
        {
            var from = Earlier(question.From ?? (bounded ? DateTimeOffset.MinValue : span?.First ?? UsageRanges.End), UsageRanges.End);
            var to = Earlier(question.To ?? (bounded ? UsageRanges.End : span is { } s ? s.Last + UsageBuckets.Width : from), UsageRanges.End);
            ZonedIntervals? intervals = null;
            if (question.Unit is { } unit && (intervals = ZonedIntervals.Covering(from, to, unit, question.Zone)) is null)
            {
                return new UsageTotalsFound(0, [], UsageTotal.None, Validation.Field(
                    question.From is null ? "from" : "to", $"makes more than {ZonedIntervals.MaxIntervals} intervals: ask for a shorter time or for longer intervals"));
            }

            var total = UsageTotal.None;
            var items = new List<(UsageTotal, UsageTotalKey)>();
            var (missed, width) = (false, 0);
            var (hasWider, single) = (!question.OfUsers, question.Position is not null);
            var ranges = UsageRanges.Of(from, to, intervals, hasWider, single);
            var wider = hasWider && !single && intervals is not null ? UsageRanges.Of(from, to, intervals: null, wide: true, single: false) : null;
            var units = _units;
            var statement = new UsageTotalsStatement(question, ranges, wider, intervals, after, limit, units);
            var position = await views.Read(
                question.TenantId, Views, [.. statement.Settings, statement.Command(), .. bounded ? [] : (NpgsqlBatchCommand[])[UsageTotalsStatement.SpanOf(question)]],
                async reader =>
                {
                    while (await reader.ReadAsync(cancellation))
                    {
                        var (found, key) = ReadTotal(reader, question, intervals);
                        if (key is null)
                        {
                            (total, width) = (found, reader.GetInt32(10));
                        }
                        else
                        {
                            items.Add((found, key));
                        }
                    }

                    if (!bounded)
                    {
                        await reader.NextResultAsync(cancellation);
                        var now = await ReadSpan(reader, cancellation);
                        missed = now is not null && (span is null || now.Value.First < span.Value.First || now.Value.Last > span.Value.Last);
                        span = now;
                    }
                },
                cancellation);
            if (width > units)
            {
                _units = width > 8 ? CallQuantities.MaxUnits : 8; // from now on
            }
            else if (!missed)
            {
                // Without groups there is one item, also when there is no call.
                return new UsageTotalsFound(position, question.Groups.Count > 0 ? items : after is null ? [(total, new UsageTotalKey(null, null, null, null, null))] : [], total);
            }
        }
    }

    private static (UsageTotal Total, UsageTotalKey? Key) ReadTotal(NpgsqlDataReader reader, UsageTotalsQuestion question, ZonedIntervals? intervals)
    {
        var total = new UsageTotal
        {
            Calls = reader.GetInt64(5), UnpricedCalls = reader.GetInt64(6), Amounts = Numbers(reader.Maybe<string>(8)), Quantities = Numbers(reader.Maybe<string>(9)),
        };
        if (reader.GetInt32(0) == 1)
        {
            return (total, null);
        }

        var (user, service, currency) = (reader.Maybe<string>(1), reader.Maybe<string>(2), reader.Maybe<string>(4));
        (DateTimeOffset Start, DateTimeOffset End)? interval = question.By(UsageGroup.Time) ? intervals![reader.GetInt32(3)] : null;
        total = total with { User = user, Service = service, Start = interval?.Start, End = interval?.End };
        if (question.By(UsageGroup.Currency))
        {
            total = total with { Currency = new Patch<string>(currency is "" ? null : currency) };
        }

        return (total, new UsageTotalKey(reader.Maybe<string>(7), user, service, interval?.Start, currency));
    }

    private static Dictionary<string, string> Numbers(string? json) =>
        json is null ? [] : JsonSerializer.Deserialize<Dictionary<string, string>>(json, Json.Options)!;

    private static async Task<(DateTimeOffset First, DateTimeOffset Last)?> ReadSpan(NpgsqlDataReader reader, CancellationToken cancellation) =>
        await reader.ReadAsync(cancellation) && !reader.IsDBNull(0) ? (reader.GetFieldValue<DateTimeOffset>(0), reader.GetFieldValue<DateTimeOffset>(1)) : null;

    private static DateTimeOffset Earlier(DateTimeOffset one, DateTimeOffset other) => one < other ? one : other;
}
