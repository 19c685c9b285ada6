using System.Globalization;
using Ledger.EventStore;
using Npgsql;

namespace Ledger.Usage;

/// <summary>
/// The statement that adds up a page of totals, and the total of everything, in steps that are each a query of it: <c>found</c>, the
/// rows of the ranges; <c>page</c>, the page's groups, of which no more is known than their order takes; <c>picked</c>, what the rows
/// of those come to, a currency and a set of units each, and so all rows; <c>facts</c>, one number each (calls, calls without a
/// price, an amount, a quantity); and items.
/// </summary>
/// <param name="question">What is asked for.</param>
/// <param name="ranges">The rows that make up the groups.</param>
/// <param name="wider">
/// The same time in wider sums, for the total of everything. Null where there are none: then what was found for the groups is that, too,
/// and is read once.
/// </param>
/// <param name="intervals">The intervals that time is grouped by; null without.</param>
/// <param name="after">The item that the page comes after; null for the first page.</param>
/// <param name="limit">How many items a page has at most.</param>
/// <param name="units">How many units of a set are added up; the answer's last column says how many there are.</param>
internal sealed class UsageTotalsStatement(
    UsageTotalsQuestion question, UsageRanges ranges, UsageRanges? wider, ZonedIntervals? intervals, UsageTotalKey? after, int limit, int units = CallQuantities.MaxUnits)
{
    /// <summary>So much is sorted and grouped in memory, per answer under way; and a page's groups find their rows there by hashing.</summary>
    private static readonly string[] s_inMemory = ["set local work_mem = '32MB'", "set local enable_hashjoin = on"];

    /// <summary>
    /// Rows of services, and of one user, come in order of service and time, so they are sorted already, or nearly. To look up each
    /// one's group in a hash table of sums took up to twice as long. Rows of all users come in no order.
    /// </summary>
    private static readonly string[] s_inOrder = [.. s_inMemory, "set local enable_hashagg = off"];

    private readonly SqlParameters _parameters = new();
    private readonly string[] _keys = [.. question.Groups.Select(ColumnOf)];

    /// <summary>What is set for the transaction in which the statement runs.</summary>
    public IEnumerable<NpgsqlBatchCommand> Settings => (question.OfUsers && question.User is null ? s_inMemory : s_inOrder).Select(s => Sql.Command(s));

    /// <summary>
    /// Whether all rows are added up by group as they are read. They have to be added up anyway where there are no wider sums; that is
    /// not worth it where a group has a few rows only, as an hour of a service has.
    /// </summary>
    private bool FoundAreSums => wider is null && !(question.Unit == IntervalUnit.Hour && (question.By(UsageGroup.Service) || question.Service is not null));

    /// <summary>The first and the last quarter in which there were calls that a question may be about; null when there were none.</summary>
    public static NpgsqlBatchCommand SpanOf(UsageTotalsQuestion question)
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

    /// <summary>Makes the command.</summary>
    public NpgsqlBatchCommand Command()
    {
        var source = new Source(question, _parameters);
        var isGrouped = _keys.Length > 0;
        return Sql.Command(
            $"""
             with recursive {source.Called},
             {(isGrouped ? $"{Found(source)},\n{Page()},\npicked as ({OfPage()} union all {(wider is null ? OfAllFound() : OfAll(source, wider))})" : $"picked as ({OfAll(source, ranges)})")},
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
            _parameters.All);
    }

    /// <summary>The rows of the ranges, with the groups they belong to.</summary>
    private string Found(Source source)
    {
        var keys = string.Concat(question.Groups.Where(g => g != UsageGroup.Currency).Select(g =>
            g == UsageGroup.Time ? $"width_bucket(r.at, {_parameters.Add(Sql.Value(intervals!.Starts.ToArray()))}) as {ColumnOf(g)}, " : $"r.{ColumnOf(g)}, "));
        var rows = $"select {keys}r.currency as priced_in, r.units, r.calls, r.amount, r.quantities, r.width from {Rows(source, ranges)}";
        var parts = string.Join(", ", _keys.Union(["priced_in", "units"]));
        return $"found as materialized ({(FoundAreSums ? $"select {parts}, {Sums("f")} from ({rows}) f group by {parts}" : rows)})";
    }

    /// <summary>The page's groups.</summary>
    private string Page() =>
        $"""
         page as materialized (
           select p.*, row_number() over (order by {OrderOf("p")}) as number
           from (
             select s.* from (
               select {string.Join(", ", _keys)}, {(question.Sort is { } sort ? $"sum({sort})" : "null::numeric")} as sorted from found
               group by {string.Join(", ", _keys)} having sum(calls) > 0
             ) s
             where {After()} order by {OrderOf("s")} limit {_parameters.Add(Sql.Value((long)limit))}
           ) p
         )
         """;

    /// <summary>What the page's groups come to.</summary>
    private string OfPage()
    {
        var listed = string.Join(", ", new[] { UsageGroup.User, UsageGroup.Service, UsageGroup.Time }.Select(g =>
            question.By(g) ? $"n.{ColumnOf(g)}" : g == UsageGroup.Time ? "null::int as slot" : $"null::varchar as {ColumnOf(g)}"));
        return
            $"""
             select 0 as whole, n.number, n.sorted, {listed}, r.priced_in, r.units, {Sums("r")}
             from page n join found r on {string.Join(" and ", _keys.Select(k => $"r.{k} = n.{k}"))}
             group by n.number, n.sorted, {string.Join(", ", _keys.Select(k => $"n.{k}"))}, r.priced_in, r.units having sum(r.calls) > 0
             """;
    }

    private string OfAllFound() => OfEverything("r.priced_in", "found r");

    private string OfAll(Source source, UsageRanges of) => OfEverything("r.currency", Rows(source, of));

    /// <summary>What all rows come to.</summary>
    private string OfEverything(string pricedIn, string rows) =>
        $"""
         select 1 as whole, 0 as number, null::numeric as sorted, null::varchar as user_id, null::varchar as service_id, null::int as slot,
           {pricedIn} as priced_in, r.units, {Sums("r")}
         from {rows} group by {pricedIn}, r.units having sum(r.calls) > 0
         """;

    private string Rows(Source source, UsageRanges of) =>
        $"({source.Rows(of, question.Position)}) r{(question.Currency is { } only ? $" where r.currency = {_parameters.Add(Sql.Value(only))}" : "")}";

    private string Sums(string of) =>
        $"sum({of}.calls) as calls, sum({of}.amount) as amount, array[{string.Join(", ", Enumerable.Range(1, units).Select(i => $"sum({of}.quantities[{i}])"))}] as quantities, "
        + $"max({of}.width) as width";

    private string OrderOf(string of)
    {
        var direction = question.Descending ? "desc" : "asc";
        return string.Join(", ", question.Sort is null ? _keys.Select(k => $"{of}.{k} {direction}") : _keys.Select(k => $"{of}.{k}").Prepend($"{of}.sorted {direction}"));
    }

    /// <summary>The condition that an item comes after the last one of the page before.</summary>
    private string After()
    {
        if (after is null)
        {
            return "true";
        }

        var values = string.Join(", ", question.Groups.Select(g => _parameters.Add(g switch
        {
            UsageGroup.User => Sql.Value(after.User ?? ""),
            UsageGroup.Service => Sql.Value(after.Service ?? ""),
            UsageGroup.Time => Sql.Value(SlotOf(after.Start ?? DateTimeOffset.MinValue)),
            _ => Sql.Value(after.Currency ?? ""),
        })));
        var columns = string.Join(", ", _keys.Select(k => $"s.{k}"));
        if (question.Sort is null)
        {
            return $"({columns}) {(question.Descending ? "<" : ">")} ({values})";
        }

        var number = $"{_parameters.Add(Sql.Value(after.Number ?? "0"))}::numeric";
        return $"(s.sorted {(question.Descending ? "<" : ">")} {number} or (s.sorted = {number} and ({columns}) > ({values})))";
    }

    /// <summary>The number of the interval that begins at an instant; there may be more before it than when the cursor was made.</summary>
    private int SlotOf(DateTimeOffset start)
    {
        var index = intervals!.Starts.BinarySearch(start);
        return index >= 0 ? index + 1 : ~index;
    }

    private static string ColumnOf(UsageGroup group) => group switch
    {
        UsageGroup.User => "user_id",
        UsageGroup.Service => "service_id",
        UsageGroup.Time => "slot",
        _ => "priced_in",
    };

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
                 select {(Table == "usage_totals" ? "t.user_id" : "''::varchar")} as user_id, t.service_id, t.bucket as at, t.currency, t.units, t.calls, t.amount, t.quantities, cardinality(t.quantities) as width
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
                 select c.user_id, c.service_id, c.occurred_at as at, c.priced_in as currency, q.units collate "C" as units, 1::bigint as calls,
                   case when c.priced_in = '' then 0 else c.amount end as amount, q.quantities, cardinality(q.quantities) as width
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
