using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Keys;
using Ledger.Reports;
using Ledger.Segments;
using Ledger.Services;
using Ledger.Usage;

namespace Ledger.Tests.Segments;

public sealed class Deciding_on_a_segment
{
    private static readonly SegmentCreated Created = new("S", "old", 10, "S", TimeSpan.FromDays(1));

    private static Segment Given(params object[] events) =>
        Tests.Given.Stream("segment-S", events).Aggregate(Segment.Initial("S"), Segment.Evolve);

    [Fact]
    public void Creates_one_that_never_was() =>
        new CreateSegment("S", "d", 12.5m, TimeSpan.FromDays(14)).Decide(Given())
            .Then(new SegmentCreated("S", "d", 12.5m, "S", TimeSpan.FromDays(14)));

    [Fact]
    public void Creates_one_without_roll_out_description_or_default_time_to_live() =>
        new CreateSegment("S").Decide(Given()).Then(new SegmentCreated("S", null, 0, "S", null));

    [Fact]
    public void Refuses_to_create_a_live_one_again() => new CreateSegment("S").Decide(Given(Created)).ThenRefused("segment-exists");

    [Fact]
    public void Creates_a_deleted_one_anew() =>
        new CreateSegment("S").Decide(Given(Created, new SegmentDeleted())).Then(new SegmentCreated("S", null, 0, "S", null));

    [Fact]
    public void Changes_all_that_is_given() =>
        new ChangeSegment(new("new"), new(20), new(TimeSpan.FromDays(2))).Decide(Given(Created))
            .Then(new SegmentDescribed("new"), new RolloutChanged(20), new DefaultTtlChanged(TimeSpan.FromDays(2)));

    [Fact]
    public void Changes_nothing_that_is_left_out() => new ChangeSegment(default, default, default).Decide(Given(Created)).Then();

    [Fact]
    public void Takes_away_what_is_null() =>
        new ChangeSegment(new(null), new(null), new(null)).Decide(Given(Created))
            .Then(new SegmentDescribed(null), new RolloutChanged(0), new DefaultTtlChanged(null));

    [Fact]
    public void Makes_no_event_of_what_is_so_already() =>
        new ChangeSegment(new("old"), new(10.00m), new(TimeSpan.FromHours(24))).Decide(Given(Created)).Then();

    [Fact]
    public void Refuses_to_change_one_that_never_was() => new ChangeSegment(new("x"), default, default).Decide(Given()).ThenRefused("segment-not-found");

    [Fact]
    public void Refuses_to_change_a_deleted_one() =>
        new ChangeSegment(new("x"), default, default).Decide(Given(Created, new SegmentDeleted())).ThenRefused("segment-not-found");

    [Fact]
    public void Deletes_a_live_one() => DeleteSegment.Decide(Given(Created)).Then(new SegmentDeleted());

    [Fact]
    public void Refuses_to_delete_twice() => DeleteSegment.Decide(Given(Created, new SegmentDeleted())).ThenRefused("segment-not-found");

    [Fact]
    public void Names_the_segment_that_is_not_there() =>
        Assert.Contains("'S'", DeleteSegment.Decide(Given()).ThenRefused("segment-not-found").Detail, StringComparison.Ordinal);

    [Fact]
    public void Folds_all_events_into_the_last_life()
    {
        var segment = Given(
            Created, new SegmentDescribed("a"), new RolloutChanged(30), new DefaultTtlChanged(null), new SegmentDeleted(),
            new SegmentCreated("S", "b", 0, "S", null), new SegmentDescribed("c"));

        Assert.Equal(new Segment("S", 6, "c", 0, "S", null, TestClock.Start.AddMinutes(6), null, 7), segment);
    }

    [Fact]
    public void Throws_at_an_event_that_is_none_of_a_segment() =>
        Assert.Throws<InvalidOperationException>(() => Given(new UserLeftSegment("S", 1)));
}

public sealed class Deciding_on_memberships
{
    private static readonly DateTimeOffset Now = TestClock.Start.AddHours(1);
    private static readonly Segment A = Live("A", 101), B = Live("B", 102), WithDefault = Live("D", 103) with { DefaultTtl = TimeSpan.FromDays(7) };

    private static Segment Live(string slug, long id) => new(slug, id, null, 0, slug, null, TestClock.Start, null, 1);

