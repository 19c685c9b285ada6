using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Ledger.EventStore.Tests;

public sealed class Event_types
{
    private static readonly JsonSerializerOptions Json = new() { TypeInfoResolver = new DefaultJsonTypeInfoResolver() };

    [Theory]
    [InlineData(typeof(UsageRecorded), "usage_recorded")]
    [InlineData(typeof(AICallRecorded), "ai_call_recorded")]
    [InlineData(typeof(UserV2Added), "user_v2_added")]
    [InlineData(typeof(GDPRErased), "gdpr_erased")]
    [InlineData(typeof(Usage_Recorded), "usage___recorded")]
    [InlineData(typeof(Outer.InnerThing), "inner_thing")]
    public void have_the_names_Marten_looks_for(Type type, string name)
    {
        Assert.Equal(name, EventTypes.MartenAlias(type));
        var known = new EventTypes(Json, (type, name)).Named(name)!;
        Assert.Equal((type, $"{type.FullName}, Ledger.EventStore.Tests"), (known.ClrType, known.DotnetName));
    }

    [Fact]
    public void under_another_name_are_refused() =>
        Assert.Throws<ArgumentException>(() => new EventTypes(Json, (typeof(UsageRecorded), "usage-recorded")));

    [Fact]
    public void that_share_a_name_are_refused() =>
        Assert.Throws<ArgumentException>(() => new EventTypes(Json, (typeof(Outer.InnerThing), "inner_thing"), (typeof(Event_types.InnerThing), "inner_thing")));

    [Fact]
    public void that_nobody_registered_are_a_bug_when_written_and_unknown_when_read()
    {
        var types = new EventTypes(Json, (typeof(UsageRecorded), "usage_recorded"));

        Assert.Throws<InvalidOperationException>(() => types.Of(typeof(GDPRErased)));
        Assert.Null(types.Named("gdpr_erased"));
        Assert.Equal([typeof(UsageRecorded)], types.All.Select(t => t.ClrType));
    }

    public sealed record UsageRecorded;

    public sealed record AICallRecorded;

    public sealed record UserV2Added;

    public sealed record GDPRErased;

    public sealed record Usage_Recorded;

    public sealed record InnerThing;

    public static class Outer
    {
        public sealed record InnerThing;
    }
}
