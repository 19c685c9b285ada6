using System.Globalization;
using System.Net;
using System.Text.Json;

namespace Ledger.Tests.Grpc;

public sealed class Totals_over_grpc(GrpcNode node) : IClassFixture<GrpcNode>
{
    private const int InvalidArgument = 3, DeadlineExceeded = 4, Unavailable = 14;

    private static readonly DateTimeOffset Day = new(2026, 11, 1, 0, 0, 0, TimeSpan.Zero);

    /// <summary>Calls of three users on three days, one a day without a price; and the position after them.</summary>
    private async Task<(string Service, string Free, string Position)> Some()
    {
        var (service, free) = (await node.Service("0.1"), $"f-{Guid.NewGuid():n}");
        (await node.Call("RegisterService", new { service_id = free, title = free })).IsOk();
        var calls =
            from day in Enumerable.Range(0, 3)
            from user in (string[])["a", "b", "c"]
            select new
            {
                user_id = $"{user}-{service}", service_id = user == "c" ? free : service, occurred_at = new { seconds = Day.AddDays(day).ToUnixTimeSeconds() + 60 },
                quantities = new { call = user == "b" ? "2.5" : "1" },
            };
        return (service, free, (await node.Call("RecordCalls", new { calls })).IsOk().Position.ToString(CultureInfo.InvariantCulture));
    }

    private async Task<Outcome> Ask(object question, string position) => await node.Call("QueryTotals", question, ("ledger-min-position", position), ("prefer", "wait=30"));

    [Fact]
    public async Task are_those_of_http()
    {
        var (service, _, position) = await Some();

        var totals = (await Ask(new { service, group_by = "user day".Split(' '), from = new { seconds = Day.ToUnixTimeSeconds() }, to = new { seconds = Day.AddDays(2).ToUnixTimeSeconds() }, sort = "amount" }, position)).IsOk();
        var http = (await node.Http.GetAsIs($"/v1/usage/totals?service={service}&groupBy=user,day&from=2026-11-01T00:00:00Z&to=2026-11-03T00:00:00Z&sort=amount")).Is(HttpStatusCode.OK);

        Assert.Equal(
            [$"b-{service} 0 1 2.5 0.25", $"b-{service} 1 1 2.5 0.25", $"a-{service} 0 1 1 0.1", $"a-{service} 1 1 1 0.1"],
            totals["items"].EnumerateArray().Select(i => string.Join(
                ' ', i.GetProperty("user"), (i.GetProperty("start").GetProperty("seconds").GetInt64() - Day.ToUnixTimeSeconds()) / 86_400, i.GetProperty("calls"),
                i.GetProperty("quantities").GetProperty("call"), i.GetProperty("amounts").GetProperty("USD"))));
        Assert.Equal("""{"calls":4,"quantities":{"call":"7"},"amounts":{"USD":"0.7"}}""", totals["total"].GetRawText());
        Assert.Equal(http.Items.Select(Text), totals["items"].EnumerateArray().Select(Text));
        Assert.Equal((totals.Position, totals.Position), (totals["position"].GetInt64(), http.Position));

        static string Text(JsonElement total) => $"{total.GetProperty("user")} {total.GetProperty("calls")} {total.GetProperty("quantities")} {total.GetProperty("amounts")}";
    }

    [Fact]
    public async Task count_calls_without_a_price_and_have_no_currency_for_them()
    {
        var (_, free, position) = await Some();

        var totals = (await Ask(new { service = free, group_by = "currency".Split(' ') }, position)).IsOk();

        Assert.Equal("""[{"calls":3,"quantities":{"call":"3"},"unpriced_calls":3}]""", totals["items"].GetRawText());
    }