    private static UserMemberships Given(params object[] events) =>
        Tests.Given.Stream("user-u", events).Aggregate(UserMemberships.None, UserMemberships.Evolve);

    private static Decision Join(UserMemberships user, Segment segment, Term term = default) =>
        new ChangeMemberships("u", [new Join(segment.Slug, term)], []).Decide(user, [segment], Now);

    private static Decision Leave(UserMemberships user, Segment segment) => new ChangeMemberships("u", [], [segment.Slug]).Decide(user, [segment], Now);

    private static UserJoinedSegment Joined(Segment segment, TimeSpan? ttl = null, DateTimeOffset? expiresAt = null) =>
        new(segment.Slug, segment.Id, ttl, expiresAt, "explicit");

    [Fact]
    public void Joins_for_good() => Join(Given(), A).Then(Joined(A));

    [Fact]
    public void Joins_for_a_time_to_live() => Join(Given(), A, new(true, TimeSpan.FromDays(1), null)).Then(Joined(A, TimeSpan.FromDays(1)));

    [Fact]
    public void Joins_until_an_instant() => Join(Given(), A, new(true, null, Now.AddDays(1))).Then(Joined(A, null, Now.AddDays(1)));

    [Fact]
    public void Joins_for_the_default_of_the_segment_when_nothing_is_said() => Join(Given(), WithDefault).Then(Joined(WithDefault, TimeSpan.FromDays(7)));

    [Fact]
    public void Joins_for_good_in_spite_of_a_default_when_that_is_said() => Join(Given(), WithDefault, new(true, null, null)).Then(Joined(WithDefault));

    [Fact]
    public void Does_nothing_when_a_member_joins_and_says_no_term() => Join(Given(Joined(WithDefault, null, Now.AddDays(1))), WithDefault).Then();

    [Fact]
    public void Renews_a_member_for_a_time_to_live() =>
        Join(Given(Joined(A)), A, new(true, TimeSpan.FromDays(1), null)).Then(new MembershipRenewed("A", A.Id, TimeSpan.FromDays(1), null));

    [Fact]
    public void Renews_a_member_until_an_instant() =>
        Join(Given(Joined(A)), A, new(true, null, Now.AddDays(1))).Then(new MembershipRenewed("A", A.Id, null, Now.AddDays(1)));

    [Fact]
    public void Renews_a_member_for_good() =>
        Join(Given(Joined(A, TimeSpan.FromDays(1))), A, new(true, null, null)).Then(new MembershipRenewed("A", A.Id, null, null));

    [Fact]
    public void Does_nothing_when_the_term_is_so_already() => Join(Given(Joined(A, null, Now.AddDays(1))), A, new(true, null, Now.AddDays(1))).Then();

    [Fact]
    public void Records_that_a_membership_had_run_out_before_it_joins_again()
    {
        var ranOutAt = TestClock.Start.AddMinutes(1).AddSeconds(30);

        Join(Given(Joined(A, TimeSpan.FromSeconds(30))), A).Then(new MembershipExpired("A", A.Id, ranOutAt), Joined(A));
    }

    [Fact]
    public void Takes_a_membership_for_ended_in_the_very_instant_it_expires() =>
        Join(Given(Joined(A, null, Now)), A).Then(new MembershipExpired("A", A.Id, Now), Joined(A));

    [Fact]
    public void Refuses_to_join_until_now()
    {
        var rejection = Join(Given(), A, new(true, null, Now)).ThenRefused("invalid-request");

        Assert.Equal(["join[0].expiresAt"], rejection.Errors!.Keys);
    }

    [Fact]
    public void Leaves() => Leave(Given(Joined(A)), A).Then(new UserLeftSegment("A", A.Id));

    [Fact]
    public void Does_nothing_when_one_leaves_who_is_not_in() => Leave(Given(), A).Then();

    [Fact]
    public void Does_nothing_when_one_leaves_whose_membership_has_run_out() => Leave(Given(Joined(A, TimeSpan.FromSeconds(1))), A).Then();

    [Fact]
    public void Does_nothing_when_one_leaves_twice() => Leave(Given(Joined(A), new UserLeftSegment("A", A.Id)), A).Then();

    [Fact]
    public void Joins_and_leaves_in_the_order_given() =>
        new ChangeMemberships("u", [new Join("B", default)], ["A"]).Decide(Given(Joined(A)), [B, A], Now)
            .Then(Joined(B), new UserLeftSegment("A", A.Id));

