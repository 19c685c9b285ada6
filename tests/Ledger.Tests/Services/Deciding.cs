using Ledger.EventStore;
using Ledger.Http;
using Ledger.Services;

namespace Ledger.Tests.Services;

public sealed class Deciding_on_a_service
{
    private static readonly ServiceRegistered Registered = new("s", "Old", "d");

    private static readonly PriceComponent[] Components = [new("call", 0.01m), new("inputToken", 0.15m, 1_000_000)];

    private static readonly SetPrice Price = new("USD", Components);

    private static Service Given(params object[] events) =>
        Tests.Given.Stream("service-s", events).Aggregate(Service.Initial("s"), Service.Evolve);

    [Fact]
    public void Registers_one_that_never_was() =>
        new RegisterService("Old", "s", "d").Decide(Given(), ServiceTitle.Free).Then(Registered);

    [Fact]
    public void Refuses_to_register_one_again_even_when_it_is_retired()
    {
        new RegisterService("New", "s").Decide(Given(Registered), ServiceTitle.Free).ThenRefused("service-exists");
        new RegisterService("New", "s").Decide(Given(Registered, new ServiceRetired()), ServiceTitle.Free).ThenRefused("service-exists");
    }

    [Fact]
    public void Refuses_to_register_one_under_the_title_of_another() =>
        Assert.Contains("'t'", new RegisterService("Old", "s").Decide(Given(), new ServiceTitle("t", 1)).ThenRefused("title-taken").Detail, StringComparison.Ordinal);

    [Fact]
    public void Changes_all_that_is_given() =>
        new ChangeService(new("New"), new("e")).Decide(Given(Registered), ServiceTitle.Free).Then(new ServiceRenamed("New"), new ServiceDescribed("e"));

    [Fact]
    public void Changes_nothing_that_is_left_out() => new ChangeService(default, default).Decide(Given(Registered), ServiceTitle.Free).Then();

    [Fact]
    public void Takes_a_description_away_that_is_null() =>
        new ChangeService(default, new(null)).Decide(Given(Registered), ServiceTitle.Free).Then(new ServiceDescribed(null));

    [Fact]
    public void Makes_no_event_of_what_is_so_already() =>
        new ChangeService(new("Old"), new("d")).Decide(Given(Registered), new ServiceTitle("s", 1)).Then();

    [Fact]
    public void Takes_a_title_that_another_gave_up() =>
        new ChangeService(new("New"), default).Decide(Given(Registered), new ServiceTitle(null, 2)).Then(new ServiceRenamed("New"));

    [Fact]
    public void Refuses_to_take_the_title_of_another() =>
        new ChangeService(new("New"), new("e")).Decide(Given(Registered), new ServiceTitle("t", 3)).ThenRefused("title-taken");

    [Fact]
    public void Retires_one_once()
    {
        RetireService.Decide(Given(Registered)).Then(new ServiceRetired());
        RetireService.Decide(Given(Registered, new ServiceRetired())).Then();
    }

    [Fact]
    public void Sets_a_price_from_now_on_unless_said_otherwise()
    {
        var then = TestClock.Start.AddDays(-400);
        var set = new PriceSet(1, "USD", TestClock.Start, Components);

        Price.Decide(Given(Registered), TestClock.Start).Then(set);
        (Price with { EffectiveFrom = then }).Decide(Given(Registered, set), TestClock.Start).Then(set with { Version = 2, EffectiveFrom = then });
    }