    [Fact]
    public async Task come_in_pages()
    {
        var (service, _, position) = await Some();
        object Question(string? cursor) => new { service, group_by = "user".Split(' '), limit = 1, cursor };

        var first = (await Ask(Question(null), position)).IsOk();
        var second = (await Ask(Question(first.Text("next_cursor")), position)).IsOk();
        var other = await Ask(new { service, cursor = first.Text("next_cursor") }, position);

        Assert.Equal(["a", "b"], new[] { first, second }.Select(p => Assert.Single(p["items"].EnumerateArray().ToArray()).GetProperty("user").GetString()![..1]));
        Assert.False(second.Response!.Value.TryGetProperty("next_cursor", out _));
        Assert.Equal(first["total"].GetRawText(), second["total"].GetRawText());
        other.IsRefused(InvalidArgument, "invalid-cursor");
    }

    [Fact]
    public async Task are_known_at_a_position_and_at_an_instant()
    {
        var (service, _, position) = await Some();
        var then = (await node.Call("RecordCall", new { call = new { user_id = "a", service_id = service, occurred_at = new { seconds = Day.AddDays(5).ToUnixTimeSeconds() } } })).IsOk().Position;

        Assert.Equal(7, (await Ask(new { service }, $"{then}")).IsOk()["total"].GetProperty("calls").GetInt32());
        Assert.Equal(6, (await Ask(new { service, position = long.Parse(position, CultureInfo.InvariantCulture) }, $"{then}")).IsOk()["total"].GetProperty("calls").GetInt32());
        Assert.Equal(2, (await Ask(new { service, at = new { seconds = Day.AddDays(1).ToUnixTimeSeconds() } }, $"{then}")).IsOk()["total"].GetProperty("calls").GetInt32());
    }

    [Theory]
    [InlineData("""{"group_by":["team"]}""", "group_by", "must be any of user, service, currency")]
    [InlineData("""{"group_by":["day","hour"]}""", "group_by", "names more than one of hour, day, month")]
    [InlineData("""{"from":{"seconds":2},"to":{"seconds":1}}""", "from", "must not be after to")]
    [InlineData("""{"from":{"nanos":-1}}""", "from", "is not a Timestamp")]
    [InlineData("""{"at":{"seconds":253402300800}}""", "at", "is not a Timestamp")]
    [InlineData("""{"user":""}""", "user", "is not a user id")]
    [InlineData("""{"service":"a b"}""", "service", "is not a slug")]
    [InlineData("""{"currency":"$"}""", "currency", "is not a currency")]
    [InlineData("""{"time_zone":"Mars/Olympus"}""", "time_zone", "is not a zone")]
    [InlineData("""{"sort":"price"}""", "sort", "must be one of: amount, calls")]
    [InlineData("""{"order":"up"}""", "order", "must be one of: asc, desc")]
    [InlineData("""{"limit":0}""", "limit", "must be from 1 to 1000")]
    [InlineData("""{"limit":1001}""", "limit", "must be from 1 to 1000")]
    [InlineData("""{"position":0}""", "position", "is not in the log")]
    public async Task are_refused_with_the_field_and_the_rule(string question, string field, string rule)
    {
        var refused = (await node.Call("QueryTotals", JsonElement.Parse(question))).IsRefused(InvalidArgument, "invalid-request");

        var (wrong, why) = Assert.Single(refused.Violations);
        Assert.Equal(field, wrong);
        Assert.Contains(rule, why, StringComparison.Ordinal);
    }

    [Fact]
    public async Task wait_for_the_position_asked_for_as_long_as_the_caller_says()
    {
        var behind = (await node.Call("QueryTotals", new { }, ("ledger-min-position", "999999999"), ("prefer", "wait=0"))).IsRefused(Unavailable, "view-behind");
        var late = await node.Call(new GrpcCall("QueryTotals", new { })
        {
            Metadata = new Dictionary<string, string> { ["ledger-min-position"] = "999999999", ["prefer"] = "wait=30" }, DeadlineMs = 300,
        });
        var none = (await node.Call("QueryTotals", new { }, ("ledger-min-position", "soon"))).IsRefused(InvalidArgument, "invalid-request");

        Assert.Equal(1, behind.Detail("RetryInfo").GetProperty("retry_delay").GetProperty("seconds").GetInt32());
        Assert.Equal(DeadlineExceeded, late.Code);
        Assert.Equal("ledger-min-position", Assert.Single(none.Violations).Field);
    }
}