    [Fact]
    public void Refuses_everything_when_one_segment_is_not_there()
    {
        var rejection = new ChangeMemberships("u", [new Join("A", default)], ["nope"]).Decide(Given(), [A, Segment.Initial("nope")], Now)
            .ThenRefused("segment-not-found");

        Assert.Contains("'nope'", rejection.Detail, StringComparison.Ordinal);
    }

    [Fact]
    public void Refuses_a_deleted_segment() => Join(Given(Joined(A)), A with { DeletedAt = Now }).ThenRefused("segment-not-found");

    [Fact]
    public void Joins_the_new_life_of_a_segment_whose_old_one_still_has_a_membership_open() =>
        Join(Given(Joined(A)), A with { Id = 200 }).Then(new UserJoinedSegment("A", 200, null, null, "explicit"));

    [Fact]
    public void Imports_under_that_source() =>
        new ChangeMemberships("u", [new Join("A", default)], []).Decide(Given(), [A], Now, Membership.Import)
            .Then(new UserJoinedSegment("A", A.Id, null, null, "import"));

    [Fact]
    public void Counts_a_time_to_live_from_when_it_was_recorded()
    {
        var user = Given(Joined(A, TimeSpan.FromHours(1)), new MembershipRenewed("A", A.Id, TimeSpan.FromHours(2), null));

        Assert.Equal(new Membership("A", A.Id, 1, TestClock.Start.AddMinutes(1), TestClock.Start.AddMinutes(2).AddHours(2), "explicit"), user.Open[A.Id]);
    }

    [Fact]
    public void Does_nothing_about_a_renewal_of_a_stay_that_is_not_there() =>
        Assert.Empty(Given(new MembershipRenewed("A", A.Id, TimeSpan.FromHours(2), null)).Open);

    [Fact]
    public void Never_lets_a_membership_end_before_it_was_recorded()
    {
        var user = Given(Joined(A, null, TestClock.Start));

        Assert.Equal(user.Open[A.Id].JoinedAt, user.Open[A.Id].ExpiresAt);
    }
}

public sealed class Deciding_on_an_expiry
{
    private static readonly DateTimeOffset ExpiresAt = TestClock.Start.AddMinutes(1).AddHours(1);

    private static UserMemberships Given(params object[] events) =>
        Tests.Given.Stream("user-u", events).Aggregate(UserMemberships.None, UserMemberships.Evolve);

    private static readonly UserJoinedSegment Joined = new("A", 101, TimeSpan.FromHours(1), null, "explicit");

    [Fact]
    public void Expires_in_the_very_instant() => ExpireMemberships.Decide(Given(Joined), 101, ExpiresAt).Then(new MembershipExpired("A", 101, ExpiresAt));

    [Fact]
    public void Keeps_it_a_microsecond_before() => ExpireMemberships.Decide(Given(Joined), 101, ExpiresAt.AddMicroseconds(-1)).Then();

    [Fact]
    public void Says_when_it_ended_and_not_when_that_was_found() =>
        ExpireMemberships.Decide(Given(Joined), 101, ExpiresAt.AddDays(9)).Then(new MembershipExpired("A", 101, ExpiresAt));

    [Fact]
    public void Keeps_what_was_renewed() =>
        ExpireMemberships.Decide(Given(Joined, new MembershipRenewed("A", 101, TimeSpan.FromHours(3), null)), 101, ExpiresAt).Then();

    [Fact]
    public void Keeps_what_never_expires() => ExpireMemberships.Decide(Given(Joined with { Ttl = null }), 101, DateTimeOffset.MaxValue).Then();

    [Fact]
    public void Does_nothing_about_what_has_ended() =>
        ExpireMemberships.Decide(Given(Joined, new UserLeftSegment("A", 101)), 101, ExpiresAt).Then();

    [Fact]
    public void Does_nothing_about_another_life_of_the_segment() => ExpireMemberships.Decide(Given(Joined), 200, ExpiresAt).Then();
}

