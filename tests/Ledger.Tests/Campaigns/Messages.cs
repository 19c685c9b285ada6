using Ledger.Campaigns;

namespace Ledger.Tests.Campaigns;

public sealed class Phone_numbers
{
    [Theory]
    [InlineData("+4915112345678", "+4915112345678", null)]
    [InlineData("+12025550123", "+12025550123", null)]
    [InlineData("+79211234567", "+79211234567", "921")]
    [InlineData("79211234567", "+79211234567", "921")]
    [InlineData("+77012345678", "+77012345678", "701")]
    [InlineData("+2907123", "+2907123", null)]
    [InlineData("+123456789012345", "+123456789012345", null)]
    public void Are_read(string text, string e164, string? operatorCode)
    {
        Assert.True(PhoneNumber.TryParse(text, out var phone));
        Assert.Equal((e164, operatorCode), (phone.E164, phone.OperatorCode));
        Assert.Equal(e164, $"{phone}");
    }

    [Theory]
    [InlineData("")]
    [InlineData("+")]
    [InlineData("1")]
    [InlineData("+123456")]
    [InlineData("+1234567890123456")]
    [InlineData("+04915112345678")]
    [InlineData("004915112345678")]
    [InlineData("4915112345678")] // of which country?
    [InlineData("89211234567")]
    [InlineData("7921123456")]
    [InlineData("792112345678")]
    [InlineData("+7921123456")]
    [InlineData("+792112345678")]
    [InlineData("+49 151 12345678")]
    [InlineData("+49-151-12345678")]
    [InlineData(" +4915112345678")]
    [InlineData("+4915112345678\n")]
    [InlineData("+4915112345678;ext=1")]
    [InlineData("tel:+4915112345678")]
    [InlineData("+٤٩١٥١١٢٣٤٥٦٧٨")]
    [InlineData("++4915112345678")]
    [InlineData("-79211234567")]
    public void Are_not_guessed(string text) => Assert.False(PhoneNumber.TryParse(text, out _));

    [Fact]
    public void That_are_written_in_two_ways_are_the_same()
    {
        Assert.True(PhoneNumber.TryParse("79211234567", out var one));
        Assert.True(PhoneNumber.TryParse("+79211234567", out var other));
        Assert.Equal(one, other);
        Assert.Equal(("", null), (default(PhoneNumber).E164, default(PhoneNumber).OperatorCode));
    }
}

public sealed class Texts_of_messages
{
    private static readonly Dictionary<string, string> Attributes = new() { ["name"] = "Ada", ["first name"] = "A.", ["sum"] = "{name} & }", ["empty"] = "" };

    [Theory]
    [InlineData("Hello", "Hello")]
    [InlineData("Hello {name}!", "Hello Ada!")]
    [InlineData("{name}{name}", "AdaAda")]
    [InlineData("{first name}", "A.")]
    [InlineData("{{name}}", "{name}")]
    [InlineData("{{{name}}}", "{Ada}")]
    [InlineData("}}{{", "}{")]
    [InlineData("pay {sum}", "pay {name} & }")] // what is put in is not looked at again
    [InlineData("a\tb\r\nc 🎉", "a\tb\r\nc 🎉")]
    public void Have_attributes_put_in(string source, string message)
    {
        Assert.True(MessageText.TryParse(source, out var text, out _));
        Assert.Equal(message, text.Render(Attributes.GetValueOrDefault));
        Assert.Equal(source, text.Source);
    }

    [Theory]
    [InlineData("", "must not be empty")]
    [InlineData(" \n", "must not be empty")]
    [InlineData("Hello {name", "has a '{' at character 7 without its '}'; write '{{' for a brace")]
    [InlineData("🎉{name{", "has a '{' at character 2 without its '}'; write '{{' for a brace")]
    [InlineData("{a{b}}", "has a '{' at character 1 without its '}'; write '{{' for a brace")]
    [InlineData("Hello name}", "has a '}' at character 11 that ends no placeholder; write '}}' for a brace")]
    [InlineData("{}", "has a placeholder at character 1 whose name does not have 1 to 64 characters")]
    [InlineData("a\0b", "must have no control characters but line ends and tabs")]
    [InlineData("a\u001bb", "must have no control characters but line ends and tabs")]
    public void Are_refused_for_what_is_wrong(string source, string wrong)
    {
        Assert.False(MessageText.TryParse(source, out _, out var said));
        Assert.Equal(wrong, said);
    }