    [Fact]
    public void Refuses_everything_on_one_that_never_was()
    {
        new ChangeService(new("x"), default).Decide(Given(), ServiceTitle.Free).ThenRefused("service-not-found");
        RetireService.Decide(Given()).ThenRefused("service-not-found");
        Assert.Contains("'s'", Price.Decide(Given(), TestClock.Start).ThenRefused("service-not-found").Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void Refuses_changes_and_prices_of_a_retired_one()
    {
        var retired = Given(Registered, new ServiceRetired());

        new ChangeService(new("x"), default).Decide(retired, ServiceTitle.Free).ThenRefused("service-retired");
        (Price with { EffectiveFrom = TestClock.Start.AddYears(1) }).Decide(retired, TestClock.Start).ThenRefused("service-retired");
        (Price with { EffectiveFrom = TestClock.Start }).Decide(retired, TestClock.Start).Then(new PriceSet(1, "USD", TestClock.Start, Components)); // calls from before may wait for it
    }

    [Fact]
    public void Sets_ten_thousand_prices_and_not_one_more()
    {
        var service = Given([Registered, .. Enumerable.Range(1, PriceList.MaxVersions - 1).Select(i => new PriceSet(i, "USD", TestClock.Start.AddSeconds(i % 100), Components))]);
        var last = Assert.IsType<PriceSet>(Assert.Single(Price.Decide(service, TestClock.Start).Events));
        var full = Service.Evolve(service, Tests.Given.Recorded("service-s", last, 20_000, TestClock.Start, service.Version + 1));

        Assert.Equal(10_000, last.Version);
        Assert.Equal((10_000, 20_000), (full.Prices.Count, full.Prices.ComponentCount));
        Price.Decide(full, TestClock.Start).ThenRefused("too-many-prices");
    }

    [Fact]
    public void Folds_all_events()
    {
        var service = Given(
            Registered, new ServiceRenamed("New"), new PriceSet(1, "USD", TestClock.Start, Components), new ServiceDescribed(null), new ServiceRetired());

        Assert.Equal(("s", "New", null, TestClock.Start.AddMinutes(1), TestClock.Start.AddMinutes(5), 5L),
            (service.Id, service.Title, service.Description, service.RegisteredAt, service.RetiredAt!.Value, service.Version));
        var price = service.Prices.InForceAt(TestClock.Start)!;
        Assert.Equal((1, "USD", TestClock.Start, TestClock.Start.AddMinutes(3), 3L), (price.Version, price.Currency, price.EffectiveFrom, price.SetAt, price.Position));
        Assert.Equal(Components, price.Components);
    }

    [Fact]
    public void Throws_at_an_event_that_is_none_of_a_service() =>
        Assert.Throws<InvalidOperationException>(() => Given(new ServiceTitleReleased("s")));
}

public sealed class A_title
{
    private static ServiceTitle Given(params object[] events) =>
        Tests.Given.Stream(ServiceTitle.StreamOf("T"), events).Aggregate(ServiceTitle.Free, ServiceTitle.Evolve);

    private static string Follow(Service service, params object[] events) => string.Join("; ",
        ServiceTitle.Follow(service, Decision.Of(events)).Select(a => $"{a.StreamId} {a.Type} {string.Join(", ", a.Events)}"));

    [Fact]
    public void Is_had_by_the_last_that_claimed_it_until_that_one_releases_it()
    {
        Assert.Equal(new ServiceTitle("a", 1), Given(new ServiceTitleClaimed("T", "a")));
        Assert.Equal(new ServiceTitle(null, 2), Given(new ServiceTitleClaimed("T", "a"), new ServiceTitleReleased("a")));
        Assert.Equal(new ServiceTitle("b", 3), Given(new ServiceTitleClaimed("T", "a"), new ServiceTitleReleased("a"), new ServiceTitleClaimed("T", "b")));
    }

    [Fact]
    public void Is_taken_from_all_but_the_one_that_has_it()
    {
        Assert.False(ServiceTitle.Free.IsTakenFrom("a"));
        Assert.False(new ServiceTitle("a", 1).IsTakenFrom("a"));
        Assert.True(new ServiceTitle("a", 1).IsTakenFrom("A"));
    }

    [Fact]
    public void Is_claimed_by_who_registers_and_changed_by_who_is_renamed()
    {
        var service = Service.Initial("s") with { Title = "Old" };

        Assert.Equal(
            "service_title-T service_title ServiceTitleClaimed { Title = T, ServiceId = s }",
            Follow(service, new ServiceRegistered("s", "T", null)));
        Assert.Equal(
            "service_title-Old service_title ServiceTitleReleased { ServiceId = s }; service_title-T service_title ServiceTitleClaimed { Title = T, ServiceId = s }",
            Follow(service, new ServiceDescribed("d"), new ServiceRenamed("T")));
        Assert.Equal("", Follow(service, new ServiceDescribed("d"), new ServiceRetired()));
    }

    [Fact]
    public void Has_a_stream_that_no_service_has() =>
        Assert.False(ServiceTitle.StreamOf("").StartsWith(Service.StreamOf(""), StringComparison.Ordinal));

    [Fact]
    public void Throws_at_an_event_that_is_none_of_a_title() =>
        Assert.Throws<InvalidOperationException>(() => Given(new ServiceRetired()));
}
