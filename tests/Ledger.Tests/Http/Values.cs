using System.Text;
using System.Text.Json;
using Ledger.Http;

namespace Ledger.Tests.Http;

public sealed class A_duration
{
    [Theory]
    [InlineData("P14D", "P14D")]
    [InlineData("P2W", "P14D")]
    [InlineData("P1W1D", "P8D")]
    [InlineData("PT1H", "PT1H")]
    [InlineData("PT36H", "P1DT12H")]
    [InlineData("P1DT12H", "P1DT12H")]
    [InlineData("PT90M", "PT1H30M")]
    [InlineData("PT0.5S", "PT0.5S")]
    [InlineData("PT0.000001S", "PT0.000001S")]
    [InlineData("PT61.25S", "PT1M1.25S")]
    [InlineData("PT0S", "PT0S")]
    [InlineData("P0D", "PT0S")]
    [InlineData("P007D", "P7D")]
    [InlineData("P10675199D", "P10675199D")]
    public void is_read_and_written_in_one_form(string text, string canonical)
    {
        Assert.True(Iso8601Duration.TryParse(text, out var value, out _));
        Assert.Equal(canonical, Iso8601Duration.Format(value));
        Assert.True(Iso8601Duration.TryParse(canonical, out var again, out _));
        Assert.Equal(value, again);
    }

    [Theory]
    [InlineData("", "such as")]
    [InlineData("P", "such as")]
    [InlineData("PT", "such as")]
    [InlineData("P1DT", "such as")]
    [InlineData("P1", "such as")]
    [InlineData("PD", "such as")]
    [InlineData("1D", "such as")]
    [InlineData("p1d", "such as")]
    [InlineData("-P1D", "such as")]
    [InlineData("P-1D", "such as")]
    [InlineData("+P1D", "such as")]
    [InlineData("P1D1W", "such as")]
    [InlineData("P1D1D", "such as")]
    [InlineData("PT1S1M", "such as")]
    [InlineData("PTT1H", "such as")]
    [InlineData("P1H", "such as")]
    [InlineData("PT1D", "such as")]
    [InlineData("P1D ", "such as")]
    [InlineData("PT1.S", "such as")]
    [InlineData("PT.5S", "such as")]
    [InlineData("PT1.2.3S", "such as")]
    [InlineData("P١D", "such as")]
    [InlineData("14 days", "such as")]
    [InlineData("14.00:00:00", "such as")]
    [InlineData("P1Y", "years or months")]
    [InlineData("P1M", "years or months")]
    [InlineData("P1Y2M3D", "years or months")]
    [InlineData("P0.5D", "fraction of seconds")]
    [InlineData("PT1.5H", "fraction of seconds")]
    [InlineData("PT0.0000001S", "microsecond")]
    [InlineData("P10675200D", "too long")]
    [InlineData("P99999999999999999999D", "too long")]
    [InlineData("P10675199DT24H", "too long")]
    public void that_is_none_is_refused_saying_why(string text, string why)
    {
        Assert.False(Iso8601Duration.TryParse(text, out _, out var error));
        Assert.Contains(why, error);
    }

    [Fact]
    public void of_any_length_can_be_written()
    {
        Assert.Equal("-P10675199DT2H48M5.4775808S", Iso8601Duration.Format(TimeSpan.MinValue));
        Assert.Equal("P10675199DT2H48M5.4775807S", Iso8601Duration.Format(TimeSpan.MaxValue));
    }
}

