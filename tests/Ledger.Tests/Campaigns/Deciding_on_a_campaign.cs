using System.Text.Json;
using Ledger.Campaigns;
using Ledger.EventStore;
using Ledger.Http;
using Ledger.Users;

namespace Ledger.Tests.Campaigns;

public sealed class Deciding_on_a_campaign
{
    private static readonly Guid s_id = Guid.Parse("019ab1c2-d3e4-7f80-91a2-b3c4d5e6f708");
    private static readonly DateTimeOffset s_now = TestClock.Start.AddMinutes(5);

    private static readonly CampaignPlan s_plan = new(
        "a campaign", "Hello {name}!", new Audience(new AudienceSegments(["vip"])), TestClock.Start, TestClock.Start.AddDays(1), null, null, OnUnknown.Retry);

    private static Campaign After(params object[] events) => Given.Stream(Campaign.StreamOf(s_id), events).Aggregate(Campaign.Initial(s_id), Campaign.Evolve);

    private static readonly object[] s_running = [new CampaignCreated(s_plan), new CampaignStarted(7), new AudienceCompleted(3)];

    [Fact]
    public void Pauses_what_is_at_work_and_nothing_else()
    {
        PauseCampaign.Decide(After(new CampaignCreated(s_plan))).Then(new CampaignPaused());
        PauseCampaign.Decide(After(s_running)).Then(new CampaignPaused());
        PauseCampaign.Decide(After([.. s_running, new CampaignPaused()])).Then();
        PauseCampaign.Decide(After([.. s_running, new CampaignCompleted()])).ThenRefused("campaign-over");
        PauseCampaign.Decide(After(new CampaignCreated(s_plan), new CampaignCancelled())).ThenRefused("campaign-over");
    }

    [Fact]
    public void Resumes_what_is_paused()
    {
        ResumeCampaign.Decide(After([.. s_running, new CampaignPaused()])).Then(new CampaignResumed());
        ResumeCampaign.Decide(After(s_running)).Then();
        ResumeCampaign.Decide(After([.. s_running, new CampaignPaused(), new CampaignEnded()])).ThenRefused("campaign-over");
    }

    [Fact]
    public void Cancels_once_and_never_what_is_over()
    {
        CancelCampaign.Decide(After([.. s_running, new CampaignPaused()])).Then(new CampaignCancelled());
        CancelCampaign.Decide(After([.. s_running, new CampaignCancelled()])).Then();
        CancelCampaign.Decide(After([.. s_running, new CampaignCompleted()])).ThenRefused("campaign-over");
        CancelCampaign.Decide(After(new CampaignCreated(s_plan), new CampaignStarted(7), new CampaignInvalidated("no", null))).ThenRefused("campaign-over");
    }

    [Fact]
    public void Retries_until_the_end()
    {
        RetryFailed.Decide(After(s_running), s_now).Then(new FailedMessagesRetried());
        RetryFailed.Decide(After([.. s_running, new CampaignCompleted()]), s_now).Then(new FailedMessagesRetried());
        RetryFailed.Decide(After([.. s_running, new CampaignCompleted()]), s_plan.EndsAt).ThenRefused("campaign-over");
        RetryFailed.Decide(After([.. s_running, new CampaignEnded()]), s_now).ThenRefused("campaign-over");
        RetryFailed.Decide(After(new CampaignCreated(s_plan)), s_now).Then();
        Assert.True(After([.. s_running, new CampaignCompleted(), new FailedMessagesRetried()]).MaySend);
    }