    [Fact]
    public void Are_refused_with_half_a_character()
    {
        Assert.False(MessageText.TryParse($"a{(char)0xD83C}b", out _, out var said));
        Assert.Contains("control characters", said, StringComparison.Ordinal);
    }

    [Fact]
    public void Name_each_placeholder_once_in_order()
    {
        Assert.True(MessageText.TryParse("{b} {a} {b} {{c}}", out var text, out _));
        Assert.Equal(["b", "a"], text.Placeholders);
        Assert.Equal(["b"], text.MissingOf(name => name == "a" ? "1" : null));
    }

    [Fact]
    public void Make_no_message_without_an_attribute_they_need()
    {
        Assert.True(MessageText.TryParse("{name} {empty}", out var text, out _));
        Assert.Equal(["empty"], text.MissingOf(Attributes.GetValueOrDefault));
        Assert.False(text.TryRender(Attributes.GetValueOrDefault, out var message, out var wrong));
        Assert.Equal(("", "needs the attribute 'empty', which is missing"), (message, wrong));
        Assert.Throws<InvalidOperationException>(() => text.Render(Attributes.GetValueOrDefault));
    }

    [Fact]
    public void Have_limits_that_hold_to_the_character()
    {
        var party = string.Concat(Enumerable.Repeat("🎉", MessageText.MaxCharacters));
        Assert.True(MessageText.TryParse(party, out _, out _));
        Assert.False(MessageText.TryParse($"{party}!", out _, out var wrong));
        Assert.Equal("must have at most 4096 characters", wrong);

        var many = Enumerable.Range(1, MessageText.MaxPlaceholders).Select(i => $"{{a{i}}}").ToArray();
        Assert.True(MessageText.TryParse(string.Concat(many), out _, out _));
        Assert.False(MessageText.TryParse(string.Concat(many) + "{b}", out _, out wrong));
        Assert.Equal("must have at most 20 different placeholders", wrong);

        var name = new string('n', MessageText.MaxNameLength);
        Assert.True(MessageText.TryParse($"{{{name}}}", out _, out _));
        Assert.False(MessageText.TryParse($"{{{name}n}}", out _, out _));

        Assert.True(MessageText.TryParse("{a}", out var text, out _));
        Assert.True(text.TryRender(_ => new string('x', MessageText.MaxMessageCharacters), out var longest, out _));
        Assert.Equal(MessageText.MaxMessageCharacters, longest.Length);
        Assert.False(text.TryRender(_ => new string('x', MessageText.MaxMessageCharacters + 1), out _, out wrong));
        Assert.Equal("must make messages of at most 8192 characters", wrong);
    }
}

public sealed class Delays_of_retries
{
    [Fact]
    public void Double_until_the_longest_and_vary_by_half()
    {
        var first = RetryDelays.First.TotalSeconds;
        Assert.Equal([first, 2 * first, 4 * first, 8 * first], Enumerable.Range(1, 4).Select(n => RetryDelays.After(n, 1).TotalSeconds));
        Assert.Equal([first / 2, first, 2 * first, 4 * first], Enumerable.Range(1, 4).Select(n => RetryDelays.After(n, 0).TotalSeconds));
        Assert.All([10, 40, 2_000, int.MaxValue], n => Assert.Equal(RetryDelays.Longest, RetryDelays.After(n, 1)));
        Assert.All([10, 40, 2_000, int.MaxValue], n => Assert.Equal(RetryDelays.Longest / 2, RetryDelays.After(n, 0)));
        Assert.Throws<ArgumentOutOfRangeException>(() => RetryDelays.After(0, 0));
    }

    [Fact]
    public void Are_never_shorter_than_what_the_gateway_asked_for()
    {
        Assert.Equal(TimeSpan.FromSeconds(60), RetryDelays.After(1, 0, TimeSpan.FromSeconds(60)));
        Assert.Equal(TimeSpan.FromSeconds(75), RetryDelays.After(1, 1, TimeSpan.FromSeconds(60)));
        Assert.Equal(RetryDelays.After(1, 0.3), RetryDelays.After(1, 0.3, TimeSpan.Zero));
        Assert.Equal(RetryDelays.After(9, 0.3), RetryDelays.After(9, 0.3, TimeSpan.FromSeconds(1)));
    }

    [Fact]
    public void Take_another_number_each_time()
    {
        var numbers = Enumerable.Range(0, 1_000).Select(_ => RetryDelays.Jitter()).ToArray();
        Assert.All(numbers, n => Assert.InRange(n, 0, 1 - 1e-9));
        Assert.InRange(numbers.Average(), 0.4, 0.6);
        Assert.True(numbers.Distinct().Count() > 900);
    }
}