public sealed class A_decimal
{
    [Theory]
    [InlineData("\"12.50\"", "12.5")]
    [InlineData("12.50", "12.5")]
    [InlineData("0", "0")]
    [InlineData("-0", "0")]
    [InlineData("\"-0.00\"", "0")]
    [InlineData("1e-7", "0.0000001")]
    [InlineData("\"1E+3\"", "1000")]
    [InlineData("0e999", "0")]
    [InlineData("100", "100")]
    [InlineData("1000.0", "1000")]
    [InlineData("-1.5", "-1.5")]
    [InlineData("0.0000000000000000000000000001", "0.0000000000000000000000000001")]
    [InlineData("9999999999999999999999999999", "9999999999999999999999999999")]
    [InlineData("1.00000000000000000000000000000000000000", "1")]
    [InlineData("10e27", null)]
    [InlineData("1e27", "1000000000000000000000000000")]
    [InlineData("0.00000000000000000000000000001", null)]
    [InlineData("0.12345678901234567890123456789", null)]
    [InlineData("12345678901234567890123456789", null)]
    [InlineData("1e400", null)]
    [InlineData("1e-400", null)]
    [InlineData("1e99999999999", null)]
    [InlineData("\"\"", null)]
    [InlineData("\" 1\"", null)]
    [InlineData("\"1 \"", null)]
    [InlineData("\"+1\"", null)]
    [InlineData("\".5\"", null)]
    [InlineData("\"5.\"", null)]
    [InlineData("\"1,000\"", null)]
    [InlineData("\"0x10\"", null)]
    [InlineData("\"NaN\"", null)]
    [InlineData("\"Infinity\"", null)]
    [InlineData("\"1e\"", null)]
    [InlineData("\"1e+\"", null)]
    [InlineData("\"1e5.5\"", null)]
    [InlineData("\"1e+-5\"", null)]
    [InlineData("\"--1\"", null)]
    [InlineData("\"-\"", null)]
    [InlineData("\"١\"", null)]
    [InlineData("\"\\u0031\"", null)]
    [InlineData("true", null)]
    [InlineData("[]", null)]
    public void is_exact_or_refused(string json, string? written)
    {
        if (written is null) Assert.Throws<InvalidValueException>(() => JsonSerializer.Deserialize<decimal>(json, Json.Options));
        else Assert.Equal($"\"{written}\"", JsonSerializer.Serialize(JsonSerializer.Deserialize<decimal>(json, Json.Options), Json.Options));
    }

    [Fact]
    public void of_any_size_can_be_written()
    {
        foreach (var value in (decimal[])[decimal.MinValue, decimal.MaxValue, 1.10m, 100m, 0.10m, new(0, 0, 0, true, 5), 1e-28m])
            Assert.Equal(value, decimal.Parse(Decimals.Format(value), System.Globalization.CultureInfo.InvariantCulture));
        Assert.Equal("0", Decimals.Format(new decimal(0, 0, 0, true, 5)));
    }
}

public sealed class A_time
{
    [Theory]
    [InlineData("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z")]
    [InlineData("2026-11-20t12:00:00z", "2026-11-20T12:00:00Z")]
    [InlineData("2026-11-20T12:00:00+02:00", "2026-11-20T10:00:00Z")]
    [InlineData("2026-11-20T00:30:00-23:59", "2026-11-21T00:29:00Z")]
    [InlineData("2026-11-20T12:00:00-00:00", "2026-11-20T12:00:00Z")]
    [InlineData("2026-11-20T12:00:00.5Z", "2026-11-20T12:00:00.5Z")]
    [InlineData("2026-11-20T12:00:00.1234567Z", "2026-11-20T12:00:00.123456Z")]
    [InlineData("2026-11-20T12:00:00.9999999999999Z", "2026-11-20T12:00:00.999999Z")]
    [InlineData("2026-11-20T12:00:10.100000Z", "2026-11-20T12:00:10.1Z")]
    [InlineData("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z")]
    [InlineData("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z")]
    [InlineData("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z")]
    public void is_read_in_any_offset_and_written_in_utc(string text, string written)
    {
        Assert.True(Rfc3339.TryParse(text, out var value));
        Assert.Equal(TimeSpan.Zero, value.Offset);
        Assert.Equal(written, Rfc3339.Format(value));
        Assert.Equal(value, value.ToMicroseconds());
    }

    [Theory]
    [InlineData("")]
    [InlineData("2026-11-20")]
    [InlineData("2026-11-20T12:00:00")]
    [InlineData("2026-11-20 12:00:00Z")]
    [InlineData("2026-11-20T12:00Z")]
    [InlineData("2026-11-20T12:00:00.Z")]
    [InlineData("2026-11-20T12:00:00,5Z")]
    [InlineData("2026-11-20T12:00:00.5")]
    [InlineData("2026-11-20T12:00:00+0200")]
    [InlineData("2026-11-20T12:00:00+02")]
    [InlineData("2026-11-20T12:00:00+24:00")]
    [InlineData("2026-11-20T12:00:00+02:60")]
    [InlineData("2026-11-20T12:00:00Z ")]
    [InlineData("2026-02-29T00:00:00Z")]
    [InlineData("2026-13-01T00:00:00Z")]
    [InlineData("2026-00-01T00:00:00Z")]
    [InlineData("2026-01-00T00:00:00Z")]
    [InlineData("2026-01-01T24:00:00Z")]
    [InlineData("2026-01-01T23:60:00Z")]
    [InlineData("2026-12-31T23:59:60Z")]
    [InlineData("0000-01-01T00:00:00Z")]
    [InlineData("0001-01-01T00:00:00+01:00")]
    [InlineData("9999-12-31T23:59:59-01:00")]
    [InlineData("٢٠٢٦-11-20T12:00:00Z")]
    [InlineData("20/11/2026 12:00:00 +00:00")]
    [InlineData("1763640000")]
    public void that_is_none_is_refused(string text) => Assert.False(Rfc3339.TryParse(text, out _));
}