    [Fact]
    public void Changes_everything_before_the_start_and_afterwards_what_has_not_been_acted_on()
    {
        var text = Change("""{"text":"Bye {name}!"}""");
        text.Decide(After(new CampaignCreated(s_plan)), s_now).Then(new CampaignChanged(s_plan with { Text = "Bye {name}!" }));
        text.Decide(After(s_running), s_now).ThenRefused("campaign-started");
        Change("""{"audience":{"segments":{"any":["all"]}}}""").Decide(After(s_running), s_now).ThenRefused("campaign-started");
        Change("""{"window":{"from":"09:00","to":"21:00"}}""").Decide(After(s_running), s_now).ThenRefused("campaign-started");
        Change("""{"ratePerSecond":5,"onUnknown":"keep","name":"other"}""").Decide(After(s_running), s_now)
            .Then(new CampaignChanged(s_plan with { RatePerSecond = 5, OnUnknown = OnUnknown.Keep, Name = "other" }));
        Change("""{"name":"a campaign"}""").Decide(After(s_running), s_now).Then();
        Change("""{"endsAt":"2026-11-20T11:00:00Z"}""").Decide(After(s_running), s_now).ThenRefused("invalid-request");
        Change("""{"name":"late"}""").Decide(After([.. s_running, new CampaignCompleted()]), s_now).ThenRefused("campaign-over");
    }

    [Theory]
    [InlineData(SendResult.Sent, 1, "pending", typeof(MessageSent))]
    [InlineData(SendResult.Refused, 1, "pending", typeof(MessageFailed))]
    [InlineData(SendResult.Failed, 1, "pending", typeof(MessageDeferred))]
    [InlineData(SendResult.Failed, AttemptRules.MaxAttempts - 1, "pending", typeof(MessageDeferred))]
    [InlineData(SendResult.Failed, AttemptRules.MaxAttempts, "pending", typeof(MessageFailed))]
    [InlineData(SendResult.Failed, AttemptRules.MaxAttempts, "unknown", typeof(MessageOutcomeUnknown))]
    [InlineData(SendResult.Unknown, 1, "pending", typeof(MessageOutcomeUnknown))]
    [InlineData(SendResult.NotSent, 1, "pending", null)]
    public void Makes_of_a_calls_outcome_one_event(SendResult result, int attempt, string status, Type? expected)
    {
        var message = new TakenMessage("t", s_id, "u1", "+4915112345678", "", null, status, attempt, 0);
        var happened = AttemptRules.Decide(message, new SendOutcome(result, 500, "so", null), OnUnknown.Retry, s_now, 0.5);

        Assert.Equal(expected, happened?.GetType());
        var again = AttemptRules.Decide(message with { Attempt = attempt + 7, Base = 7 }, new SendOutcome(result, 500, "so", null), OnUnknown.Retry, s_now, 0.5);
        Assert.Equal(expected, again?.GetType()); // who was asked for again has all attempts before it
    }

    [Fact]
    public void Retries_what_is_unknown_only_where_that_is_wanted_and_attempts_are_left()
    {
        Assert.True(Unknown(1, OnUnknown.Retry).DueAt > s_now);
        Assert.Null(Unknown(1, OnUnknown.Keep).DueAt);
        Assert.Null(Unknown(AttemptRules.MaxAttempts, OnUnknown.Retry).DueAt);

        static MessageOutcomeUnknown Unknown(int attempt, OnUnknown onUnknown) => Assert.IsType<MessageOutcomeUnknown>(AttemptRules.Decide(
            new TakenMessage("t", s_id, "u1", "+4915112345678", "", null, "pending", attempt, 0), new SendOutcome(SendResult.Unknown, null, "so", null), onUnknown, s_now, 0.5));
    }

    [Fact]
    public void Waits_at_least_as_long_as_the_gateway_asks_for()
    {
        var deferred = Assert.IsType<MessageDeferred>(AttemptRules.Decide(
            new TakenMessage("t", s_id, "u1", "+4915112345678", "", null, "pending", 1, 0), new SendOutcome(SendResult.Failed, 429, "so", TimeSpan.FromMinutes(5)),
            OnUnknown.Retry, s_now, 0.5));
        Assert.True(deferred.DueAt >= s_now.AddMinutes(5));
    }

