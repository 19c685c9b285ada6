using System.Text;
using Ledger.Campaigns;

namespace Ledger.Tests.Campaigns;

public sealed class Answers_of_the_gateway
{
    private const string Secret = "s3cr3t-0815";

    private static GatewayAnswer? Read(string body) => GatewayAnswer.Read(Encoding.UTF8.GetBytes(body), Secret);

    [Theory]
    [InlineData("""{"code":0,"message":"OK"}""", 0, "OK")]
    [InlineData("""{"code":0}""", 0, null)]
    [InlineData("""{"code":7,"message":null,"more":[1]}""", 7, null)]
    [InlineData(""" {"message":"no\u0000w\r\n  so\u001b[31m\u202E","code":-3} """, -3, "no w so [31m")]
    [InlineData("""{"code":1,"message":"Bearer S3CR3T-0815 is wrong"}""", 1, "Bearer *** is wrong")]
    public void Are_read(string body, int code, string? message) => Assert.Equal(new GatewayAnswer(code, message), Read(body));

    [Theory]
    [InlineData("")]
    [InlineData("0")]
    [InlineData("null")]
    [InlineData("[]")]
    [InlineData("{}")]
    [InlineData("OK")]
    [InlineData("""{"code":"0"}""")]
    [InlineData("""{"code":null}""")]
    [InlineData("""{"code":0.5}""")]
    [InlineData("""{"Code":0}""")]
    [InlineData("""{"code":true}""")]
    [InlineData("""{"code":1,"code":0}""")]
    [InlineData("""{"code":99999999999999999999}""")]
    [InlineData("""{"code":0""")]
    [InlineData("""{"code":0}{"code":0}""")]
    [InlineData("""{"code":0,"x":[[[[[[[[[[1]]]]]]]]]]}""")]
    [InlineData("""{"code":0,"message":"\ud83c"}""")]
    [InlineData("<html>{\"code\":0}</html>")]
    public void Are_none_if_they_say_anything_else(string body) => Assert.Null(Read(body));

    [Fact]
    public void Are_cut_between_characters()
    {
        var longest = string.Concat(Enumerable.Repeat("🎉", GatewayAnswer.MaxMessageCharacters));
        Assert.Equal(longest, Read($$"""{"code":1,"message":"{{longest}}"}""")!.Message);
        Assert.Equal($"{longest}…", Read($$"""{"code":1,"message":"{{longest}}x"}""")!.Message);
    }

    [Theory]
    [InlineData(200, 0, SendResult.Sent, CallVerdict.Healthy)]
    [InlineData(202, 0, SendResult.Sent, CallVerdict.Healthy)]
    [InlineData(200, 5, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(200, null, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(204, null, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(301, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(307, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(400, null, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(400, 3, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(400, 0, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(401, 1, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(402, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(403, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(404, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(404, 9, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(405, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(408, null, SendResult.Failed, CallVerdict.Faulty)]
    [InlineData(409, 1, SendResult.Unknown, CallVerdict.Healthy)]
    [InlineData(410, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(413, null, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(415, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(422, null, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(425, null, SendResult.Failed, CallVerdict.Faulty)]
    [InlineData(429, 4, SendResult.Failed, CallVerdict.Faulty)]
    [InlineData(451, null, SendResult.Refused, CallVerdict.Healthy)]
    [InlineData(500, 1, SendResult.Failed, CallVerdict.Faulty)]
    [InlineData(500, 0, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(500, null, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(501, null, SendResult.NotSent, CallVerdict.Misconfigured)]
    [InlineData(502, null, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(503, null, SendResult.Failed, CallVerdict.Faulty)]
    [InlineData(504, null, SendResult.Unknown, CallVerdict.Faulty)]
    [InlineData(599, 1, SendResult.Failed, CallVerdict.Faulty)]
    [InlineData(600, 1, SendResult.Unknown, CallVerdict.Faulty)]
    public void Mean_what_status_and_code_say_together(int status, int? code, SendResult result, CallVerdict verdict)
    {
        var (outcome, judged) = GatewayAnswer.Judge(status, code is { } c ? new GatewayAnswer(c, "why") : null, null);

        Assert.Equal((result, verdict, status), (outcome.Result, judged, outcome.StatusCode));
        Assert.Equal(result == SendResult.Sent, outcome.Error is null);
        Assert.True(outcome.Error is null || (outcome.Error.StartsWith($"The gateway answered {status}", StringComparison.Ordinal) && outcome.Error.EndsWith('.')), outcome.Error);
        Assert.True(result == SendResult.Sent || code is null || outcome.Error!.Contains($"code {code}: why", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(429)]
    [InlineData(503)]
    [InlineData(408)]
    [InlineData(425)]
    public void Say_how_long_to_stay_away(int status)
    {
        var (outcome, verdict) = GatewayAnswer.Judge(status, null, TimeSpan.FromSeconds(7));
        Assert.Equal((SendResult.Failed, CallVerdict.Busy, TimeSpan.FromSeconds(7)), (outcome.Result, verdict, outcome.RetryAfter));
        Assert.Equal(CallVerdict.Faulty, GatewayAnswer.Judge(status, null, TimeSpan.Zero).Verdict);
        Assert.Null(GatewayAnswer.Judge(200, new GatewayAnswer(0, null), TimeSpan.FromSeconds(7)).Outcome.RetryAfter);
    }

    [Theory]
    [InlineData("7", null, 7)]
    [InlineData("0", null, 0)]
    [InlineData("3600", null, 3_600)]
    [InlineData("3601", null, 3_600)]
    [InlineData("99999999999999999999999", null, 3_600)]
    [InlineData("-1", null, null)]
    [InlineData("1.5", null, null)]
    [InlineData("soon", null, null)]
    [InlineData("", null, null)]
    [InlineData("Fri, 20 Nov 2026 12:00:30 GMT", null, 30)]
    [InlineData("Fri, 20 Nov 2026 11:59:00 GMT", null, 0)]
    [InlineData("Sat, 20 Nov 2027 12:00:00 GMT", null, 3_600)]
    [InlineData("Fri, 20 Nov 2026 15:00:30 GMT", "Fri, 20 Nov 2026 15:00:00 GMT", 30)] // a gateway whose clock is wrong
    public void Name_the_time_in_seconds_or_as_a_date(string retryAfter, string? date, int? seconds)
    {
        using var response = new HttpResponseMessage();
        response.Headers.TryAddWithoutValidation("Retry-After", retryAfter);
        if (date is not null)
        {
            response.Headers.TryAddWithoutValidation("Date", date);
        }

        Assert.Equal(seconds is { } s ? TimeSpan.FromSeconds(s) : null, GatewayAnswer.RetryAfterOf(response.Headers, TestClock.Start));
    }
}
