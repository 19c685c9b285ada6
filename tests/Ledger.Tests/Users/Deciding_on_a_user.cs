using System.Text.Json;
using Ledger.Segments;
using Ledger.Users;

namespace Ledger.Tests.Users;

public sealed class Deciding_on_a_user
{
    private static Dictionary<string, JsonElement> Attributes(string json) => JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(json)!;

    private static User Given(params object[] events) => Tests.Given.Stream("user-u", events).Aggregate(User.Unknown, User.Evolve);

    [Fact]
    public void Registers_one_never_heard_of()
    {
        var attributes = Attributes("""{"country":"DE"}""");

        new PutUser(attributes).Decide(Given()).Then(new UserRegistered(attributes));
    }

    [Fact]
    public void Registers_one_without_attributes()
    {
        var none = Attributes("{}");

        new PutUser(none).Decide(Given()).Then(new UserRegistered(none));
    }

    [Fact]
    public void Replaces_the_attributes_of_one_who_is_known()
    {
        var attributes = Attributes("""{"age":31}""");

        new PutUser(attributes).Decide(Given(new UserRegistered(Attributes("""{"country":"DE"}""")))).Then(new UserAttributesSet(attributes));
    }

    [Fact]
    public void Sets_the_attributes_of_one_who_is_known_by_a_membership()
    {
        var attributes = Attributes("""{"age":31}""");

        new PutUser(attributes).Decide(Given(new UserJoinedSegment("S", 1, null, null, "explicit"))).Then(new UserAttributesSet(attributes));
    }

    [Theory]
    [InlineData("""{"a":1,"b":"x"}""", """{"b":"x","a":1}""")]
    [InlineData("""{"a":1.50}""", """{"a":1.5}""")]
    [InlineData("{}", "{}")]
    public void Does_nothing_when_the_attributes_are_so_already(string before, string now) =>
        new PutUser(Attributes(now)).Decide(Given(new UserRegistered(Attributes(before)))).Then();

    [Theory]
    [InlineData("""{"a":1}""", """{"a":"1"}""")]
    [InlineData("""{"a":1}""", """{"A":1}""")]
    [InlineData("""{"a":1,"b":2}""", """{"a":1}""")]
    [InlineData("""{"a":1}""", """{"a":1,"b":2}""")]
    public void Tells_attributes_apart(string before, string now)
    {
        var attributes = Attributes(now);

        new PutUser(attributes).Decide(Given(new UserRegistered(Attributes(before)))).Then(new UserAttributesSet(attributes));
    }

    [Fact]
    public void Keeps_the_version_at_which_attributes_were_set_when_memberships_follow()
    {
        var user = Given(new UserJoinedSegment("S", 1, null, null, "explicit"), new UserAttributesSet(Attributes("{}")), new UserLeftSegment("S", 1));

        Assert.Equal((2, TestClock.Start.AddMinutes(1)), (user.Version, user.RegisteredAt));
    }
}