public sealed class A_patch
{
    [Fact]
    public void tells_absent_from_null()
    {
        var none = JsonSerializer.Deserialize<ThingPatch>("{}", Json.Options)!;
        var cleared = JsonSerializer.Deserialize<ThingPatch>("""{"description":null,"percent":null,"ttl":null}""", Json.Options)!;
        var set = JsonSerializer.Deserialize<ThingPatch>("""{"description":"d","percent":"12.5","count":3,"ttl":"P1D"}""", Json.Options)!;

        Assert.Equal(new ThingPatch(default, default, default, default), none);
        Assert.Equal(new ThingPatch(new(null), new(null), default, new(null)), cleared);
        Assert.Equal(new ThingPatch(new("d"), new(12.5m), new(3), new(TimeSpan.FromDays(1))), set);
        Assert.Equal("old", none.Description.Or("old"));
        Assert.Null(cleared.Description.Or("old"));
    }

    [Theory]
    [InlineData("{}")]
    [InlineData("""{"description":null}""")]
    [InlineData("""{"description":"d","percent":"12.5","count":3,"ttl":"P1D"}""")]
    public void is_written_as_it_was_read(string json) =>
        Assert.Equal(json, JsonSerializer.Serialize(JsonSerializer.Deserialize<ThingPatch>(json, Json.Options), Json.Options));

    [Theory]
    [InlineData("""{"count":null}""", "count may not be null.")]
    [InlineData("""{"count":"3"}""", "count must be a whole number from -2147483648 to 2147483647.")]
    [InlineData("""{"description":3}""", "description must be text.")]
    [InlineData("""{"percent":"x"}""", "percent is not a decimal of at most 28 digits, such as \"12.5\".")]
    [InlineData("""{"description":"a","description":"b"}""", "description is given twice.")]
    [InlineData("""{"descripton":"a"}""", "descripton is not a known field; known are: count, description, percent, ttl.")]
    public void with_a_bad_field_is_refused_naming_it(string json, string detail)
    {
        Assert.False(Json.TryRead<ThingPatch>(Encoding.UTF8.GetBytes(json), out _, out var rejection));
        Assert.Equal(detail, rejection.Detail);
    }
}

public sealed class The_table_of_problems
{
    [Fact]
    public void has_kebab_case_codes_and_statuses_of_errors() =>
        Assert.All(Problems.All, p =>
        {
            Assert.Matches("^[a-z]+(-[a-z]+)*$", p.Code);
            Assert.InRange(p.Status, 400, 599);
        });

    [Fact]
    public void does_not_answer_a_code_it_does_not_know() => Assert.Throws<ArgumentException>(() => Problems.Result("no-such-code", ""));
}

public sealed class A_validation
{
    [Fact]
    public void that_finds_nothing_rejects_nothing()
    {
        var errors = new Validation();
        Assert.True(errors.Check(true, "a", "is wrong"));
        Assert.Null(errors.Rejection);
    }

    [Fact]
    public void gathers_everything_by_field()
    {
        var errors = new Validation();
        Assert.False(errors.Check(false, "a", "is wrong"));
        errors.Add("a", "is odd");
        errors.Add("b[0].c", Slug.Rule);
        Assert.Equal(("invalid-request", "a is wrong. There is more: see errors."), (errors.Rejection!.Code, errors.Rejection.Detail));
        Assert.Equal(["is wrong", "is odd"], errors.Rejection.Errors!["a"]);
        Assert.Equal([Slug.Rule], errors.Rejection.Errors["b[0].c"]);
    }
}