public sealed class Every_event
{
    private static readonly Dictionary<Type, object[]> Before = new()
    {
        [typeof(MembershipRenewed)] = [new UserJoinedSegment("S", 7, null, null, "explicit")],
        [typeof(UserLeftSegment)] = [new UserJoinedSegment("S", 7, null, null, "explicit")],
        [typeof(MembershipExpired)] = [new UserJoinedSegment("S", 7, null, TestClock.Start, "explicit")],
        [typeof(ReportCompleted)] = [new ReportRequested("memberships", "2026-10", null)],
        [typeof(ReportFailed)] = [new ReportRequested("memberships", "2026-10", null)],
        [typeof(ReportDeleted)] = [new ReportRequested("memberships", "2026-10", null)],
        [typeof(KeyRotated)] = [Conventions.EventSamples.Of(typeof(KeyCreated))],
        [typeof(KeyRevoked)] = [Conventions.EventSamples.Of(typeof(KeyCreated))],
        [typeof(CampaignResumed)] = [new CampaignPaused()],
        [typeof(ServiceTitleReleased)] = [new ServiceTitleClaimed("T", "S")],
    };

    private static readonly HashSet<Type> s_ofMessages =
    [
        typeof(RecipientsPinned), typeof(MessageSent), typeof(MessageDeferred), typeof(MessageFailed), typeof(MessageOutcomeUnknown), typeof(MessageSuppressed),
        typeof(MessagesRequeued),
    ];

    public static TheoryData<Type> All => [.. Ledger.Hosting.LedgerEvents.Types.All.Select(t => t.ClrType)];

    [Theory, MemberData(nameof(All))]
    public void Folds(Type type)
    {
        var sample = Conventions.EventSamples.Of(type);
        var events = Given.Stream("x-S", [.. Before.GetValueOrDefault(type) ?? [], sample]);
        if (SegmentsFeature.SegmentEvents.Any(e => e.Item1 == type))
        {
            Assert.NotEqual(Segment.Initial("S"), events.Aggregate(Segment.Initial("S"), Segment.Evolve));
        }
        else if (SegmentsFeature.MembershipEvents.Any(e => e.Item1 == type))
        {
            var before = events[..^1].Aggregate(UserMemberships.None, UserMemberships.Evolve);
            Assert.NotEqual(before.Open, UserMemberships.Evolve(before, events[^1]).Open);
            Assert.True(events.Aggregate(Ledger.Users.User.Unknown, Ledger.Users.User.Evolve).Exists);
        }
        else if (type == typeof(ServiceTitleClaimed) || type == typeof(ServiceTitleReleased))
        {
            var before = events[..^1].Aggregate(ServiceTitle.Free, ServiceTitle.Evolve);
            Assert.NotEqual(before.ServiceId, ServiceTitle.Evolve(before, events[^1]).ServiceId);
        }
        else if (ServicesFeature.Events.Any(e => e.Item1 == type))
        {
            var folded = events.Aggregate(Service.Initial("S"), Service.Evolve);
            Assert.NotEqual(Service.Initial("S") with { Version = folded.Version }, folded);
        }
        else if (KeysFeature.Events.Any(e => e.Item1 == type))
        {
            var before = events[..^1].Aggregate(new ApiKey("S"), ApiKey.Evolve);
            var after = ApiKey.Evolve(before, events[^1]);
            Assert.NotEqual(before with { Version = after.Version }, after);
        }
        else if (ReportsFeature.Events.Any(e => e.Item1 == type))
        {
            var before = events[..^1].Aggregate(Report.Initial("S"), Report.Evolve);
            Assert.NotEqual(before.Status, Report.Evolve(before, events[^1]).Status);
        }
        else if (CampaignsFeature.Events.Any(e => e.Item1 == type))
        {
            Assert.Contains(type, new CampaignsProjection().Events);
            var before = events[..^1].Aggregate(Campaign.Initial(Guid.Empty), Campaign.Evolve);
            if (s_ofMessages.Contains(type))
            {
                Assert.Throws<InvalidOperationException>(() => Campaign.Evolve(before, events[^1])); // of a journal, not of the campaign
            }
            else
            {
                var after = Campaign.Evolve(before, events[^1]);
                Assert.NotEqual(before with { Version = after.Version }, after);
            }
        }
        else if (UsageViewsFeature.Events.Any(e => e.Item1 == type))
        {
            // No decision rests on a journal's fold: these are folded by views only.
            Assert.Contains(type, new CallsProjection().Events);
            Assert.Contains(type, new UsageTotalsProjection().Events);
        }
        else
        {
            Assert.NotEmpty(events.Aggregate(Ledger.Users.User.Unknown, Ledger.Users.User.Evolve).Attributes);
        }
    }
}
