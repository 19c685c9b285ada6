using System.Net.Http.Json;
using Ledger.Http;

namespace Ledger.Tests.Http;

public sealed class An_id_in_a_path(HttpApp app) : IClassFixture<HttpApp>
{
    [Theory]
    [InlineData("a/b")]
    [InlineData("/")]
    [InlineData("//")]
    [InlineData("a%2Fb")]
    [InlineData("a%2fb")]
    [InlineData("a%252Fb")]
    [InlineData("50%")]
    [InlineData("100%25")]
    [InlineData("%")]
    [InlineData("a b")]
    [InlineData("a+b")]
    [InlineData("a&b=c?d#e;f,g")]
    [InlineData("ä")]
    [InlineData("日本語")]
    [InlineData("😀")]
    [InlineData("...")]
    [InlineData(".a")]
    [InlineData("a\\b")]
    [InlineData("auth0|5f7c")]
    [InlineData("mailto:x@example.org")]
    [InlineData("\"'<>{}^`")]
    public async Task arrives_as_it_was_meant(string id)
    {
        Assert.True(UserId.IsValid(id));
        var parts = await app.Client.GetFromJsonAsync<string[]>(
            $"/things/{PathIds.Encode(id)}/parts/{PathIds.Encode(id)}?x=%25", Json.Options, TestContext.Current.CancellationToken);
        Assert.Equal([id, id, "%"], parts!);
    }

    [Fact]
    public async Task of_the_longest_kind_fits()
    {
        var id = string.Concat(Enumerable.Repeat("😀", UserId.MaxCharacters));
        Assert.True(UserId.IsValid(id));
        Assert.Equal(id, await app.Client.GetStringAsync($"/things/{PathIds.Encode(id)}", TestContext.Current.CancellationToken));
    }

    [Theory]
    [InlineData("/things/../things/x", "x")]
    [InlineData("/things/%2E%2E/things/x", "x")]
    [InlineData("/things/./x", "x")]
    [InlineData("/things/%2e/x", "x")]
    public async Task cannot_be_a_dot_segment_because_it_is_resolved_away(string target, string seen)
    {
        using var socket = new System.Net.Sockets.TcpClient();
        await socket.ConnectAsync("127.0.0.1", app.Address.Port, TestContext.Current.CancellationToken);
        await using var stream = socket.GetStream();
        await stream.WriteAsync(System.Text.Encoding.ASCII.GetBytes($"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"), TestContext.Current.CancellationToken);
        using var reader = new StreamReader(stream);
        Assert.EndsWith($"\r\n\r\n{seen}", (await reader.ReadToEndAsync(TestContext.Current.CancellationToken)).Replace("\r\n1\r\n", "\r\n").Replace("\r\n0\r\n\r\n", ""));
    }
}

public sealed class A_user_id
{
    [Theory]
    [InlineData("u1")]
    [InlineData("a b")]
    [InlineData("ä\u0301")]
    [InlineData("😀")]
    [InlineData("...")]
    public void may_be_any_text(string id) => Assert.True(UserId.IsValid(id));

    [Theory]
    [InlineData("")]
    [InlineData(" a")]
    [InlineData("a ")]
    [InlineData("a\u00a0")]
    [InlineData("a\u2003")]
    [InlineData("a\nb")]
    [InlineData("a\0b")]
    [InlineData("a\u007f")]
    [InlineData("a\u0085b")]
    [InlineData(".")]
    [InlineData("..")]
    public void may_not_be_what_no_path_can_carry(string id) => Assert.False(UserId.IsValid(id));

    [Fact]
    public void may_not_be_half_a_character()
    {
        Assert.False(UserId.IsValid("a\ud800"));
        Assert.False(UserId.IsValid("\udc00a"));
        Assert.False(UserId.IsValid("a\ude00\ud83d"));
    }

    [Fact]
    public void has_128_characters_at_most()
    {
        Assert.True(UserId.IsValid(new string('a', 128)));
        Assert.False(UserId.IsValid(new string('a', 129)));
        Assert.False(UserId.IsValid(string.Concat(Enumerable.Repeat("😀", 129))));
    }
}

public sealed class A_slug
{
    [Theory]
    [InlineData("A", true)]
    [InlineData("9.a_b-c", true)]
    [InlineData("AVITO_VOICE_MESSAGES", true)]
    [InlineData("", false)]
    [InlineData(".a", false)]
    [InlineData("-a", false)]
    [InlineData("_a", false)]
    [InlineData("a b", false)]
    [InlineData("a/b", false)]
    [InlineData("ä", false)]
    [InlineData("١", false)]
    [InlineData("a\n", false)]
    public void keeps_to_its_rule(string slug, bool valid) => Assert.Equal(valid, Slug.IsValid(slug));

    [Fact]
    public void has_128_characters_at_most()
    {
        Assert.True(Slug.IsValid(new string('a', 128)));
        Assert.False(Slug.IsValid(new string('a', 129)));
    }
}