    [Theory]
    [InlineData("""{"phone":"79211234567","name":"Ann"}""", null, null, "+79211234567")]
    [InlineData("""{"phone":79211234567,"name":"Ann"}""", null, null, "+79211234567")]
    [InlineData("""{"name":"Ann"}""", "failed", "no attribute phone", null)]
    [InlineData("""{"phone":"112","name":"Ann"}""", "failed", "attribute phone is not a phone number", null)]
    [InlineData("""{"phone":"79211234567","name":"Ann","optedOut":true}""", "suppressed", "opted out", null)]
    public void Makes_a_recipient_of_a_user(string attributes, string? status, string? reason, string? phone)
    {
        Assert.True(MessageText.TryParse(s_plan.Text, out var text, out _));
        var recipient = AudienceRules.RecipientOf(User(attributes), s_plan, text, isSuppressed: false, out var missing);

        Assert.Empty(missing);
        Assert.Equal((status, phone), (recipient.Status, recipient.Phone));
        Assert.Contains(reason ?? "", recipient.Reason ?? "", StringComparison.Ordinal);
        Assert.Equal(status is null ? "Ann" : null, recipient.Fillings?["name"]);
    }

    [Fact]
    public void Needs_a_zone_where_there_is_a_window()
    {
        Assert.True(MessageText.TryParse("Hello!", out var text, out _));
        var plan = s_plan with { Window = new LocalWindow("09:00", "21:00") };

        Assert.Contains("timeZone", Of("""{"phone":"79211234567"}""").Reason!, StringComparison.Ordinal);
        Assert.Contains("timeZone", Of("""{"phone":"79211234567","timeZone":"Mars/Olympus"}""").Reason!, StringComparison.Ordinal);
        Assert.Equal("Asia/Omsk", Of("""{"phone":"79211234567","timeZone":"Asia/Omsk"}""").TimeZone);

        Recipient Of(string attributes) => AudienceRules.RecipientOf(User(attributes), plan, text, isSuppressed: false, out _);
    }

    [Fact]
    public void Names_what_the_text_needs_and_a_user_lacks()
    {
        Assert.True(MessageText.TryParse("{name} {city} {operatorCode}", out var text, out _));
        AudienceRules.RecipientOf(User("""{"phone":"79211234567","name":"Ann"}"""), s_plan, text, isSuppressed: false, out var missing);
        Assert.Equal(["city"], missing); // the operator's code follows from the phone
    }

    [Theory]
    [InlineData("""{"operatorCode":"921"}""", true)]
    [InlineData("""{"operatorCode":921}""", true)]
    [InlineData("""{"operatorCode":"922"}""", false)]
    [InlineData("""{"operatorCode":"921","tag":"vip"}""", false)]
    [InlineData("""{"beta":true}""", true)]
    public void Takes_users_by_their_attributes(string asked, bool matches) => Assert.Equal(matches, AudienceRules.Matches(
        User("""{"phone":"79211234567","beta":true,"tag":"gold"}"""), new Audience(null, JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(asked))));

    [Fact]
    public void Gives_one_id_to_a_message_and_one_to_the_outcome_of_each_attempt()
    {
        var id = Message.IdOf("t", s_id, "u1");
        Assert.Equal(id, Message.IdOf("t", s_id, "u1"));
        Assert.Equal(4, new HashSet<string> { id, Message.IdOf("t", s_id, "u2"), Message.IdOf("t2", s_id, "u1"), Message.IdOf("t", Guid.Empty, "u1") }.Count);
        Assert.Equal(Message.OutcomeId("t", id, 1), Message.OutcomeId("t", id, 1));
        Assert.NotEqual(Message.OutcomeId("t", id, 1), Message.OutcomeId("t", id, 2));
    }

    private static KnownUser User(string attributes) => new("u1", JsonSerializer.Deserialize<Dictionary<string, JsonElement>>(attributes)!);

    private static ChangeCampaign Change(string json) => JsonSerializer.Deserialize<ChangeCampaign>(json, Json.Options)!;
}
