using System.Globalization;
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
    /// <summary>So much is sorted and grouped in memory, per answer under way; and a page's groups find their rows there by hashing.</summary>
    private static readonly string[] s_inMemory = ["set local work_mem = '32MB'", "set local enable_hashjoin = on"];

    /// <summary>
    /// Rows of services, and of one user, come in order of service and time, so they are sorted already, or nearly. To look up each
    /// one's group in a hash table of sums took up to twice as long. Rows of all users come in no order.
    /// </summary>
    private static readonly string[] s_inOrder = [.. s_inMemory, "set local enable_hashagg = off"];

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
            await views.Read(question.TenantId, Views, [SpanOf(question)], async reader => span = await ReadSpan(reader, cancellation), cancellation);
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
            var (wide, single) = (!question.OfUsers, question.Position is not null);
            var ranges = UsageRanges.Of(from, to, intervals, wide, single);
            var whole = wide && !single ? UsageRanges.Of(from, to, intervals: null, wide, single) : ranges;
            var units = _units;
            NpgsqlBatchCommand[] statements = [.. (question.OfUsers && question.User is null ? s_inMemory : s_inOrder).Select(s => Sql.Command(s)), TotalsOf(question, ranges, whole, intervals, after, limit, units), .. bounded ? [] : (NpgsqlBatchCommand[])[SpanOf(question)]];
            var position = await views.Read(
                question.TenantId, Views, statements,
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

    /// <summary>The first and the last quarter in which there were calls that a question may be about; null when there were none.</summary>
    internal static NpgsqlBatchCommand SpanOf(UsageTotalsQuestion question)
    {
        var parameters = new SqlParameters();
        var source = new Source(question, parameters);
        return Sql.Command(
            $"""
             with recursive {source.Called}
             select min(f.bucket), max(l.bucket)
             from called k
             cross join lateral (select t.bucket from {source.Table} t where {source.Where} order by t.bucket limit 1) f
             cross join lateral (select t.bucket from {source.Table} t where {source.Where} order by t.bucket desc limit 1) l
             where k.service_id is not null
             """,
            parameters.All);
    }

    /// <summary>
    /// Adds up in steps: the rows found in the ranges; the page's groups, of which no more is known than their order takes; what
    /// the rows of those come to, a currency and a set of units each, and so all rows of <paramref name="whole"/>, which are the
    /// same time in wider sums; facts, one number each (calls, calls without a price, an amount, a quantity); items. Where there are
    /// no wider sums, all rows have to be added up anyway: then they are read once, and added up by group at once, unless a group has
    /// a few rows only, as an hour of a service has.
    /// </summary>
    internal static NpgsqlBatchCommand TotalsOf(
        UsageTotalsQuestion question, UsageRanges ranges, UsageRanges whole, ZonedIntervals? intervals, UsageTotalKey? after, int limit, int units = CallQuantities.MaxUnits)
    {
        var parameters = new SqlParameters();
        var source = new Source(question, parameters);
        string[] keys = [.. question.Groups.Select(ColumnOf)];
        var found = string.Concat(keys.Where(k => k != ColumnOf(UsageGroup.Currency)).Select(k =>
            k == ColumnOf(UsageGroup.Time) ? $"width_bucket(r.at, {parameters.Add(Sql.Value(intervals!.Starts.ToArray()))}) as {k}, " : $"r.{k}, "));
        var currency = question.Currency is { } only ? $"where r.currency = {parameters.Add(Sql.Value(only))}" : "";
        var rows = keys.Length == 0 ? ""
            : $"select {found}r.currency as priced_in, r.units, r.calls, r.amount, r.quantities from ({source.Rows(ranges, question.Position)}) r {currency}";
        var once = keys.Length > 0 && ReferenceEquals(ranges, whole);
        var grouped = once && !(question.Unit == IntervalUnit.Hour && (question.By(UsageGroup.Service) || question.Service is not null));
        var width = grouped ? "r.width" : "cardinality(r.quantities)";
        var parts = string.Join(", ", keys.Union(["priced_in", "units"]));
        var page = keys.Length == 0 ? "" :
            $"""
             found as materialized (
               {(grouped ? $"select {parts}, {Sums("f", units, "cardinality(f.quantities)")} from ({rows}) f group by {parts}" : rows)}
             ),
             page as materialized (
               select p.*, row_number() over (order by {OrderOf(question, "p", keys)}) as number
               from (
                 select s.* from (
                   select {string.Join(", ", keys)}, {(question.Sort is { } sort ? $"sum({sort})" : "null::numeric")} as sorted from found
                   group by {string.Join(", ", keys)} having sum(calls) > 0
                 ) s
                 where {After(question, keys, after, intervals, parameters)} order by {OrderOf(question, "s", keys)} limit {parameters.Add(Sql.Value((long)limit))}
               ) p
             ),
             """;
        var pageRows = keys.Length == 0 ? "" :
            $"""
             select 0 as whole, n.number, n.sorted, {Listed(question, "n.{0}")}, r.priced_in, r.units, {Sums("r", units, width)}
             from page n join found r on {string.Join(" and ", keys.Select(k => $"r.{k} = n.{k}"))}
             group by n.number, n.sorted, {string.Join(", ", keys.Select(k => $"n.{k}"))}, r.priced_in, r.units having sum(r.calls) > 0
             union all
             """;
        return Sql.Command(
            $"""
             with recursive {source.Called},
             {page}
             picked as (
               {pageRows}
               select 1 as whole, 0 as number, null::numeric as sorted, null::varchar as user_id, null::varchar as service_id, null::int as slot,
                 {(once
                     ? $"r.priced_in, r.units, {Sums("r", units, width)} from found r group by r.priced_in, r.units"
                     : $"r.currency as priced_in, r.units, {Sums("r", units, width)} from ({source.Rows(whole, question.Position)}) r {currency} group by r.currency, r.units")}
               having sum(r.calls) > 0
             ),
             facts as (
               select p.whole, p.number, p.sorted, p.user_id, p.service_id, p.slot, {(question.By(UsageGroup.Currency) ? "case p.whole when 0 then p.priced_in end" : "null::varchar")} as currency,
                 f.kind, f.name, sum(f.value) as value, max(p.width) as width
               from picked p
               cross join lateral (
                 select 0, '', p.calls
                 union all select 1, '', p.calls where p.priced_in = ''
                 union all select 2, p.priced_in, p.amount where p.priced_in <> ''
                 union all select 3, u.unit, u.quantity from unnest(string_to_array(p.units, ','), p.quantities) u (unit, quantity) where u.unit is not null and u.quantity is not null
               ) f (kind, name, value)
               group by 1, 2, 3, 4, 5, 6, 7, 8, 9
             )
             select whole, user_id, service_id, slot, currency,
               (sum(value) filter (where kind = 0))::bigint, coalesce(sum(value) filter (where kind = 1), 0)::bigint, sorted::text,
               json_object_agg(name, trim_scale(value)::text order by name collate "C") filter (where kind = 2)::text,
               json_object_agg(name, trim_scale(value)::text order by name collate "C") filter (where kind = 3)::text,
               max(width)
             from facts
             group by whole, number, sorted, user_id, service_id, slot, currency
             order by whole desc, number
             """,
            parameters.All);
    }

    private static string Sums(string of, int units, string width) =>
        $"sum({of}.calls) as calls, sum({of}.amount) as amount, array[{string.Join(", ", Enumerable.Range(1, units).Select(i => $"sum({of}.quantities[{i}])"))}] as quantities, "
        + $"max({width}) as width";

    private static string Listed(UsageTotalsQuestion question, string format) => string.Join(", ", new[] { UsageGroup.User, UsageGroup.Service, UsageGroup.Time }.Select(g =>
        question.By(g) ? string.Format(CultureInfo.InvariantCulture, format, ColumnOf(g)) : g == UsageGroup.Time ? "null::int as slot" : $"null::varchar as {ColumnOf(g)}"));

    private static string ColumnOf(UsageGroup group) => group switch
    {
        UsageGroup.User => "user_id",
        UsageGroup.Service => "service_id",
        UsageGroup.Time => "slot",
        _ => "priced_in",
    };

    private static string OrderOf(UsageTotalsQuestion question, string of, string[] keys)
    {
        var direction = question.Descending ? "desc" : "asc";
        return string.Join(", ", question.Sort is null ? keys.Select(k => $"{of}.{k} {direction}") : keys.Select(k => $"{of}.{k}").Prepend($"{of}.sorted {direction}"));
    }

    /// <summary>The condition that an item comes after the last one of the page before.</summary>
    private static string After(UsageTotalsQuestion question, string[] keys, UsageTotalKey? after, ZonedIntervals? intervals, SqlParameters parameters)
    {
        if (after is null)
        {
            return "true";
        }

        var values = string.Join(", ", question.Groups.Select(g => parameters.Add(g switch
        {
            UsageGroup.User => Sql.Value(after.User ?? ""),
            UsageGroup.Service => Sql.Value(after.Service ?? ""),
            UsageGroup.Time => Sql.Value(SlotOf(after.Start ?? DateTimeOffset.MinValue, intervals!)),
            _ => Sql.Value(after.Currency ?? ""),
        })));
        var columns = string.Join(", ", keys.Select(k => $"s.{k}"));
        if (question.Sort is null)
        {
            return $"({columns}) {(question.Descending ? "<" : ">")} ({values})";
        }

        var number = $"{parameters.Add(Sql.Value(after.Number ?? "0"))}::numeric";
        return $"(s.sorted {(question.Descending ? "<" : ">")} {number} or (s.sorted = {number} and ({columns}) > ({values})))";
    }

    /// <summary>The number of the interval that begins at an instant; there may be more before it than when the cursor was made.</summary>
    private static int SlotOf(DateTimeOffset start, ZonedIntervals intervals)
    {
        var index = intervals.Starts.BinarySearch(start);
        return index >= 0 ? index + 1 : ~index;
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

    /// <summary>
    /// The tables and indexes a question is answered from. The services are found by skipping along an index from one to the
    /// next, so that each is one range of time: nothing outside the range is read.
    /// </summary>
    private sealed class Source
    {
        private const string OfService = "t.bucket > '-infinity'";

        private readonly UsageTotalsQuestion _question;
        private readonly SqlParameters _parameters;
        private readonly string _tenant;
        private readonly string _user;

        public Source(UsageTotalsQuestion question, SqlParameters parameters)
        {
            (_question, _parameters) = (question, parameters);
            _tenant = parameters.Add(Sql.Value(question.TenantId));
            _user = question.User is { } user ? parameters.Add(Sql.Value(user)) : "";
            Table = question.OfUsers ? "usage_totals" : "usage_service_totals";
            var ofUser = question.User is null ? "" : $" and t.user_id = {_user}";
            Where = $"t.tenant_id = {_tenant}{ofUser} and t.service_id = k.service_id"
                + (question.User is null && Table == "usage_totals" ? $" and {OfService}" : "");
            var (skipped, among) = question.User is null ? ("usage_service_totals", $"t.tenant_id = {_tenant}") : ("usage_totals", $"t.tenant_id = {_tenant}{ofUser}");
            Called = question.Service is { } service
                ? $"called (service_id) as (select {parameters.Add(Sql.Value(service))}::varchar collate \"C\")"
                : $"""
                   called (service_id) as (
                     (select t.service_id from {skipped} t where {among} order by t.service_id limit 1)
                     union all
                     select (select t.service_id from {skipped} t where {among} and t.service_id > k.service_id order by t.service_id limit 1)
                     from called k where k.service_id is not null
                   )
                   """;
        }

        /// <summary>The table of the quarters.</summary>
        public string Table { get; }

        /// <summary>The condition on its rows t of a service k.</summary>
        public string Where { get; }

        /// <summary>The services k, the last of them null.</summary>
        public string Called { get; }

        /// <summary>The rows of all ranges, in one shape.</summary>
        public string Rows(UsageRanges ranges, long? position)
        {
            List<string> rows = [.. ranges.Whole.OrderBy(w => w.Key).Select(w => Sums(w.Key, w.Value))];
            if (ranges.Single.Count > 0)
            {
                rows.Add(Calls(ranges.Single, position ?? long.MaxValue));
            }

            return rows.Count == 0 ? Sums(UsageBuckets.Width, []) : string.Join("\nunion all\n", rows); // or of no time at all
        }

        /// <summary>The rows of whole buckets of a width.</summary>
        private string Sums(TimeSpan width, IReadOnlyList<(DateTimeOffset Since, DateTimeOffset Below)> ranges)
        {
            var (table, where) = width == UsageBuckets.Width ? (Table, Where) : ("usage_service_sums", $"{Where} and t.minutes = {UsageBuckets.MinutesOf(width)}");
            return
                $"""
                 select {(Table == "usage_totals" ? "t.user_id" : "''::varchar")} as user_id, t.service_id, t.bucket as at, t.currency, t.units, t.calls, t.quantities, t.amount
                 from called k
                 cross join {Unnest(ranges)} w (since, below)
                 cross join lateral (select * from {table} t where {where} and t.bucket >= w.since and t.bucket < w.below offset 0) t
                 where k.service_id is not null
                 """;
        }

        /// <summary>Single calls, as they were known at a position, in the shape of rows of quarters.</summary>
        private string Calls(IReadOnlyList<(DateTimeOffset Since, DateTimeOffset Below)> ranges, long position)
        {
            var known = _parameters.Add(Sql.Value(position));
            var (of, index) = (_question.User, _question.Service) switch
            {
                (not null, _) => ($"c.tenant_id = {_tenant} and c.user_id = {_user} and c.service_id = k.service_id", ""),
                (_, not null) => ($"c.tenant_id = {_tenant} and c.service_id = k.service_id", $"and {UsageCallsReader.OfService}"),
                _ => ($"c.tenant_id = {_tenant}", $"and {UsageCallsReader.ByTime}"),
            };
            var from = index.Contains(UsageCallsReader.ByTime, StringComparison.Ordinal) ? "" : "(select * from called where service_id is not null) k cross join ";
            return
                $"""
                 select c.user_id, c.service_id, c.occurred_at as at, c.priced_in as currency, q.units collate "C" as units, 1::bigint as calls, q.quantities,
                   case when c.priced_in = '' then 0 else c.amount end as amount
                 from {from}{Unnest(ranges)} w (since, below)
                 cross join lateral (
                   select c.user_id, c.service_id, c.occurred_at, c.position, c.amount,
                     case when c.amount is null or c.priced_position > {known} then '' else c.currency end collate "C" as priced_in
                   from calls c
                   where {of} {index} and c.occurred_at >= w.since and c.occurred_at < w.below
                     and c.position <= {known} and (c.voided_position is null or c.voided_position > {known}) offset 0) c
                 cross join lateral (select e.data -> 'quantities' as quantities from mt_events e where e.seq_id = c.position limit 1) e
                 cross join lateral (
                   select string_agg(p.key, ',' order by p.key collate "C") as units, array_agg(p.value::numeric order by p.key collate "C") as quantities
                   from jsonb_each_text(e.quantities) p) q
                 """;
        }

        private string Unnest(IReadOnlyList<(DateTimeOffset Since, DateTimeOffset Below)> ranges) =>
            $"unnest({_parameters.Add(Sql.Instants(ranges.Select(r => r.Since)))}, {_parameters.Add(Sql.Instants(ranges.Select(r => r.Below)))})";
    }
}
